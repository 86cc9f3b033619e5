"""One operator process per module, and this folder on the path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver_bed import ApiServerBed
from support.waiting import eventually

sys.path.insert(0, str(Path(__file__).parent))

from operator_bed import OperatorUnderTest, install_crds, running_operator


@pytest.fixture(scope="module")
def operator(api_bed: ApiServerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorUnderTest]:
    """Leading and in step."""
    install_crds(api_bed.cluster)
    with running_operator(api_bed, tmp_path_factory.mktemp("operator")) as running:
        eventually(lambda: running.leading, within=60, what="the operator leads")
        yield running
