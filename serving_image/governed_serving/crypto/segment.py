"""Keys of journal segments: AES-256-GCM under a fresh data key per segment, which the journal's keyset wraps.

A nonce is (attempt, sequence number) and is never used twice under one key: a key lives no longer than one writer's one
segment, sequence numbers only grow, and a failed write raises the attempt (NIST SP 800-38D, 8.2.1).
"""

import struct
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from governed_serving.crypto.errors import Tampered
from governed_serving.crypto.keyset import Keyset
from governed_serving.records import EventRecord, Frame, SubjectFrame

__all__ = ["TAG_BYTES", "SegmentCipher", "SegmentKey", "SubjectOpener"]

TAG_BYTES = 16
_NONCE = struct.Struct(">IQ")


class SubjectOpener(Protocol):
    """Who has the keys of data subjects."""

    def opened(self, record: SubjectFrame | EventRecord) -> Frame:
        """What ``record`` holds; ``record`` itself once its key was destroyed."""
        ...


class SegmentKey:
    """The data key of one segment."""

    __slots__ = ("_aead", "_key", "subjects")

    def __init__(self, key: bytes, subjects: "SubjectOpener | None" = None):
        self._aead, self._key = AESGCM(key), key
        self.subjects = subjects

    def seal(self, attempt: int, seq: int, plaintext: bytes, aad: bytes) -> bytes:
        """ciphertext ‖ tag."""
        return self._aead.encrypt(_NONCE.pack(attempt, seq), plaintext, aad)

    def open(self, attempt: int, seq: int, ciphertext: bytes, aad: bytes) -> bytes:
        """Inverse of :meth:`seal`; raises Tampered."""
        try:
            return self._aead.decrypt(_NONCE.pack(attempt, seq), ciphertext, aad)
        except InvalidTag:
            raise Tampered(f"frame {seq} doesn't authenticate") from None

    def tag(self, attempt: int, seq: int, body: bytes, aad: bytes) -> bytes:
        """The tag that :meth:`seal` put behind ciphertext ``body`` (without its tag), whatever lies there now.

        It proves nothing by itself: something else that is authenticated must name it. SP 800-38D, 7.1: the first block
        of the message is enciphered under counter 2.
        """
        nonce = _NONCE.pack(attempt, seq)
        counter = Cipher(algorithms.AES256(self._key), modes.CTR(nonce + b"\0\0\0\2")).decryptor()
        return self._aead.encrypt(nonce, counter.update(body) + counter.finalize(), aad)[-TAG_BYTES:]


class SegmentCipher:
    """Makes and opens segment keys with the ``journal`` keyset. ``subjects``: opens what is sealed once more within;
    None: it stays sealed."""

    def __init__(self, keyset: Keyset, subjects: SubjectOpener | None = None):
        self._keyset, self._subjects = keyset, subjects

    def new(self, aad: bytes) -> tuple[SegmentKey, bytes]:
        """A fresh key, and its wrapped form for the segment's header; ``aad`` binds it to its segment."""
        key = AESGCM.generate_key(bit_length=256)
        return SegmentKey(key, self._subjects), self._keyset.seal(key, aad)

    def open(self, wrapped: bytes, aad: bytes) -> SegmentKey:
        """The key in a segment's header; raises Tampered or KeyMissing."""
        return SegmentKey(self._keyset.open(wrapped, aad), self._subjects)
