"""Messages on their way in: how many are taken in at a time, and how long one may take.

grpcio tells nothing of a message before all of it is in memory. So a call is only read in its turn; until then its
stream holds no more than :data:`WINDOW`. What takes long gets one of a few places of its own, else it makes room for
who waits: those who send nothing hold up nobody, and what all messages hold together is bounded.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from governed_serving.server.errors import DeadlineExceeded, NoRoom, ServerError

__all__ = ["WINDOW_OPTIONS", "Receiving"]

WINDOW = 1 << 16
"""Bytes that come of a call before it is read (RFC 9113, 6.9.2)."""
WINDOW_OPTIONS = (("grpc.http2.lookahead_bytes", WINDOW), ("grpc.http2.bdp_probe", 0))
"""Of a server: its streams' windows stay as they are."""
PLACES = 4
"""Calls that are read at a time, beside those that take long; a small message takes a turn of the event loop."""
SHORT_SECONDS = 0.05
"""A message that has not come by then takes long."""
LOOKING_SECONDS = SHORT_SECONDS / 5
"""Between looks: so much of a time in which the loop stood still counts as the messages', the rest is forgiven."""
LONG = 4
"""Of which so many may: as many whole messages as HTTP's room has bodies. Others are refused."""
LONGEST_SECONDS = 30.0
"""A message that takes longer is refused."""

Message = Any
"""Of grpc, which comes without types."""


class Receiving:
    """``refuse`` ends a call whose message is still coming. Lives on the event loop."""

    def __init__(self, refuse: Callable[[Message, ServerError], Awaitable[None]]) -> None:
        self._refuse = refuse
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._called = 0
        """Of those that waited, who have places and don't read yet: they do in the next turn of the loop."""
        self._short: dict[Message, float] = {}
        """Since when each is read."""
        self._long: dict[Message, float] = {}
        self._refused: dict[Message, asyncio.Task[None]] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When it looks next."""

    async def message(self, context: Message) -> bytes:
        """The call's message; empty where it has none. Raises what ends the call."""
        if self._waiting or self._free() <= 0:
            await self._turn()
        loop = asyncio.get_running_loop()
        self._short[context] = loop.time()
        if self._looking is None:
            self._look_later(loop)
        try:
            raw = await context.read()
        finally:
            self._short.pop(context, None)
            self._long.pop(context, None)
            self._admit()
        return raw if isinstance(raw, bytes) else b""

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it is another's now
                self._called -= 1
                self._admit()
            raise
        self._called -= 1

    def _free(self) -> int:
        return PLACES - len(self._short) - self._called

    def _admit(self) -> None:
        while self._free() > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._called += 1

    def _look(self) -> None:
        """Who takes long leaves the short places; who is too much, or too late, is refused."""
        loop = asyncio.get_running_loop()
        now, self._looking = loop.time(), None
        self._forgive(now - self._due)
        for context, since in list(self._short.items()):
            if since > now - SHORT_SECONDS:
                continue
            del self._short[context]
            if len(self._long) < LONG:
                self._long[context] = since
            else:
                self._end(context, NoRoom(
                    f"server: expected at most {LONG} messages at a time that take {SHORT_SECONDS * 1000:.0f} ms or "
                    "more to arrive, found more; retry in a moment"
                ))  # fmt: skip
        for context, since in self._long.items():
            if since <= now - LONGEST_SECONDS and context not in self._refused:
                self._end(context, DeadlineExceeded(
                    f"server: expected the whole message within {LONGEST_SECONDS:.0f} s, found a part; send it faster"
                ))  # fmt: skip
        self._admit()
        if self._short or self._long:
            self._look_later(loop)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + LOOKING_SECONDS
        self._looking = loop.call_at(self._due, self._look)

    def _forgive(self, seconds: float) -> None:
        """The loop was elsewhere for so long, and took in nothing of what came: nobody's messages are late by that."""
        if seconds > 0:
            for reading in (self._short, self._long):
                for context in reading:
                    reading[context] += seconds

    def _end(self, context: Message, error: ServerError) -> None:
        async def refuse() -> None:
            try:
                await self._refuse(context, error)
            finally:
                del self._refused[context]

        self._refused[context] = asyncio.get_running_loop().create_task(refuse())
