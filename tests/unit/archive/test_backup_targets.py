"""A backup takes the place of nothing but an older backup, and leaves no half of one."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.archive import taking
from governed_serving.archive.__main__ import main
from governed_serving.archive.restore import checked
from governed_serving.archive.taking import Asked, take_file
from support.waiting import eventually
from support.work_folder import WorkFolder, made


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    return made(tmp_path_factory.mktemp("work"), requests=20)


def backup(work: WorkFolder, target: Path | str) -> int:
    return main(["backup", str(work.archive), str(target), "--key-file", str(work.kek_file)])


def _writes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _tar(path: Path) -> None:
    (path.parent / "x").write_text("x")
    shutil.make_archive(str(path.with_suffix("")), "tar", path.parent, "x")


THERE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text": (_writes(b"my thesis"), "a file that is no backup"),
    "an empty file": (_writes(b""), "a file that is no backup"),
    "a tar of another kind": (_tar, "a file that is no backup"),
    "zeros": (_writes(bytes(2048)), "a file that is no backup"),
    "a folder": (lambda path: path.mkdir(), "a folder"),
    "a pipe": (os.mkfifo, "no regular file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/full"), "a link"),
    "a link to a file": (
        lambda path: (path.with_name("o").write_bytes(b"o"), path.symlink_to(path.with_name("o"))),
        "link",
    ),
    "a link to nothing": (lambda path: path.symlink_to(path.with_name("nothing")), "a link"),
    "a link to a folder": (lambda path: path.symlink_to("/tmp"), "a link"),
}


@pytest.mark.parametrize("kind", THERE)
def test_what_is_there_stays(work: WorkFolder, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, told = THERE[kind]
    target = tmp_path / "b.tar"
    make(target)
    before, found = sorted(os.listdir(tmp_path)), target.lstat()
    assert backup(work, target) == 1
    assert told in capsys.readouterr().err
    after = target.lstat()
    assert sorted(os.listdir(tmp_path)) == before
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns,
    ), "being read changes st_atime alone"  # fmt: skip


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null", "/dev/stdout", "/dev/fd/1"])
def test_no_device_is_replaced(work: WorkFolder, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.lstat(device)
    assert backup(work, device) == 1
    assert "expected a new file" in capsys.readouterr().err
    after = os.lstat(device)
    assert (after.st_mode, after.st_rdev, after.st_ino) == (before.st_mode, before.st_rdev, before.st_ino)


def test_an_older_backup_is_replaced_by_a_whole_one(work: WorkFolder, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    assert backup(work, target) == 0
    first = target.stat().st_ino
    assert backup(work, target) == 0
    assert target.stat().st_ino != first
    assert checked(target).size > 0
    assert os.listdir(tmp_path) == ["b.tar"]


@pytest.mark.parametrize("place", ["b.tar", "blobs/b.tar", "ledger/log/00000000000000000000.seg"])
def test_none_lies_in_the_archive_itself(work: WorkFolder, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert backup(work, work.archive / place) == 1
    assert "lies in the archive itself" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(
    work: WorkFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backup(work, tmp_path / "no" / "b.tar") == 1
    assert f"{tmp_path / 'no'}: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    work: WorkFolder, tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "b.tar"
    assert backup(work, target) == 0
    old = target.read_bytes()

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(taking.os, "fsync", full)
    assert backup(work, target) == 1
    said = capsys.readouterr().err
    assert f"{target}: {os.strerror(code)}: nothing was written. Free space" in said
    assert (os.listdir(tmp_path), target.read_bytes()) == (["b.tar"], old)


def _command(work: WorkFolder, target: str) -> list[str]:
    words = ["backup", str(work.archive), target, "--key-file", str(work.kek_file)]
    return [sys.executable, "-m", "governed_serving.archive", *words]


def test_a_full_standard_output_is_one_sentence(work: WorkFolder) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(_command(work, "-"), stdout=full, stderr=subprocess.PIPE, check=False, timeout=120)
    assert (done.returncode, done.stderr.decode().count("\n")) == (1, 1), done.stderr
    assert b"No space left" in done.stderr


def test_what_a_killed_backup_left_goes_with_the_next(work: WorkFolder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    patched = (
        "import sys; from governed_serving.archive import taking, __main__ as m\n"
        f"taking.checked = lambda path: open({str(tmp_path / 'gate')!r}).read()\n"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    target = tmp_path / "b.tar"
    killed = subprocess.Popen([sys.executable, "-c", patched, *_command(work, str(target))[3:]])
    try:
        eventually(lambda: list(tmp_path.glob(".b.tar.*.partial")), bool)
        (left,) = tmp_path.glob(".b.tar.*.partial")
        eventually(left.stat, lambda s: s.st_size > 10_000)
        with left.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not target.exists()
    assert left.exists()
    assert take_file(str(work.archive), target, Asked(key_file=work.kek_file)).size > 0
    assert sorted(os.listdir(tmp_path)) == ["b.tar", "gate"]
