"""The process for rows that no client waits for: paced, started when asked, again when it dies, and never outliving the
server."""

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from governed_serving.hosting.turns import SHORT, turn
from governed_serving.server.background import supervisor, texts
from governed_serving.server.background.supervisor import Supervisor
from governed_serving.server.background.texts import RememberedTexts
from governed_serving.server.background.throttle import (
    AT_WORK,
    LATELY,
    LEAST,
    MOST,
    SHARE,
    CpuThrottle,
    cpu_of,
    piece_rows,
)
from unit.server.planes import predictor, until


class Clocks:
    """A machine on which only pieces and rests take time; the server uses ``server_share`` of a core."""

    def __init__(self, server_share: float, rows: int = 10, cost: float = 1e-4) -> None:
        self.now, self.spent, self.cost, self.server_share = 100.0, 5.0, cost, server_share
        self.pieces: list[tuple[int, int]] = []
        self.pace = CpuThrottle(
            rows,
            lambda: self.now * self.server_share,
            spent=lambda: self.spent,
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    async def compute(self, piece: slice) -> list[int]:
        rows = list(range(piece.start, piece.stop))
        self.pieces.append((piece.start, piece.stop))
        self.now += len(rows) * self.cost
        self.spent += len(rows) * self.cost
        return rows


async def test_pieces_cover_every_row_once_and_dont_rest_beside_an_idle_server() -> None:
    bed = Clocks(server_share=AT_WORK / 2)
    parts = await bed.pace.pieces(25, bed.compute)
    assert [row for part in parts for row in part] == list(range(25))
    assert bed.pieces == [(0, 10), (10, 20), (20, 25)]
    assert bed.now == pytest.approx(100 + 25 * bed.cost)


async def test_beside_a_server_at_work_pieces_take_their_share_of_a_core_alone() -> None:
    bed = Clocks(server_share=0.5)
    bed.now += LATELY
    began, spent = bed.now, bed.spent
    await bed.pace.pieces(20_000, bed.compute)
    assert (bed.spent - spent) / (bed.now - began) == pytest.approx(SHARE, rel=0.01)


async def test_the_rest_ends_when_the_server_falls_idle() -> None:
    bed = Clocks(server_share=0.5, cost=1.0)  # a piece of ten seconds, after which three minutes of rest
    bed.now += LATELY
    await bed.pace.pieces(10, bed.compute)
    bed.server_share = 0.0
    began = bed.now
    await bed.pace.pieces(1, bed.compute)
    assert bed.now - began - bed.cost <= LATELY


async def test_one_piece_at_a_time_and_callers_take_turns() -> None:
    bed, order, inside = Clocks(server_share=0.0), [], 0

    def caller(name: str) -> Callable[[slice], Any]:
        async def compute(_: slice) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1
            order.append(name)
            await asyncio.sleep(0)
            inside -= 1

        return compute

    await asyncio.gather(bed.pace.pieces(30, caller("a")), bed.pace.pieces(30, caller("b")))
    assert order == ["a", "b", "a", "b", "a", "b"]


async def test_a_piece_that_fails_leaves_the_turn_to_others() -> None:
    bed = Clocks(server_share=0.0)

    async def broken(_: slice) -> None:
        raise ValueError("the model")

    with pytest.raises(ValueError, match="the model"):
        await bed.pace.pieces(10, broken)
    assert await bed.pace.pieces(2, bed.compute) == [[0, 1]]


@pytest.mark.parametrize(("size", "rows"), [(0, MOST), (100_000, MOST), (1 << 20, 64), (1 << 30, LEAST)])
def test_a_piece_depends_on_the_model_alone(size: int, rows: int) -> None:
    assert piece_rows(size) == rows


def test_the_clock_of_a_process_tells_its_cpu_seconds() -> None:
    own = cpu_of(os.getpid())
    before = own()
    sum(range(200_000))
    assert before < own() < before + 5


def test_texts_asked_again_and_again_are_segmented_once_and_answered_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, segmented = predictor(text=True), list[str]()
    columns = plain.example(3)
    columns[-1] = np.array([["paid, 你好"], ["late"], ["paid, 你好"]], object)
    expected, genuine = plain.run(columns), texts.segment

    def counted(given: Any, segmentation: str) -> list[str]:
        segmented.extend(given)
        return genuine(given, segmentation)

    monkeypatch.setattr(texts, "segment", counted)
    known = RememberedTexts()
    model = predictor(text=True, segmented=known)
    for _ in range(3):
        found = model.run(columns)
        assert all((one == other).all() for one, other in zip(found, expected, strict=True))
    assert segmented == ["paid, 你好", "late"]
    monkeypatch.setattr(texts, "MOST", 2)
    columns[-1] = np.array([["new"], ["late"], ["new"]], object)
    model.run(columns)
    assert len(known) == 2, "memory is bounded"


STAYS = """
import os, socket, sys, threading
lane = socket.socket(fileno=int(sys.argv[1]))
lane.setblocking(True)
while True:
    caller, _ = lane.accept()
    caller.sendall(b"%d" % os.getpid())
    print("internal_rows", 7, flush=True)
    if caller.recv(10) == b"die":
        os._exit(3)
    caller.close()
"""
ANSWERS = STAYS.replace("lane =", "threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()\nlane =", 1)


@asynccontextmanager
async def kept(program: str = ANSWERS) -> AsyncIterator[tuple[Supervisor, Counter[str], int]]:
    """A supervisor of ``program``, its counts, and its port."""
    sock, counts = socket.socket(), Counter[str]()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]

    def count(name: str, number: int) -> None:
        counts[name] += number

    made = Supervisor(sock, count, (sys.executable, "-c", program))
    made.start()
    try:
        yield made, counts, port
    finally:
        await made.stop()


