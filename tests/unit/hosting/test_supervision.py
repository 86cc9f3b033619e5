"""Tasks beside the routes: started again when they fail, later each time; over when they return or are cancelled."""

import asyncio
from typing import Any

import pytest

from governed_serving.hosting import supervision
from governed_serving.hosting.supervision import kept_running


class Clock:
    """Moves by the pauses and by what runs; a pause after the last one allowed ends the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.now, self.most = 0.0, most
        self.pauses: list[float] = []
        monkeypatch.setattr(supervision.time, "monotonic", lambda: self.now)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        if len(self.pauses) == self.most:
            raise asyncio.CancelledError


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """(level, task, error) of each line."""
    lines: list[tuple[str, str, str]] = []

    def log(level: str, message: str, **fields: Any) -> None:
        assert message == "a background task failed unexpectedly, restarting it"
        lines.append((level, fields["task"], str(fields["exception"])))

    monkeypatch.setattr(supervision, "log", log)
    return lines


async def test_what_fails_is_started_again_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, logged: list[tuple[str, str, str]]
) -> None:
    clock, calls = Clock(monkeypatch, 9), list[int]()

    async def run() -> None:
        calls.append(1)
        raise RuntimeError("a bug")

    with pytest.raises(asyncio.CancelledError):
        await kept_running("sampling", run, clock.pause)
    assert (len(calls), clock.pauses) == (9, [1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert logged == [("error", "sampling", "a bug")] * 9


@pytest.mark.parametrize(("seconds", "pauses"), [(60.0, [1, 2, 4, 8]), (60.5, [1, 1, 1, 1])])
async def test_after_a_long_run_the_pause_is_the_first_one_again(
    monkeypatch: pytest.MonkeyPatch, seconds: float, pauses: list[float]
) -> None:
    clock = Clock(monkeypatch, 4)

    async def run() -> None:
        clock.now += seconds
        raise KeyError("late")

    with pytest.raises(asyncio.CancelledError):
        await kept_running("retention", run, clock.pause)
    assert clock.pauses == pauses


async def test_what_returns_is_over(logged: list[tuple[str, str, str]]) -> None:
    async def nothing_to_do() -> None:
        return

    await kept_running("storage", nothing_to_do)
    assert not logged


async def test_what_is_cancelled_is_not_started_again(logged: list[tuple[str, str, str]]) -> None:
    starts, started = list[int](), asyncio.Event()

    async def run() -> None:
        starts.append(1)
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(kept_running("copying", run))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (starts, logged) == ([1], [])
