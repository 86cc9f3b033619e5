"""The foreign runtime that speaks OpenAI's protocol, as the gateway asks it: whole answers, streams, and its failures
in our terms."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import httpx
import msgspec

from governed_serving.decoding import decode_json
from governed_serving.server.chat.event_stream import EventStream
from governed_serving.server.chat.request import Message
from governed_serving.server.errors import (
    DeadlineExceeded,
    RuntimeBusy,
    RuntimeRefused,
    ServerError,
    UpstreamFailed,
)

__all__ = ["Message", "Runtime", "RuntimeStream"]


class RuntimeStream:
    """An answer that is coming."""

    def __init__(self, stack: AsyncExitStack, answer: httpx.Response, runtime: "Runtime") -> None:
        self._stack, self._answer, self._runtime = stack, answer, runtime
        self._ended = False
        self._open: dict[int, bool] = {}
        """Choice → whether it hasn't said that it is finished."""

    async def chunks(self) -> AsyncGenerator[Message, None]:
        """Its events, decoded, until its answer is over. Raises UpstreamFailed: also for an answer that isn't over when
        the connection closes, and for an error among the events. Raises DeadlineExceeded."""
        events = EventStream()
        try:
            async for piece in self._answer.aiter_bytes():
                for data in events.feed(piece):
                    if (chunk := self._chunk(data)) is not None:
                        yield chunk
                if self._ended:
                    return
            for data in events.rest():
                if (chunk := self._chunk(data)) is not None:
                    yield chunk
        except httpx.HTTPError as error:
            raise self._runtime.failure(error) from error
        if not self._ended and (not self._open or any(self._open.values())):
            raise UpstreamFailed(
                "runtime: expected the end of its answer (finish_reason, [DONE]), found the connection closed; retry"
            )

    def _chunk(self, data: bytes) -> Message | None:
        """None of what comes at and behind the end. Raises UpstreamFailed."""
        self._ended = self._ended or data.strip() == b"[DONE]"
        if self._ended or not data.strip():
            return None
        chunk = _decoded(data)
        if (error := chunk.get("error")) and not chunk.get("choices"):
            raise UpstreamFailed(f"runtime: expected an answer, found an error in its middle: {_words(error)}")
        for number, finished in _choices(chunk):
            self._open[number] = self._open.get(number, True) and not finished
        return chunk

    async def aclose(self) -> None:
        """Drop the connection."""
        await self._stack.aclose()


class Runtime:
    """``client``'s runtime, which calls the model ``model``; it has ``timeout`` seconds to answer."""

    def __init__(self, client: httpx.AsyncClient, model: str, timeout: float = 60.0) -> None:
        self.client, self.model, self._timeout = client, model, timeout

    async def post(self, path: str, message: Message) -> bytes:
        """The body of its answer. Raises InvalidRequest, UpstreamFailed, DeadlineExceeded."""
        try:
            answer = await self.client.post(path, json=message)
        except httpx.HTTPError as error:
            raise self.failure(error) from error
        _check(answer, answer.text)
        return answer.content

    async def complete(self, path: str, message: Message) -> Message:
        """Its answer, decoded. Raises as :meth:`post`."""
        answer = _decoded(await self.post(path, message))
        _choices(answer)
        return answer

    async def stream(self, path: str, message: Message) -> RuntimeStream:
        """Its answer once it has begun; the caller closes it. Raises as :meth:`post`."""
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self.client.stream("POST", path, json=message))
            if answer.status_code != 200:
                _check(answer, (await answer.aread()).decode(errors="replace"))
        except httpx.HTTPError as error:
            await stack.aclose()
            raise self.failure(error) from error
        except BaseException:
            await stack.aclose()
            raise
        return RuntimeStream(stack, answer, self)

    def failure(self, error: Exception) -> ServerError:
        """What the client is told of a connection that failed."""
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return DeadlineExceeded.after(self._timeout)
        return UpstreamFailed(
            f"runtime: expected an answer, found {type(error).__name__}; it may be restarting, retry later"
        )

    async def close(self) -> None:
        """Drop connections."""
        await self.client.aclose()


def _check(answer: httpx.Response, text: str) -> None:
    """What the runtime refuses passes with its status, and that it has no room with its Retry-After; its failures are
    502, and so is that it doesn't know us."""
    status = answer.status_code
    if status == 200:
        return
    if status in (429, 503):
        raise RuntimeBusy(f"runtime: {_message(text)}", status, answer.headers.get("retry-after", ""))
    if 400 <= status < 500 and status not in (401, 403, 407):
        raise RuntimeRefused(f"runtime: {_message(text)}", status)
    raise UpstreamFailed(f"runtime: expected an answer, found status {status}: {_message(text)}")


def _decoded(data: bytes) -> Message:
    """An answer, or a chunk of one. Raises UpstreamFailed for what is no JSON object."""
    try:
        message = decode_json(data)
    except msgspec.DecodeError as error:
        raise UpstreamFailed(f"runtime: expected JSON, found: {error}") from error
    if not isinstance(message, dict):
        raise UpstreamFailed("runtime: expected a JSON object, found another value")
    return message


def _choices(message: Message) -> list[tuple[int, bool]]:
    """(number, whether it says that it is finished) of each in an answer or a chunk. Raises UpstreamFailed."""
    choices = message.get("choices") or []
    if not isinstance(choices, list):
        raise UpstreamFailed("runtime: expected a list of choices, found something else")
    told: list[tuple[int, bool]] = []
    for choice in choices:
        number = (choice.get("index") or 0) if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(number, int):
            raise UpstreamFailed("runtime: expected choices with a number each, found something else")
        told.append((number, bool(choice.get("finish_reason"))))
    return told


def _message(text: str) -> str:
    try:
        return _words(decode_json(text.encode())["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return text[:200]


def _words(error: object) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:400]
