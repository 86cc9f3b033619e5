"""A volume that is full as the archive stops, or as a keyset's copy is kept: a line in the log, and nothing else."""

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from governed_serving.archive import keysets
from governed_serving.archive.app import create_app
from governed_serving.archive.keysets import CachedStore
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.tokens import Tokens

from .test_app import Bed


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_keyset_is_used_although_its_copy_cant_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keysets, "replace_file", full)
    store: Any = SimpleNamespace(get=lambda _: b"document", create=lambda _, document: document)
    cached = CachedStore(store, tmp_path)
    assert cached.get("journal") == cached.create("journal", b"document") == b"document"
    assert "couldn't be written" in caplog.text


async def test_stopping_over_a_full_volume_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Bed(tmp_path)) as bed:
        monkeypatch.setattr(bed.archive, "close", full)
        app = create_app(bed.archive, Tokens(b"r" * 32, "default"), ArchiveMetrics("default"))
        await stopped(app)
        monkeypatch.undo()
    assert "checkpoint or snapshot not written" in caplog.text


async def stopped(app: Starlette) -> None:
    async with app.router.lifespan_context(app):
        pass
