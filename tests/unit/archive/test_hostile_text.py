"""Names of files, ids, keys and receipts that others made act on no terminal and say nothing in our name."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from governed_api.printable import printable
from governed_serving.archive.__main__ import main
from governed_serving.archive.ledger.merkle import hash_leaf
from governed_serving.archive.ledger.note import NoteError, Signer, Verifier, sign_checkpoint, split_note
from governed_serving.archive.ledger.proof import LogProof
from support.work_folder import WorkFolder, made

from .ledgers import leaf

EVIL = (
    "\x1b[2J\x1b[H", "\r", "\x9b2J", "\x07", "\b", "\u202everified", "\u2066", "\u2028verified", "\x7f", "\0",
)  # fmt: skip
CLEAR = "\x1b[2J\x1b[1;1Hverified\n"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("work"), requests=20).root


@pytest.fixture
def work(pristine: Path, tmp_path: Path) -> WorkFolder:
    shutil.copytree(pristine, tmp_path / "work")
    return WorkFolder(tmp_path / "work")


NAMES = (b"\x1b[2J\x1b[Hverified", b"x\nverified\n", b"\xff\xfe", "\u202ex".encode(), b"\rverified", b"\x9b2J")


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_file_names_are_printed_escaped(work: WorkFolder, how: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        for folder in ("keys", "ledger", "."):
            Path(os.fsdecode(os.path.join(os.fsencode(work.archive / folder), name))).write_bytes(b"x")
    words = ["verify", str(work.archive), "--key-file", str(work.kek_file), "--workdir", str(work.root), *how]
    assert main(words) == 3
    said = capfd.readouterr()
    assert printable(said.out, keep="\n") == said.out
    assert printable(said.err, keep="\n") == said.err
    assert "verified" not in said.out.splitlines()
    if how:
        assert json.loads(said.out)["status"] == "incomplete"
    else:
        assert "\\u001b[2J" in said.out


def receipt(entry: bytes, name: str = "log") -> str:
    """Of a log of one entry: whoever makes one signs it too."""
    signer = Signer("log", bytes(32))
    note = sign_checkpoint(signer, 1, hash_leaf(entry)).replace("log", name)
    return LogProof(entry, 0, (), note).text()


FORGED = [
    *(receipt(leaf(f"x{evil}")) for evil in EVIL),
    *(receipt(leaf("x", model=f"x{evil}")) for evil in EVIL),
    *(receipt(leaf("x"), f"log{evil}") for evil in EVIL),
    *(receipt(leaf("x")) + f"— witness{evil} {base64.b64encode(bytes(76)).decode()}\n" for evil in EVIL),
    *(f"{evil}".join(receipt(leaf("x")).split("\nindex", 1)) for evil in EVIL),
    receipt(leaf(f"x{CLEAR}")),
]


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_a_receipt_that_would_act_is_refused(tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "receipt").write_bytes(FORGED[number].encode())
    assert main(["verify", str(tmp_path / "receipt")]) == 1
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert printable(text, keep="\n") == text
    assert "verified" not in said.out.splitlines()


def test_an_honest_one_of_the_same_kind_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "receipt").write_text(receipt(leaf("x")))
    (tmp_path / "vkey").write_text(str(Signer("log", bytes(32)).verifier))
    assert main(["verify", str(tmp_path / "receipt"), "--key-file", str(tmp_path / "vkey")]) == 0
    assert capsys.readouterr().out.endswith("verified\n")


@pytest.mark.parametrize("evil", EVIL)
def test_no_key_and_no_note_bears_such_a_name(evil: str) -> None:
    with pytest.raises(NoteError):
        Signer(f"log{evil}", bytes(32))
    with pytest.raises(NoteError):
        Verifier.parse(f"log{evil}+00000000+AAAA")
    with pytest.raises(NoteError, match="control characters"):
        split_note(f"log\n1\n{evil}\n\n— log AAAA\n")
