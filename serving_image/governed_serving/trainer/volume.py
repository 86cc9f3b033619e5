"""The encrypted data volume: whole files, sealed in memory and renamed into place; plaintext never touches the disk."""

from pathlib import Path
from typing import Protocol

from governed_serving.durable import discard_partial, replace_file


class Cipher(Protocol):
    """Authenticated encryption under the model's keyset (governed_serving.crypto)."""

    def seal(self, data: bytes, aad: bytes) -> bytes: ...

    def open(self, sealed: bytes, aad: bytes) -> bytes: ...


class DataVolume:
    """Sealed files of one directory; a file's name is bound to its content as associated data."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._directory = directory
        self._cipher = cipher
        directory.mkdir(parents=True, exist_ok=True)
        discard_partial(directory)

    def write(self, name: str, data: bytes) -> None:
        """Seal ``data`` as ``name``, over what was there."""
        replace_file(self._directory / name, self._cipher.seal(data, name.encode()))

    def read(self, name: str) -> bytes | None:
        """Content of ``name``, None when there is none. Raises the cipher's error when it was tampered with."""
        path = self._directory / name
        if not path.exists():
            return None
        return self._cipher.open(path.read_bytes(), name.encode())

    def remove(self, name: str) -> None:
        """Forget ``name``, if it exists."""
        (self._directory / name).unlink(missing_ok=True)
