"""Conversations for tests: the real gateway over a runtime that answers as told, with a journal and a masker that
remember."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from governed_api.governance import Labelling, Limit, Quota
from governed_serving.journal import numbers, strings
from governed_serving.privacy import Masker
from governed_serving.server.admission import Admission
from governed_serving.server.chat import ChatGateway
from governed_serving.server.chat.request import CHAT
from governed_serving.server.chat.runtime import Runtime
from governed_serving.server.explainer_client import ExplainerClient
from governed_serving.server.identity import Identity
from governed_serving.server.masking import Masking
from governed_serving.server.messages import Stream
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline, Stages
from governed_serving.server.quota import LocalQuota
from unit.server.planes import MemoryJournal, masker_of

ANSWER = {
    "id": "x",
    "model": "inner",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a secret answer"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}


def chunk(text: str = "", **more: Any) -> bytes:
    body = {"id": "x", "choices": [{"index": 0, "delta": {"content": text}}] if text else []} | more
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Pieces(httpx.AsyncByteStream):
    """A stream that can be held back and that knows that it was closed."""

    def __init__(self, pieces: list[bytes], gate: asyncio.Event | None = None, error: Exception | None = None) -> None:
        self.pieces, self.gate, self.error, self.closed = pieces, gate, error, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, piece in enumerate(self.pieces):
            if number and self.gate is not None:
                await self.gate.wait()
            yield piece
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed = True


class World:
    """A gateway over a runtime that answers as told and remembers what it was asked."""

    def __init__(
        self,
        answer: Callable[[httpx.Request], httpx.Response] | None = None,
        *,
        tokens: int | None = None,
        quota: Any = None,
        max_concurrent: int | None = None,
        ready: Callable[[], str] = lambda: "",
        masker: Any = None,
        masking_policy: Any = "Closed",
        requests: bool = True,
        answers: bool = True,
        journal: MemoryJournal | None = None,
        explainer: ExplainerClient | None = None,
        promises: Any = None,
        accounts: Callable[[ServerMetrics], Any] = lambda _: None,
        labelling: Labelling | None = None,
        **more: Any,
    ) -> None:
        self.seen: list[dict[str, Any]] = []
        self.journal = journal or MemoryJournal()
        self.metrics = ServerMetrics("default", "chat")
        self.quota = LocalQuota(Quota(tokens=[Limit(limit=tokens, window="1h")]), "k") if tokens else quota
        self.admission = Admission(ready, self.metrics, quota=self.quota, max_concurrent=max_concurrent)

        def runtime(request: httpx.Request) -> httpx.Response:
            self.seen.append(json.loads(request.content))
            return answer(request) if answer else httpx.Response(200, json=ANSWER)

        client = httpx.AsyncClient(base_url="http://runtime", transport=httpx.MockTransport(runtime))
        self.pipeline = Pipeline(
            Identity("chat", "default", "r1"),
            self.admission,
            PathRules(**more),
            Stages(
                masking=Masking(
                    masker if isinstance(masker, Masker) else masker_of(masker, masking_policy),
                    requests=requests,
                    answers=answers,
                ),
                journal=self.journal,
                explainer=explainer,
                promises=promises,
                accounts=accounts(self.metrics),
            ),
        )
        self.gateway = ChatGateway(
            self.pipeline, Runtime(client, "inner", self.pipeline.rules.timeout), labelling=labelling
        )

    async def chat(self, content: Any = "my secret", **more: Any) -> Any:
        message = {"model": "chat", "messages": [{"role": "user", "content": content}], "max_tokens": 16} | more
        return await self.gateway.answer(CHAT, json.dumps(message).encode())

    def records(self) -> list[tuple[str, str, str, int]]:
        return [
            (
                strings(f.features["prompt"])[0],
                strings(f.outputs["state"])[0],
                strings(f.outputs["completion"])[0],
                int(numbers(f.outputs["tokens"])[0]),
            )
            for f in self.journal.frames
        ]

    def left(self) -> int:
        assert self.quota is not None
        item, key = self.quota._windows._tokens.items[0]
        return int(self.quota._limiter.get_window_stats(item, key).remaining)


async def read(stream: Stream) -> list[bytes]:
    return [piece async for piece in stream.pieces]


class Explainer:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def client(self) -> ExplainerClient:
        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append((request.url.path, json.loads(request.content) if request.content else {}))
            return httpx.Response(202 if request.url.path.endswith("explanations") else 200, json={"seen": True})

        return ExplainerClient("http://explainer", "chat", timeout=5, transport=httpx.MockTransport(answer))
