"""Tests of this level run on a kind cluster; `support.fixtures` brings it up, once for all workers of a run.

What takes minutes until it can be judged is applied by the first test and judged by a later one.
"""

from collections.abc import Iterator

import pytest

from e2e.grants import grants
from support.cluster_access import Cluster
from support.fixtures import (
    faults,
    kind_bed,
    kind_namespace,
    project_images,
    pytest_configure_node,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_sessionstart,
    release,
    run,
    swept,
    tell,
    undisturbed,
)
from support.governed import SAMPLES
from support.kind_bed import KindBed
from support.release import Release

__all__ = [
    "faults",
    "kind_bed",
    "kind_namespace",
    "project_images",
    "pytest_configure_node",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "release",
    "run",
    "swept",
    "tell",
    "undisturbed",
]


@pytest.fixture(scope="session")
def sample(kind_bed: KindBed, release: Release) -> Iterator[Cluster]:  # noqa: ARG001
    """A namespace with the sample applied."""
    here = kind_bed.cluster.within(kind_bed.cluster.create_namespace("governed"))
    here.kubectl("apply", "-f", str(SAMPLES / "admissions.yaml"))
    yield here
    here.kubectl("delete", "namespace", here.namespace, "--wait=false")


@pytest.fixture(scope="session")
def granting(kind_bed: KindBed, release: Release) -> Iterator[Cluster]:  # noqa: ARG001
    """A namespace with the model of tests/e2e/grants.py applied."""
    here = kind_bed.cluster.within(kind_bed.cluster.create_namespace("rollout"))
    here.apply(grants())
    yield here
    here.kubectl("delete", "namespace", here.namespace, "--wait=false")
