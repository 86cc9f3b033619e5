"""The explainer without processes: a memory journal, a sealer, and the application over a local model."""

import asyncio
from typing import Any

import httpx

from governed_api.governance import Explainer
from governed_serving.explainer.service.app import Dependencies, Explanations, application
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.jobs import JobQueue, JobStore
from governed_serving.explainer.service.lanes import Lane
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.explainer.service.recorder import ExplanationRecorder
from governed_serving.journal import JournalFull
from governed_serving.records import Frame
from unit.explainer import models


class MemoryJournal:
    """Keeps what is appended; ``full`` makes it refuse."""

    def __init__(self) -> None:
        self.records: list[Frame] = []
        self.full = False

    async def append(self, record: Frame) -> None:
        if self.full:
            raise JournalFull("journal stream explainer-0: no room; free space")
        self.records.append(record)


class Xor:
    """A sealer whose ciphertext holds no plaintext; not encryption."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        return bytes(b ^ 0x5A for b in aad + b"\0" + plaintext)

    def open(self, ciphertext: bytes, aad: bytes) -> bytes:
        plain = bytes(b ^ 0x5A for b in ciphertext)
        assert plain.startswith(aad + b"\0"), "sealed under another name"
        return plain[len(aad) + 1 :]


class Bed:
    """One explainer; ``client`` speaks to it over ASGI."""

    def __init__(self, directory: Any, predict: Any = models.probabilities, **config: Any) -> None:
        self.journal = MemoryJournal()
        self.metrics = ExplainerMetrics("default", "loans")
        self.engine = Engine(models.model(), predict, Explainer(**config))
        self.lane = Lane("request", 1, 2)
        self.explanations = Explanations(
            self.engine, ExplanationRecorder(self.journal, "loans", "r1"), self.metrics, self.lane
        )
        self.delivered: list[tuple[str, bytes]] = []
        self.refusals: list[str] = []
        self.pauses: list[float] = []
        self.jobs = JobQueue(JobStore(directory, Xor()), self._work, self._deliver, limit=3, pause=self._pause)
        slow = Lane("slow", 1, 2)
        app = application(Dependencies(self.explanations, self.jobs, str, slow, webhooks=("http://hooks.example",)))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://explainer")

    async def _work(self, body: bytes, request_id: str) -> bytes:
        return await self.explanations.explain(body, request_id)

    async def _deliver(self, url: str, body: bytes) -> str:
        self.delivered.append((url, body))
        return self.refusals.pop() if self.refusals else ""

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Polls ``condition()`` until it holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  what is waited for is in product code, which signals nothing
            await asyncio.sleep(0.005)
