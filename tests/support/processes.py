"""Processes of a bed: started apart from the caller, remembered by id and start time, ended by exactly that
identity."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started: tells it from a later one under the same id. None: it is
    gone.

    A killed process is a zombie as soon as its first thread has ended; until the others have, its ports and locks are
    held, on a busy machine for tenths of a second. Whoever is started in its place meanwhile finds the address in use.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()
    started, threads = int(fields[18]), int(fields[16])
    return None if state == "Z" and threads <= 1 else started


@dataclass
class Process:
    """One process of a bed. `argv` is kept so that any later command can start it again."""

    name: str
    argv: list[str]
    log: str
    pid: int = 0
    born: int = 0

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Process":
        return cls(**state)

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Beds are Go programs on few cores: they collect garbage later, which saves CPU, as long as there is
        memory."""
        if environment is None:
            third = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3
            environment = {"GOGC": "400", "GOMEMLIMIT": str(third), **os.environ}
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        self.pid = child.pid
        self.born = _start_time(child.pid) or 0
        _children[child.pid] = child

    @property
    def alive(self) -> bool:
        _reap(self.pid)
        return bool(self.pid) and _start_time(self.pid) == self.born

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def stop(self, patience_s: float = 10.0, hard: bool = False) -> None:
        """End the process: SIGTERM, after `patience_s` SIGKILL; `hard` kills at once. Returns when it is gone."""
        self.signal(signal.SIGCONT)  # a paused process would never see SIGTERM
        self.signal(signal.SIGKILL if hard else signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        while self.alive:
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
            time.sleep(0.02)

    def tail(self, lines: int = 15) -> str:
        text = Path(self.log).read_text(errors="replace") if Path(self.log).exists() else ""
        return "\n".join(text.splitlines()[-lines:])


_children: dict[int, "subprocess.Popen[bytes]"] = {}


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


def stop_all(processes: Sequence[Process]) -> None:
    """Stop in reverse order of start: nobody loses what it leans on."""
    for process in reversed(processes):
        process.stop()
