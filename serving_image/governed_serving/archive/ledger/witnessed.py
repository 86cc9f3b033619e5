"""What witnesses said of the ledger: the newest checkpoint that enough of them cosigned, and how each stands."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.note import NoteError, split_note
from governed_serving.durable import replace_file

__all__ = ["WITNESSED", "Standing", "Witnessed"]

WITNESSED = "witnessed"
"""File below the ledger's folder."""


@dataclass
class Standing:
    """How one witness stands, as of its last answer."""

    cosigner: Cosigner
    size: int = 0
    """Entries that it has cosigned: what the next proof begins with."""
    problem: str = ""
    """Why it didn't cosign when it was last asked."""
    answers: "Counter[str]" = field(default_factory=Counter)
    """By outcome."""


class Witnessed:
    """Of one ledger. Written by whoever asks the witnesses, read by whoever serves; each attribute is replaced as a
    whole."""

    def __init__(self, path: Path):
        self._path = path
        self.standings: tuple[Standing, ...] = ()
        self.quorum = 0
        self.contradiction = ""
        """A checkpoint that this log's key signed and that this ledger doesn't go on from: in words."""
        self.note = path.read_text(errors="replace") if path.exists() else ""
        """The newest checkpoint that a quorum cosigned, with their lines; "" where there is none."""
        self._newest: tuple[str, tuple[str, ...]] = ("", ())
        try:
            text, lines = split_note(self.note)
        except NoteError:
            self.note = ""
        else:
            self._newest = (text, tuple(lines))

    @property
    def size(self) -> int:
        """Entries of :attr:`note`; 0 where there is none."""
        return int(self.note.split("\n")[1]) if self.note else 0

    @property
    def lagging(self) -> str:
        """Which witnesses didn't cosign when they were last asked, and why."""
        return "; ".join(f"{s.cosigner.name}: {s.problem}" for s in self.standings if s.problem)

    def add(self, note: str, lines: tuple[str, ...]) -> None:
        """Cosignatures of a checkpoint, fewer than a quorum perhaps."""
        self._newest = (split_note(note)[0], lines)

    def cosigned(self, note: str) -> str:
        """A checkpoint with the cosignatures that it has."""
        (text, lines), (newest, others) = split_note(note), self._newest
        return note + "".join(f"{line}\n" for line in others if text == newest and line not in lines)

    def keep(self, note: str) -> None:
        """A checkpoint that a quorum cosigned. Raises OSError."""
        replace_file(self._path, note.encode())
        self.note = note

    def discard(self) -> None:
        """Of another history, or changed: the witnesses are asked anew. Raises OSError."""
        self._path.unlink(missing_ok=True)
        self.note, self._newest = "", ("", ())

    def restored(self) -> bool:
        """Write the file anew where it isn't what was kept; whether it was. Raises OSError."""
        if not self.note or (self._path.exists() and self._path.read_bytes() == self.note.encode()):
            return False
        replace_file(self._path, self.note.encode())
        return True
