"""One governed completion: decode → mask → reserve → journal the prompt → runtime → journal the completion → settle → end.

The prompt is in the journal before the runtime sees it, the completion before the client learns that it is complete.
"""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import time
from typing import Any, Literal

import httpx
import msgspec

from governed_serving.completions.conversation import last_spoken
from governed_serving.decoding import decode_json
from governed_serving.hosting.logs import log
from governed_serving.journal.columns import pack
from governed_serving.journal.errors import JournalError
from governed_serving.records import PredictionFrame
from governed_serving.server.admission import Admission
from governed_serving.server.app.json_route import Stream
from governed_serving.server.chat import explaining
from governed_serving.server.chat import request as requests
from governed_serving.server.chat.attributes import Attributes, parameters_of
from governed_serving.server.chat.events import DONE, Completion, error_event
from governed_serving.server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    JournalUnavailable,
    NotFound,
    ServerError,
    UpstreamFailed,
)
from governed_serving.server.explanation import ExplainerClient, Proxied, Verb
from governed_serving.server.identifiers import Identifiers
from governed_serving.server.masking import Masking
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.recording import Journal

__all__ = ["ChatGateway"]

State = Literal["started", "complete", "cut"]
UNREAD_SECONDS = 10.0
PATIENCE = 0.5
"""Seconds that the explainer waits for a moment without requests, each time."""


@dataclass
class _Call:
    """One completion on its way."""

    id: str
    prompt: str
    reserved: int
    prompt_tokens: int
    completion: Completion = field(default_factory=Completion)
    settled: bool = False
    slot: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


