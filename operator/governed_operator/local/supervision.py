"""Keeps one container running: probes, restarts with exponential back-off."""

import asyncio
import time
from dataclasses import dataclass

from governed_operator.local.logs import Logs
from governed_operator.local.probe import Prober
from governed_operator.local.process import BEHIND, Process
from governed_operator.local.translate import ProcessSpec
from governed_operator.local.workdir import Workdir

POLL = 0.05
"""Seconds between probes until the first success: a person waits."""
SLOW = 2
"""Times the patience of a liveness probe for what no client waits for: here it gets the cores that are left."""
PATIENT_POLL = 0.25
"""Between probes of what takes longer than EAGER seconds: probing must not starve what it waits for."""
EAGER = 5.0


@dataclass(frozen=True)
class Backoff:
    """The kubelet's CrashLoopBackOff, shortened for a person at a terminal (kubelet: 10 s, doubling to 300 s, reset
    after 600 s)."""

    first: float = 0.5
    cap: float = 30.0
    reset: float = 60.0
    patience: int = 5
    """Restarts before the first success that are borne."""

    def delay(self, restarts: int) -> float:
        """Seconds before restart number ``restarts`` (from 1); the first one comes at once."""
        return 0.0 if restarts <= 1 else min(self.cap, self.first * 2.0 ** (restarts - 2))


class Supervised:
    """A container with restartPolicy Always. ``ready`` follows its probes; ``failed`` says why it never got ready."""

    def __init__(self, spec: ProcessSpec, logs: Logs, workdir: Workdir, prober: Prober, backoff: Backoff) -> None:
        self.spec = spec
        self.restarts = 0
        self.started = asyncio.Event()
        self.ready = asyncio.Event()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._logs = logs
        self._workdir = workdir
        self._prober = prober
        self._backoff = backoff
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._once_ready = self._replaced = False
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Graceful end; returns when the process is gone."""
        self._stopping.set()
        if self._process:
            await self._process.stop(self.spec.grace)
        await self._task

    def kill(self) -> None:
        self._stopping.set()
        if self._process:
            self._process.kill()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def _run(self) -> None:
        crashes = ended = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            reason = await self._watched()
            if self._stopping.is_set():
                return
            self.ready.clear()
            self.started.clear()
            crashes = 1 if time.monotonic() - began > self._backoff.reset else crashes + 1
            self.restarts += 1
            ended += not self._replaced  # one that we replaced was slow, not broken: it is given more time, for ever
            if ended > self._backoff.patience and not self._once_ready and not self.failed.done():
                self.failed.set_result(f"{self.spec.name} {reason} {ended} times: {self._logs.cause(self.spec.name)}")
            delay = self._backoff.delay(crashes)
            self._logs.note(f"{self.spec.name} {reason}: restart {self.restarts} in {delay:.1f} s", "yellow")
            await self._pause(delay)

    async def _watched(self) -> str:
        """One life of the process, whatever becomes of watching it: a container without supervision would stay down for
        ever, and nobody would say so."""
        try:
            return await self._once()
        except Exception as error:
            if self._process:
                await self._process.stop(self.spec.grace)
            return f"can't be watched ({type(error).__name__}: {error})"

    async def _once(self) -> str:
        """One life of the process; says how it ended."""
        self._replaced = False
        self._process = Process(self.spec, self._logs, self._workdir)
        try:
            await self._process.start()
        except OSError as error:
            return f"can't be started ({error.strerror or error})"
        life = asyncio.create_task(self._process.wait())
        watch = asyncio.create_task(self._watch())
        if self._stopping.is_set():
            await self._process.stop(self.spec.grace)
        await asyncio.wait((life, watch), return_when=asyncio.FIRST_COMPLETED)
        self._replaced = watch.done() and not life.done()
        if self._replaced:
            reason = watch.result()
            await self._process.stop(self.spec.grace)
            await life
            return reason
        watch.cancel()
        code = await life
        return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"

    async def _watch(self) -> str:
        """Returns why the process must be replaced; never returns while it lives well."""
        reason = await self._until_started()
        if reason:
            return reason
        self.started.set()
        readiness = asyncio.create_task(self._follow_readiness())
        try:
            return await self._follow_liveness()
        finally:
            readiness.cancel()

    async def _until_started(self) -> str | None:
        probe = self.spec.startup
        if probe is None:
            return None
        began = time.monotonic()
        while (reason := await self._prober.ask(probe)) is not None:
            if time.monotonic() - began > probe.period * probe.failures:
                return f"did not start within {probe.period * probe.failures:.0f} s ({reason})"
            await asyncio.sleep(_poll(began))
        return None

    async def _follow_readiness(self) -> None:
        probe = self.spec.readiness
        if probe is None:
            self._is_ready()
            return
        failures, began = 0, time.monotonic()
        while True:
            if await self._prober.ask(probe) is None:
                failures = 0
                self._is_ready()
            else:
                failures += 1
                if failures >= probe.failures:
                    self.ready.clear()
            await asyncio.sleep(probe.period if self.ready.is_set() else _poll(began))

    async def _follow_liveness(self) -> str:
        probe = self.spec.liveness
        if probe is None:
            await asyncio.Event().wait()
        assert probe is not None
        await asyncio.sleep(probe.delay)
        failures = 0
        while True:
            reason = await self._prober.ask(probe)
            failures = failures + 1 if reason else 0
            if failures >= probe.failures * (SLOW if self.spec.name in BEHIND else 1):
                return f"failed its liveness probe {failures} times ({reason})"
            await asyncio.sleep(probe.period)

    def _is_ready(self) -> None:
        if not self.ready.is_set() and self._process is not None:
            self._process.give_way()
        self._once_ready = True
        self.ready.set()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def _poll(began: float) -> float:
    return POLL if time.monotonic() - began < EAGER else PATIENT_POLL
