"""Workers of one test run (pytest-xdist): who ran them, what they share, and what only one of them may do at a time.

A run is known by the process id of the pytest that a person or CI started. What its workers share carries that id, is
made by whichever worker needs it first, and is taken away by that pytest once its workers have ended.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from support.places import cache

_RUN = "governed_run"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each worker whose it is (a hook of pytest-xdist)."""
    node.workerinput[_RUN] = os.getpid()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another pytest."""
    return hasattr(config, "workerinput")


def run_of(config: pytest.Config) -> int:
    """Process id of the pytest that was started, the same in all its workers."""
    return int(config.workerinput[_RUN]) if hasattr(config, "workerinput") else os.getpid()


def worker_number() -> int:
    """0, 1, … among the workers of a run; 0 without workers. For ranges of ports and the like."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@contextmanager
def among_workers(run: int, what: str, *, alone: bool = True) -> Iterator[None]:
    """One worker of a run at a time does `what`; with `alone=False` any number may, but none beside one that is
    alone."""
    with (cache("locks") / f"run-{run}-{what}").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def forget(run: int) -> None:
    """Take a run's locks away, once its workers have ended."""
    for path in cache("locks").glob(f"run-{run}-*"):
        path.unlink(missing_ok=True)


def grouping(groups: Mapping[str, str]) -> Any:
    """A hook of pytest-xdist: tests whose ids begin with a key stay on one worker, one after the other, with all of
    that group.

    pytest-xdist's own `--dist loadgroup` marks ids through a field that pytest 9.2 no longer has, and so groups
    nothing.
    """

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
        from xdist.scheduler import LoadScopeScheduling  # pytest runs without it as well

        class Grouped(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return next((group for start, group in groups.items() if nodeid.startswith(start)), nodeid)

        return Grouped(config, log) if config.getoption("dist") == "loadgroup" else None

    return pytest_xdist_make_scheduler
