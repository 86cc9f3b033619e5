"""When the ledger's copy is made and what waits for it, with a mirror that does as the test says."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from governed_serving.archive.errors import ArchiveError, Busy
from governed_serving.archive.mirror import copying
from governed_serving.archive.mirror.copying import Copying
from governed_serving.archive.mirror.mirror import Superseded
from governed_serving.archive.store.objects import LedgerCopy
from governed_serving.crypto import CryptoError


class Bench:
    """An archive of ``entries``, of which ``mirror.size`` are stored; each round raises ``fails``, or stores
    ``further`` entries."""

    def __init__(self, ledger: LedgerCopy = LedgerCopy.STORED, entries: int = 5, pace: float = 1.0) -> None:
        self.fails: Exception | None = None
        self.further, self.rounds = entries, 0
        self.third = threading.Event()
        self.refused: list[str] = []
        self.archive: Any = SimpleNamespace(
            blobs=SimpleNamespace(bucket=SimpleNamespace(place=SimpleNamespace(ledger=ledger))),
            ledger=SimpleNamespace(size=entries),
            appender=SimpleNamespace(refuse=self.refused.append),
            show=None,
        )
        self.mirror: Any = SimpleNamespace(size=0, checkpoint="", round=self._round)
        self.copying = Copying(self.archive, self.mirror, pace)

    def _round(self) -> None:
        self.rounds += 1
        if self.rounds == 3:
            self.third.set()
        if self.fails is not None:
            raise self.fails
        self.mirror.size = min(self.archive.ledger.size, self.mirror.size + self.further)
        self.mirror.checkpoint = f"over {self.mirror.size}"


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Lines of the log: (level, what they say beside their words)."""
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(copying, "log", lambda level, _, **more: lines.append((level, more)))
    return lines


@pytest.mark.parametrize("ledger", LedgerCopy)
def test_only_a_place_that_has_all_that_was_acknowledged_is_waited_for(ledger: LedgerCopy) -> None:
    bench = Bench(ledger)
    assert bench.copying.waits is (ledger is LedgerCopy.STORED)
    assert (bench.archive.show is not None) is bench.copying.waits
    if not bench.copying.waits:
        asyncio.run(asyncio.wait_for(bench.copying.stored(), 60))


def test_before_the_first_round_nothing_is_said_to_be_there() -> None:
    bench = Bench()
    assert (bench.copying.behind, bench.copying.problem[:39]) == (5, "the ledger in object storage hasn't bee")
    assert bench.copying.seconds > 0
    with pytest.raises(Busy, match="no checkpoint is shown before it is stored: the ledger in object storage hasn't"):
        bench.archive.show()
    bench.copying.problem = ""
    with pytest.raises(Busy, match="no checkpoint is shown before it is stored: retry later"):
        bench.archive.show()
    bench.mirror.checkpoint = "stored"
    assert bench.archive.show() == "stored"


def test_a_mirror_that_is_ahead_of_the_ledger_is_not_behind() -> None:
    bench = Bench(entries=5)
    bench.mirror.size = 7
    assert bench.copying.behind == 0


