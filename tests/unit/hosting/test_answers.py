"""Probes and errors, alike for every service."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from governed_api.routes import LIVE_PATH, METRICS_PATH, READY_PATH
from governed_serving.hosting.answers import add_probes, json_answer, problem


async def asked(path: str, **answers: Any) -> httpx.Response:
    app = FastAPI()

    async def metrics(_: bool) -> bytes:
        return b"governed_up 1\n"

    add_probes(app, metrics, **{"not_ready": lambda: "", **answers})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("path", "answers", "status", "body"),
    [
        (LIVE_PATH, {}, 200, {"live": True}),
        (LIVE_PATH, {"not_ready": lambda: "it is stopping"}, 200, {"live": True}),
        (READY_PATH, {}, 200, {"ready": True}),
        (
            READY_PATH,
            {"degraded": lambda: {"shipping": "away"}},
            200,
            {"ready": True, "degraded": {"shipping": "away"}},
        ),
        (READY_PATH, {"not_ready": lambda: "it is stopping"}, 503, {"error": "it is stopping"}),
    ],
)
async def test_probes(path: str, answers: dict[str, Any], status: int, body: dict[str, Any]) -> None:
    answer = await asked(path, **answers)
    assert (answer.status_code, answer.json()) == (status, body)


async def test_metrics_are_prometheus_text() -> None:
    answer = await asked(METRICS_PATH)
    assert answer.text == "governed_up 1\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_only_unavailable_asks_to_come_again() -> None:
    assert problem(503, "busy").headers["retry-after"] == "1"
    assert "retry-after" not in problem(400, "no").headers
    assert problem(400, "no \N{BULLET}").body == '{"error":"no •"}'.encode()
    assert json_answer({"a": 1}, 202).status_code == 202
