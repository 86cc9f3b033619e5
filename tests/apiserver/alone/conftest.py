"""A cluster and an operator of these tests' own: they stop the operator under everybody."""

import os
from collections.abc import Iterator

import pytest
from operator_bed import OperatorUnderTest, install_crds, running_operator

from support.apiserver_bed import ApiServerBed
from support.audit_log import AuditLog
from support.fixtures import started_bed
from support.progress import Say
from support.waiting import eventually


@pytest.fixture(scope="package")
def api_bed(tell: Say, swept: None) -> Iterator[ApiServerBed]:  # noqa: ARG001
    with started_bed(f"alone.{os.getpid()}", tell) as bed:
        install_crds(bed.cluster)
        yield bed


@pytest.fixture(scope="package")
def audit(api_bed: ApiServerBed) -> AuditLog:
    return api_bed.audit


@pytest.fixture(scope="module")
def operator(api_bed: ApiServerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorUnderTest]:
    """One operator process per module, leading and in step."""
    with running_operator(api_bed, tmp_path_factory.mktemp("operator")) as running:
        eventually(lambda: running.leading, within=60, what="the operator leads")
        yield running
