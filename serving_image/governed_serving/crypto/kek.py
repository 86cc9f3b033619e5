"""The key-encryption key: 32 random bytes in a file that only its owner can read."""

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from governed_api.regular_files import KEY_BYTES, read_regular
from governed_serving.crypto.errors import KekError, WrongKek

__all__ = ["KEK_BYTES", "Kek", "load_kek"]

KEK_BYTES = 32
_NONCE_BYTES = 12


class Kek:
    """Wraps keysets by AES-256-GCM. ``id`` (16 hex characters of a SHA-256) names the key without telling it."""

    def __init__(self, key: bytes):
        if len(key) != KEK_BYTES:
            raise KekError(f"a key-encryption key has {KEK_BYTES} bytes, this one {len(key)}")
        self.id = hashlib.sha256(b"governed kek id\0" + key).hexdigest()[:16]
        self._aead = AESGCM(key)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """nonce ‖ ciphertext ‖ tag; the signature of Tink's Aead."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Inverse of :meth:`encrypt`; raises :class:`WrongKek`."""
        try:
            return self._aead.decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], associated_data)
        except (InvalidTag, ValueError):
            raise WrongKek(
                f"the keyset doesn't open with key {self.id}: it was changed, or wrapped by another key"
            ) from None

    def __repr__(self) -> str:
        return f"Kek({self.id})"


def load_kek(path: Path | str) -> Kek:
    """The key in ``path``: exactly 32 raw bytes.

    The file must not be open to group or others; in a Kubernetes Secret volume (recognised by its ``..data`` link),
    where fsGroup needs it, the group may read. Raises :class:`KekError` with one line that says what to do.
    """
    path = Path(path)
    try:
        status = path.stat().st_mode
        if not stat.S_ISREG(status):
            raise KekError(f"key file {path}: is no regular file; expected {KEK_BYTES} bytes in one (mode 0600)")
        mode = stat.S_IMODE(status)
        key = read_regular(path, KEY_BYTES, follow=True)
    except FileNotFoundError:
        raise KekError(
            f"key file {path}: not found; restore it from your backup (nothing sealed under it opens without it), "
            f"or for a new model make one: head -c {KEK_BYTES} /dev/urandom > {path} && chmod 600 {path}"
        ) from None
    except OSError as error:
        raise KekError(
            f"key file {path}: can't be read ({error.strerror}); make it readable for user {os.getuid()} alone"
        ) from None
    allowed = 0o740 if (path.parent / "..data").is_symlink() else 0o700
    if mode & ~allowed:
        raise KekError(
            f"key file {path}: mode is {mode:04o}, which lets others at the key; expected 0600: chmod 600 {path}"
        )
    if len(key) != KEK_BYTES:
        hint = "; it looks like text: store the raw bytes, not hex or base64" if key.strip().isalnum() else ""
        raise KekError(f"key file {path}: expected {KEK_BYTES} raw bytes, found {len(key)}{hint}")
    return Kek(key)
