"""Sealed files come back whole or not at all."""

import os
from pathlib import Path

import pytest

from governed_serving.crypto import (
    DirectoryStore,
    Kek,
    Keyring,
    Keyset,
    SegmentCipher,
    Tampered,
    is_sealed,
    open_sealed_file,
    seal_file,
    sealed_reader,
    sealed_writer,
)


@pytest.fixture
def keyset(tmp_path: Path) -> Keyset:
    return Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path / "keysets")).keyset("artefact")


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 16, 1 << 20, (3 << 20) + 7])
def test_a_file_comes_back(tmp_path: Path, keyset: Keyset, size: int):
    plain = os.urandom(size)
    (tmp_path / "plain").write_bytes(plain)
    seal_file(keyset, tmp_path / "plain", tmp_path / "sealed", b"model.tar")
    sealed = (tmp_path / "sealed").read_bytes()
    assert is_sealed(sealed[:8])
    assert size < 8 or plain[:64] not in sealed
    open_sealed_file(keyset, tmp_path / "sealed", tmp_path / "again", b"model.tar")
    assert (tmp_path / "again").read_bytes() == plain
    assert (tmp_path / "again").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "harm",
    ["flip header", "flip body", "flip last", "cut last", "cut segment", "swap segments", "other place", "empty"],
)
def test_harm_is_noticed_and_nothing_is_left(tmp_path: Path, keyset: Keyset, harm: str):
    with sealed_writer(keyset, tmp_path / "sealed", b"model.tar") as file:
        file.write(os.urandom(5 << 20))
    data = bytearray((tmp_path / "sealed").read_bytes())
    segment = 1 << 20
    match harm:
        case "flip header":
            data[40] ^= 1
        case "flip body":
            data[2 * segment] ^= 1
        case "flip last":
            data[-1] ^= 1
        case "cut last":
            del data[-1:]
        case "cut segment":
            del data[-segment:]
        case "swap segments":
            data[2 * segment : 3 * segment], data[3 * segment : 4 * segment] = (
                data[3 * segment : 4 * segment],
                data[2 * segment : 3 * segment],
            )
        case "empty":
            data.clear()
    (tmp_path / "sealed").write_bytes(data)
    before = set(tmp_path.iterdir())
    with pytest.raises(Tampered) as caught:
        open_sealed_file(
            keyset, tmp_path / "sealed", tmp_path / "again", b"elsewhere" if harm == "other place" else b"model.tar"
        )
    assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, keyset: Keyset):
    with sealed_writer(keyset, tmp_path / "sealed") as file:
        file.write(b"old")

    def fail() -> None:
        with sealed_writer(keyset, tmp_path / "sealed") as file:
            file.write(b"new")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail()
    with sealed_reader(keyset, tmp_path / "sealed") as file:
        assert file.read() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keysets", "sealed"]


def test_segment_keys_open_only_in_their_segment(keyset: Keyset):
    cipher = SegmentCipher(keyset)
    key, wrapped = cipher.new(b"stream 0")
    sealed = key.seal(0, 7, b"frame", b"aad")
    assert cipher.open(wrapped, b"stream 0").open(0, 7, sealed, b"aad") == b"frame"
    with pytest.raises(Tampered):
        cipher.open(wrapped, b"stream 1")
    for attempt, seq, aad in ((1, 7, b"aad"), (0, 8, b"aad"), (0, 7, b"bad")):
        with pytest.raises(Tampered):
            key.open(attempt, seq, sealed, aad)
