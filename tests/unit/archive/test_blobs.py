"""Blobs: sealed bytes under their own SHA-256, durable before they are seen, deleted for good."""

import hashlib
import os
from pathlib import Path

import pytest

from governed_serving.archive.errors import Refused
from governed_serving.archive.store.blobs import NOT_SEALED, BlobStore, addresses, check_address


def address(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Seen:
    """Takes what begins with ``S``; remembers what it was shown."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    def __call__(self, head: bytes) -> bool:
        self.heads.append(head)
        return head.startswith(b"S")


def store(root: Path, **limits: int) -> BlobStore:
    return BlobStore(root / "a" / "blobs", Seen(), **limits)


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "digest", ["", "ab", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "../" + "0" * 61, "0" * 63 + "/", "0" * 63 + "\n"]
)
def test_what_is_no_address_names_no_file(tmp_path: Path, digest: str) -> None:
    blobs = store(tmp_path)
    assert check_address("0123456789abcdef" * 4) == "0123456789abcdef" * 4
    for call in (check_address, blobs.path, blobs.expired, blobs.expire, blobs.size, blobs.writer):
        with pytest.raises(Refused, match="64 lower-case hex digits") as refused:
            call(digest)
        assert refused.value.status == 400
    assert files(tmp_path) == {}


def test_a_blob_lies_under_its_address_and_is_stored_once(tmp_path: Path) -> None:
    blobs, data = store(tmp_path), b"S" + b"x" * 99
    digest = address(data)
    assert (blobs.size(digest), blobs.expired(digest)) == (None, False)
    with pytest.raises(FileNotFoundError):
        next(blobs.read(digest))
    assert blobs.put(digest, data) is True
    assert blobs.put(digest, data) is False
    assert files(tmp_path) == {f"a/blobs/{digest[:2]}/{digest}": data}
    assert blobs.path(digest) == tmp_path / "a" / "blobs" / digest[:2] / digest
    assert blobs.path(digest).stat().st_mode & 0o777 == 0o600
    assert (blobs.size(digest), b"".join(blobs.read(digest))) == (100, data)


def test_a_blob_is_read_in_mebibytes(tmp_path: Path) -> None:
    blobs, data = store(tmp_path), b"S" * ((2 << 20) + 5)
    blobs.put(address(data), data)
    assert [len(chunk) for chunk in blobs.read(address(data))] == [1 << 20, 1 << 20, 5]


@pytest.mark.parametrize("step", [1, 63, 64, 65, 200])
def test_the_seal_is_looked_at_in_the_first_64_bytes_however_they_come(tmp_path: Path, step: int) -> None:
    blobs, data = store(tmp_path), b"S" + bytes(range(1, 130))
    with blobs.writer(address(data)) as writer:
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
        assert writer.commit()
    assert blobs._sealed.heads == [data[:64]]  # type: ignore[attr-defined]
    assert blobs.path(address(data)).read_bytes() == data


def test_what_is_wrong_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    blobs, data = store(tmp_path), b"plaintext"
    with pytest.raises(Refused, match=f"^{NOT_SEALED}$") as refused:
        blobs.put(address(data), data)
    assert refused.value.status == 415
    with pytest.raises(Refused, match=f"SHA-256 is {address(data)}, the address says {'0' * 64}") as refused:
        blobs.put("0" * 64, data)
    assert refused.value.status == 400
    assert files(tmp_path) == {}
    assert NOT_SEALED == "the body is not sealed: encrypt it with the model's keyset before it is archived"


def test_a_blob_has_its_greatest_size_and_not_a_byte_more(tmp_path: Path) -> None:
    blobs = store(tmp_path, max_bytes=10)
    data = b"S" * 10
    assert blobs.put(address(data), data)
    with pytest.raises(Refused, match="at most 10 bytes") as refused:
        blobs.put(address(data + b"S"), data + b"S")
    assert refused.value.status == 413
    with blobs.writer("0" * 64) as writer:
        for _ in range(10):
            writer.write(b"S")
        with pytest.raises(Refused, match="at most 10 bytes"):
            writer.write(b"S")
    assert list(files(tmp_path)) == [f"a/blobs/{address(data)[:2]}/{address(data)}"]
    assert store(tmp_path).max_bytes == 8 * 1024**3


def test_half_a_blob_is_none_and_goes_at_the_next_start(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    writer = blobs.writer("0" * 64)
    writer.write(b"Shalf")
    (name,) = files(tmp_path)
    assert name.startswith("a/blobs/.incoming/")
    assert list(addresses(tmp_path / "a" / "blobs")) == []
    store(tmp_path)
    assert files(tmp_path) == {}
    writer._file.close()


def test_addresses_are_those_of_whole_blobs_sorted(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    bodies = [b"S%d" % i for i in range(20)]
    for body in bodies:
        blobs.put(address(body), body)
    blobs.expire(address(bodies[0]))
    root = tmp_path / "a" / "blobs"
    folder = root / address(bodies[1])[:2]
    other = "f" if folder.name[0] == "0" else "0"
    for name in ("0" * 63, folder.name + "0" * 63, other * 64):
        (folder / name).touch()
    (root / "zz").mkdir()
    (root / "zz" / ("z" * 64)).touch()
    assert list(addresses(root)) == sorted(map(address, bodies[1:]))
    assert list(addresses(tmp_path / "none")) == []


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """(name, what lay in the store then) of every fsync."""
    done: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append((path.name, sorted(name.rpartition("/")[0] for name in files(tmp_path / "a" / "blobs"))))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return done


def test_a_blob_is_durable_before_it_is_seen_and_its_name_after(
    tmp_path: Path, synced: list[tuple[str, list[str]]]
) -> None:
    blobs, data = store(tmp_path), b"S" * 100
    folder = address(data)[:2]
    with blobs.writer(address(data)) as writer:
        writer.write(data)
        assert writer.commit()
    (aside, before), *after = synced
    assert (aside != address(data), before) == (True, [".incoming"])
    assert after == [(folder, [folder]), ("blobs", [folder])]


def test_the_mark_of_a_deletion_is_durable_before_the_blob_goes(
    tmp_path: Path, synced: list[tuple[str, list[str]]]
) -> None:
    blobs, data = store(tmp_path), b"S" * 100
    digest, folder = address(data), address(data)[:2]
    blobs.put(digest, data)
    synced.clear()
    blobs.expire(digest)
    assert synced == [(folder, sorted([folder, f"expired/{folder}"])), (folder, [f"expired/{folder}"])]
    assert files(tmp_path / "a" / "blobs") == {f"expired/{folder}/{digest}": b""}
    assert (tmp_path / "a" / "blobs" / "expired" / folder / digest).stat().st_mode & 0o777 == 0o600
    assert (blobs.expired(digest), blobs.size(digest)) == (True, None)
    blobs.expire(digest)  # once more, as after a kill
    synced.clear()
    blobs.expire("0" * 64)  # one that never was here
    assert [name for name, _ in synced] == ["00"]
    assert blobs.expired("0" * 64)
