"""Who reads a gRPC message when, by a clock of the test's own: what takes long, what is forgiven, who is refused."""

import asyncio
from collections.abc import Callable

import pytest

from governed_serving.server.errors import DeadlineExceeded, NoRoom, ServerError
from governed_serving.server.rpc import receiving
from governed_serving.server.rpc.receiving import LONG, LONGEST_SECONDS, PLACES, SHORT_SECONDS, Receiving


class Message:
    """A call's context, whose message has come after so many ``parts``."""

    def __init__(self, parts: int) -> None:
        self.parts, self.read_begun = parts, False
        self._whole = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        self.read_begun = True
        return await self._whole

    def part(self) -> None:
        self.parts -= 1
        if self.parts == 0:
            self._whole.set_result(b"message")

    def end(self, error: ServerError) -> None:
        if not self._whole.done():
            self._whole.set_exception(error)


class Clock:
    """The loop's: it stands but where the test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def turns(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def stand_still(self, seconds: float) -> None:
        """One turn of the loop takes so long."""
        self.now += seconds
        await self.turns()

    async def pass_by(self, seconds: float) -> None:
        """The loop turns all the while."""
        end = self.now + seconds
        while self.now < end:
            self.now += receiving.LOOKING_SECONDS / 2
            await self.turns()


def taken(parts: list[int]) -> tuple[list[Message], list["asyncio.Task[bytes]"]]:
    async def refuse(message: Message, error: ServerError) -> None:
        message.end(error)

    room = Receiving(refuse)
    messages = [Message(number) for number in parts]
    return messages, [asyncio.create_task(room.message(message)) for message in messages]


def ends(tasks: list["asyncio.Task[bytes]"], kind: type[ServerError]) -> int:
    return sum(task.done() and isinstance(task.exception(), kind) for task in tasks)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Clock]:
    return lambda: Clock(monkeypatch)


@pytest.mark.parametrize("seconds", [SHORT_SECONDS, 3 * SHORT_SECONDS, 100.0])
async def test_a_loop_that_stands_still_makes_nobody_s_message_late(clock: Callable[[], Clock], seconds: float) -> None:
    """A model that computes on the loop, or a machine with too little time: what comes meanwhile isn't slow."""
    time = clock()
    messages, tasks = taken([4] * (2 * (PLACES + LONG)))
    await time.turns()
    for _ in range(4 * len(messages)):
        reading = [message for message in messages if message.read_begun and message.parts]
        assert len(reading) <= PLACES
        await time.stand_still(seconds)
        for message in reading:
            message.part()
        await time.turns()
    assert [task.result() for task in tasks] == [b"message"] * len(messages)


async def test_a_loop_that_is_often_late_still_tells_who_takes_long(clock: Callable[[], Clock]) -> None:
    """Else four that send nothing would hold up everybody while the server is busy."""
    time = clock()
    messages, _ = taken([99] * PLACES + [1])
    await time.turns()
    for _ in range(6):
        await time.stand_still(2 * receiving.LOOKING_SECONDS)
    assert messages[-1].read_begun


async def test_what_takes_long_makes_room_and_too_many_of_them_are_refused(clock: Callable[[], Clock]) -> None:
    time = clock()
    messages, tasks = taken([99] * (PLACES + LONG) + [1])
    await time.turns()
    assert [message.read_begun for message in messages] == [True] * PLACES + [False] * (LONG + 1)
    await time.pass_by(SHORT_SECONDS * 0.9)
    assert sum(message.read_begun for message in messages) == PLACES
    await time.pass_by(SHORT_SECONDS * 0.3)
    assert sum(message.read_begun for message in messages) == 2 * PLACES
    await time.pass_by(SHORT_SECONDS * 1.2)
    assert (ends(tasks, NoRoom), ends(tasks, DeadlineExceeded)) == (PLACES, 0)
    messages[-1].part()
    await time.turns()
    assert tasks[-1].result() == b"message"
    await time.pass_by(LONGEST_SECONDS)
    assert (ends(tasks, NoRoom), ends(tasks, DeadlineExceeded)) == (PLACES, LONG)
