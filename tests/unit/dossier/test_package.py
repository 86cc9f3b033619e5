"""A dossier holds what it says, is the same each time, and one that somebody changed is refused by name."""

import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.service import Archive
from governed_serving.crypto import Kek
from governed_serving.dossier.__main__ import main
from governed_serving.dossier.package import INDEX, LEDGER, NOTE, PAGE, unpacked
from support.witness import Witness
from unit.archive.ledgers import batch

KEY = bytes(32)
WITNESS, STRANGER = Witness(), Witness("witness.example/w2", bytes(range(2, 34)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a ledger with entries of two models; no test changes it."""
    tmp_path = tmp_path_factory.mktemp("made")
    archive = Archive(tmp_path / "archive", Kek(KEY), "default")
    archive.appender.submit(batch(0, 40, model="credit")).result(10)
    archive.appender.submit(batch(0, 5, stream="other-0", model="other")).result(10)
    archive.close()
    ledger = tmp_path / "archive" / "ledger"
    note = (ledger / "checkpoint").read_text()
    (ledger / WITNESSED).write_text(note + WITNESS.line(note.partition("\n\n")[0] + "\n"))
    (tmp_path / "kek").write_bytes(KEY)
    (tmp_path / "kek").chmod(0o600)
    (tmp_path / "report.json").write_text('{"status": {}}')
    return write(tmp_path, "dossier.zip")


def write(folder: Path, name: str) -> Path:
    words = ["zip", "--model", "credit", "--report", str(folder / "report.json"), "--archive", str(folder / "archive")]
    assert main([*words, "--key-file", str(folder / "kek"), "--output", str(folder / name)]) == 0
    return folder / name


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, files: dict[str, bytes], *, indexed: bool = False) -> Path:
    """``indexed``: with an index that fits, as whoever forges one writes it."""
    if indexed:
        index = json.loads(files[INDEX])
        index["files"] = [
            {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
            if name not in (INDEX, NOTE)
        ]
        files = files | {INDEX: json.dumps(index).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_dossier_verifies_without_an_archive(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capsys.readouterr()
    assert main(["verify", str(made)]) == 0
    told = capsys.readouterr().out
    assert "credit: 5 files are what index.json says" in told
    assert "report.html: as they were when the key that signs the ledger signed index.json" in told
    assert told.splitlines()[-1].startswith("verified by the key that is in it: --key-file VKEY shows whether"), told
    (tmp_path / "vkey").write_bytes(members(made)["vkey"])
    assert main(["verify", str(made), "--key-file", str(tmp_path / "vkey")]) == 0
    told = capsys.readouterr().out
    assert "the key that you gave" in told
    assert told.splitlines()[-1] == "verified"
    index = json.loads(members(made)[INDEX])
    assert (index["model"], index["size"] >= 45) == ("credit", True)
    assert b"governed verify dossier.zip" in members(made)["README.txt"]


def test_another_s_key_is_refused(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = Archive(tmp_path / "elsewhere", Kek(bytes([7]) * 32), "default")
    (tmp_path / "vkey").write_text(other.ledger.vkey)
    other.close()
    assert main(["verify", str(made), "--key-file", str(tmp_path / "vkey")]) == 1
    assert "not verified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    {
        "an entry of the model": (["--id", "server-0/17"], 0, "inclusion   id server-0/17 is entry "),
        "an entry of another model": (["--id", "other-0/3"], 1, "id other-0/3 is not among the 4"),
        "who cosigned": (["--witness-key", "w1"], 0, "witness.example/w1 cosigned 4"),
        "one who didn't cosign": (["--witness-key", "w2"], 1, "expected 1: none by witness.example/w2"),
        "a quorum": (["--witness-key", "w1", "--witness-key", "w2", "--quorum", "1"], 0, "witness.example/w1 cosigned"),
        "no quorum": (["--witness-key", "w1", "--witness-key", "w2"], 1, "expected 2: none by witness.example/w2"),
        "a quorum of nobody": (["--quorum", "1"], 1, "--quorum must be 1 to 0, the witness keys given"),
    }.values(),
)
def test_what_a_ledger_is_asked_a_dossier_is_asked(
    made: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, witness in (("w1", WITNESS), ("w2", STRANGER)):
        Path(name).write_text(witness.vkey)
    capsys.readouterr()
    assert main(["verify", str(made), *words]) == code
    said = capsys.readouterr()
    assert told in said.out + said.err


def test_members_depend_on_the_content_alone(made: Path) -> None:
    again = write(made.parent, "again.zip")
    first, second = members(made), members(again)
    for name in (LEDGER, "vkey", "governance-report.json"):
        assert first[name] == second[name]
    with zipfile.ZipFile(made) as one, zipfile.ZipFile(again) as two:
        assert (
            [i.date_time for i in one.infolist()]
            == [i.date_time for i in two.infolist()]
            == [(1980, 1, 1, 0, 0, 0)] * 7
        )


@pytest.mark.parametrize("seed", range(40))
def test_no_flipped_byte_goes_unsaid(made: Path, capsys: pytest.CaptureFixture[str], seed: int, tmp_path: Path) -> None:
    """Those of a member change it, or its check; those of the directory that nobody reads change nothing that is
    read."""
    data = bytearray(made.read_bytes())
    place = random.Random(seed).randrange(len(data))
    data[place] ^= 1 << random.Random(seed).randrange(8)
    (tmp_path / "flipped.zip").write_bytes(data)
    code = main(["verify", str(tmp_path / "flipped.zip")])
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    if code == 0:
        assert members(tmp_path / "flipped.zip") == members(made)
    else:
        assert (code, "flipped.zip" in told.err or "verify: " in told.err) == (1, True)


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: files | {name: change(files[name])}


@pytest.mark.parametrize(
    "change",
    [
        lambda files: {n: d for n, d in files.items() if n != INDEX},
        lambda files: {n: d for n, d in files.items() if n != PAGE},
        lambda files: files | {"more.txt": b"x"},
        lambda files: files | {"../up.txt": b"x"},
        changed(PAGE, lambda data: data.replace(b"credit", b"debit")),
        changed(PAGE, lambda data: data[:-1]),
        changed(LEDGER, lambda data: data + bytes(512)),
        changed(INDEX, lambda _: b"[]"),
        changed(INDEX, lambda _: b"\xff{"),
        changed(INDEX, lambda _: b"{" * 2000),
        changed(INDEX, lambda data: data + b" " * (1 << 17)),
        changed(INDEX, lambda data: data.replace(b"governed-dossier-1", b"governed-dossier-2")),
        changed(INDEX, lambda data: data.replace(b'"report.html"', b'"../report.html"')),
        changed(INDEX, lambda data: data.replace(b'"report.html"', b'"vkey"')),
    ],
)
def test_what_isn_t_as_it_was_packed_is_refused(
    made: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    other = written(tmp_path / "other.zip", change(members(made)))
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match=r"other\.zip"):
        unpacked(other, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} >= {"out"}
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", [LEDGER, "vkey"])
def test_a_forged_index_doesn_t_save_a_changed_ledger(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files = members(made)
    flipped = bytearray(files[name])
    flipped[len(flipped) // 3] ^= 1
    forged = written(tmp_path / "forged.zip", files | {name: bytes(flipped)}, indexed=True)
    assert main(["verify", str(forged)]) == 1
    assert "not verified" in capsys.readouterr().out


def test_an_index_of_another_size_is_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = members(made)
    index = json.loads(files[INDEX]) | {"size": 7}
    forged = written(tmp_path / "forged.zip", files | {INDEX: json.dumps(index).encode()})
    assert main(["verify", str(forged)]) == 1
    assert "another size of it" in capsys.readouterr().out


def test_a_bomb_is_not_unpacked(made: Path, tmp_path: Path) -> None:
    files = members(made) | {PAGE: bytes(200 << 20)}
    bomb = written(tmp_path / "bomb.zip", files)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match=r"isn't what index\.json says"):
        unpacked(bomb, tmp_path / "out")
    assert (tmp_path / "out" / PAGE).stat().st_size < 2 << 20


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"x" * 100, b"\x1f\x8b" + bytes(60)])
def test_what_is_no_dossier_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes) -> None:
    (tmp_path / "no.zip").write_bytes(data)
    assert main(["verify", str(tmp_path / "no.zip")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_directory_of_a_million_members_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(5000):
            archive.writestr(str(number), b"")
    with pytest.raises(ArchiveError, match="found a file that `governed dossier` didn't write"):
        unpacked(tmp_path / "many.zip", tmp_path)
