"""Outlives a run that dies without a word (SIGKILL, out of memory): its processes end as they would have, clients'
first, so that what is in flight is answered, journalled and shipped; then the plaintext in memory goes.

A process of its own, without which nobody would be left to do so: a parent's death by itself tells its children nothing
(prctl's PR_SET_PDEATHSIG would tell all at once, and stop the auditor before the server's last record is there). It
waits at the end of a pipe: the run says that all is done, or dies, which closes it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from governed_operator.local.process_table import Known, alive, known

__all__ = ["DONE", "Caretaker", "take_over"]

DONE = b"."
POLL = 0.05
GRACE = 30.0
"""Seconds for a process whose entry doesn't say how long it may take."""
RUN = "governed run"
"""The run's own entry in run.json."""
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from governed_operator.local.caretaker import main; main()"


class Caretaker:
    """The run's side: starts it, and sends it home."""

    def __init__(self, run_file: Path, memory: Path) -> None:
        """Raises OSError."""
        package = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _PROGRAM, str(package), str(run_file), str(memory), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a terminal that closes, or Ctrl-C, means the run
        )
        note = note_of(run_file)
        note.write_text(json.dumps(known(self._process.pid)))

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """All is stopped and removed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(DONE)
            self._process.stdin.close()
        except OSError:  # it was killed before
            self._process.kill()
        self._process.wait()


def note_of(run_file: Path) -> Path:
    """Where the caretaker of a run is noted."""
    return run_file.with_name("caretaker.json")


def at_work(run_file: Path) -> bool:
    """Whether a caretaker is there."""
    try:
        entry: Known = json.loads(note_of(run_file).read_text())
    except (OSError, ValueError):
        return False
    return alive(entry)


def main() -> None:
    """The caretaker's process: waits for the end of the run that started it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # who stops everything stops the run, which says so
    _, _, run_file, memory, run = sys.argv
    if os.read(0, 1) != DONE:
        take_over(Path(run_file), Path(memory), int(run))


def take_over(run_file: Path, memory: Path, run: int) -> None:
    """Stop what run ``run`` left, in the order in which it would have, and remove its plaintext."""
    try:
        entries: dict[str, Known] = json.loads(run_file.read_text())
    except (OSError, ValueError):
        return  # it had stopped all before it died
    if entries.get(RUN, {"pid": 0, "started": ""})["pid"] != run:
        return  # another run's by now
    for stage in _stages(entries):
        _end([entries[name] for name in stage])
    shutil.rmtree(memory, ignore_errors=True)


def _stages(entries: Iterable[str]) -> list[list[str]]:
    """Names in the order of their end: server and explainer (and jobs) at once, then the auditor that ships what they
    wrote, then the archive that takes it."""
    last = ("/auditor", "/archive")
    first = [name for name in entries if name != RUN and not name.endswith(last)]
    return [first, *([name for name in entries if name.endswith(end)] for end in last)]


def _end(stage: list[Known]) -> None:
    began = time.monotonic()
    for entry in stage:
        _signal(entry, signal.SIGTERM)
    while left := [entry for entry in stage if alive(entry)]:
        for entry in left:
            if time.monotonic() - began > entry.get("grace", GRACE):
                _signal(entry, signal.SIGKILL)
        time.sleep(POLL)


def _signal(entry: Known, number: signal.Signals) -> None:
    if alive(entry):
        try:
            os.killpg(entry["pid"], number)
        except (ProcessLookupError, PermissionError):
            return
