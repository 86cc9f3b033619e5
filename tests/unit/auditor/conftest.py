"""What the auditor's tests start from: the model's journal keyset, and an archive in this process."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from governed_serving.crypto import Keyset

from ..archive.test_app import Bed
from .records import local_keyset


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with closing(Bed(tmp_path / "archive")) as bed:
        yield bed


@pytest.fixture
def keyset(tmp_path: Path) -> Keyset:
    return local_keyset(tmp_path)
