"""C2SP cosignatures: a witness's word that, at a time, a checkpoint was the newest it knew of a log that only grew.

https://c2sp.org/tlog-cosignature, the Ed25519 type (cosignature/v1).
"""

import base64
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from governed_serving.archive.ledger.note import NoteError, key_hash, parse_vkey, signature_line, split_note

__all__ = ["Cosignature", "Cosigner", "is_cosignature"]

_COSIGNATURE = b"\x04"
_LENGTH = 4 + 8 + 64
_LATEST = 2**63 - 1


def is_cosignature(line: str) -> bool:
    """Whether a signature line has a cosignature's length, whoever it is by. Raises :class:`NoteError`."""
    return len(signature_line(line)[1]) == _LENGTH


@dataclass(frozen=True)
class Cosignature:
    """A line that verified, and its time (POSIX seconds)."""

    line: str
    time: int


@dataclass(frozen=True)
class Cosigner:
    """A witness's verifier key: name+hash+base64(0x04 ‖ Ed25519 public key)."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> "Cosigner":
        """Read a vkey; raises :class:`NoteError`."""
        return cls(*parse_vkey(vkey, _COSIGNATURE, "a witness's verifier key"))

    @property
    def key_hash(self) -> bytes:
        """First four bytes of SHA-256(name ‖ newline ‖ type ‖ key)."""
        return key_hash(self.name, _COSIGNATURE, self.public)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{base64.b64encode(_COSIGNATURE + self.public).decode()}"

    def cosigned(self, note: str) -> Cosignature | None:
        """This key's cosignature of ``note``, the newest where there are several; None where there is none. Raises
        :class:`NoteError` for one that doesn't verify: the note is malformed then (C2SP signed-note)."""
        text, lines = split_note(note)
        cosignatures: list[Cosignature] = []
        for line in lines:
            name, blob = signature_line(line)
            if (name, blob[:4]) == (self.name, self.key_hash):
                cosignatures.append(Cosignature(line, self._checked(text, blob)))
        return max(cosignatures, key=lambda one: one.time, default=None)

    def _checked(self, text: str, blob: bytes) -> int:
        if len(blob) != _LENGTH:
            raise NoteError(f"a cosignature must have {_LENGTH} bytes, that by {self.name} has {len(blob)}")
        time = int.from_bytes(blob[4:12], "big")
        if not 0 < time <= _LATEST:
            raise NoteError(f"the cosignature by {self.name} has no time")
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(blob[12:], message)
        except InvalidSignature:
            raise NoteError(f"the cosignature by {self.name} does not verify: the note was changed") from None
        return time
