"""Answers "do these tests notice this fault?" by a fork of a process that has done what all faults share.

Two servers, started by ``servers.py``. As a pytest plugin (``-p mutants.forking``) the process has collected the room's
tests: a fault inside a function is planted into the fork's memory. As a program (``python -m mutants.forking``) it has
imported only what is installed: a fault that changes an import starts there, with pytest and collection in the fork.

A question is a line of JSON on one pipe, the answer a line on the other. In the fork the processor time is bounded, so
that a fault which never ends costs seconds and not the patience that a loaded machine needs.
"""

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import _pytest.main
import pytest

from mutants.planted_code import CannotPlant, plant

CANNOT_PLANT = 77
BROKEN = 78
"""Exit codes of a fork: the other server must try; neither tests nor fault are to blame."""
SPARE_MEMORY = 4 << 30
"""Bytes that a fork may add to what its server holds."""


def serve(run: Callable[[dict[str, Any]], int]) -> None:
    """Answer until the questions end; ``run`` is called in the fork and returns its exit code."""
    answers = int(os.environ.pop("MUTANTS_ANSWERS"))
    with os.fdopen(int(os.environ.pop("MUTANTS_QUESTIONS"))) as questions:  # taken out: the forks must not serve
        os.write(answers, b'"ready"\n')
        for line in questions:
            os.write(answers, json.dumps(_forked(run, json.loads(line))).encode() + b"\n")


def _forked(run: Callable[[dict[str, Any]], int], question: dict[str, Any]) -> int | None:
    """The fork's exit code (negative: its signal), or None when its time was up."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            os.setsid()
            _bound(question["processor_seconds"])
            code = run(question)
        except MemoryError:  # also of telling that there is none: noticed, as an error of a test is
            code = 1
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
    watched = os.pidfd_open(pid)
    try:
        in_time = bool(select.select([watched], [], [], question["seconds"])[0])
    finally:
        os.close(watched)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # the fork if it hangs, and what its tests left
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if in_time and code != -signal.SIGXCPU else None


def _bound(processor_seconds: float) -> None:
    with open("/proc/self/statm") as sizes:
        held = int(sizes.read().split()[0]) * resource.getpagesize()
    for limited, most in ((resource.RLIMIT_CPU, int(processor_seconds) + 1), (resource.RLIMIT_AS, held + SPARE_MEMORY)):
        hard = resource.getrlimit(limited)[1]
        resource.setrlimit(limited, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Serve in place of running the collected tests; they run in the forks."""
    if "MUTANTS_QUESTIONS" not in os.environ:
        return (yield)
    items = {item.nodeid: item for item in session.items}
    sys.dont_write_bytecode = True

    def run(question: dict[str, Any]) -> int:
        try:
            sound, faulty = (bytes.fromhex(question[name]) for name in ("sound", "faulty"))
            if not plant(sound, faulty, question["path"]) and _imported(question["path"]):
                return CANNOT_PLANT
        except CannotPlant:
            return CANNOT_PLANT
        session.items = [items[name] for name in question["tests"] if name in items]
        try:
            _pytest.main.pytest_runtestloop(session)
        except (session.Failed, session.Interrupted, KeyboardInterrupt, SystemExit):
            return 1
        except Exception:  # pytest itself fails where a fault eats all memory: noticed, as an error of a test is
            traceback.print_exc()
            return 1
        return 1 if session.testsfailed else 0

    serve(run)
    session.items = []
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Into the server's output, which is told when a fork breaks."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}", file=sys.__stderr__, flush=True)


def _imported(path: str) -> bool:
    return any(getattr(module, "__file__", None) == path for module in list(sys.modules.values()))


def main() -> None:
    """Import what is named on the first line, then serve."""
    for name in json.loads(sys.stdin.readline()):
        try:
            importlib.import_module(name)
        except Exception:  # imported before something that it needs: the fork will do without
            sys.modules.pop(name, None)
    sys.dont_write_bytecode = True
    serve(lambda question: int(pytest.main(question["arguments"])))


if __name__ == "__main__":
    main()
