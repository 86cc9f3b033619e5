"""An answer's receipt, from the model that gave it to a machine that has nothing but two keys."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.waiting import eventually
from support.witness import Witness, serving

from .conftest import SAMPLES, governed, start
from .test_kill import answered

pytestmark = pytest.mark.slow


def test_an_answer_has_a_receipt_that_witnesses_cosigned(admissions_once: tuple[Path, Any], tmp_path: Path) -> None:
    workdir = admissions_once[0]
    (vkey,) = workdir.glob("volumes/*/ledger/vkey")
    shutil.copy(vkey, tmp_path / "vkey")
    with serving(Witness()) as witness:
        witness.trusts(vkey.read_text())
        (tmp_path / "witness").write_text(witness.vkey)
        options = ("--witness", f"{witness.vkey} {witness.url}", "--quorum", "1")
        served = start(SAMPLES / "admissions.yaml", workdir, tmp_path / "log", "admissions", *options)
        try:
            with httpx.Client(trust_env=False, timeout=30) as client:
                id = eventually(lambda: answered(served, client), what="an answer")
                path = f"{served.url}/predictions/{id}/receipt"
                first = client.get(path)
                assert first.status_code == 200 or (first.status_code == 404 and first.headers["retry-after"])
                found = eventually(
                    lambda: client.get(path),
                    lambda answer: answer.status_code == 200 and witness.name in answer.text,
                    within=120,
                    what="a receipt that the witness cosigned",
                )
        finally:
            assert served.stop() == 0
    receipt = tmp_path / "answer.tlog-proof"
    receipt.write_text(found.text)
    keys = ("--key-file", tmp_path / "vkey", "--witness-key", tmp_path / "witness", "--id", id)
    done = governed("verify", receipt, *keys)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"prediction {id} of default/admissions" in done.stdout
    assert "witness.example/w1 cosigned" in done.stdout
    done = governed("verify", receipt, "--against", workdir, "--key-file", tmp_path / "vkey")
    assert done.returncode == 0, done.stdout + done.stderr
    assert governed("verify", receipt, *keys[:-1], "another").returncode == 1
