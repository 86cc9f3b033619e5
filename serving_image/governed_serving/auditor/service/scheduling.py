"""Runs workers: a thread each, so that an archive that is unreachable delays no verdict.

A worker that raises is never silently ended. What it raised is counted, logged once per streak, told by the probes, and
it is run again after a pause that doubles; errors that its work must expect (an archive that is unreachable, a full
disk) and those that nobody expected differ in the log line, which has a traceback for the latter, and in what the
readiness probe makes of them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from governed_serving.containment import contained
from governed_serving.hosting.logs import log

__all__ = ["Failure", "Loop", "Scheduler", "Worker"]

LONGEST_PAUSE = 30.0


class Worker:
    """A piece of work that is due over and over. ``run_once`` may run at any time, and needs neither threads nor sleeps
    to be tested."""

    name = ""
    """As log lines and metrics say it."""
    every = 0.5
    """Seconds between two looks."""
    longest_pause = LONGEST_PAUSE
    """Seconds between two looks after many failures, at most."""
    wakes: tuple[str, ...] = ()
    """Names of workers that have something to do when this one did something."""
    vital = False
    """Without it verdict or ledger come to a halt: an unexpected error makes the auditor not ready."""

    def run_once(self) -> int:
        """Do what is due now; how much was done. Raises what its work raises."""
        raise NotImplementedError

    @property
    def behind(self) -> bool:
        """The last run left work undone: go on at once."""
        return False

    def finish(self) -> None:
        """The process ends: do what is left. Called once, when no earlier stage produces any more."""
        while self.run_once():
            continue


@dataclass(frozen=True)
class Failure:
    """Why a worker's last run failed, and how many failed in a row."""

    text: str
    expected: bool
    streak: int


class Loop:
    """One worker and its thread; ``look`` is what the thread does over and over."""

    def __init__(
        self,
        worker: Worker,
        expected: tuple[type[Exception], ...],
        wake: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        self.worker, self._expected, self._wake_others = worker, expected, wake
        self.failures = 0
        self.failure: Failure | None = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=worker.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to do: don't wait for the next look. After a failure the pause is kept."""
        if self.failure is None:
            self._wake.set()

    def stop(self) -> None:
        """Finish what is left and end."""
        self._stop.set()
        self._wake.set()

    def join(self, until: float) -> None:
        self._thread.join(max(until - time.monotonic(), 0.0))

    def look(self) -> int:
        """One run, whatever it raises; 0 after a failure."""
        return self._guarded(self.worker.run_once)

    def pause(self) -> float:
        """Seconds until the next look."""
        if self.failure is None:
            return 0.0 if self.worker.behind else self.worker.every
        doubled = max(self.worker.every, 1.0) * 2.0 ** min(self.failure.streak - 1, 16)
        return min(doubled, max(self.worker.longest_pause, self.worker.every))

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            if (seconds := self._seconds()) and not self._stop.is_set():
                self._wake.wait(seconds)
            if not self._stop.is_set():
                self._wake.clear()
        self._guarded(self._finish)

    def _seconds(self) -> float:
        """Until the next look, whatever the worker makes of the question."""
        try:
            return contained(self.pause)
        except Exception as error:
            self._failed(error)
            return self.pause()  # of a failure: the worker isn't asked

    def _finish(self) -> int:
        self.worker.finish()
        return 0

    def _guarded(self, work: Callable[[], int]) -> int:
        try:
            done = contained(work)
        except (
            Exception
        ) as error:  # whatever it is: a loop that ended would leave a verdict that looks current for ever
            self._failed(error)
            return 0
        if self.failure is not None:
            log("info", f"{self.worker.name} resumed", failed=self.failure.streak)
            self.failure = None
        if done:
            self._wake_others(self.worker.wakes)
        return done

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        text, expected = f"{type(error).__name__}: {error}", isinstance(error, self._expected)
        before = self.failure
        if before is None or before.text != text:
            unexpected = None if expected else error
            log("error", f"{self.worker.name} stalled, retrying", exception=unexpected, error=text, expected=expected)
        self.failure = Failure(text, expected, 1 if before is None else before.streak + 1)


class Scheduler:
    """Runs all workers of ``stages`` side by side; they end stage by stage, so that later ones finish what earlier ones
    made.

    ``expected``: errors that are part of the work.
    """

    def __init__(self, stages: Sequence[Sequence[Worker]], expected: tuple[type[Exception], ...]) -> None:
        self._stages = [[Loop(worker, expected, self._wake) for worker in stage] for stage in stages]
        self._by_name = {loop.worker.name: loop for loop in self._loops}

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def stop(self, patience: float) -> None:
        """Let every stage finish what is left, for at most ``patience`` seconds each."""
        for stage in self._stages:
            until = time.monotonic() + patience
            for loop in stage:
                loop.stop()
            for loop in stage:
                loop.join(until)

    @property
    def failing(self) -> dict[str, Failure]:
        """Worker → why it doesn't get on."""
        return {loop.worker.name: failure for loop in self._loops if (failure := loop.failure) is not None}

    @property
    def failures(self) -> dict[str, int]:
        """Worker → runs that failed since the process began."""
        return {loop.worker.name: loop.failures for loop in self._loops}

    def why_not_ready(self) -> str:
        """The first vital worker that fails, and shouldn't; empty: none does."""
        for loop in self._loops:
            failure = loop.failure
            if failure is not None and loop.worker.vital and not failure.expected:
                return f"{loop.worker.name} stalled, retrying: {failure.text}"
        return ""

    @property
    def _loops(self) -> list[Loop]:
        return [loop for stage in self._stages for loop in stage]

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._by_name:
                self._by_name[name].wake()
