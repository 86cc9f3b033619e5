"""Tests of this level run on a kind cluster; `support.fixtures` brings it up."""

from support.fixtures import (
    faults,
    kind_bed,
    kind_namespace,
    project_images,
    pytest_runtest_makereport,
    release,
    swept,
    tell,
)

__all__ = [
    "faults",
    "kind_bed",
    "kind_namespace",
    "project_images",
    "pytest_runtest_makereport",
    "release",
    "swept",
    "tell",
]
