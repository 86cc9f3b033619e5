"""The servers of one copy of the tree, as the one who plants sees them: started when first needed, ended together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from mutants.forking import BROKEN, CANNOT_PLANT
from mutants.planting import Mutant

__all__ = ["Limits", "ServerFailed", "Servers", "command", "environment"]

ROOTS = ("crds", "operator", "serving_image")
PYTEST = ("-q", "-p", "no:cacheprovider", "-p", "mutants.quick", "-p", "mutants.forking", "--assert=plain", "-x")


class ServerFailed(Exception):
    """A server ended, or its fork did without running tests."""


class Limits:
    """Seconds after which tests count as hanging: by the clock, and of processor time."""

    def __init__(self, tests: float) -> None:
        self.seconds = 60.0 + 10 * tests  # a loaded machine is slow
        self.processor_seconds = 5.0 + 5 * tests


def command(*arguments: str) -> list[str]:
    """pytest with the arguments."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mutants.quick", *arguments]


def environment(tree: Path, **further: str) -> dict[str, str]:
    """Variables with which the sources of ``tree`` are in use, and one thread where libraries would take all cores."""
    paths = [*(str(tree / name) for name in ROOTS), str(Path(__file__).parents[1])]  # the last one for the plugins
    return os.environ | {"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"} | further


class Servers:
    """``files``: the tests to collect; ``modules``: installed ones that those import, in order."""

    def __init__(self, tree: Path, files: list[str], modules: list[str]) -> None:
        self.tree = tree
        self.arguments = [*PYTEST, f"--basetemp={tree / '.basetemp'}"]
        self.modules = modules
        self._collected = _Server(tree, "collected", ["pytest", *self.arguments, *files])
        self._preloaded = _Server(tree, "preloaded", ["mutants.forking"], json.dumps(modules))

    def __enter__(self) -> "Servers":
        self._collected.start()  # before a fault lies in the tree
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._collected.end()
        self._preloaded.end()

    def notices(self, mutant: Mutant, sound: bytes, tests: list[str], limits: Limits, by_import: bool) -> bool:
        """Whether one of the tests fails, or never ends. The fault lies in the file. Raises ServerFailed."""
        question: dict[str, Any] = {"seconds": limits.seconds, "processor_seconds": limits.processor_seconds}
        if not by_import:
            place = {"path": str(self.tree / mutant.path), "tests": tests}
            texts = {"sound": sound.hex(), "faulty": mutant.planted(sound).hex()}
            code = self._collected.ask(question | place | texts)
            if code != CANNOT_PLANT:
                return self._failed(code)
        question["processor_seconds"] += 30  # imports and collection
        return self._failed(self._preloaded.ask(question | {"arguments": [*self.arguments, *tests]}))

    def _failed(self, code: int | None) -> bool:
        if code in (5, BROKEN):  # no test ran
            raise ServerFailed(f"expected tests to run, found exit code {code}")
        return code != 0


class _Server:
    """One process: ``module`` with its arguments, which reads ``first`` before it answers."""

    def __init__(self, tree: Path, name: str, module: list[str], first: str = "") -> None:
        self._tree, self._name, self._first = tree, name, first
        self._command = [sys.executable, "-m", *module]
        self._process: subprocess.Popen[str] | None = None
        self._said = tree / f".mutants-{name}.out"

    def ask(self, question: dict[str, Any]) -> int | None:
        self.start()
        self._questions.write(json.dumps(question) + "\n")
        self._questions.flush()
        answer = self._answers.readline()
        if not answer:
            raise self._ended()
        code: int | None = json.loads(answer)
        if code == BROKEN:
            raise self._ended()
        return code

    def end(self) -> None:
        """Close the pipes: the server ends when the questions do."""
        if self._process is not None:
            self._questions.close()
            self._process.wait()
            self._answers.close()

    def start(self) -> None:
        """Return when it can be asked. Raises ServerFailed."""
        if self._process is not None:
            return
        (theirs, questions), (answers, ours) = os.pipe(), os.pipe()
        self._questions, self._answers = os.fdopen(questions, "w"), os.fdopen(answers)
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._tree,
                env=environment(self._tree, MUTANTS_QUESTIONS=str(theirs), MUTANTS_ANSWERS=str(ours)),
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=(theirs, ours),
                start_new_session=True,
            )
        os.close(theirs)
        os.close(ours)
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(self._first + "\n")
        if not self._answers.readline():
            raise self._ended()

    def _ended(self) -> ServerFailed:
        text = self._said.read_text(errors="replace")
        return ServerFailed(f"expected an answer of the {self._name} server, found:\n{text[-3000:]}")
