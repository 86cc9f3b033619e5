"""The beds, the fault tools and what tests wait with, tested themselves; `support.fixtures` brings beds up."""

from support.fixtures import (
    api_bed,
    audit,
    faults,
    kind_bed,
    kind_namespace,
    namespace,
    pytest_configure_node,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_sessionstart,
    run,
    swept,
    tell,
)

__all__ = [
    "api_bed",
    "audit",
    "faults",
    "kind_bed",
    "kind_namespace",
    "namespace",
    "pytest_configure_node",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "run",
    "swept",
    "tell",
]
