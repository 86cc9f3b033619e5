"""What the rest of the machine does while a bench runs: who else takes CPU time, and how long a bare server waits."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["QUIET", "Bare", "Others", "cpu_seconds", "descendants"]

QUIET = 0.1
"""Up to this share of the machine's CPU time may be others', for times by the clock to be ours."""
_TICK = os.sysconf("SC_CLK_TCK")
_BARE = """
import socket
sock = socket.create_server(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
while True:
    peer, _ = sock.accept()
    with peer:
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
"""


class Bare:
    """A server that does nothing else: how long it takes to answer is what a process waits for the CPU here and now."""

    def __enter__(self) -> "Bare":
        self._process = subprocess.Popen([sys.executable, "-S", "-c", _BARE], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Others:
    """Of the machine's CPU time since it was made, the share that ``share`` says was neither ours nor idle."""

    _began: tuple[float, float] = field(default_factory=lambda: _machine())
    _ours: float = field(default_factory=lambda: cpu_seconds(descendants(os.getpid())))

    def share(self) -> float:
        busy, capacity = (now - then for now, then in zip(_machine(), self._began, strict=True))
        ours = cpu_seconds(descendants(os.getpid())) - self._ours
        return max(0.0, busy - ours) / max(capacity, 1e-9)


def _machine() -> tuple[float, float]:
    """(CPU seconds that anybody took, CPU seconds that there were)."""
    values = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = (values[3] + values[4]) / _TICK
    return sum(values) / _TICK - idle, time.monotonic() * (os.cpu_count() or 1)


def descendants(root: int) -> list[int]:
    """``root`` and all processes that it started, as far as they still have a parent."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (words := _stat(int(entry.name))):
            parents[int(entry.name)] = int(words[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Of those that still run, with their children that have ended."""
    return sum(sum(map(int, words[11:15])) for pid in pids if (words := _stat(pid))) / _TICK


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
