"""An operator with all its parts before a stand-in of the API server: what policies say reaches models, from the watch
to the status, and back when they change."""

import asyncio
import base64
import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from builders import IMPORTED

from governed_api.json_types import Json
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import Kind
from governed_operator.loop.operator_process import OperatorProcess
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch import reflector

EXEMPT: Json = {
    "model": "plain", "rule": "quota", "owner": "ana", "reason": "trial", "expires": "2199-01-01T00:00:00Z"
}  # fmt: skip


class Server:
    """One model; what is watched is what a test sends; every write is remembered and answered."""

    def __init__(self) -> None:
        metadata = {"name": "plain", "namespace": "n", "uid": "m", "resourceVersion": "5", "generation": 1}
        self.model: dict[str, Any] = {"metadata": metadata, "spec": IMPORTED, "status": {}}
        self.written: list[tuple[str, str, str]] = []
        """(kind, name or an Event's reason, kind that an Event is about)"""
        self.refuses = False
        self._version = 100
        self._lines: dict[str, asyncio.Queue[bytes]] = {}

    async def pages(self, kind: Kind, *_: Any, **__: Any) -> AsyncIterator[tuple[list[bytes], str]]:
        if self.refuses and kind.kind == "ClusterGovernancePolicy":
            raise ApiError(403, "Forbidden", "may not list")
        yield [json.dumps(self.model).encode()] if kind.kind == "GovernedModel" else [], "5"

    async def watch(self, kind: Kind, *_: Any, **__: Any) -> AsyncIterator[bytes]:
        while True:
            yield await self._queue(kind.kind).get()

    def _queue(self, kind: str) -> asyncio.Queue[bytes]:
        return self._lines.setdefault(kind, asyncio.Queue())

    def send(self, event: str = "MODIFIED", **spec: Json) -> None:
        """A policy that asks for a quota, or for what ``spec`` says."""
        self._version += 1
        metadata = {"name": "floor", "namespace": "n", "uid": "p", "resourceVersion": str(self._version)}
        policy = {"metadata": metadata, "spec": {"enforcement": "Deny", "require": {"quota": "Required"}, **spec}}
        self._queue("GovernancePolicy").put_nowait(json.dumps({"type": event, "object": policy}).encode())

    async def get(self, kind: Kind, *_: Any) -> dict[str, Any] | None:
        archive = {"metadata": {"uid": "x"}, "data": {"root": base64.b64encode(b"r" * 32).decode()}}
        return {"Secret": archive, "PersistentVolumeClaim": {}}.get(kind.kind)

    async def create(self, kind: Kind, made: dict[str, Any], **_: Any) -> bytes:
        name = made["metadata"]["name"]
        self.written.append((kind.kind, made.get("reason", name), made.get("regarding", {}).get("kind", "")))
        self._version += 1
        known = copy.deepcopy(made)
        known["metadata"] |= {"uid": f"u-{name}", "resourceVersion": str(self._version)}
        return json.dumps(known).encode()

    async def apply(self, kind: Kind, made: dict[str, Any], **_: Any) -> bytes:
        return await self.create(kind, made)

    async def patch_status(self, kind: Kind, _: str, name: str, patch: dict[str, Any]) -> bytes:
        assert (kind.kind, name) == ("GovernedModel", "plain")
        self._version += 1
        self.model["metadata"]["resourceVersion"] = str(self._version)
        self.model["status"] = {k: v for k, v in (self.model["status"] | patch).items() if v is not None}
        return json.dumps(self.model).encode()

    def reason(self, kind: str = "PolicySatisfied") -> str:
        return next((c["reason"] for c in self.model["status"].get("conditions", []) if c["type"] == kind), "")

    @property
    def deployed(self) -> bool:
        return "Deployment" in {kind for kind, _, _ in self.written}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  the operator signals nothing
            await asyncio.sleep(0.02)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """Before an operator that works, and asks again at once for what it may not list."""
    monkeypatch.setattr(reflector, "NOT_ALLOWED_PAUSE", 0.05)
    server = Server()
    process = OperatorProcess(cast(Cluster, server), OperatorSettings(), Capabilities())
    server.refuses = True
    tasks = [asyncio.create_task(one.run()) for one in process._reflectors]
    tasks.append(asyncio.create_task(process._lead()))
    yield server
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ended == [], "none of them ends by itself"


async def test_policies_reach_models_whatever_becomes_of_them(server: Server) -> None:
    await until(lambda: server.reason("Ready") == "PoliciesUnknown")
    server.send("ADDED")
    await until(lambda: server.reason() == "Violated")
    server.send(exemptions=[EXEMPT])
    await until(lambda: server.reason() == "PoliciesUnknown")
    server.send(require=None)
    await until(lambda: server.reason() == "PolicyInvalid")
    await until(lambda: ("Event", "PolicyInvalid", "GovernancePolicy") in server.written)
    server.refuses = False
    server.send()
    await until(lambda: server.reason("Ready") == "Violated")
    assert not server.deployed, "held all the while"
    assert ("Event", "Violated", "GovernedModel") in server.written
    server.send(exemptions=[EXEMPT])
    await until(lambda: server.reason() == "Exempt" and server.deployed)
    server.send("DELETED")
    await until(lambda: server.reason() == "")
