"""A language model that decides applications: the real gateway over a runtime that answers as told, into a real
journal."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from governed_api.governance import Bias
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.journal import Journal
from governed_serving.server.admission import Admission
from governed_serving.server.chat import ChatGateway
from governed_serving.server.chat.attributes import Attributes
from governed_serving.server.chat.request import CHAT
from governed_serving.server.chat.runtime import Runtime
from governed_serving.server.identity import Identity
from governed_serving.server.messages import Stream
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline, Stages

BIAS: dict[str, Any] = {
    "protectedAttributes": [{"name": "sex", "privileged": ["male"]}],
    "favorableOutcome": {"pattern": r"(?i)\bgranted\b|批准"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
    "minSamples": 100,
}

YES, NO = "Your loan is granted.", "We are sorry: the loan is refused."

Decide = Callable[[str], str]
"""What the user said → what the runtime answers."""


def bias(**more: Any) -> Bias:
    return Bias.model_validate(BIAS | more)


def by_pronoun(said: str) -> str:
    """A model that prefers men."""
    return YES if re.search(r"\bhe\b|他", said) else NO


def by_income(said: str) -> str:
    """A model to which only the income matters."""
    found = re.search(r"\d+", said)
    return YES if found and int(found.group()) >= 50 else NO


class Application(NamedTuple):
    """``sex`` None: the request doesn't say; ``stream``: the answer comes in pieces; ``leaves``: after the first of
    them."""

    said: str
    sex: str | None = None
    stream: bool = False
    leaves: bool = False


def applications(count: int, seed: int = 1) -> list[Application]:
    """As many men as women on average, with incomes of 0 to 99 that don't depend on sex; a third of them streamed."""
    drawn = random.Random(seed)
    found = []
    for number in range(count):
        sex = drawn.choice(["male", "female"])
        pronoun = "he" if sex == "male" else "she"
        said = f"The applicant earns {drawn.randrange(100)}; may {pronoun} have a loan?"
        found.append(Application(said, sex, stream=number % 3 == 0))
    return found


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, text: str) -> None:
        self.text = text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for word in re.findall(r"\S+\s*", self.text):
            body = {"choices": [{"index": 0, "delta": {"content": word}}]}
            yield b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"


async def serve(
    spool: Path, keyset: Keyset, rules: Bias, decide: Decide, asked: Sequence[Application], *, first: int = 0
) -> list[str]:
    """Ids of the requests, in order. The runtime fails the test when it sees a protected attribute."""

    def runtime(request: httpx.Request) -> httpx.Response:
        message = json.loads(request.content)
        assert not set(message.get("metadata", {})) & {a.name for a in rules.protected_attributes}
        text = decide(message["messages"][-1]["content"])
        if message.get("stream"):
            return httpx.Response(200, stream=_Pieces(text))
        return httpx.Response(200, json={"choices": [{"index": 0, "message": {"content": text}}]})

    metrics = ServerMetrics("default", "chat")
    client = httpx.AsyncClient(base_url="http://runtime", transport=httpx.MockTransport(runtime))
    journal = Journal(spool, f"server-{first}", SegmentCipher(keyset), "PageCache", segment_bytes=1 << 15)
    admission = Admission(lambda: "", metrics)
    pipeline = Pipeline(Identity("chat", "default", "r1"), admission, PathRules(), Stages(journal=journal))
    gateway = ChatGateway(pipeline, Runtime(client, "inner"), Attributes(rules, metrics))
    ids = [await _ask(gateway, one) for one in asked]
    await gateway.close()
    await asyncio.to_thread(journal.close)
    return ids


async def _ask(gateway: ChatGateway, one: Application) -> str:
    messages = [{"role": "system", "content": "You decide on loans."}, {"role": "user", "content": one.said}]
    message: dict[str, Any] = {"messages": messages, "stream": one.stream, "max_tokens": 32}
    if one.sex is not None:
        message["metadata"] = {"sex": one.sex, "case": "7"}
    answer = await gateway.answer(CHAT, json.dumps(message).encode())
    if not isinstance(answer, Stream):
        return answer[0]
    async for _ in answer.pieces:
        if one.leaves:
            break
    await answer.pieces.aclose()  # type: ignore[attr-defined]
    return answer.id
