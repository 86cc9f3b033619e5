"""Group commit: one thread appends whatever waits, with one fsync; the queue is bounded and says so when it is full."""

import queue
import threading
import time
from concurrent.futures import Future

from governed_serving.archive.errors import ArchiveError, Busy, Refused
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Appended, Ledger
from governed_serving.containment import contained
from governed_serving.hosting.logs import log

__all__ = ["Appender"]

_WAITING = 1024
_GROUP_ENTRIES = 16_384
_CHECKPOINT_SECONDS = 1.0

_Job = tuple[Batch, "Future[Appended]"]


class Appender:
    """Owns the writing side of ``ledger``; signs a checkpoint once a second while entries come."""

    def __init__(self, ledger: Ledger, waiting: int = _WAITING):
        self._ledger = ledger
        self._queue: queue.Queue[_Job | None] = queue.Queue(waiting)
        self._held: list[_Job] = []
        self._closed = False
        self._refusing = ""
        self._signed = time.monotonic()
        self.groups = 0
        self.group_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="appender", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> "Future[Appended]":
        """Queue a batch; the future resolves once it is durable, or raises Refused, Busy. Raises :class:`Busy` when
        full."""
        if self._closed:
            raise Busy("the archive is stopping; try again")
        if self._refusing:
            raise Busy(self._refusing)
        job: _Job = (batch, Future())
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise Busy(f"{self._queue.maxsize} appends are waiting already; try again") from None
        return job[1]

    def refuse(self, why: str) -> None:
        """Take no more: ``why`` is what whoever appends is told."""
        self._refusing = why

    @property
    def waiting(self) -> int:
        """Batches in the queue."""
        return self._queue.qsize()

    def close(self) -> None:
        """Append what is queued and stop."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping or self._held:
            group, stopping = self._next_group(stopping)
            if group:
                self._commit([job for job in group if job[1].set_running_or_notify_cancel()])
            if time.monotonic() - self._signed >= _CHECKPOINT_SECONDS:
                self._sign()

    def _next_group(self, stopping: bool) -> tuple[list[_Job], bool]:
        """What waits, each stream once; further batches of the same stream are held back for the next group."""
        waiting, self._held = self._held, []
        if not waiting and not stopping:
            try:
                first = self._queue.get(timeout=_CHECKPOINT_SECONDS)
            except queue.Empty:
                return [], False
            stopping = first is None
            waiting = [first] if first else []
        while not stopping and sum(len(b.entries) for b, _ in waiting) < _GROUP_ENTRIES:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            stopping = job is None
            waiting += [job] if job else []
        group: dict[tuple[str, str], _Job] = {}
        for job in waiting:
            key = (job[0].model, job[0].stream)
            if key in group:
                self._held.append(job)
            else:
                group[key] = job
        return list(group.values()), stopping

    def _commit(self, group: list[_Job]) -> None:
        began = time.perf_counter()
        try:
            answers = contained(self._ledger.append_group, [batch for batch, _ in group])
        except Exception as error:  # whatever it is: who waits is told, and the thread goes on
            if not isinstance(error, (OSError, ArchiveError)):
                log("error", "appending failed unexpectedly", exception=error)
            problem = Busy(f"the ledger can't be written: {error or type(error).__name__}", status=507)
            for _, future in group:
                future.set_exception(problem)
            return
        self.groups += 1
        self.group_seconds += time.perf_counter() - began
        for (_, future), answer in zip(group, answers, strict=True):
            if isinstance(answer, Refused):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _sign(self) -> None:
        self._signed = time.monotonic()
        try:
            contained(self._ledger.checkpoint)
        except (OSError, ArchiveError):
            return  # a full disk, a damaged tree: appends go on or answer 507; one is signed once it can be
        except Exception as error:
            log("error", "signing a checkpoint failed unexpectedly, retrying", exception=error)
