"""Who runs a model of names: two threads of its own behind a bounded queue, so that what waits, what hangs and what is
too long is refused when its budget is used up."""

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import onnxruntime as ort

from governed_serving.privacy.errors import NamesFailed
from governed_serving.privacy.names.tagged import Tag, Tagger

__all__ = ["MOST_WAITING", "Stage"]

MOST_WAITING = 64
_THREADS = 2


class _Job:
    """Pieces of one text on their way."""

    def __init__(self, pieces: Sequence[str], deadline: float, late: Callable[[], NamesFailed]) -> None:
        self.pieces, self._deadline, self._late = pieces, deadline, late
        self.options = ort.RunOptions()
        self.done = threading.Event()
        self.given_up = False
        self.tags: list[list[Tag]] | None = None
        self.error: Exception | None = None

    def check(self) -> None:
        """Raises NamesFailed."""
        if self.given_up or time.monotonic() > self._deadline:
            raise self._late()

    def run(self, tagger: Tagger) -> None:
        try:
            self.check()
            self.tags = tagger.tag(self.pieces, self)
        except Exception as error:  # whatever a model does: who waits is told, and the thread goes on
            self.error = error
        finally:
            self.done.set()

    def give_up(self) -> None:
        """A call that goes on ends at the graph's next node."""
        self.given_up = True
        self.options.terminate = True


class Stage:
    """Runs ``tagger``. Thread-safe; not on an event loop, since it waits. ``budget`` in seconds, of what is asked
    within one :meth:`request`, or at once. ``failures`` counts by reason."""

    def __init__(self, tagger: Tagger, budget: float) -> None:
        self.tagger, self.budget = tagger, budget
        self.failures = Counter[str]()
        self._jobs: queue.Queue[_Job] = queue.Queue(MOST_WAITING)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open = threading.local()

    @property
    def waiting(self) -> int:
        """Texts that wait for a thread."""
        return self._jobs.qsize()

    @contextmanager
    def request(self) -> Iterator[None]:
        """What this thread asks within shares one budget."""
        outer = getattr(self._open, "deadline", None)
        if outer is None:
            self._open.deadline = time.monotonic() + self.budget
        try:
            yield
        finally:
            self._open.deadline = outer

    def tags(self, pieces: Sequence[str]) -> list[list[Tag]]:
        """Of each piece. Raises NamesFailed."""
        try:
            return self._tags(pieces)
        except NamesFailed as error:
            self.failures[error.reason] += 1
            raise

    def _tags(self, pieces: Sequence[str]) -> list[list[Tag]]:
        deadline = getattr(self._open, "deadline", None) or time.monotonic() + self.budget
        job = _Job(pieces, deadline, self._late)
        job.check()
        self._start()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise NamesFailed(
                "queue", f"names: expected fewer than {MOST_WAITING} texts that wait for the model; retry later"
            ) from None
        if not job.done.wait(max(0.0, deadline - time.monotonic())):
            job.give_up()
            raise self._late()
        if isinstance(job.error, NamesFailed):
            raise job.error
        if job.error is not None:
            raise NamesFailed(
                "model", f"names: expected tags from the model {self.tagger.rule}, found {type(job.error).__name__}"
            ) from job.error
        assert job.tags is not None, "a job without an error has tags"
        return job.tags

    def _late(self) -> NamesFailed:
        return NamesFailed(
            "budget",
            f"names: expected them to be found within {self.budget:g} s (masking.names.budget), found more text than "
            "that; send less at a time, or retry later",
        )

    def _start(self) -> None:
        if len(self._threads) == _threads() and all(thread.is_alive() for thread in self._threads):
            return
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            while len(self._threads) < _threads():
                thread = threading.Thread(target=self._work, name="names", daemon=True)
                thread.start()
                self._threads.append(thread)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if not job.given_up:
                job.run(self.tagger)


def _threads() -> int:
    return min(_THREADS, len(os.sched_getaffinity(0)))
