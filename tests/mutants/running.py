"""Runs tests on planted faults, in copies of the working tree: never in the tree itself."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mutants.planting import Mutant
from mutants.rooms import Room

__all__ = ["BaselineFailed", "Outcome", "Trace", "copy_tree", "judge", "trace"]

ROOTS = ("crds", "operator", "serving_image")
STARTING_SECONDS = 60.0
"""Added to a mutant's time limit: a loaded machine starts an interpreter slowly."""


class BaselineFailed(Exception):
    """The room's tests fail, or see other sources, before any fault is planted."""


@dataclass(frozen=True)
class Trace:
    """``lines``: path → line → who executes it (tests, whole files, or ``""`` for imports); ``seconds``: test →
    duration."""

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]

    def tests(self, mutant: Mutant) -> list[str]:
        """Tests that can notice the fault, quick ones first; none when nothing executes its line."""
        lines = self.lines.get(mutant.path, {})
        span = range(mutant.statement, mutant.line + 1)
        contexts = {context for line in span for context in lines.get(line, ())}
        if "" in contexts:  # executed by an import: whoever uses the module may notice
            contexts |= {context for found in lines.values() for context in found}
        files = {context for context in contexts if context and "::" not in context}
        named = {t for t in self.seconds if t in contexts or t.partition("::")[0] in files}
        return sorted(named, key=lambda t: self.seconds[t])

    def limit(self, tests: Iterable[str]) -> float:
        """Seconds after which the tests count as hanging."""
        return STARTING_SECONDS + 10 * sum(self.seconds[t] for t in tests)


@dataclass(frozen=True)
class Outcome:
    """``killed`` by a failing test or by the clock; ``tests`` counts those that could have noticed."""

    mutant: Mutant
    killed: bool
    tests: int


def copy_tree(root: Path, target: Path) -> Path:
    """The working tree as it stands, changes included and ignored files left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def trace(root: Path, tree: Path, room: Room) -> Trace:
    """Run the room's tests on the unchanged copy ``tree``. Raises BaselineFailed."""
    out = tree / ".mutants.json"
    there = [name for name in room.tests if (root / name).exists()]
    watched = {
        "MUTANTS_SOURCES": str(tree / room.sources if (tree / room.sources).is_dir() else (tree / room.sources).parent)
    }
    done = _pytest(tree, ["-p", "mutants.tracing", *there], watched | {"MUTANTS_TRACE": str(out)}, None)
    if done.returncode != 0:
        raise BaselineFailed(f"expected the tests to pass before a fault is planted, found:\n{done.stdout[-3000:]}")
    found = json.loads(out.read_text())
    lines = {
        Path(file).relative_to(tree).as_posix(): {int(line): who for line, who in by_line.items()}
        for file, by_line in found["lines"].items()
    }
    if not lines:
        raise BaselineFailed(f"expected the tests to execute {room.sources} of the copy, found other sources in use")
    return Trace(lines, found["seconds"])


def judge(trees: list[Path], planned: list[Mutant], known: Trace, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """The outcome of every mutant, one worker for each copy."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in planned:
        waiting.put(mutant)
    outcomes: list[Outcome] = []
    failures: list[BaseException] = []

    def work(tree: Path) -> None:
        try:
            while not failures:
                outcome = _outcome(tree, waiting.get_nowait(), known)
                outcomes.append(outcome)
                tell(outcome)
        except queue.Empty:
            return
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(tree,)) for tree in trees]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return sorted(outcomes, key=lambda o: (o.mutant.path, o.mutant.start))


def _outcome(tree: Path, mutant: Mutant, known: Trace) -> Outcome:
    tests = known.tests(mutant)
    if not tests:
        return Outcome(mutant, False, 0)
    path = tree / mutant.path
    sound = path.read_bytes()
    try:
        _replace(path, mutant.planted(sound))
        done = _pytest(tree, ["-x", *tests], {}, known.limit(tests))
    except subprocess.TimeoutExpired:
        return Outcome(mutant, True, len(tests))
    finally:
        _replace(path, sound)
    if done.returncode not in (0, 1, 2, 3, 4):
        raise BaselineFailed(f"expected tests to run, found exit code {done.returncode}:\n{done.stdout[-2000:]}")
    return Outcome(mutant, done.returncode != 0, len(tests))


def _replace(path: Path, content: bytes) -> None:
    """Change a source, and forget its bytecode: two faults of one second and one size look alike to the interpreter."""
    path.write_bytes(content)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _pytest(
    tree: Path, arguments: list[str], environment: dict[str, str], limit: float | None
) -> "subprocess.CompletedProcess[str]":
    """pytest in the copy, in a session of its own that ends with it. Raises TimeoutExpired."""
    paths = [*(str(tree / name) for name in ROOTS), str(Path(__file__).parents[1])]  # the last one for the plugins
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mutants.quick", *arguments]
    with subprocess.Popen(
        command,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": ":".join(paths)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=limit)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, text)
