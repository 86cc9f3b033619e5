"""What lies among keys and names and isn't ours ends nothing: it is named, the rest is checked, served, backed up."""

import io
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from governed_serving.archive.__main__ import main
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.errors import Refused
from governed_serving.archive.restore import Request, restore
from governed_serving.archive.verify.inspection import Asked, Inspection, inspect_folder
from governed_serving.archive.verify.opening import beside_workdir, noted_checkpoint
from governed_serving.crypto import Keyring, load_kek
from support.work_folder import MODEL, WorkFolder, made

from .test_app import MODEL_KEK, Bed
from .test_app import bed as bed


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("work"), requests=60).root


@pytest.fixture
def work(pristine: Path, tmp_path: Path) -> WorkFolder:
    shutil.copytree(pristine, tmp_path / "work")
    return WorkFolder(tmp_path / "work")


def _holds(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere"),
    "a link to a folder": lambda path: path.symlink_to("/etc"),
    "a pipe": os.mkfifo,
    "an empty file": _holds(b""),
    "other JSON": _holds(b'{"a": 1}'),
    "a list": _holds(b"[1]"),
    "JSON nested deep": _holds(b"[" * 5000),
    "bytes that are no text": _holds(b'{"a":"\xff"}'),
}
PLACES = (
    "keys/other.keyset.json", "keys/stray", "keys/ledger.destroyed.json", f"keys/.ledger.keyset.json.{'0' * 64}",
    "keysets/Bad_Name", f"keysets/{MODEL}/other.keyset.json", f"keysets/{MODEL}/UPPER.keyset.json",
    f"keysets/{MODEL}/other.destroyed.json", f"keysets/{MODEL}/.x", f"refs/{MODEL}/stray", f"refs/{MODEL}/bad name",
    f"states/{MODEL}/stray", f"states/{MODEL}/.counts.{'0' * 64}", "refs/b?d", f"states/{MODEL}/{'x' * 200}",
)  # fmt: skip


def strewn(work: WorkFolder, kind: str) -> None:
    for place in PLACES:
        (work.archive / place).parent.mkdir(parents=True, exist_ok=True)
        KINDS[kind](work.archive / place)


def inspect(work: WorkFolder) -> Inspection:
    beside = beside_workdir(work.root, work.archive)
    return inspect_folder(work.archive, load_kek(work.kek_file), Asked(), beside)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_named_and_the_rest_is_checked(work: WorkFolder, kind: str) -> None:
    before = inspect(work)
    strewn(work, kind)
    found = inspect(work)
    said = {one.place.removesuffix("/") for one in (*found.findings.wrong, *found.findings.unchecked)}
    assert set(PLACES) - said <= {f"refs/{MODEL}/stray", f"states/{MODEL}/stray"}
    inside = [str(one) for one in found.findings.wrong]
    for name in (f"refs/{MODEL}/stray", f"states/{MODEL}/stray"):
        kind_of = "reference" if name.startswith("refs") else "state"
        assert name in said or any(f"{kind_of} stray of {MODEL}" in one for one in inside), name
    assert found.log is not None
    assert found.log.root == before.log.root  # type: ignore[union-attr]
    assert {one.place for one in before.findings.holds} - {one.place for one in found.findings.holds} <= {"keysets"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_starts_over_them_and_its_backup_comes_back(work: WorkFolder, kind: str, tmp_path: Path) -> None:
    strewn(work, kind)
    if kind != "a folder":
        (work.archive / f"refs/{MODEL}/stray").unlink()
    with closing(work.opened()) as archive, closing(Snapshot(archive)) as snapshot:
        assert archive.keyset(MODEL, "journal")
        data = b"".join(snapshot.chunks())
    assert b"root:x:0" not in data, "nothing is read through a link"
    there = tmp_path / "there"
    request = Request(there, load_kek(work.kek_file), accept_loss=True)
    done = restore(io.BytesIO(data), request)
    assert done.size > 0
    if kind != "a folder":
        assert any("keys/stray: nothing of ours makes such a file" in str(one) for one in done.accepted)
    assert not (there / "keys" / "stray").exists()


def test_no_client_makes_a_keyset_that_no_backup_takes(bed: Bed) -> None:
    keysets = bed.client().keysets()
    Keyring(MODEL_KEK, keysets).keyset("journal")
    document = keysets.get("journal")
    assert document is not None
    for purpose in ("Journal", "a.b", "a_b", "x" * 64, "1a", "a.keyset.json"):
        with pytest.raises(Refused, match="a purpose must be lower-case"):
            keysets.create(purpose, document)
        with pytest.raises(Refused):
            keysets.replace(purpose, b"x", document)


@pytest.mark.parametrize(
    "data", [b'{"status": 3}', b"{}", b'{"archive": []}', b"\xff\xfe", b"{", b'{"archive": {"checkpoint": 1}}']
)
def test_a_file_that_holds_no_checkpoint_is_told_in_a_sentence(
    work: WorkFolder, tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").write_bytes(data)
    words = ["verify", str(work.archive), "--key-file", str(work.kek_file), "--checkpoint", str(tmp_path / "other")]
    assert main(words) == 1
    assert "other" in capsys.readouterr().err


def test_a_checkpoint_without_end_is_not_read_to_it() -> None:
    with pytest.raises(Exception, match="found more than"):
        noted_checkpoint(Path("/dev/zero"))
