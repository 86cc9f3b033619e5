"""What can go wrong in the archive; translated to an HTTP status or an exit code at the edge.

ArchiveError
├── Refused          a request that can't be right (400, 403, 404, 409, 413 …)
├── Busy             come again: the queue or the disk is full (503, 507)
├── LedgerDamaged    the files of the ledger are not what was signed
├── Unreachable      the client's retries are used up
└── Unverified       what was fetched is not what was asked for
"""

__all__ = ["ArchiveError", "Busy", "LedgerDamaged", "Refused", "Unreachable", "Unverified"]


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


class Unreachable(ArchiveError):
    """The archive didn't answer within the retries allowed."""


class Unverified(ArchiveError):
    """Bytes whose digest or signature differs from what was expected."""
