"""The foreign runtime that speaks OpenAI's protocol, as the gateway asks it: whole answers, streams, and its failures
in our terms."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec

from governed_serving.decoding import decode_json
from governed_serving.server.chat.request import Message
from governed_serving.server.errors import DeadlineExceeded, InvalidRequest, ServerError, UpstreamFailed

__all__ = ["Message", "Runtime", "RuntimeStream"]


class RuntimeStream:
    """An answer that is coming."""

    def __init__(self, stack: AsyncExitStack, answer: httpx.Response, runtime: "Runtime") -> None:
        self._stack, self._answer, self._runtime = stack, answer, runtime
        self._ended = False

    async def chunks(self) -> AsyncGenerator[Message, None]:
        """Its events, decoded. Raises UpstreamFailed, DeadlineExceeded."""
        try:
            async for line in self._answer.aiter_lines():
                data = line.removeprefix("data:").strip()
                if line.startswith("data:") and data == "[DONE]":
                    self._ended = True
                elif line.startswith("data:") and data:
                    yield decode_json(data)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise self._runtime.failure(error) from error

    def check_ended(self) -> None:
        """Raises UpstreamFailed where the connection closed before the runtime said that its answer was over."""
        if not self._ended:
            raise UpstreamFailed("runtime: expected the end of its answer ([DONE]), found the connection closed; retry")

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
        _check(answer.status_code, answer.text)
        return answer.content

    async def complete(self, path: str, message: Message) -> Message:
        """Its answer, decoded. Raises as :meth:`post`."""
        content = await self.post(path, message)
        try:
            decoded: Message = decode_json(content, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UpstreamFailed(f"runtime: expected JSON, found: {error}") from error
        return decoded

    async def stream(self, path: str, message: Message) -> RuntimeStream:
        """Its answer once it has begun; the caller closes it. Raises as :meth:`post`."""
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self.client.stream("POST", path, json=message))
            if answer.status_code != 200:
                _check(answer.status_code, (await answer.aread()).decode(errors="replace"))
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
