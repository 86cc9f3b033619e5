"""Whole files or none: replaced at once, whatever the writer dies of, and nothing left behind that is read as a
file."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving import durable
from governed_serving.durable import discard_partial, put_in_place, replace_file, replacing, write_new


class Full(OSError):
    """A disk that is full just now."""


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_content_is_replaced_and_private(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert (modes(path), modes(path.parent)) == (0o600, 0o700)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_the_mode_is_that_of_the_new_file(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"one")
    replace_file(tmp_path / "file", b"two", mode=0o644)
    assert modes(tmp_path / "file") == 0o644 & ~_umask()


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def broken(path: Path, error: BaseException) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [Full(28, "No space left on device"), KeyboardInterrupt(), ValueError("a bug")])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    with pytest.raises(type(error)):
        broken(path, error)
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise Full(5, "Input/output error")

    path = tmp_path / "file"
    replace_file(path, b"one")
    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync") if step == "fsync" else (Path, "rename")), fail)
        with pytest.raises(Full):
            replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("write", "synced"),
    [
        (lambda path: replace_file(path, b"x"), ["file before its name", "folder"]),
        (lambda path: replace_file(path, b"x", durable=False), []),
        (lambda path: write_new(path, b"x"), ["file"]),
        (lambda path: put_in_place(path.with_name("there"), path), ["folder"]),
    ],
)
def test_content_is_on_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], synced: list[str]
) -> None:
    seen = []

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            seen.append("folder")
        else:
            seen.append("file" if (tmp_path / "file").exists() else "file before its name")

    (tmp_path / "there").write_bytes(b"x")
    monkeypatch.setattr(durable.os, "fsync", fsync)
    write(tmp_path / "file")
    assert seen == synced
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_new_file_is_no_replacement(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one"


def test_what_a_killed_writer_left_is_discarded(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"one")
    writer = replacing(tmp_path / "file")
    writer.__enter__().write(b"half")  # and is never ended
    assert len(list(tmp_path.iterdir())) == 2
    discard_partial(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
