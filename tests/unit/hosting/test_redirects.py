"""No process leads a client to wherever the Host field says: a path that isn't there is 404, with or without a
slash."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

import governed_serving
from governed_serving.archive.app import create_app, create_public_app
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.auditor.service.app import application as auditor
from governed_serving.explainer.service.app import application as explainer
from governed_serving.server.app.routes import application as server

METRICS = ArchiveMetrics("default")
APPS: dict[str, Callable[[], Starlette]] = {
    "archive": lambda: create_app(MagicMock(), MagicMock(), METRICS),
    "ledger for anyone": lambda: create_public_app(MagicMock(), METRICS),
    "auditor": lambda: auditor(MagicMock()),
    "explainer": lambda: explainer(MagicMock()),
    "server": lambda: server(MagicMock(model="loans")),
}
WRITTEN = ("{}/", "{}//", "/{}", "{}/?a=b", "{}/%23", "{}/%2e", "{}%5c", "{};/", "/evil.example{}/", "{}/..")
"""Ten ways to miss a path."""
REDIRECTING = range(300, 400)


def paths(app: Starlette) -> Iterator[str]:
    yield from (re.sub(r"\{\w+(:path)?\}", "x", r.path) for r in app.routes if isinstance(r, Route))


@pytest.mark.parametrize("name", APPS)
async def test_nobody_is_led_to_another_host(name: str) -> None:
    app = APPS[name]()
    hosts: dict[str, Any] = {"headers": {"host": "evil.example", "x-forwarded-host": "evil.example"}}
    transport = httpx.ASGITransport(_Headless(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        missed = [form.format(path) for path in paths(app) for form in WRITTEN]
        assert len(missed) > 10
        for method in ("GET", "POST"):
            for path in missed:
                scope = httpx.URL("http://here").copy_with(raw_path=path.encode())
                answer = await client.request(method, scope, **hosts)
                assert answer.status_code not in REDIRECTING, (method, path, answer.headers)
                assert "evil.example" not in answer.headers.get("location", ""), (method, path)


class _Headless:
    """Bodies left out: those of stand-ins are none."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        await self._app(scope, receive, sent)


def test_every_application_of_ours_is_asked() -> None:
    room = Path(str(governed_serving.__file__)).parent
    made = [
        file.relative_to(room).as_posix()
        for file in sorted(room.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("FastAPI", "FastAPIOffline", "Starlette", "documented")
    ]
    assert made == ["archive/app.py"] * 2 + [
        "auditor/service/app.py",
        "explainer/service/app.py",
        "hosting/documented.py",
        "server/app/routes.py",
    ]
