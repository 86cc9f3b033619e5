"""An answer's receipt and its promise, from the model that gave them to a machine that has nothing but keys."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.waiting import eventually
from support.witness import Witness, serving

from .conftest import SAMPLES, governed, start
from .looking_on import console_shows
from .test_kill import BODY, answered

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
            console_shows(served, id)
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


def test_a_promise_in_the_answer_is_kept_by_the_ledger(admissions_once: tuple[Path, Any], tmp_path: Path) -> None:
    """In a copy: the other tests' model makes no promises."""
    workdir, manifest = tmp_path / "work", tmp_path / "admissions.yaml"
    shutil.copytree(admissions_once[0], workdir)
    resource = yaml.safe_load((SAMPLES / "admissions.yaml").read_text())
    resource["spec"]["governance"].setdefault("audit", {})["promises"] = {"maximumDelay": "1h"}
    manifest.write_text(yaml.safe_dump(resource))
    for beside in SAMPLES.glob("admissions.*"):
        if beside.name != manifest.name:
            shutil.copy(beside, tmp_path)
    served = start(manifest, workdir, tmp_path / "log", "admissions")
    promise, asking = tmp_path / "answer.promise", {"x-governed-promise": "1"}
    try:
        with httpx.Client(trust_env=False, timeout=30) as client:
            found = eventually(
                lambda: client.post(f"{served.url}/infer", json=BODY, headers=asking),
                lambda answer: answer.status_code == 200,
                within=120,
                what="an answer with a promise, once the key is announced",
            )
            promise.write_text(found.headers["x-governed-promise"])
            id = found.headers["x-prediction-id"]
            eventually(
                lambda: client.get(f"{served.url}/predictions/{id}/receipt"),
                lambda answer: answer.status_code == 200,
                within=120,
                what="the record in the ledger",
            )
    finally:
        assert served.stop() == 0
    done = governed("verify", promise, "--against", workdir, "--id", id)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (f"record of answer {id} of default/admissions", "kept: entry", "bit for bit"):
        assert word in done.stdout, done.stdout
    done = governed("verify", promise, "--against", workdir, "--id", "another")
    assert (done.returncode, "given for another answer" in done.stdout) == (1, True)
