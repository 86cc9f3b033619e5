"""Tests of this level run against etcd and a real kube-apiserver; `support.fixtures` brings them up."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver_bed import ApiServerBed
from support.fixtures import api_bed, audit, namespace, pytest_runtest_makereport, swept, tell
from support.waiting import eventually

sys.path.insert(0, str(Path(__file__).parent / "operator"))

from operator_bed import OperatorUnderTest, install_crds, running_operator

__all__ = ["api_bed", "audit", "namespace", "operator", "pytest_runtest_makereport", "swept", "tell"]


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """Of the operator's environment, beside what every bed gives it."""
    return {}


@pytest.fixture(scope="module")
def operator(
    api_bed: ApiServerBed, settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorUnderTest]:
    """One operator process per module, leading and in step."""
    install_crds(api_bed.cluster)
    with running_operator(api_bed, tmp_path_factory.mktemp("operator"), settings=settings) as running:
        eventually(lambda: running.leading, within=60, what="the operator leads")
        yield running
