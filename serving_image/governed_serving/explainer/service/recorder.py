"""Explanations into the explainer's own journal stream, before anyone sees them."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from governed_serving.journal import JournalError
from governed_serving.records import EventRecord, EventType, ExplanationRecord, Frame

__all__ = ["ExplanationRecorder", "JournalLike"]


class JournalLike(Protocol):
    """What is needed of :class:`governed_serving.journal.Journal`."""

    def append(self, record: Frame) -> Awaitable[object]: ...


class ExplanationRecorder:
    """``record`` returns once the journal has the explanation, or raises the journal's error.

    With ``lost`` (failure policy Open) an explanation that can't be recorded goes out all the same, and ``lost()``
    counts it.
    """

    def __init__(
        self,
        journal: JournalLike,
        model: str,
        revision: str,
        *,
        lost: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._model, self._revision, self._clock = journal, model, revision, clock
        self._lost = lost

    async def record(self, request_id: str, body: bytes) -> None:
        """The explanation of ``request_id`` exactly as it goes out."""
        await self._append(ExplanationRecord(request_id, self._model, self._revision, self._clock(), body))

    async def event(self, kind: EventType, identifier: str, body: bytes, summary: Mapping[str, object]) -> None:
        """Anything else that must be provable, such as a drift alarm."""
        now = self._clock()
        await self._append(EventRecord(kind, identifier, self._model, self._revision, now, body, dict(summary)))

    async def _append(self, record: Frame) -> None:
        try:
            await self._journal.append(record)
        except JournalError:
            if self._lost is None:
                raise
            self._lost()
