"""Which ends of a process count against it: those that it made itself."""

import asyncio
import io
import sys
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
