"""Five times as many requests as a `governed run` can answer, for as long as asked: how many are still answered.

Its capacity is measured in the same run, before and after: as many answers as it gives to 64 clients that ask again at
once. Then requests are offered at five times that rate, whatever the answers do. Loopback alone, bounded in count and
time. Prints a table; exit code 1 when a promise is broken: goodput of at least four fifths of the capacity, refusals by
429 and 503 alone, every request answered, resident memory back within a tenth (and 16 MiB).
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import yaml
from door import OVERLOAD, broken, keyed, of_run, resident, served
from fair import QUIET, Others
from rich.console import Console
from rich.table import Table
from targets import TARGETS, Target

from governed_api import runtime

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.model_ports import free_offset

MOST_SECONDS, MOST_RATE, MOST_CONNECTIONS = 900.0, 20_000.0, 9_000
"""What is offered is bounded, whatever a machine could do; more connections than requests that a server keeps open."""
CLIENTS = 64
CAPACITY_SECONDS = 15.0
GOODPUT = 0.8


class Figures(msgspec.Struct, frozen=True):
    """As offered.py prints them: seconds, ``rate`` in good answers a second."""

    statuses: dict[int, int]
    sent: int
    unsent: int
    unanswered: int
    rate: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Phase:
    """One load. ``cpu``: seconds of all processes of the run; ``asked``: for how long; ``offered`` for each second,
    0 for as fast as it answers."""

    name: str
    offered: float
    asked: float
    figures: Figures
    cpu: float
    others: float

    @property
    def good_for_cpu(self) -> float:
        """Good answers for each CPU second of the run."""
        return self.figures.statuses.get(200, 0) / max(self.cpu, 1e-9)


class Overloaded:
    """A run and what it is asked."""

    def __init__(self, target: Target, offset: int, workdir: Path) -> None:
        self._target, self._port, self._workdir = target, runtime.PORT_HTTP + offset, workdir

    def phase(self, name: str, seconds: float, rate: float = 0.0) -> Phase:
        """One load of ``rate`` requests a second, 0 for as fast as it answers."""
        command = [sys.executable, Path(__file__).with_name("offered.py"), str(self._port), self._target.path]
        command += [json.dumps(self._target.good), "--seconds", str(seconds), "--rate", str(rate)]
        command += ["--connections", str(MOST_CONNECTIONS if rate else CLIENTS)]
        command += ["--header", f"x-api-key: {self._target.key}"] if self._target.key else []
        before, others = of_run(self._workdir), Others()
        done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 300)
        cpu = of_run(self._workdir) - before
        figures = msgspec.json.decode(done.stdout, type=Figures, strict=False)
        return Phase(name, rate, seconds, figures, cpu, others.share())


@dataclass(frozen=True)
class Run:
    """All that one run showed."""

    before: Phase
    beyond: Phase
    after: Phase
    memory: tuple[int, int, int]
    """Bytes: before, right after, and once it was idle for some seconds."""
    faults: list[str]

    @property
    def others(self) -> float:
        """The largest share of the machine's CPU time that others took in a phase."""
        return max(phase.others for phase in (self.before, self.beyond, self.after))

    @property
    def by_clock(self) -> float:
        """Good answers a second beyond capacity, as a share of those at it."""
        return 2 * self.beyond.figures.rate / max(self.before.figures.rate + self.after.figures.rate, 1e-9)

    @property
    def by_cpu(self) -> float:
        """The same for each CPU second of the run."""
        return 2 * self.beyond.good_for_cpu / max(self.before.good_for_cpu + self.after.good_for_cpu, 1e-9)


def overloaded(target: Target, folder: Path, options: argparse.Namespace) -> Run:
    workdir, log, offset = folder / "work", folder / "log", free_offset()
    process = served(target, workdir, log, offset)
    try:
        asked = Overloaded(keyed(target, workdir, offset), offset, workdir)
        short = min(options.seconds, CAPACITY_SECONDS)
        asked.phase("warming up", short / 3)
        start = resident(workdir)
        before = asked.phase("capacity", short)
        rate = min(OVERLOAD * before.figures.rate, MOST_RATE)
        beyond = asked.phase(f"{OVERLOAD} × capacity", options.seconds, rate)
        end = resident(workdir)
        after = asked.phase("capacity after", short)
        time.sleep(min(options.seconds, 10.0))
        memory = (start, end, resident(workdir))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    faults = broken({}, (memory[0], memory[2]), log.read_text(errors="replace"))
    return Run(before, beyond, after, memory, faults)


def judged(run: Run, *, smoke: bool) -> list[str]:
    """What is broken. A second means nothing where other tests run beside."""
    faults = list(run.faults)
    share = run.by_clock if run.others <= QUIET else run.by_cpu
    if share < GOODPUT and not smoke:
        faults.append(f"goodput {share:.2f} of the capacity at {OVERLOAD} × it")
    if strange := {status for status in run.beyond.figures.statuses if status not in (200, 429, 503)}:
        faults.append(f"statuses {sorted(strange)} beyond capacity")
    if run.beyond.figures.unanswered:
        faults.append(f"{run.beyond.figures.unanswered} requests without an answer")
    return faults


def hurried(target: Target, folder: Path, seconds: int | None) -> Target:
    """With another spec.predictor.timeout."""
    if seconds is None:
        return target
    said = yaml.safe_load(target.manifest.read_text())
    said["spec"].setdefault("predictor", {})["timeout"] = seconds
    manifest = folder / "hurried.yaml"
    manifest.write_text(yaml.safe_dump(said))
    return replace(target, manifest=manifest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=TARGETS, default="plain", help="keys: callers show keys; texts: they too")
    parser.add_argument("--seconds", type=float, default=120.0, help=f"beyond capacity, at most {MOST_SECONDS:g}")
    parser.add_argument("--timeout", type=int, help="spec.predictor.timeout in seconds; the model's own by default")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    options.seconds = 3.0 if options.smoke else min(options.seconds, MOST_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        target = hurried(TARGETS[options.model](Path(folder)), Path(folder), options.timeout)
        run = overloaded(target, Path(folder), options)
    faults = judged(run, smoke=options.smoke)
    show(run, faults)
    return 1 if faults else 0


def show(run: Run, faults: list[str]) -> None:
    console = Console(width=120)
    table = Table(
        "load",
        "offered/s",
        "sent/s",
        "good/s",
        "good/CPU s",
        "p50 ms",
        "p99 ms",
        "statuses",
        "not sent",
        "others",
        title="ours",
    )
    for phase in (run.before, run.beyond, run.after):
        figures = phase.figures
        table.add_row(
            phase.name, f"{phase.offered:.0f}" if phase.offered else f"{CLIENTS} clients",
            f"{figures.sent / phase.asked:.0f}", f"{figures.rate:.0f}",
            f"{phase.good_for_cpu:.0f}", *("—" if s is None else f"{s * 1000:.0f}" for s in (figures.p50, figures.p99)),
            ", ".join(f"{status}: {number}" for status, number in figures.statuses.items()), str(figures.unsent),
            f"{phase.others:.0%}",
        )  # fmt: skip
    console.print(table)
    by = "the clock" if run.others <= QUIET else f"CPU time, as others took more than {QUIET:.0%} of the machine's"
    console.print(
        f"goodput: {run.by_clock:.2f} of the capacity by the clock, {run.by_cpu:.2f} by CPU time; judged by {by}"
    )
    before, end, idle = (size >> 20 for size in run.memory)
    console.print(f"memory: {before} MiB before, {end} MiB at the end, {idle} MiB idle")
    for fault in faults:
        console.print(f"BROKEN: {fault}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
