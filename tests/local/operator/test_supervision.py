"""Which ends of a process count against it: those that it made itself."""

import asyncio
import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from governed_operator.local.logs import Logs
from governed_operator.local.probe import Prober
from governed_operator.local.supervision import Backoff, Supervised
from governed_operator.local.translate import Probe, ProcessSpec
from governed_operator.local.workdir import Workdir

PROBE = Probe("http://127.0.0.1:1", period=0.0, failures=1, timeout=1, delay=0.0)


class Silent(Prober):
    """Nothing answers in time."""

    async def ask(self, _: Probe) -> str | None:
        await asyncio.sleep(0)
        return "timeout"


@pytest.mark.parametrize("slow", [True, False], ids=["slow", "broken"])
async def test_what_is_slow_is_begun_again_for_ever_and_what_ends_by_itself_has_failed(
    tmp_path: Path, slow: bool
) -> None:
    program = "import time; time.sleep(60)" if slow else "raise SystemExit(3)"
    liveness = PROBE if slow else None
    spec = ProcessSpec("auditor", "p", (sys.executable, "-S", "-c", program), {}, (), None, PROBE, liveness, grace=1)
    backoff = Backoff(first=0.0, cap=0.0, patience=2)
    supervised = Supervised(spec, Logs(Console(file=io.StringIO())), Workdir(tmp_path), Silent(), backoff)
    try:
        async with asyncio.timeout(60):
            if slow:
                while supervised.restarts < 5:  # noqa: ASYNC110  nothing signals a restart
                    await asyncio.sleep(0.01)
                assert not supervised.failed.done()
            else:
                assert "exited with code 3 3 times" in await supervised.failed
    finally:
        await supervised.stop()


class ReadyAtFirst(Prober):
    """The auditor is ready once per life, then slow, or gone; the server answers whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def ask(self, probe: Probe) -> str | None:
        await asyncio.sleep(0.001)
        if probe.url.endswith(":2"):
            return None
        self.asked += 1
        return None if self.asked % 8 < 4 else "timeout"


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "raise SystemExit(3)"], ids=["slow", "broken"])
async def test_what_becomes_of_a_sidecar_that_was_ready_once_is_nothing_to_the_server(
    tmp_path: Path, program: str
) -> None:
    """Twenty restarts, whatever their cause: the run goes on, and the server's process is the same."""
    sidecar = ProcessSpec(
        "auditor", "p", (sys.executable, "-S", "-c", "import time; time.sleep(60)"), {}, (), PROBE, PROBE, PROBE, 1
    )
    serving = Probe("http://127.0.0.1:2", period=0.0, failures=1, timeout=1, delay=0.0)
    server = ProcessSpec(
        "server", "p", (sys.executable, "-S", "-c", "import time; time.sleep(60)"), {}, (), serving, serving, serving, 1
    )
    logs, prober = Logs(Console(file=io.StringIO())), ReadyAtFirst()
    backoff = Backoff(first=0.0, cap=0.0, patience=2)
    served = Supervised(server, logs, Workdir(tmp_path), prober, backoff)
    audited = Supervised(sidecar, logs, Workdir(tmp_path), prober, backoff)
    try:
        async with asyncio.timeout(120):
            await asyncio.gather(served.ready.wait(), audited.ready.wait())
            pid = served.pid
            audited.spec = replace(sidecar, argv=(sys.executable, "-S", "-c", program))
            while audited.restarts < 20:  # noqa: ASYNC110  nothing signals a restart
                await asyncio.sleep(0.01)
        assert not audited.failed.done()
        assert (served.restarts, served.pid, served.ready.is_set()) == (0, pid, True)
    finally:
        await audited.stop()
        await served.stop()
