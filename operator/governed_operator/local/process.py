"""One process: started in a group of its own, its lines logged, stopped with grace."""

import asyncio
import os
import signal
from contextlib import suppress

from governed_operator.local.logs import Logs
from governed_operator.local.translate import ProcessSpec
from governed_operator.local.workdir import Workdir

LINE_LIMIT = 1 << 20
PIPE_PATIENCE = 1.0
BEHIND = frozenset({"explainer", "auditor", "archive"})
"""Containers that no client waits for. In a pod each has a CPU share of its own; here they would take the server's."""
NICENESS = 10
"""A tenth of the server's weight: enough not to fall behind for good."""


class Process:
    """A running container's stand-in."""

    def __init__(self, spec: ProcessSpec, logs: Logs, workdir: Workdir) -> None:
        self.spec = spec
        self._logs = logs
        self._workdir = workdir
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises OSError when the command can't be executed."""
        self._child = await asyncio.create_subprocess_exec(
            *self.spec.argv,
            env=dict(self.spec.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,  # not a session: Linux shares out cores among sessions first (sched(7), autogroup), and niceness counts within one  # noqa: E501
            limit=LINE_LIMIT,
        )
        self._workdir.remember(self.spec.key, self._child.pid, self.spec.grace)
        self._reader = asyncio.create_task(self._read(self._child))

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def give_way(self) -> None:
        """All threads, and the processes it started, go behind the server from now on, where no client waits for them.
        Call it once it is ready: on a busy machine it wouldn't get there with a tenth of the weight."""
        if self.spec.name in BEHIND:
            with suppress(ProcessLookupError):  # it has just ended: whoever waits for it says why
                os.setpriority(os.PRIO_PGRP, self.pid, min(19, os.nice(0) + NICENESS))

    async def wait(self) -> int:
        """Exit code; negative: the signal that ended it."""
        assert self._child is not None
        assert self._reader is not None
        code = await self._child.wait()
        await asyncio.wait({self._reader}, timeout=PIPE_PATIENCE)  # a grandchild may hold the pipe open
        self._workdir.forget(self.spec.key)
        return code

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL to the whole group when ``grace`` seconds are over."""
        if self._child is None or self._child.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            self._logs.note(f"{self.spec.name} did not stop within {grace:.0f} s: killed", "yellow")
            self.kill()
            await self.wait()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        try:
            os.killpg(self._child.pid, number)
        except ProcessLookupError:
            return  # it ended by itself in between

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while True:
            try:
                raw = await child.stdout.readline()
            except ValueError:  # a line beyond the limit: asyncio dropped it
                self._logs.line(self.spec.name, f"(a line over {LINE_LIMIT} bytes was dropped)")
                continue
            if not raw:
                return
            self._logs.line(self.spec.name, raw.decode(errors="replace").rstrip())
