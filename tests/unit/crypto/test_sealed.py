"""What is sealed is known as such, and opens in its place alone."""

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
)
from governed_serving.crypto.segment import TAG_BYTES


@pytest.fixture
def keyset(tmp_path: Path) -> Keyset:
    return Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path / "keysets")).keyset("artefact")


@pytest.mark.parametrize("head", [b"GMCHNK1\n", b"GMCHNK1\nmore"])
def test_ciphertext_is_known_by_its_first_bytes(keyset: Keyset, head: bytes):
    assert is_sealed(head)
    assert is_sealed(keyset.seal(b"x"))


@pytest.mark.parametrize("head", [b"", b"GMCHNK1", b"GMFILE1\n", b"gmchnk1\n", b"name,age\n", b" GMCHNK1\n"])
def test_anything_else_is_not(head: bytes):
    assert not is_sealed(head)


def test_segment_keys_open_only_in_their_segment(keyset: Keyset):
    cipher = SegmentCipher(keyset)
    key, wrapped = cipher.new(b"stream 0")
    sealed = key.seal(0, 7, b"frame", b"aad")
    assert len(sealed) == len(b"frame") + TAG_BYTES
    assert cipher.open(wrapped, b"stream 0").open(0, 7, sealed, b"aad") == b"frame"
    with pytest.raises(Tampered):
        cipher.open(wrapped, b"stream 1")
    for attempt, seq, aad in ((1, 7, b"aad"), (0, 8, b"aad"), (0, 7, b"bad")):
        with pytest.raises(Tampered):
            key.open(attempt, seq, sealed, aad)
