"""What kopf is told: a start among thousands of models must hold few of them decoded at once, and write nothing of its
own."""

from typing import Any

import kopf
import pytest

from governed_operator.loop import handlers


class Process:
    """Counts what is asked of it."""

    namespaces: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def start(self) -> None:
        self.asked.append("start")

    async def listed(self) -> None:
        self.asked.append("listed")


async def test_kopf_lists_in_pieces_keeps_no_event_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    process, settings, memo = Process(), kopf.OperatorSettings(), kopf.Memo()

    async def create() -> Any:
        return process

    monkeypatch.setattr(handlers.OperatorProcess, "create", create)
    await handlers.start(memo=memo, settings=settings)
    assert process.asked == ["start", "listed"], "kopf's own list comes after those of the children"
    assert settings.watching.chunk_size == 500
    assert settings.queueing.idle_timeout <= 0.5
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.persistence.diffbase_storage.build(body={}) == {}
    assert not settings.scanning.disabled
    process.namespaces = ("ours",)
    await handlers.start(memo=memo, settings=settings)
    assert settings.scanning.disabled, "an operator of named namespaces may list neither namespaces nor definitions"