class ChatGateway:
    """Governs ``client``'s runtime. ``runtime_model``: the model's name there; ``explainer``: where completions are explained;
    ``attributes``: those that are journalled for the auditor, and protected ones kept from the runtime."""

    def __init__(
        self,
        model: str,
        runtime_model: str,
        revision: str,
        client: httpx.AsyncClient,
        admission: Admission,
        metrics: ServerMetrics,
        *,
        masking: Masking | None,
        journal: Journal | None,
        journal_policy: Literal["Closed", "Open"] = "Closed",
        timeout: float = 60.0,
        concurrency: int = 0,
        explainer: ExplainerClient | None = None,
        attributes: Attributes | None = None,
    ) -> None:
        self._model, self._runtime_model, self._revision = model, runtime_model, revision
        self._client, self._admission, self._metrics = client, admission, metrics
        self._masking, self._journal, self._closed = masking, journal, journal_policy == "Closed"
        self._timeout = timeout
        self._slots = asyncio.Semaphore(concurrency) if concurrency else None
        self._explainer, self._attributes = explainer, attributes
        self._internal, self._quiet = asyncio.Semaphore(1), asyncio.Event()
        self._quiet.set()
        self._new_id = Identifiers()
        self._endings: set[asyncio.Task[None]] = set()

    async def answer(self, path: str, body: bytes) -> tuple[str, bytes] | Stream:
        """(request id, JSON), or a stream of server-sent events. Raises ServerError."""
        try:
            answer = await self._answer(path, body)
        except ServerError as error:
            self._metrics.requests["chat", error.status] += 1
            raise
        self._metrics.requests["chat", 200] += 1
        return answer

    async def explain(self, body: bytes, *, later: bool) -> Proxied:
        """A governed completion and its explanation, or a ticket for it. Raises ServerError."""
        try:
            answer = await self._explain(body, "explanations" if later else "explain")
        except ServerError as error:
            self._metrics.requests["explain", error.status] += 1
            raise
        self._metrics.requests["explain", answer.status] += 1
        return answer

    async def _explain(self, body: bytes, verb: Verb) -> Proxied:
        explainer = self._explaining()
        path, asked, options = explaining.taken_apart(body)
        message = await self._prepared(path, asked)
        spoken = last_spoken(requests.prompt_text(path, message))
        if spoken is None:
            raise InvalidRequest("messages: expected a user's message of plain text to explain, found none")
        answer = await self._run(path, message)
        assert not isinstance(answer, Stream), "streams were refused"
        identity, completion = answer[0], explaining.first_text(answer[1])
        if self._masking is not None:
            completion = (await asyncio.to_thread(self._masking.texts, [completion]))[0]
        return await explainer.submit(explaining.explainer_body(identity, spoken, completion, options), identity, verb)

    async def read_explainer(self, path: str) -> Proxied:
        """GET something of the explainer's. Raises ServerError."""
        return await self._explaining().read(path)

    def _explaining(self) -> ExplainerClient:
        if self._explainer is None:
            raise NotFound(f"model {self._model!r}: expected spec.explainer, found none; add it to have explanations")
        return self._explainer

    async def internal(self, path: str, body: bytes) -> bytes:
        """The runtime's own answer to the explainer: neither admitted nor masked nor journalled. One at a time, when no request is
        open, or after ``PATIENCE`` seconds behind requests. Raises ServerError."""
        message = requests.decode(path, body, self._model, masked=False)
        message["model"] = self._runtime_model
        async with self._internal:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), PATIENCE)
            return (await self._post(path, message)).content

    async def _answer(self, path: str, body: bytes) -> tuple[str, bytes] | Stream:
        return await self._run(path, await self._prepared(path, body))

    async def _prepared(self, path: str, body: bytes) -> dict[str, Any]:
        """The request as the runtime may see it."""
        message = requests.decode(path, body, self._model, masked=self._masking is not None)
        message["model"] = self._runtime_model
        return await asyncio.to_thread(self._mask, message)

    async def _run(self, path: str, message: dict[str, Any]) -> tuple[str, bytes] | Stream:
        attributes = self._attributes.taken(message) if self._attributes else {}
        reserved, most = requests.budget(path, message)
        if self._admission.counts_tokens:
            # under the older name too: a runtime that knows only that one would go on and on
            message["max_tokens"] = most
        call = _Call(self._new_id(), requests.prompt_text(path, message), reserved, reserved - most)
        if self._attributes is not None:
            call.attributes = {**attributes, **parameters_of(message)}
        await self._admission.enter_shared(reserved)
        self._quiet.clear()
        try:
            await self._slot(call)
            await self._write(call, "started")
            if message.get("stream"):
                return await self._stream(path, message, call)
            return call.id, await self._whole(path, message, call)
        except BaseException:
            await self._end(call, "cut", record=False)
            raise

    async def _slot(self, call: _Call) -> None:
        """Wait for one of spec.predictor.containerConcurrency places. Raises DeadlineExceeded."""
        if self._slots is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError as error:
            raise _late(self._timeout) from error
        call.slot = True

    def _mask(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._masking is None:
            return message
        masked: dict[str, Any] = requests.with_strings(
            message, iter(self._masking.texts(list(requests.strings(message))))
        )
        return masked

    async def _whole(self, path: str, message: dict[str, Any], call: _Call) -> bytes:
        answer = await self._post(path, message)
        try:
            decoded: dict[str, Any] = decode_json(answer.content, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UpstreamFailed(f"runtime: expected JSON, found: {error}") from error
        call.completion.take(decoded)
        await self._end(call, "complete", record=True)
        decoded["model"] = self._model
        return msgspec.json.encode(decoded)

    async def _post(self, path: str, message: dict[str, Any]) -> httpx.Response:
        """Raises ServerError unless the runtime answers 200."""
        try:
            answer = await self._client.post(path, json=message)
        except httpx.HTTPError as error:
            raise self._away(error) from error
        _check(answer.status_code, answer.text)
        return answer

    async def _stream(self, path: str, message: dict[str, Any], call: _Call) -> Stream:
        asked = bool((message.get("stream_options") or {}).get("include_usage"))
        message["stream_options"] = {**(message.get("stream_options") or {}), "include_usage": True}
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self._client.stream("POST", path, json=message))
            if answer.status_code != 200:
                _check(answer.status_code, (await answer.aread()).decode(errors="replace"))
        except httpx.HTTPError as error:
            await stack.aclose()
            raise self._away(error) from error
        except BaseException:
            await stack.aclose()
            raise
        # a client that leaves before the first piece never starts the generator: then nobody else would end the call
        unread = asyncio.get_running_loop().call_later(UNREAD_SECONDS, lambda: self._spawn(self._close(stack, call)))
        return Stream(call.id, self._pieces(stack, answer, call, asked, unread))

    async def _pieces(
        self, stack: AsyncExitStack, answer: httpx.Response, call: _Call, asked: bool, unread: asyncio.TimerHandle
    ) -> AsyncIterator[bytes]:
        unread.cancel()
        try:
            async for line in answer.aiter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or not data or data == "[DONE]":
                    continue
                chunk = decode_json(data)
                call.completion.take(chunk)
                if asked or chunk.get("choices") or "usage" not in chunk:
                    chunk["model"] = self._model
                    yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"
            await self._end(call, "complete", record=True)
            yield DONE
        except (httpx.HTTPError, msgspec.DecodeError, ServerError) as error:
            log("warning", "a stream was cut", kind=type(error).__name__)
            yield error_event(str(error) if isinstance(error, ServerError) else str(self._away(error)))
        finally:  # the client may have left: what was generated is still recorded and settled, in a task that can't be cancelled with us
            if not call.settled:
                self._metrics.count["streams_cut"] += 1
            self._spawn(self._close(stack, call))

    async def _close(self, stack: AsyncExitStack, call: _Call) -> None:
        await stack.aclose()
        await self._end(call, "cut", record=True)

    def _away(self, error: Exception) -> ServerError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return _late(self._timeout)
        return UpstreamFailed(
            f"runtime: expected an answer, found {type(error).__name__}; it may be restarting, retry later"
        )

    def _spawn(self, ending: Any) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log("error", "the end of a stream could not be recorded", kind=type(error).__name__)

    async def _end(self, call: _Call, state: State, *, record: bool) -> None:
        """Settle once, and record what was generated. Raises JournalUnavailable."""
        if call.settled:
            return
        call.settled = True
        if call.slot and self._slots is not None:
            self._slots.release()
        self._admission.leave()
        if not self._admission.open:
            self._quiet.set()
        used = call.completion.tokens(call.prompt_tokens) if record else 0
        self._metrics.count["tokens"] += used - call.reserved
        quota = self._admission.quota
        if quota is not None and self._admission.counts_tokens:
            self._metrics.count["tokens_overrun"] += await quota.settle(call.reserved, used)
        if record:
            await self._write(call, state, used)

    async def _write(self, call: _Call, state: State, tokens: int = 0) -> None:
        if self._journal is None:
            return
        texts = [call.completion.text]
        if self._attributes is not None and call.completion.answer != texts[0]:
            texts.append(call.completion.answer)
        if self._masking is not None and texts[0]:
            texts = await asyncio.to_thread(self._masking.texts, texts)
        frame = PredictionFrame(
            self._model,
            self._revision,
            "",
            [call.id],
            array("d", [time()]).tobytes(),
            array("i", [1]).tobytes(),
            {
                "prompt": pack("BYTES", 1, [[call.prompt]], 1),
                **{name: pack("BYTES", 1, [[value]], 1) for name, value in call.attributes.items()},
            },
            {
                **{
                    name: pack("BYTES", 1, [[text]], 1)
                    for name, text in zip(("completion", "answer"), texts, strict=False)
                },
                "state": pack("BYTES", 1, [[state]], 1),
                "tokens": pack("INT64", 1, [[tokens]], 1),
            },
        )
        try:
            await self._journal.append(frame)
        except JournalError as error:
            if self._closed:
                raise JournalUnavailable(
                    f"journal: expected room for a record, found: {error} (failurePolicy Closed)"
                ) from error
            self._metrics.count["journal_lost_records"] += 1
            return
        self._metrics.count["journal_records"] += 1

    async def close(self) -> None:
        """Wait for endings, drop connections."""
        while self._endings:
            await asyncio.wait(self._endings)
        await self._client.aclose()
        if self._explainer is not None:
            await self._explainer.close()


def _late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"server: expected an answer within {seconds:g} s (spec.predictor.timeout), found none; retry later"
    )


def _check(status: int, text: str) -> None:
    """The runtime's refusals pass; its failures are 502."""
    if status == 200:
        return
    if 400 <= status < 500 and status not in (401, 403, 429):
        raise InvalidRequest(f"runtime: {_message(text)}")
    raise UpstreamFailed(f"runtime: expected an answer, found status {status}: {_message(text)}")


def _message(text: str) -> str:
    try:
        error = decode_json(text.encode())["error"]
        return str(error.get("message", error) if isinstance(error, dict) else error)[:400]
    except (msgspec.DecodeError, KeyError, TypeError):
        return text[:200]