ROUNDS: dict[str, tuple[Exception | None, int, float | None, str]] = {
    # name: (what the mirror raises, entries that it stores, seconds until the next round, problem)
    "all stored": (None, 5, 6.0, ""),
    "some stored": (None, 3, 3.0, ""),
    "storage away": (Busy("no answer"), 0, 5.0, "no answer"),
    "a ledger that can't be read": (ArchiveError("damaged"), 0, 5.0, "damaged"),
    "a key that opens nothing": (CryptoError("another key"), 0, 5.0, "another key"),
    "a disk that fails without words": (OSError(), 0, 5.0, "OSError"),
    "another archive": (Superseded("two write to one place"), 0, None, "two write to one place"),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_what_a_round_comes_to(name: str, said: list[tuple[str, dict[str, Any]]]) -> None:
    fails, further, pause, problem = ROUNDS[name]
    bench = Bench(pace=3.0)
    bench.fails, bench.further = fails, further
    assert asyncio.run(bench.copying._round()) == pause
    assert (bench.copying.problem, bench.copying.behind) == (problem, 5 - further)
    assert said == [("error" if problem else "info", {"problem": problem or "all is there"})]
    asyncio.run(bench.copying._round())
    assert len(said) == 1, "said once, as long as it stays so"
    assert bench.refused == ([f"nothing is appended: {problem}"] * 2 if pause is None else [])


def test_how_long_not_all_was_there_ends_with_a_round_that_stored_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(copying, "time", SimpleNamespace(monotonic=lambda: now[0]))
    bench = Bench()
    now[0] = 107.0
    assert bench.copying.seconds == 7.0
    bench.further = 3
    asyncio.run(bench.copying._round())
    assert bench.copying.seconds == 7.0, "2 of 5 aren't there"
    asyncio.run(bench.copying._round())
    now[0] = 120.0
    assert bench.copying.seconds == 0.0
    bench.fails = Busy("no answer")
    asyncio.run(bench.copying._round())
    assert bench.copying.seconds == 13.0, "since it was last known"


async def _with(bench: Bench, body: Any) -> None:
    task = asyncio.create_task(bench.copying.run())
    try:
        await asyncio.wait_for(body(), 60)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_who_waits_is_answered_by_the_next_round_that_began_later() -> None:
    bench = Bench(pace=0.001)

    async def body() -> None:
        await bench.copying.stored()
        assert bench.mirror.size == 5
        bench.archive.ledger.size = 9
        await bench.copying.stored()
        assert bench.mirror.size == 9
        first, second = bench.copying.stored(), bench.copying.stored()
        await asyncio.gather(first, second)

    asyncio.run(_with(bench, body))


def test_who_waits_is_told_what_holds_the_storage_up_and_tries_again() -> None:
    bench = Bench(pace=0.001)

    async def body() -> None:
        await bench.copying.stored()
        bench.fails = Busy("no answer")
        with pytest.raises(Busy, match="it is on the volume, not in object storage yet: no answer"):
            await bench.copying.stored()
        bench.fails = None
        await bench.copying.stored()
        assert bench.copying.problem == ""

    asyncio.run(_with(bench, body))


def test_who_waits_longer_than_twenty_seconds_is_told_to_send_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert copying._PATIENCE == 20.0
    monkeypatch.setattr(copying, "_PATIENCE", 0.01)
    with pytest.raises(Busy, match=r"wasn't in object storage after 0.01 s: send it again"):
        asyncio.run(Bench().copying.stored())  # nobody runs


def test_a_round_comes_by_itself() -> None:
    bench = Bench(LedgerCopy.BEHIND, pace=0.001)
    asyncio.run(_with(bench, lambda: asyncio.to_thread(bench.third.wait, 60)))
    assert bench.third.is_set()


def test_a_round_that_failed_is_followed_at_once_where_somebody_waits() -> None:
    bench = Bench(pace=0.001)
    bench.fails = Busy("no answer")  # by itself the next round is seconds away

    async def body() -> None:
        with pytest.raises(Busy, match="no answer"):
            await bench.copying.stored()
        bench.fails = None
        began = time.monotonic()
        await bench.copying.stored()
        assert time.monotonic() - began < copying._RETRY - 1

    asyncio.run(_with(bench, body))


def test_rounds_keep_their_pace_however_many_wait() -> None:
    bench = Bench(pace=0.2)

    async def body() -> None:
        began = time.monotonic()
        for _ in range(4):
            await bench.copying.stored()
        assert time.monotonic() - began > 0.55, "three pauses between four rounds"

    asyncio.run(_with(bench, body))
    assert copying.PACE == 1.0


def test_after_another_archive_took_the_place_no_round_follows() -> None:
    bench = Bench(pace=0.001)
    bench.fails = Superseded("two write to one place")

    async def body() -> None:
        with pytest.raises(Busy, match="two write to one place"):
            await bench.copying.stored()

    async def whole() -> None:
        running = asyncio.create_task(bench.copying.run())
        await body()
        await asyncio.wait_for(running, 60)

    asyncio.run(whole())
    assert bench.rounds == 1


FINISHES: dict[str, tuple[Exception | None, list[tuple[str, dict[str, Any]]]]] = {
    "all stored": (None, []),
    "storage away": (Busy("no answer"), [("error", {"error": "no answer", "entries": 5})]),
    "a key that opens nothing": (CryptoError("another"), [("error", {"error": "another", "entries": 5})]),
    "a disk that fails": (OSError("no room"), [("error", {"error": "no room", "entries": 5})]),
}


@pytest.mark.parametrize("name", FINISHES)
def test_as_the_archive_stops_the_end_is_stored_or_said_to_be_missing(
    name: str, said: list[tuple[str, dict[str, Any]]]
) -> None:
    fails, lines = FINISHES[name]
    bench = Bench()
    bench.fails = fails
    bench.copying.finish()
    assert (bench.rounds, said) == (1, lines)
