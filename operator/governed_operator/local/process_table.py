"""Tells one process from a later one with the same number: pid and start time."""

import subprocess
from pathlib import Path
from typing import NotRequired, TypedDict, TypeGuard


class Known(TypedDict):
    """A process as it was noted."""

    pid: int
    started: str
    grace: NotRequired[float]
    """Seconds that it is given to end."""


def started(pid: int) -> str | None:
    """Start time in the kernel's own terms; None when there is no such process, or only its zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def known(pid: int) -> Known:
    return {"pid": pid, "started": started(pid) or ""}


def is_known(entry: object) -> TypeGuard[Known]:
    """Whether it is a note of a process: files may have been edited, or cut."""
    if not isinstance(entry, dict) or not isinstance(entry.get("started"), str):
        return False
    pid = entry.get("pid")
    return type(pid) is int and 0 < pid < 1 << 31


def alive(entry: Known) -> bool:
    """True while this very process runs."""
    return bool(entry["started"]) and started(entry["pid"]) == entry["started"]
