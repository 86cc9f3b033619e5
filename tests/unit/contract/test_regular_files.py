"""Whatever lies in a folder that others fill: read as a regular file within bounds, or refused at once."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_api.regular_files import open_regular, read_regular


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 42)


NONE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a link to a pipe": lambda path: (os.mkfifo(f"{path}.p"), path.symlink_to(f"{path}.p")),
    "a link to itself": lambda path: path.symlink_to(path),
    "nothing": lambda path: path.unlink(missing_ok=True),
    "longer than the limit": lambda path: path.write_bytes(bytes(101)),
    "a sparse file of 4 TiB": _sparse,
}


@pytest.mark.parametrize("kind", sorted(NONE))
@pytest.mark.parametrize("follow", [False, True], ids=["as it is", "followed"])
def test_what_is_no_bounded_regular_file_is_refused_at_once(tmp_path: Path, kind: str, follow: bool) -> None:
    path = tmp_path / "x"
    NONE[kind](path)
    with pytest.raises(OSError, match=r"regular|No such|longer|symbolic|device"):
        read_regular(path, 100, follow=follow)


def test_links_are_followed_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 100, follow=True) == b"x" * 100
    with pytest.raises(FileNotFoundError, match="no regular file"):
        open_regular(tmp_path / "link")
    assert read_regular(tmp_path / "file") == b"x" * 100
