"""Runs tests on planted faults, in copies of the working tree: never in the tree itself."""

import queue
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mutants.planting import Mutant
from mutants.servers import ServerFailed, Servers
from mutants.traces import BaselineFailed, Trace

__all__ = ["Outcome", "copy_tree", "judge", "unmount_below"]


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
