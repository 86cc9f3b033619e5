"""What the console asks, and of whom: facts that the other commands know, fetched rarely and once."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from governed_api.json_types import Json
from governed_api.verdict import BiasVerdict
from governed_operator.local.overview import Overview, Summary

__all__ = ["Away", "Facts", "Kept", "Known", "Patience", "Upstream"]

T = TypeVar("T")
Clock = Callable[[], float]
FRESH = 5.0
"""Seconds for which an answer is shown again: no page asks for the same more often."""
RECOMPUTED = 60.0
"""Seconds between two recomputations of the same ledger."""
MOST = 256
"""Answers that are kept."""
MOST_WAITING = 8
"""Recomputations that wait; further ones come when they are asked for again."""
MOST_PATIENT = 2
"""Pages that wait for a recomputation at once; further ones are shown without it, and ask again."""
MOST_RECOMPUTED = 256
"""Recomputed answers that are kept: of more models than a page shows."""


class Patience:
    """What is left of the seconds that a page waits, for all that it waits for together."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic):
        self._clock, self._until = clock, clock() + seconds

    def left(self) -> float:
        """At least 0."""
        return max(0.0, self._until - self._clock())


class Away(Exception):
    """A part that can't be read: why, and what to do."""

    def __init__(self, message: str, command: str = ""):
        super().__init__(message)
        self.command = command


class Upstream(Protocol):
    """Local runs, or a namespace of a cluster. Every method blocks and raises Away."""

    def models(self) -> Sequence[tuple[str, Summary]]:
        """(key in addresses, summary)."""
        ...

    def overview(self, key: str) -> Overview:
        """Of one of them."""
        ...

    def verdict(self, key: str) -> BiasVerdict | None:
        """Of the auditor that runs, with its groups."""
        ...

    def contests(self, key: str) -> list[dict[str, Json]]:
        """That no person has decided."""
        ...

    def facts(self, key: str, id: str) -> bytes:
        """What the serving side's ``facts`` writes: of the model, or of the request ``id``."""
        ...

    @property
    def stop(self) -> Callable[[], None]:
        """Ends what is being read; for good."""
        ...


@dataclass(frozen=True)
class Known(Generic[T]):
    """An answer or why there is none, as of ``at`` (of the clock)."""

    value: T | None
    away: Away | None
    at: float


class Kept:
    """Answers of an upstream by question, asked at most every ``fresh`` seconds and by one thread at a time."""

    def __init__(self, clock: Clock = time.monotonic, fresh: float = FRESH):
        self._clock, self._fresh = clock, fresh
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], tuple[float, Future[object]]] = OrderedDict()

    def answer(self, question: tuple[str, ...], ask: Callable[[], T]) -> T:
        """Raises what ``ask`` raised, for as long."""
        with self._lock:
            entry = self._known.get(question)
            asks = entry is None or (entry[1].done() and self._clock() - entry[0] >= self._fresh)
            if asks:
                self._known[question] = entry = (self._clock(), Future())
                self._known.move_to_end(question)
                while len(self._known) > MOST:
                    self._known.popitem(last=False)
        assert entry is not None
        future = entry[1]
        if asks:
            try:
                future.set_result(ask())
            except BaseException as error:
                future.set_exception(error)
        return future.result()  # type: ignore[return-value]  # what ask returns


def _lasts(known: Known[T]) -> float:
    """What failed is tried again sooner: a person may have mended it."""
    return RECOMPUTED if known.away is None else 2 * FRESH


class Facts:
    """Recomputations of ledgers, one after the other beside the pages; the last answer is shown meanwhile."""

    def __init__(self, upstream: Upstream, clock: Clock = time.monotonic):
        self._upstream, self._clock = upstream, clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="recompute")
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Known[dict[str, Json]]] = OrderedDict()
        self._begun: dict[tuple[str, str], Future[None]] = {}
        self._patient = threading.Semaphore(MOST_PATIENT)

    def of(self, key: str, id: str = "", patience: float = 0.0) -> dict[str, Json] | None:
        """None while it is recomputed for the first time, or waits for others to be. Raises Away."""
        asked = (key, id)
        with self._lock:
            known = self._known.get(asked)
            if known is not None:
                self._known.move_to_end(asked)
            running = self._begun.get(asked)
            due = known is None or self._clock() - known.at >= _lasts(known)
            room = MOST_WAITING if known is None else MOST_WAITING // 2  # what was shown never keeps new ones waiting
            if running is None and due and len(self._begun) < room:
                running = self._begun[asked] = self._pool.submit(self._recompute, asked)
        if running is not None and known is None:
            self._await(running, patience)
            known = self._known.get(asked)
        if known is None:
            return None
        if known.away is not None:
            raise known.away
        return known.value

    def _await(self, running: Future[None], patience: float) -> None:
        """Threads that wait here read nothing else meanwhile."""
        if not self._patient.acquire(blocking=False):
            return
        try:
            running.result(patience)
        except TimeoutError:
            pass
        finally:
            self._patient.release()

    def stop(self) -> None:
        """What waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _recompute(self, asked: tuple[str, str]) -> None:
        try:
            value = json.loads(self._upstream.facts(*asked))
            away = None if isinstance(value, dict) else Away("the serving side answered no mapping")
            known = Known[dict[str, Json]](value if away is None else None, away, self._clock())
        except Away as error:
            known = Known(None, error, self._clock())
        except Exception as error:
            known = Known(None, Away(f"{type(error).__name__}: {error}"), self._clock())
        with self._lock:
            self._known[asked] = known
            self._known.move_to_end(asked)
            while len(self._known) > MOST_RECOMPUTED:
                self._known.popitem(last=False)
            self._begun.pop(asked, None)
