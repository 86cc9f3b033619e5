"""A bed of its own, with the neighbours' definitions in place before the operator looks, and pods' addresses that
answer."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from operator_bed import OperatorUnderTest, install_crds, running_operator

from support import pod_network
from support.apiserver_bed import ApiServerBed
from support.audit_log import AuditLog
from support.fixtures import started_bed
from support.progress import Say
from support.waiting import eventually

sys.path.insert(0, str(Path(__file__).parent))

from definitions import install_definitions
from traefik import GATEWAY


@pytest.fixture(scope="package")
def api_bed(tell: Say, swept: None) -> Iterator[ApiServerBed]:  # noqa: ARG001
    with started_bed(f"neighbours.{os.getpid()}", tell, str(pod_network.own_network())) as bed:
        install_crds(bed.cluster)
        install_definitions(bed.cluster)
        yield bed


@pytest.fixture(scope="package")
def audit(api_bed: ApiServerBed) -> AuditLog:
    return api_bed.audit


@pytest.fixture(scope="package")
def settings() -> dict[str, str]:
    """Of the operator's environment: all neighbours in use."""
    return {
        "GOVERNED_OPERATOR_GATEWAY": GATEWAY,
        "GOVERNED_OPERATOR_PROMETHEUS": "http://prometheus.monitoring.svc:9090",
    }


@pytest.fixture(scope="module")
def operator(
    api_bed: ApiServerBed, settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorUnderTest]:
    """One operator process per module, leading and in step."""
    with running_operator(api_bed, tmp_path_factory.mktemp("operator"), settings=settings) as running:
        eventually(lambda: running.leading, within=60, what="the operator leads")
        yield running
