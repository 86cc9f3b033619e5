"""The lane for the explainer, on loopback: V2 infer without quota, masking and journal, behind every governed
request."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from governed_api import routes
from governed_serving.hosting.bodies import BodyLimit, read_body
from governed_serving.hosting.door import Door
from governed_serving.hosting.guard import Guard
from governed_serving.pod_token import PodToken
from governed_serving.server.app.fast_path import body_header, check_length, respond, too_long
from governed_serving.server.app.service import Gateway, HttpReply, failure
from governed_serving.server.errors import InvalidRequest, NotFound, ServerError, Unavailable

__all__ = ["InternalApp"]

_OPENAI = (routes.COMPLETIONS, routes.CHAT_COMPLETIONS)

MAX_OPEN = 8
"""Calls that may wait at a time; the explainer retries the rest."""


class InternalApp(Door):
    """Raw ASGI: POST /v2/models/{model}/infer, or the completions of a runtime that speaks OpenAI's protocol, and
    readiness.

    Runs in the process for the explainer's rows; before a foreign runtime, which computes elsewhere, in the server's.
    ``max_body`` in bytes; ``count`` is told a counter's name and by how much it grew; ``token``: what is
    asked for where a foreign runtime shares the pod.
    """

    def __init__(
        self, gateway: Gateway, max_body: int, count: Callable[[str, int], None], token: PodToken | None = None
    ) -> None:
        self._gateway, self._max_body, self._count = gateway, max_body, count
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._path = routes.INFER.format(model=gateway.model)
        guard = Guard.of(token, lambda: count("internal_unauthorized", 1))
        super().__init__(self._routed, lambda: count("internal_unexpected", 1), guard=guard)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the internal lane speaks HTTP alone"
        try:
            reply = await self._answer(scope, receive)
        except ServerError as error:
            reply = failure(error)
        await respond(send, reply)

    async def _answer(self, scope: Scope, receive: Receive) -> HttpReply:
        path = scope["path"]
        if scope["method"] == "GET" and path in (routes.V2_READY, routes.READY_PATH):
            if self._gateway.chat is None:
                self._gateway.computing()
            return HttpReply(200, b'{"ready":true}')
        chat = self._gateway.chat
        expected = (self._path,) if chat is None else _OPENAI
        if scope["method"] != "POST" or path not in expected:
            raise NotFound(
                f"{scope['method']} {path}: expected POST {' or '.join(expected)}, all there is on the internal lane"
            )
        if self._room.locked():
            self._count("internal_refused", 1)
            raise Unavailable(
                f"internal lane: expected at most {MAX_OPEN} calls at a time, found more; retry in a moment"
            )
        async with self._room:
            asked = body_header(scope["headers"])
            check_length(asked.length, self._max_body)
            if chat is not None:
                return HttpReply(200, await chat.internal(path, await self._body(receive)))
            encoded = await self._gateway.computing().answer(await self._body(receive), asked.header)
        if not encoded.header:
            return HttpReply(200, encoded.body)
        size = (b"inference-header-content-length", str(encoded.header).encode())
        return HttpReply(200, encoded.body, ((b"content-type", b"application/octet-stream"), size))

    async def _body(self, receive: Receive) -> bytes:
        return await read_body(receive, BodyLimit(self._max_body, self._too_long), InvalidRequest)

    def _too_long(self, length: int) -> ServerError:
        return too_long(length, self._max_body)
