"""Which test executes which line of a room: found by running each test file once, and remembered for as long as
neither the sources nor the file change. So a room whose tests have grown is judged anew after the changed files alone.
"""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from mutants.planting import Mutant
from mutants.rooms import Room
from mutants.servers import Limits, Servers, command, environment

__all__ = ["BaselineFailed", "Trace", "digests", "trace"]

KEPT = 1000
"""Traces of test files that are remembered; the ones unused for longest go first."""
_NAMES_A_TEST = re.compile(r"^\s*(?:from|import)\s.*\btest_\w+.*$", re.MULTILINE)
_TEST = re.compile(r"\btest_\w+")


class BaselineFailed(Exception):
    """The room's tests fail, or see other sources, before any fault is planted."""


@dataclass(frozen=True)
class Trace:
    """``lines``: path → line → who executes it (tests, whole files, or ``""`` for imports).

    ``seconds``: test → duration. ``modules``: what the tests import of what is installed, in order.
    """

    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def tests(self, mutant: Mutant) -> list[str]:
        """Tests that can notice the fault, quick files and tests first; none when nothing executes its line."""
        contexts = self._contexts(mutant)
        if "" in contexts:  # executed by an import: files that use the module may notice, even by a constant alone
            users = {context for by_line in self.lines[mutant.path].values() for context in by_line}
            contexts |= {context.partition("::")[0] for context in users}
        files = {context for context in contexts if context and "::" not in context}
        named = [t for t in self.seconds if t in contexts or _file(t) in files]
        quickest: dict[str, float] = {}
        for test in named:
            quickest[_file(test)] = min(quickest.get(_file(test), self.seconds[test]), self.seconds[test])
        return sorted(named, key=lambda t: (quickest[_file(t)], _file(t), self.seconds[t]))

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
        return Servers(tree, list(dict.fromkeys(_file(t) for t in self.seconds)), self.modules)

    def of_file(self, file: str) -> "Trace":
        """What the tests of ``file`` execute, and all that imports do."""
        lines = {
            path: {n: mine for n, who in by_line.items() if (mine := [w for w in who if not w or _file(w) == file])}
            for path, by_line in self.lines.items()
        }
        seconds = {test: spent for test, spent in self.seconds.items() if _file(test) == file}
        return Trace({path: by_line for path, by_line in lines.items() if by_line}, seconds, self.modules)

    def add(self, other: "Trace") -> None:
        """Those of another run too."""
        for path, by_line in other.lines.items():
            mine = self.lines.setdefault(path, {})
            for line, who in by_line.items():
                mine[line] = list(dict.fromkeys([*mine.get(line, ()), *who]))
        self.seconds.update(other.seconds)
        self.modules[:] = dict.fromkeys([*self.modules, *other.modules])


def _file(test: str) -> str:
    return test.partition("::")[0]


def trace(trees: list[Path], room: Room, kept: Path | None = None) -> Trace:
    """Run the room's tests on unchanged copies, ``trees``, one part in each; those whose trace lies in the folder
    ``kept`` aren't run. Raises BaselineFailed."""
    files = room.test_files(trees[0])
    places = {file: kept / f"{digest}.json.gz" for file, digest in digests(trees[0], room).items()} if kept else {}
    known = {file: _load(place) for file, place in places.items() if place.is_file()}
    missing = [file for file in files if file not in known]
    runs = [_Run(tree, room, missing[n :: len(trees)]) for n, tree in enumerate(trees) if missing[n :: len(trees)]]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    for run in runs:
        if run.failure is not None:
            raise run.failure
        known |= {file: run.trace.of_file(file) for file in run.files}
    if kept:
        for file in missing:
            _keep(places[file], known[file])
        _forget(kept)
    merged = Trace()
    for file in files:
        merged.add(known[file])
    if not merged.lines:
        raise BaselineFailed(f"expected the tests to execute {room.sources} of the copy, found other sources in use")
    return merged


