"""Errors of the sources room.

SourceError
├── Refused       retrying cannot succeed: no such file, no right, an unsafe name or redirect, too large
│   └── Differs   other bytes than the digest, or the source's own list, says
├── NoRoom        the disk is full
└── Unavailable   another try may help: no answer, cut off, busy
    └── Changed   it became another file while it was read
"""

__all__ = ["Changed", "Differs", "NoRoom", "Refused", "SourceError", "Unavailable"]


class SourceError(Exception):
    """Root; the message is one line for a person, and says what to do."""


class Refused(SourceError):
    """Retrying cannot succeed."""


class Differs(Refused):
    """Bytes that aren't those that were pinned: nothing is made of them."""


class NoRoom(SourceError):
    """No space left for the files."""


class Unavailable(SourceError):
    """Another try may help, after at least ``after`` seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Changed(Unavailable):
    """What is read isn't what was begun."""