async def ask(port: int, word: bytes = b"ask") -> int:
    """The pid that answers; 0 when nobody does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(word)
        answer = await reader.read(10)
        return int(answer) if answer.isdigit() else 0
    except ConnectionResetError:
        return 0
    finally:
        writer.close()


async def test_the_process_is_started_by_the_first_call_with_turns_of_the_ordinary_length() -> None:
    async with kept() as (made, counts, port):
        await asyncio.sleep(0.05)
        assert made.process is None
        pid = await ask(port)
        assert made.process is not None
        assert pid == made.process.pid == await ask(port)
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.nice(0), "behind all others it would never start"
        assert turn(pid) != SHORT, "the server's short turns are not inherited"
        await until(lambda: counts["internal_rows"] == 14)


async def test_one_that_dies_is_counted_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 1234.5)
    monkeypatch.setattr(supervisor, "FAREWELL", 30.0)
    paused, genuine = asyncio.Event(), asyncio.sleep
    monkeypatch.setattr(supervisor.asyncio, "sleep", lambda s: paused.wait() if s == supervisor.PAUSE else genuine(s))
    async with kept() as (_, counts, port):
        first = await ask(port, b"die")
        await until(lambda: counts["internal_restarts"] == 1)
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"http://127.0.0.1:{port}/v2", content=b"x" * 2**20)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), "turned away at once while it is away"
        assert "being started again" in answer.json()["error"]
        assert counts["internal_refused"] == 1
        paused.set()
        again = 0
        while again == 0:  # until the pause has ended, it turns callers away
            again = await ask(port)
        assert again != first


async def test_a_line_that_is_no_count_ends_nothing() -> None:
    odd = "print('Traceback')\nprint('internal_rows many', flush=True)\n"
    async with kept(odd + ANSWERS) as (_, counts, port):
        first = await ask(port)
        assert await ask(port) == first
        await until(lambda: counts["internal_rows"] == 14)
        assert set(counts) == {"internal_rows"}


async def test_pauses_grow_while_it_dies_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.04)
    slept: list[float] = []
    genuine = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await genuine(seconds)

    monkeypatch.setattr(supervisor.asyncio, "sleep", sleep)
    async with kept("raise SystemExit(1)") as (_, counts, port):
        for number in range(1, 5):
            while counts["internal_restarts"] < number:
                await ask(port)
        await until(lambda: [s for s in slept if s > 0.005][:4] == [0.01, 0.02, 0.04, 0.04])


async def test_one_that_doesnt_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.1)
    async with kept(STAYS) as (made, _, port):
        await ask(port)
    assert made.process is not None
    assert made.process.returncode == -9