class _Run(threading.Thread):
    """``files`` run in ``tree``: ``trace`` once it is joined, or ``failure``."""

    def __init__(self, tree: Path, room: Room, files: list[str]) -> None:
        super().__init__(daemon=True)
        self.tree, self.room, self.files = tree, room, files
        self.trace = Trace()
        self.failure: BaselineFailed | None = None

    def run(self) -> None:
        out, sources = self.tree / ".mutants.json", self.tree / self.room.sources
        watched = str(sources if sources.is_dir() else sources.parent)
        done = subprocess.run(
            command("-p", "mutants.tracing", *self.files),
            cwd=self.tree,
            env=environment(self.tree, MUTANTS_TRACE=str(out), MUTANTS_SOURCES=watched),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.failure = BaselineFailed(
                f"expected the tests to pass before a fault is planted, found:\n{done.stdout[-3000:]}"
            )
            return
        traced = json.loads(out.read_text())
        lines = {Path(file).relative_to(self.tree).as_posix(): by_line for file, by_line in traced["lines"].items()}
        self.trace = _trace(lines, traced["seconds"], traced["modules"])


def _trace(lines: dict[str, dict[str, list[str]]], seconds: dict[str, float], modules: list[str]) -> Trace:
    """Of JSON, whose keys are texts."""
    numbered = {path: {int(line): who for line, who in by_line.items()} for path, by_line in lines.items()}
    return Trace(numbered, seconds, modules)


def _load(place: Path) -> Trace:
    os.utime(place)
    return _trace(**json.loads(gzip.decompress(place.read_bytes())))


def _keep(place: Path, traced: Trace) -> None:
    content = json.dumps({"lines": traced.lines, "seconds": traced.seconds, "modules": traced.modules})
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    beside.write_bytes(gzip.compress(content.encode(), 6))
    beside.replace(place)


def _forget(kept: Path) -> None:
    for place in sorted(kept.glob("*.json.gz"), key=lambda p: p.stat().st_mtime, reverse=True)[KEPT:]:
        place.unlink(missing_ok=True)


# what a trace depends on


def digests(tree: Path, room: Room) -> dict[str, str]:
    """By test file of the room, as it lies in the untouched copy ``tree``: what tells whether its trace is still true.
    It counts all that isn't a test (sources, fixtures, builders, data), the file, and tests that it imports from."""
    names = sorted(_lying(tree))
    files = {Path(name).stem: name for name in names if _is_test(name)}
    shared = hashlib.sha256(f"{sys.version}\0{version('coverage')}\0{version('pytest')}\0{room.sources}\0".encode())
    for name in names:
        if not (_is_test(name) or name.endswith((".md", "mutants/equivalent.yaml"))):
            shared.update(_digest(tree, name))
    made = {}
    for file in room.test_files(tree):
        own = shared.copy()
        for name in sorted({file, *_imported(tree, file, files)}):
            own.update(_digest(tree, name))
        made[file] = own.hexdigest()
    return made


def _lying(tree: Path) -> Iterator[str]:
    """Files of the copy, without what runs in it left behind."""
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        place = Path(folder).relative_to(tree)
        yield from ((place / name).as_posix() for name in names if not name.startswith("."))


def _digest(tree: Path, name: str) -> bytes:
    return f"{name}\0".encode() + hashlib.sha256((tree / name).read_bytes()).digest()


def _is_test(name: str) -> bool:
    return Path(name).name.startswith("test_") and name.endswith(".py")


def _imported(tree: Path, file: str, files: dict[str, str]) -> set[str]:
    """Test files that ``file`` takes builders from, and those from which these do."""
    found: set[str] = set()
    waiting = [file]
    while waiting:
        text = (tree / waiting.pop()).read_text()
        for name in _TEST.findall("\n".join(_NAMES_A_TEST.findall(text))):
            other = files.get(name)
            if other is not None and other not in found:
                found.add(other)
                waiting.append(other)
    return found
