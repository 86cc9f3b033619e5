"""Ships the spool's journal to the archive, and trims what is both shipped and counted."""

from pathlib import Path

from governed_serving.auditor.service.scheduling import Worker
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.state import AuditState
from governed_serving.journal import streams

__all__ = ["ShipWorker", "backlog"]

POLL = 1.0
"""A look costs an HTTP round trip and a dozen fsyncs, for one record as for hundreds."""


class ShipWorker(Worker):
    """Journal → archive."""

    name = "shipping"
    every = POLL
    wakes = ("reporting",)
    vital = True

    def __init__(self, state: AuditState, spool: Path, shipper: Shipper) -> None:
        self._state, self._spool, self._shipper = state, spool, shipper

    def run_once(self) -> int:
        """Ship one chunk per stream. Number of entries. Raises ArchiveError, JournalError, CryptoError, OSError."""
        count = self._shipper.step()
        for stream in streams(self._spool):
            upto = self._shipper.next_frame(stream)
            if self._state.tail is not None:
                upto = min(upto, self._state.tail.durable(stream))
            self._shipper.reader(stream).trim(upto)
        return count

    @property
    def behind(self) -> bool:
        """There was more behind a chunk."""
        return self._shipper.behind


def backlog(spool: Path) -> int:
    """Bytes in the spool's journal."""
    root = spool / "journal"
    return sum(path.stat().st_size for path in root.glob("*/*.seg")) if root.is_dir() else 0
