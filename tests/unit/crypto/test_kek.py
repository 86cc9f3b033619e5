"""A key file is taken as it should be, and otherwise refused in one line that says what to do."""

import os
from pathlib import Path

import pytest

from governed_serving.crypto import Kek, KekError, load_kek


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "kek"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_file_of_32_bytes_that_only_the_owner_reads_is_taken(tmp_path: Path):
    key = os.urandom(32)
    assert load_kek(key_file(tmp_path, key)).id == Kek(key).id


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"x" * 31, 0o600, r"expected 32 raw bytes, found 31"),
        (
            bytes(range(32)).hex().encode() + b"\n",
            0o600,
            r"found 65; it looks like text: store the raw bytes, not hex or base64$",
        ),
        (b"\n" * 31, 0o600, r"found 31$"),
        (bytes(33), 0o600, r"found 33$"),
        (b"", 0o600, r"found 0$"),
        (b"x" * 32, 0o644, r"mode is 0644.*expected 0600: chmod 600"),
        (b"x" * 32, 0o640, r"mode is 0640"),
    ],
)
def test_a_bad_key_file_is_refused_in_one_line(tmp_path: Path, content: bytes, mode: int, says: str):
    with pytest.raises(KekError, match=says) as caught:
        load_kek(key_file(tmp_path, content, mode))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("bit", [1 << n for n in range(9)], ids=oct)
def test_no_bit_more_than_the_promised_ones_is_allowed(tmp_path: Path, bit: int, volume: bool):
    """Its owner may do anything with the file; the group may read it in a Secret's volume."""
    if volume:
        (tmp_path / "..data").symlink_to(".")
    path = key_file(tmp_path, os.urandom(32), 0o600 | bit)
    if bit in (0o400, 0o200, 0o100) or (volume and bit == 0o040):
        assert load_kek(path).id
        return
    with pytest.raises(KekError, match=f"mode is {0o600 | bit:04o}, which lets others at the key"):
        load_kek(path)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(size: int):
    with pytest.raises(KekError, match=f"has 32 bytes, this one {size}$"):
        Kek(bytes(size))


def test_a_key_in_a_traceback_is_its_name():
    key = Kek(bytes(32))
    assert repr(key) == str(key) == f"Kek({key.id})"


def test_a_missing_key_file_says_how_to_get_one(tmp_path: Path):
    with pytest.raises(KekError, match=r"not found; restore it from your backup"):
        load_kek(tmp_path / "kek")


def test_a_secret_volume_may_be_read_by_its_group_but_not_by_others(tmp_path: Path):
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..data").symlink_to("..2026")
    real = key_file(tmp_path / "..2026", os.urandom(32), 0o440)
    (tmp_path / "kek").symlink_to("..data/kek")
    assert load_kek(tmp_path / "kek").id
    real.chmod(0o444)
    with pytest.raises(KekError, match="0444"):
        load_kek(tmp_path / "kek")
