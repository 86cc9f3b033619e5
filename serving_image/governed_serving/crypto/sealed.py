"""Sealed files of any size: a data key of their own, wrapped by a keyset; content by Tink's streaming AEAD.

``magic ‖ u16 length ‖ wrapped data key ‖ AES256_GCM_HKDF_1MB stream``. Segments of 1 MiB are authenticated one by one
before they are handed on, and the last one is marked (Hoang, Reyhanitabar, Rogaway, Vizár: OAE2, CRYPTO 2015), so that a cut is
noticed. Associated data binds a file to its place.
"""

import io
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import TinkError, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from governed_serving.crypto.document import handle_of
from governed_serving.crypto.errors import Tampered
from governed_serving.crypto.keyset import SEALED_BYTES, Keyset

__all__ = [
    "JOURNAL_CHUNK",
    "SEALED_FILE",
    "is_sealed",
    "open_sealed_file",
    "seal_file",
    "sealed_reader",
    "sealed_writer",
]

SEALED_FILE = b"GMFILE1\n"
JOURNAL_CHUNK = b"GMCHNK1\n"
_MAGICS = (SEALED_BYTES, SEALED_FILE, JOURNAL_CHUNK)
_LENGTH = struct.Struct(">H")
_KEY_BYTES = 32
_SEGMENT = 1 << 20
_TYPE = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"


def is_sealed(head: bytes) -> bool:
    """Whether bytes that begin with ``head`` (8 or more) are one of our ciphertext formats."""
    return head[:8] in _MAGICS


@contextmanager
def sealed_writer(keyset: Keyset, path: Path | str, aad: bytes = b"") -> Iterator[BinaryIO]:
    """A writable binary file whose content appears at ``path`` sealed: all of it when the block ends well, none otherwise."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    key = AESGCM.generate_key(bit_length=8 * _KEY_BYTES)
    wrapped = keyset.seal(key, _header_aad(aad))
    try:
        target = _Durable(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        target.write(SEALED_FILE + _LENGTH.pack(len(wrapped)) + wrapped)
        stream = _streaming(key).new_encrypting_stream(target, aad)
        try:
            yield stream
        except BaseException:
            target.close()
            raise
        stream.close()
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def sealed_reader(keyset: Keyset, path: Path | str, aad: bytes = b"") -> Iterator[BinaryIO]:
    """The plaintext of a sealed file, segment by segment. Raises Tampered or KeyMissing when it isn't what was sealed.

    What was read before an error is authentic, but a cut shows only at the end: act on it after the end was seen.
    """
    path = Path(path)
    with path.open("rb") as source:
        head = source.read(len(SEALED_FILE) + _LENGTH.size)
        if not head.startswith(SEALED_FILE) or len(head) < len(SEALED_FILE) + _LENGTH.size:
            raise Tampered(f"{path}: expected a sealed file, found something else or less")
        wrapped = source.read(_LENGTH.unpack(head[len(SEALED_FILE) :])[0])
        key = keyset.open(wrapped, _header_aad(aad))
        stream = _streaming(key).new_decrypting_stream(source, aad)
        with io.BufferedReader(_Authenticated(stream, path), buffer_size=_SEGMENT) as reader:
            yield reader


def seal_file(keyset: Keyset, source: Path | str, target: Path | str, aad: bytes = b"") -> None:
    """Write ``source`` sealed to ``target`` (atomically, fsynced)."""
    with Path(source).open("rb") as plain, sealed_writer(keyset, target, aad) as sealed:
        while block := plain.read(_SEGMENT):
            sealed.write(block)


def open_sealed_file(keyset: Keyset, source: Path | str, target: Path | str, aad: bytes = b"") -> None:
    """Write the plaintext of ``source`` to ``target`` (0600): all of it verified, or nothing and an error."""
    target = Path(target)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with (
            sealed_reader(keyset, source, aad) as sealed,
            os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as plain,
        ):
            while block := sealed.read(_SEGMENT):
                plain.write(block)
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)


class _Durable(io.FileIO):
    """A file that is on disk once closed."""

    def __init__(self, handle: int, mode: str):
        super().__init__(handle, mode)

    def close(self) -> None:
        if not self.closed:
            os.fsync(self.fileno())
        super().close()


class _Authenticated(io.RawIOBase):
    """Tink's decrypting stream with errors of this room."""

    def __init__(self, stream: Any, path: Path):
        self._stream = stream
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except TinkError:
            raise Tampered(
                f"{self._path}: doesn't authenticate: it was changed, cut, or sealed for another place"
            ) from None
        buffer[: len(data)] = data
        return len(data)


def _header_aad(aad: bytes) -> bytes:
    return b"governed file key\0" + aad


def _streaming(key: bytes) -> Any:
    """Tink's AES256_GCM_HKDF_1MB under ``key``."""
    streaming_aead.register()
    message = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=key)
    message.params.ciphertext_segment_size = _SEGMENT
    message.params.derived_key_size = _KEY_BYTES
    message.params.hkdf_hash_type = common_pb2.SHA256
    keyset = tink_pb2.Keyset(primary_key_id=1)
    entry = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    entry.key_data.CopyFrom(
        tink_pb2.KeyData(
            type_url=_TYPE, value=message.SerializeToString(), key_material_type=tink_pb2.KeyData.SYMMETRIC
        )
    )
    return handle_of(keyset).primitive(streaming_aead.StreamingAead)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
