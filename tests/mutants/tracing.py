"""A pytest plugin: writes which test executes which line of a room, so that a fault meets only the tests that can
notice it.

Loaded by name into the first, unchanged run (``-p mutants.tracing``). What a fixture executes counts for its whole
file, because a fixture of a module runs once; what an import executes counts for nobody and so for all.
"""

import json
import os
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

_trace = coverage.Coverage(data_file=None, source=os.environ["MUTANTS_SOURCES"].split(":"), config_file=False)
_seconds: dict[str, float] = defaultdict(float)
_trace.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    _trace.switch_context(_file(item.nodeid))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    _trace.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        _trace.switch_context(_file(item.nodeid))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration


def pytest_unconfigure() -> None:
    _trace.stop()
    data = _trace.get_data()
    lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
    trace = {"lines": lines, "seconds": _seconds, "modules": _installed()}
    Path(os.environ["MUTANTS_TRACE"]).write_text(json.dumps(trace))


def _installed() -> list[str]:
    """Modules of the interpreter and of installed packages, in the order of their imports."""
    places = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    own = ("__main__", "mutants", "coverage", "__editable__")
    return [name for name, file in files.items() if file.startswith(places) and not name.startswith(own)]


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
