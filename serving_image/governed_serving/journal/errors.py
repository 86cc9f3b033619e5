"""What can go wrong with a journal; each message is one line for a person.

JournalError
├── JournalFull     no room (spool limit, disk, quota): nothing of the record was kept
├── JournalBusy     too many records wait already: come again
├── JournalStalled  the volume doesn't answer; what becomes of the record isn't known
├── JournalLocked   another process writes this stream
├── JournalDamaged  what is on disk isn't what was written; names stream and frame
├── RecordRefused   the record doesn't fit its schema; the others of its group aren't touched
└── JournalClosed   it was closed, or its thread has ended
"""

__all__ = [
    "JournalBusy",
    "JournalClosed",
    "JournalDamaged",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalStalled",
    "RecordRefused",
]


class JournalError(Exception):
    """Root of the journal's errors."""


class JournalFull(JournalError):
    """No room for the record."""


class JournalBusy(JournalError):
    """More records wait than the queue may hold."""


class JournalStalled(JournalError):
    """The volume neither took the record nor failed within the time that a caller is held: the record may be there
    later, and whoever was told this hasn't been answered."""


class JournalLocked(JournalError):
    """The stream has a writer already."""


class JournalDamaged(JournalError):
    """A frame that doesn't authenticate, or isn't where it was. ``seq`` is the first one concerned."""

    def __init__(self, stream: str, seq: int, what: str):
        super().__init__(f"journal stream {stream}, frame {seq}: {what}")
        self.stream = stream
        self.seq = seq
        self.what = what


class RecordRefused(JournalError):
    """The record can't be encoded."""


class JournalClosed(JournalError):
    """Nothing can be appended any more."""
