"""A dossier that somebody put together: what the ledger's key didn't sign is told, and a zip with two readings is
refused."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.archive.__main__ import main as archive_main
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import NoteError, Signer, open_checkpoint, open_dossier, sign_dossier
from governed_serving.archive.service import Archive
from governed_serving.crypto import Kek
from governed_serving.dossier.__main__ import main
from governed_serving.dossier.package import INDEX, LEDGER, NOTE, PAGE, REPORT, unpacked
from unit.archive.ledgers import batch

from .test_package import KEY, members, write, written

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a ledger with entries of two models; no test changes it."""
    return dossier_of(tmp_path_factory.mktemp("made"), KEY)


def dossier_of(folder: Path, key: bytes) -> Path:
    archive = Archive(folder / "archive", Kek(key), "default")
    archive.appender.submit(batch(0, 5, model="credit")).result(10)
    archive.appender.submit(batch(0, 3, stream="other-0", model="other")).result(10)
    archive.close()
    (folder / "kek").write_bytes(key)
    (folder / "kek").chmod(0o600)
    (folder / "report.json").write_text('{"status": {}}')
    return write(folder, "dossier.zip")


def told(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """(exit status, all that is said, the last line)."""
    capsys.readouterr()
    code = main(["verify", str(path), *more])
    said = capsys.readouterr()
    return code, said.out + said.err, said.out.splitlines()[-1] if said.out else ""


@pytest.mark.parametrize("name", [PAGE, REPORT, "README.txt"])
def test_what_was_swapped_under_a_forged_index_is_not_verified(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    forged = written(tmp_path / "forged.zip", members(made) | {name: b"<h1>all is well</h1>"}, indexed=True)
    code, said, last = told(forged, capsys)
    assert (code, last) == (1, "not verified")
    assert "index.note: what was signed is another dossier's index" in said


def test_a_signature_that_was_taken_away_leaves_the_page_unproved(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: data for name, data in members(made).items() if name != NOTE} | {PAGE: b"<h1>all is well</h1>"}
    code, said, last = told(written(tmp_path / "forged.zip", files, indexed=True), capsys)
    assert code == 3
    assert "report.html: not proved: no index.note is in it" in said
    assert last.startswith("incomplete: ")


def test_a_dossier_made_of_a_bundle_is_unproved_beside_its_ledger(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, bundle = made.parent, tmp_path / "ledger.tar"
    assert archive_main(["export", str(folder / "archive"), str(bundle), "--key-file", str(folder / "kek")]) == 0
    target = str(tmp_path / "d.zip")
    assert main(["zip", "--model", "credit", "--archive", str(bundle), "--output", target]) == 0
    code, said, _ = told(Path(target), capsys)
    assert code == 3
    assert "not proved" in said


def test_all_signed_anew_by_another_s_key_is_theirs(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = dossier_of(tmp_path, bytes([9]) * 32)
    code, _, last = told(theirs, capsys)
    assert (code, last != "verified") == (0, True), "nothing shows here whose it is, and that is what is said"
    (tmp_path / "vkey").write_bytes(members(made)["vkey"])
    assert told(theirs, capsys, "--key-file", str(tmp_path / "vkey"))[::2] == (1, "not verified")


def test_entries_of_another_model_are_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = members(made)
    files[INDEX] = json.dumps(json.loads(files[INDEX]) | {"model": "saint"}).encode()
    code, said, _ = told(written(tmp_path / "forged.zip", files), capsys)
    assert code == 1
    assert "5 entries are about credit, the dossier is about saint" in said


@pytest.mark.parametrize("name", ["vkey", LEDGER, NOTE, INDEX])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x80", b"\0" * 1024, b"x+y+z\n"])
def test_a_member_of_other_bytes_is_a_line(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes
) -> None:
    indexed = name not in (INDEX, NOTE)
    code, said, _ = told(written(tmp_path / "o.zip", members(made) | {name: data}, indexed=indexed), capsys)
    assert code == 1
    assert "Traceback" not in said


def test_a_signed_index_is_no_checkpoint_and_another_s_none_of_it() -> None:
    signer, digest = Signer("governedmodels.io/archive/default", bytes(32)), "ab" * 32
    for model in ("credit", "7"):
        note = sign_dossier(model, digest, signer, [Signer(signer.name, bytes([1]) * 32)])
        open_dossier(note, signer.verifier, model, digest)
        open_dossier(note, Signer(signer.name, bytes([1]) * 32).verifier, model, digest)
        with pytest.raises(NoteError):
            open_checkpoint(note, signer.verifier)
        for other in ((signer.verifier, "loans", digest), (signer.verifier, model, "cd" * 32),
                      (Signer(signer.name, bytes([2]) * 32).verifier, model, digest)):  # fmt: skip
            with pytest.raises(NoteError):
                open_dossier(note, *other)


# zips


def with_members(path: Path, files: Files, change: Callable[[str, zipfile.ZipInfo], None]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(name, info)
            archive.writestr(info, data)
    return path.read_bytes()


def page_as(**fields: object) -> Callable[[Path, Files], bytes]:
    def change(name: str, info: zipfile.ZipInfo) -> None:
        for field, value in fields.items() if name == PAGE else ():
            setattr(info, field, value)

    return lambda path, files: with_members(path, files, change)


def patched(old: bytes, new: bytes, times: int = 1) -> Callable[[Path, Files], bytes]:
    """The first ``times`` of ``old``: in front of a member, and in the directory."""
    assert len(old) == len(new)
    return lambda path, files: written(path, files).read_bytes().replace(old, new, times)


def two_directories(path: Path, files: Files) -> bytes:
    """A whole dossier behind another one: who unpacks from the front sees the other page."""
    return written(path, files | {PAGE: b"<h1>all is well</h1>"}).read_bytes() + written(path, files).read_bytes()


def hidden_between(path: Path, files: Files) -> bytes:
    """A member that the directory doesn't have, before it."""
    data = written(path, files).read_bytes()
    place = struct.unpack("<L", data[-6:-2])[0]
    more = b"PK\x03\x04" + bytes(22) + struct.pack("<2H", 1, 0) + b"x"
    return data[:place] + more + data[place:-6] + struct.pack("<LH", place + len(more), 0)


def endless_directory(path: Path, _: Files) -> bytes:
    """Its end says one member; the 64-bit end before that says how many there are, and is what counts."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2000):
            archive.writestr(str(number), b"")
        place = archive.fp.tell()  # type: ignore[union-attr]
    data = path.read_bytes()[:-22]
    size = len(data) - place
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2000, 2000, size, place)
    return (
        data
        + end
        + struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data), 1)
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 46, 0, 0)
    )


ODD: dict[str, Callable[[Path, Files], bytes]] = {
    "another zip in front": two_directories,
    "a program in front": lambda path, files: b"#!/bin/sh\n" + written(path, files).read_bytes(),
    "a member that is in no directory": hidden_between,
    "something behind it": lambda path, files: written(path, files).read_bytes() + b"more",
    "a comment": lambda path, files: written(path, files).read_bytes()[:-2] + b"\x04\0more",
    "cut in the middle": lambda path, files: written(path, files).read_bytes()[:-40],
    "a directory without end": endless_directory,
    "a link": page_as(external_attr=0o120777 << 16),
    "a device": page_as(external_attr=0o020666 << 16),
    "packed by bzip2": page_as(compress_type=zipfile.ZIP_BZIP2),
    "packed by LZMA": page_as(compress_type=zipfile.ZIP_LZMA),
    "a comment of a member": page_as(comment=b"read me"),
    "a second name": page_as(extra=struct.pack("<2HBL", 0x7075, 9, 1, 0) + b"evil"),
    "another name in front of it": patched(PAGE.encode(), b"REPORT.HTML"),
    "names that differ in capitals alone": lambda path, files: written(
        path, files | {"REPORT.html": b"x"}
    ).read_bytes(),
    "a name that ends early": lambda path, files: (
        written(path, files | {"vkeyXevil": b"x"}).read_bytes().replace(b"vkeyXevil", b"vkey\0evil")
    ),
    "a path": patched(b"vkey", b"../v", 2),
}


@pytest.mark.parametrize("name", ODD)
def test_a_zip_with_two_readings_is_refused(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.zip").write_bytes(ODD[name](tmp_path / "odd.zip", members(made)))
    code, said, _ = told(tmp_path / "odd.zip", capsys)
    assert code == 1
    assert said.count("\n") == 1
    assert "odd.zip: " in said


def test_encrypted_members_are_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(written(tmp_path / "e.zip", members(made)).read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    (tmp_path / "e.zip").write_bytes(data)
    code, said, _ = told(tmp_path / "e.zip", capsys)
    assert (code, "is encrypted" in said) == (1, True)


def test_a_ledger_that_is_a_bomb_is_not_unpacked(made: Path, tmp_path: Path) -> None:
    bomb = written(tmp_path / "bomb.zip", members(made) | {LEDGER: bytes(65 << 20)}, indexed=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match=r"ledger\.tar: expected at most 100 times"):
        unpacked(bomb, tmp_path / "out")
    assert not (tmp_path / "out" / LEDGER).exists()
