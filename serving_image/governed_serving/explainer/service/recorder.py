"""Explanations into the explainer's own journal stream, before anyone sees them."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from governed_serving.records import EventRecord, ExplanationRecord, Frame

__all__ = ["JournalLike", "Recorder"]


class JournalLike(Protocol):
    """What is needed of :class:`governed_serving.journal.Journal`."""

    def append(self, record: Frame) -> Awaitable[Any]: ...


class Recorder:
    """``record`` returns once the journal has the explanation; its errors are the journal's own."""

    def __init__(self, journal: JournalLike, model: str, revision: str, clock: Callable[[], float] = time.time) -> None:
        self._journal, self._model, self._revision, self._clock = journal, model, revision, clock

    async def record(self, request_id: str, body: bytes) -> None:
        """The explanation of ``request_id`` exactly as it goes out."""
        await self._journal.append(ExplanationRecord(request_id, self._model, self._revision, self._clock(), body))

    async def event(self, kind: str, identifier: str, body: bytes, summary: dict[str, Any]) -> None:
        """Anything else that must be provable, such as a drift alarm."""
        now = self._clock()
        await self._journal.append(EventRecord(kind, identifier, self._model, self._revision, now, body, summary))
