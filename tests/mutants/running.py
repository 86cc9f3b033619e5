"""Runs tests on planted faults, in copies of the working tree: never in the tree itself."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mutants.planting import Mutant
from mutants.rooms import Room
from mutants.servers import Limits, ServerFailed, Servers, command, environment

__all__ = ["BaselineFailed", "Outcome", "Trace", "copy_tree", "judge", "trace", "unmount_below"]


class BaselineFailed(Exception):
    """The room's tests fail, or see other sources, before any fault is planted."""


@dataclass(frozen=True)
class Trace:
    """``lines``: path → line → who executes it (tests, whole files, or ``""`` for imports).

    ``seconds``: test → duration. ``modules``: what the tests import of what is installed, in order.
    """

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]
    modules: list[str] = field(default_factory=list)

    def tests(self, mutant: Mutant) -> list[str]:
        """Tests that can notice the fault, quick files and tests first; none when nothing executes its line."""
        contexts = self._contexts(mutant)
        if "" in contexts:  # executed by an import: files that use the module may notice, even by a constant alone
            users = {context for found in self.lines[mutant.path].values() for context in found}
            contexts |= {context.partition("::")[0] for context in users}
        files = {context for context in contexts if context and "::" not in context}
        named = [t for t in self.seconds if t in contexts or t.partition("::")[0] in files]
        quickest: dict[str, float] = {}
        for test in named:
            file = test.partition("::")[0]
            quickest[file] = min(quickest.get(file, self.seconds[test]), self.seconds[test])
        return sorted(named, key=lambda t: (quickest[t.partition("::")[0]], t.partition("::")[0], self.seconds[t]))

    def by_import(self, mutant: Mutant) -> bool:
        """Whether the line has been executed before the first test begins."""
        return "" in self._contexts(mutant)

    def _contexts(self, mutant: Mutant) -> set[str]:
        lines = self.lines.get(mutant.path, {})
        return {context for line in range(mutant.statement, mutant.line + 1) for context in lines.get(line, ())}

    def limits(self, tests: list[str]) -> Limits:
        """When the tests count as hanging."""
        return Limits(sum(self.seconds[t] for t in tests))

    def servers(self, tree: Path) -> Servers:
        """What runs these tests in the copy ``tree``."""
        return Servers(tree, list(dict.fromkeys(t.partition("::")[0] for t in self.seconds)), self.modules)


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


def unmount_below(folder: Path) -> None:
    """What a test that was killed left mounted in a copy, so that the copy can be taken away."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([place for place in places if place.startswith(f"{folder}/")]):
        subprocess.run(["umount", place], check=True)


def trace(root: Path, tree: Path, room: Room) -> Trace:
    """Run the room's tests on the unchanged copy ``tree``. Raises BaselineFailed."""
    out = tree / ".mutants.json"
    there = [name for name in room.tests if (root / name).exists()]
    watched = {
        "MUTANTS_SOURCES": str(tree / room.sources if (tree / room.sources).is_dir() else (tree / room.sources).parent)
    }
    done = subprocess.run(
        command("-p", "mutants.tracing", *there),
        cwd=tree,
        env=environment(tree, MUTANTS_TRACE=str(out), **watched),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BaselineFailed(f"expected the tests to pass before a fault is planted, found:\n{done.stdout[-3000:]}")
    found = json.loads(out.read_text())
    lines = {
        Path(file).relative_to(tree).as_posix(): {int(line): who for line, who in by_line.items()}
        for file, by_line in found["lines"].items()
    }
    if not lines:
        raise BaselineFailed(f"expected the tests to execute {room.sources} of the copy, found other sources in use")
    return Trace(lines, found["seconds"], found["modules"])


def judge(trees: list[Path], planned: list[Mutant], known: Trace, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """The outcome of every mutant, one worker for each copy."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in planned:
        waiting.put(mutant)
    outcomes: list[Outcome] = []
    failures: list[BaseException] = []

    def work(tree: Path) -> None:
        try:
            with known.servers(tree) as servers:
                while not failures:
                    outcome = _outcome(servers, waiting.get_nowait(), known)
                    outcomes.append(outcome)
                    tell(outcome)
        except queue.Empty:
            return
        except ServerFailed as error:
            failures.append(BaselineFailed(str(error)))
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


def _outcome(servers: Servers, mutant: Mutant, known: Trace) -> Outcome:
    tests = known.tests(mutant)
    if not tests:
        return Outcome(mutant, False, 0)
    path = servers.tree / mutant.path
    sound = path.read_bytes()
    try:
        _replace(
            path, mutant.planted(sound)
        )  # in the file too: for imports to come, and for processes that tests start
        killed = servers.notices(mutant, sound, tests, known.limits(tests), known.by_import(mutant))
    except ServerFailed as error:
        raise BaselineFailed(f"{mutant.path}:{mutant.line} {mutant.after}: {error}") from error
    finally:
        _replace(path, sound)
    return Outcome(mutant, killed, len(tests))


def _replace(path: Path, content: bytes) -> None:
    """Change a source, and forget its bytecode: two faults of one second and one size look alike to the interpreter."""
    path.write_bytes(content)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
