"""A pod that would refuse each request since its record can't be kept isn't ready, until it could again."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from governed_api import routes
from governed_serving.server import process as process_module
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.process import Process
from unit.server.planes import until

READINESS = (routes.READY_PATH, routes.V2_READY, "/v2/models/credit/ready")


class Disk:
    """A journal whose volume may be full."""

    full = ""

    def obstacle(self) -> str:
        return self.full


def process(policy: str, disk: Disk) -> Process:
    audit = SimpleNamespace(failure_policy=policy)
    resolved: Any = SimpleNamespace(name="credit", spec=SimpleNamespace(governance=SimpleNamespace(audit=audit)))
    settings: Any = SimpleNamespace(revision="r1", pod="p", track="", report="", archive_url="")
    made = Process(settings, resolved, 0.0)
    made._journal = disk  # type: ignore[assignment]
    made._gateway.why = ""
    made._gateway.chat = object()  # type: ignore[assignment]
    return made


async def statuses(made: Process) -> list[int]:
    app: Any = FastPathApp(made._gateway, application(made._gateway), 1 << 20)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answers = [await client.get(path) for path in READINESS]
        assert (await client.get(routes.LIVE_PATH)).status_code == 200, "a restart frees no disk"
    assert all("No space left" in a.text for a in answers if a.status_code == 503)
    return [a.status_code for a in answers]


@pytest.mark.parametrize(("policy", "want"), [("Closed", 503), ("Open", 200)])
async def test_readiness_follows_the_disk_without_any_request(
    monkeypatch: pytest.MonkeyPatch, policy: str, want: int
) -> None:
    monkeypatch.setattr(process_module, "PROBE_SECONDS", 0.001)
    disk = Disk()
    made = process(policy, disk)
    watching = asyncio.create_task(made._watch_journal())
    assert await statuses(made) == [200] * 3
    disk.full = "the journal can't be written (No space left on device)"
    await until(lambda: bool(made._gateway.stalled) or policy == "Open")
    assert await statuses(made) == [want] * 3
    assert made._gateway.refusal() == "", "what comes all the same is tried"
    disk.full = ""
    await until(lambda: not made._gateway.stalled)
    assert await statuses(made) == [200] * 3
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
