"""Tests of this level run on a kind cluster; `support.fixtures` brings it up, once for all workers of a run."""

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
