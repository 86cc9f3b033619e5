"""C2SP tlog-proofs: that an entry is in the log, in one file that is checked offline.

https://c2sp.org/tlog-proof. ``extra`` holds the entry itself: nothing vouches for it but the proof of its leaf hash.
"""

import base64
from dataclasses import dataclass

from governed_api.printable import printable
from governed_serving.archive.ledger.note import DECIMAL, NoteError, decode_base64

__all__ = ["HEAD", "MOST_BYTES", "LogProof"]

HEAD = "c2sp.org/tlog-proof@v1"
MOST_BYTES = 256 << 10
"""Largest proof that is read: an entry, 63 hashes, a note of 16 signatures and more."""
_HASHES = 63


@dataclass(frozen=True)
class LogProof:
    """``extra``: the entry; ``hashes``: its inclusion proof (RFC 6962 §2.1.1) in the tree of ``note``, a checkpoint."""

    extra: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: str

    def text(self) -> str:
        """The file."""
        lines = [
            HEAD,
            f"extra {_encoded(self.extra)}",
            f"index {self.index}",
            *map(_encoded, self.hashes),
            "",
            self.note,
        ]
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> "LogProof":
        """Raises :class:`NoteError`."""
        if len(text) > MOST_BYTES:
            raise NoteError(f"a proof may have at most {MOST_BYTES} bytes, found {len(text)} or more")
        if printable(text, keep="\n") != text:
            raise NoteError("a receipt must be text without control characters: it was made to deceive")
        head, separator, note = text.partition("\n\n")
        kind, *lines = head.split("\n")
        if kind != HEAD or not separator:
            raise NoteError(f"a proof must begin with {HEAD}, and a checkpoint must follow an empty line")
        if len(lines) < 2 or not lines[0].startswith("extra ") or not lines[1].startswith("index "):
            raise NoteError("a receipt must hold its entry (extra) and its index, each on a line")
        number = lines[1].removeprefix("index ")
        if not DECIMAL.fullmatch(number):
            raise NoteError(f"an index must be a decimal number, found {number[:40]!r}")
        hashes = tuple(decode_base64(line, "hash") for line in lines[2:])
        if len(hashes) > _HASHES or any(len(step) != 32 for step in hashes):
            raise NoteError(f"an inclusion proof must be at most {_HASHES} hashes of 32 bytes")
        return cls(decode_base64(lines[0].removeprefix("extra "), "entry"), int(number), hashes, note)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
