"""What can go wrong in the archive; translated to an HTTP status or an exit code at the edge.

ArchiveError
├── Refused          a request that can't be right (400, 403, 404, 409, 413 …)
├── Busy             come again: the queue or the disk is full (503, 507)
├── NoSuchEntry      an id that no entry has
├── LedgerDamaged    the files of the ledger are not what was signed
├── Unreachable      the client's retries are used up
└── Unverified       what was fetched is not what was asked for
"""

__all__ = [
    "ACT",
    "ENTRY_TYPE",
    "OTHER_MODEL",
    "OUT_OF_TIME",
    "TOKEN",
    "ArchiveError",
    "Busy",
    "LedgerDamaged",
    "NoSuchEntry",
    "Refused",
    "Unreachable",
    "Unverified",
]

TOKEN = "token"
"""``reason`` of a refusal: no token, or one that the archive doesn't know (401)."""
OTHER_MODEL = "model"
"""Likewise: what is asked for is another model's (403)."""
ACT = "act"
"""Likewise: the token's role doesn't do that (403)."""
ENTRY_TYPE = "type"
"""Likewise: the token's role writes no entry of this type (403); it is the entry that will never be taken."""
OUT_OF_TIME = "time"
"""Likewise: an entry claims a time that can't be (422)."""


class ArchiveError(Exception):
    """Root of the archive's errors; the message is one line for a person."""


class Refused(ArchiveError):
    """The request can't be fulfilled as it stands. ``status`` is the HTTP status, ``details`` go into the JSON
    answer."""

    def __init__(self, status: int, message: str, **details: object):
        super().__init__(message)
        self.status = status
        self.details = details


class Busy(ArchiveError):
    """The archive can't take it now."""

    def __init__(self, message: str, status: int = 503):
        super().__init__(message)
        self.status = status


class LedgerDamaged(ArchiveError):
    """The ledger's files contradict themselves or their checkpoint; ``index`` is the first entry concerned."""

    def __init__(self, message: str, index: int):
        super().__init__(message)
        self.index = index


class NoSuchEntry(ArchiveError):
    """No entry has the id that was asked for."""


class Unreachable(ArchiveError):
    """The archive didn't answer within the retries allowed."""


class Unverified(ArchiveError):
    """Bytes whose digest or signature differs from what was expected."""
