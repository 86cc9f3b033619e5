"""A bundle that was put together to harm is told in a sentence, and read in bounded memory."""

import io
import json
import lzma
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_serving.archive.__main__ import main

ABOUT = {"format": "governed-bundle-1", "origin": "x", "size": 1, "complete": True, "entries": 1, "blobs": False}
SAID = json.dumps(ABOUT).encode()
REG, SYM, LNK = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def tar(*members: tuple[str, bytes, bytes, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as made:
        for name, kind, data, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), link
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


def head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def bomb(*before: tuple[str, bytes, bytes, str], name: str, megabytes: int = 300) -> bytes:
    """Unpacks to a member of so many zeros."""
    packer, zeros = zlib.compressobj(1, zlib.DEFLATED, 31), bytes(1 << 20)
    packed = [packer.compress(tar(*before).rstrip(b"\0").ljust(1024 * len(before), b"\0") if before else b"")]
    packed += [packer.compress(head(name, megabytes << 20))]
    packed += [packer.compress(zeros) for _ in range(megabytes)]
    return b"".join([*packed, packer.flush()])


ABOUT_MEMBER = ("bundle.json", REG, SAID, "")
HOSTILE: dict[str, Callable[[], bytes]] = {
    "links in a circle": lambda: tar(("bundle.json", SYM, b"", "a"), ("a", SYM, b"", "bundle.json")),
    "a link to itself": lambda: tar(("bundle.json", SYM, b"", "bundle.json")),
    "a link to nothing": lambda: tar(("bundle.json", SYM, b"", "nowhere")),
    "a hard link to nothing": lambda: tar(("bundle.json", LNK, b"", "nowhere")),
    "a link to a file of the machine": lambda: tar(ABOUT_MEMBER, ("vkey", SYM, b"", "/etc/passwd")),
    "a folder": lambda: tar(("bundle.json", tarfile.DIRTYPE, b"", "")),
    "a pipe": lambda: tar(("bundle.json", tarfile.FIFOTYPE, b"", "")),
    "a sparse file": lambda: tar(("bundle.json", tarfile.GNUTYPE_SPARSE, b"", "")),
    "a file twice": lambda: tar(ABOUT_MEMBER, ABOUT_MEMBER),
    "no JSON": lambda: tar(("bundle.json", REG, b"\xff", "")),
    "deep JSON": lambda: tar(("bundle.json", REG, b"[" * 100_000, "")),
    "less than nothing": lambda: head("bundle.json", -512) + bytes(2048),
    "four exbibytes": lambda: head("bundle.json", 1 << 62) + bytes(2048),
    "a bomb": lambda: bomb(name="bundle.json"),
    "a bomb of a key": lambda: bomb(ABOUT_MEMBER, name="vkey"),
    "a cut archive": lambda: lzma.compress(tar(ABOUT_MEMBER))[:60],
    "bytes that are no text": lambda: tar(ABOUT_MEMBER, ("vkey", REG, b"\xff\xfe", "")),
    "a name that is no text": lambda: tar(ABOUT_MEMBER, ("\udcff", REG, b"", "")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bundle_that_means_harm_is_a_sentence(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle.tar").write_bytes(HOSTILE[kind]())
    tracemalloc.start()
    try:
        assert main(["verify", str(tmp_path / "bundle.tar")]) == 1
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 32 << 20
    said = capsys.readouterr()
    assert said.err.startswith("verify: ")
    assert said.err.count("\n") == 1
    assert "root:" not in said.out + said.err
