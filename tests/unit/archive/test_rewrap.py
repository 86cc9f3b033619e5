"""A model's key-encryption key is replaced: by the command, over the archive's API, to be run again when it was
interrupted."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from governed_serving.archive import client as client_module
from governed_serving.archive.__main__ import main
from governed_serving.archive.tokens import model_token
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.crypto import Kek, Keyring, WrongKek

from .test_app import KEK, ROOT, Bed

OLD, NEW = bytes([3]) * 32, bytes([4]) * 32


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """An archive, and the files that the command is given."""
    for name, content in {"old": OLD, "new": NEW, "token": model_token(ROOT, "default", "credit").encode()}.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    with closing(Bed(tmp_path / "archive")) as made:
        monkeypatch.setattr(
            client_module, "ArchiveClient", partial(client_module.ArchiveClient, transport=made.transport)
        )
        yield made


def rewrap(folder: Path, old: str = "old", new: str = "new") -> int:
    given = {
        "--model": "credit",
        "--token-file": folder / "token",
        "--key-file": folder / old,
        "--new-key-file": folder / new,
    }
    return main(["rewrap", "http://archive", *(str(word) for pair in given.items() for word in pair)])


def test_what_was_sealed_opens_with_the_new_key_alone(
    bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = Keyring(Kek(OLD), bed.client().keysets())
    sealed = {purpose: ring.keyset(purpose).seal(b"secret") for purpose in ("data", "journal")}
    assert rewrap(tmp_path) == 0
    assert f"wrapped by key {Kek(NEW).id} now: data, journal" in capsys.readouterr().out
    fresh = Keyring(Kek(NEW), bed.client().keysets())
    assert {purpose: fresh.keyset(purpose, create=False).open(box) for purpose, box in sealed.items()} == {
        "data": b"secret",
        "journal": b"secret",
    }
    with pytest.raises(WrongKek):
        Keyring(Kek(OLD), bed.client().keysets()).keyset("data")
    assert ring.keyset("data").open(sealed["data"]) == b"secret", "a process that had it open goes on"
    bed.archive.ledger.checkpoint()
    assert verify(DirectorySource(bed.root, KEK)).held == 2, "and the ledger knows of it"


def test_it_is_run_again_after_an_interruption(bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Keyring(Kek(NEW), bed.client().keysets()).keyset("data")  # as the first run left it
    Keyring(Kek(OLD), bed.client().keysets()).keyset("journal")
    assert rewrap(tmp_path) == 0
    assert "now: journal" in capsys.readouterr().out
    assert rewrap(tmp_path) == 0
    assert "none: all are wrapped by it already" in capsys.readouterr().out


def test_a_key_that_is_neither_changes_nothing(bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Keyring(Kek(OLD), bed.client().keysets()).keyset("data")
    (tmp_path / "other").write_bytes(bytes([5]) * 32)
    (tmp_path / "other").chmod(0o600)
    assert rewrap(tmp_path, old="other") == 1
    err = capsys.readouterr().err
    assert "wrapped by key" in err
    assert err.count("\n") == 1
    assert Keyring(Kek(OLD), bed.client().keysets()).keyset("data", create=False)
