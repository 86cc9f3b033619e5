"""Tests of this level run against etcd and a real kube-apiserver; `support.fixtures` brings them up.

One control plane and one operator serve all workers of a run. What stops an operator, takes a cluster's definitions
away or needs other settings has a cluster of its own: `alone/`, `neighbours/`, `test_chart.py`.
"""

import sys
from pathlib import Path

import pytest

from support.apiserver_bed import ApiServerBed
from support.fixtures import (
    api_bed,
    audit,
    namespace,
    pytest_configure_node,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_sessionstart,
    run,
    swept,
    tell,
)
from support.side_by_side import among_workers

sys.path.insert(0, str(Path(__file__).parent / "operator"))

from operator_bed import AnsweringOperator, install_crds, operator_of_the_bed

__all__ = [
    "api_bed",
    "audit",
    "namespace",
    "operator",
    "pytest_configure_node",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "run",
    "swept",
    "tell",
]


@pytest.fixture(scope="session")
def defined(api_bed: ApiServerBed, run: int) -> None:
    """The shared bed knows our resources: applied once, since a second apply would disturb whoever compares
    versions."""
    with among_workers(run, "crds"):
        done = api_bed.folder / "crds-installed"
        if not done.exists():
            install_crds(api_bed.cluster)
            done.touch()


@pytest.fixture(scope="session")
def operator(api_bed: ApiServerBed, defined: None, run: int) -> AnsweringOperator:  # noqa: ARG001
    """The run's operator, leading and in step."""
    with among_workers(run, "operator"):
        return operator_of_the_bed(api_bed)
