"""The inner ports of a pod with a foreign runtime: every route of the three asks for the port's token, unless it is one
that says nothing of data."""

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from governed_api import routes, runtime
from governed_api.runtime import POD_TOKEN_HEADER
from governed_serving.auditor.service import app as auditor_app
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.process import make_pod_tokens
from governed_serving.environment import InvalidSettings, PodEnvironment
from governed_serving.explainer.service import app as explainer_app
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.hosting import Door, Guard
from governed_serving.hosting.guard import is_own
from governed_serving.pod_token import PodToken, PodTokens
from governed_serving.server.app.internal import InternalApp
from governed_serving.server.app.service import Gateway
from unit.hosting.test_connection import Client, served

TOKEN = PodToken(b"0123456789abcdef" * 4)
OTHER = PodToken(PodToken.draw())
SHOWN = dict(TOKEN.headers)
NAME, VALUE = POD_TOKEN_HEADER.encode(), SHOWN[POD_TOKEN_HEADER].encode()
INSIDE, OUTSIDE = "127.0.0.1", "192.0.2.7"
SECRET = "Zaphod"
"""Of a group, a subject and a worker's failure."""


def _auditor() -> FastAPI:
    metrics = AuditorMetrics("n", "loans")
    metrics.missing({SECRET: 1})
    metrics.findings([SimpleNamespace(subject=f"drift/{SECRET}", value=1.0)], [f"drift/{SECRET}"])  # type: ignore[list-item]
    metrics.bias([SimpleNamespace(name="spd", attribute="planet", group=SECRET, value=0.1)])  # type: ignore[list-item]
    state: Any = SimpleNamespace(subject=None)
    parts: Any = (state, None, metrics, lambda: f"fold stalled: {SECRET}", lambda: {"fold": SECRET}, lambda: None)
    return auditor_app.application(auditor_app.Dependencies(*parts))


def _explainer() -> FastAPI:
    explanations: Any = SimpleNamespace(metrics=ExplainerMetrics("n", "loans"))
    jobs: Any = SimpleNamespace(depth=0)
    slow: Any = None
    return explainer_app.application(explainer_app.Dependencies(explanations, jobs, lambda: SECRET, slow))


def _lane_routes() -> list[tuple[str, str]]:
    asked = [routes.INFER, routes.COMPLETIONS, routes.CHAT_COMPLETIONS]
    return [("POST", path) for path in asked] + [("GET", routes.V2_READY), ("GET", routes.READY_PATH)]


def _table(app: FastAPI) -> list[tuple[str, str]]:
    found = [(method, getattr(r, "path", "")) for r in app.routes for method in getattr(r, "methods", None) or ()]
    assert len(found) > 8
    return found


APPS: dict[str, Callable[[], FastAPI]] = {"auditor": _auditor, "explainer": _explainer}
TABLES = {name: _table(make()) for name, make in APPS.items()} | {"lane": _lane_routes()}
ROUTES = sorted((port, method, path) for port, table in TABLES.items() for method, path in table)
OPEN = {(port, method, path) for port, method, path in ROUTES if path in routes.WITHOUT_POD_TOKEN}


class Port:
    """One of the three behind its guard."""

    def __init__(self, name: str, client: str = INSIDE, token: PodToken | None = TOKEN) -> None:
        self.refused = 0
        guard = Guard.of(token, self._count)
        self.app: Any = Door(APPS[name](), guard=guard) if name in APPS else self._lane(token)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(client, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://pod")

    def _count(self) -> None:
        self.refused += 1

    def _lane(self, token: PodToken | None) -> InternalApp:
        def count(name: str, _: int) -> None:
            self.refused += name == "internal_unauthorized"

        return InternalApp(Gateway("loans", why="loading"), 1 << 20, count, token)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with self.http:
            return await self.http.request(method, path.replace("{", "").replace("}", ""), **more)


@pytest.mark.parametrize(("port", "method", "path"), ROUTES)
@pytest.mark.parametrize("client", [INSIDE, OUTSIDE])
async def test_every_route_asks_for_the_token_unless_it_is_exempt(
    port: str, method: str, path: str, client: str
) -> None:
    asked = Port(port, client)
    answer = await asked.ask(method, path, content=b"{}" if method == "POST" else None)
    if (port, method, path) in OPEN and method in ("GET", "HEAD"):
        assert answer.status_code in (200, 503)
        assert asked.refused == 0
        return
    assert answer.status_code == 401
    if method != "HEAD":
        assert list(answer.json()) == ["error"], "in the port's own form"
        assert POD_TOKEN_HEADER in answer.json()["error"]
    assert answer.headers["www-authenticate"] == POD_TOKEN_HEADER
    assert asked.refused == 1


def test_the_exempt_routes_are_the_probes_and_the_metrics() -> None:
    assert {path for _, _, path in OPEN} == {"/healthz/live", "/healthz/ready", "/metrics"}
    assert {port for port, *_ in OPEN} == {"auditor", "explainer", "lane"}


@pytest.mark.parametrize("path", [routes.VERDICT, "/v1/nothing", f"{routes.LIVE_PATH}/", f"{routes.METRICS_PATH}/x"])
async def test_a_path_beside_the_exempt_ones_is_none(path: str) -> None:
    assert (await Port("auditor").ask("GET", path)).status_code == 401


@pytest.mark.parametrize("path", routes.WITHOUT_POD_TOKEN)
async def test_an_exempt_path_is_so_for_reading_alone(path: str) -> None:
    assert (await Port("auditor").ask("POST", path)).status_code == 401


@pytest.mark.parametrize("path", routes.WITHOUT_POD_TOKEN)
@pytest.mark.parametrize("port", APPS)
async def test_a_process_of_the_pod_learns_nothing_of_data(port: str, path: str) -> None:
    answer = await Port(port).ask("GET", path)
    assert answer.status_code in (200, 503)
    assert SECRET not in answer.text
    if path == routes.METRICS_PATH:
        assert "governed_auditor_ship_failures_total" in answer.text or port != "auditor"
        assert "governed_bias_metric" not in answer.text
        assert "governed_auditor_bias_verdict" not in answer.text


@pytest.mark.parametrize(("client", "headers"), [(OUTSIDE, {}), (INSIDE, SHOWN)])
async def test_a_scraper_and_who_shows_the_token_learn_all(client: str, headers: Mapping[str, str]) -> None:
    text = (await Port("auditor", client).ask("GET", routes.METRICS_PATH, headers=headers)).text
    assert 'group="Zaphod"' in text
    assert "governed_auditor_bias_verdict" in text
    assert SECRET in (await Port("auditor", client).ask("GET", routes.READY_PATH, headers=headers)).text


async def test_with_the_token_a_route_is_answered() -> None:
    answer = await Port("explainer").ask("POST", routes.EXPLAIN, headers=SHOWN, content=b"{}")
    assert answer.status_code != 401
    lane = Port("lane")
    assert (await lane.ask("POST", "/v2/models/loans/infer", headers=SHOWN, content=b"{}")).status_code == 503
    assert lane.refused == 0


async def test_a_pod_of_ours_alone_asks_for_nothing() -> None:
    answer = await Port("auditor", token=None).ask("GET", routes.METRICS_PATH)
    assert 'group="Zaphod"' in answer.text
    assert (await Port("lane", token=None).ask("POST", "/v2/models/loans/infer", content=b"{}")).status_code == 503


ATTACKS: dict[str, Any] = {
    "none": [],
    "other case": [(NAME, VALUE.upper())],
    "of another pod, or port": [(NAME, OTHER.headers[POD_TOKEN_HEADER].encode())],
    "twice": [(NAME, VALUE), (NAME, VALUE)],
    "twice, one wrong": [(NAME, b"0" * 64), (NAME, VALUE)],
    "joined": [(NAME, VALUE + b", " + VALUE)],
    "blank behind": [(NAME, VALUE + b" ")],
    "tab behind": [(NAME, VALUE + b"\t")],
    "cut": [(NAME, VALUE[:-1])],
    "longer": [(NAME, VALUE + b"0")],
    "empty": [(NAME, b"")],
    "as a bearer": [(b"authorization", b"Bearer " + VALUE)],
    "not ASCII": [(NAME, "ſ".encode() + VALUE[2:])],
    "name with an underscore": [(NAME.replace(b"-", b"_"), VALUE)],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_other_header_is_the_token(name: str) -> None:
    assert not TOKEN.shown_in(ATTACKS[name])
    assert TOKEN.shown_in([(b"host", b"x"), (NAME, VALUE)])


H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
HEADER = NAME + b": " + VALUE + b"\r\n"
RAW: dict[str, tuple[bytes, int]] = {
    "in the query": (b"GET /v1/verdict?" + NAME + b"=" + VALUE + b" HTTP/1.1\r\nhost: x\r\n\r\n", 401),
    "in the target": (b"GET http://x/v1/verdict#" + VALUE + b" HTTP/1.1\r\nhost: x\r\n\r\n", 401),
    "h2c": (b"GET /v1/verdict HTTP/1.1\r\nhost: x\r\n" + H2C + b"\r\n", 401),
    "HTTP/2 by prior knowledge, as gRPC speaks": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "folded": (b"GET /v1/verdict HTTP/1.1\r\nhost: x\r\n" + NAME + b":\r\n " + VALUE + b"\r\n\r\n", 400),
    "blank before the colon": (b"GET /v1/verdict HTTP/1.1\r\nhost: x\r\n" + NAME + b" : " + VALUE + b"\r\n\r\n", 400),
    "twice": (b"GET /v1/verdict HTTP/1.1\r\nhost: x\r\n" + HEADER * 2 + b"\r\n", 401),
    "in a trailer": (
        b"POST /v1/verdict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + HEADER + b"\r\n",
        401,
    ),
    "a longer exempt path": (b"GET /healthz/live/../../v1/verdict HTTP/1.1\r\nhost: x\r\n\r\n", 401),
    "an encoded slash": (b"GET /healthz%2Flive HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    "right": (b"GET /v1/verdict HTTP/1.1\r\nhost: x\r\n" + HEADER + b"\r\n", 200),
}


@pytest.mark.parametrize("name", RAW)
async def test_over_a_socket(name: str) -> None:
    sent, status = RAW[name]
    refused: list[int] = []
    async with served(guard=Guard(TOKEN, lambda: refused.append(1))) as (seen, connect):
        client: Client = await connect()
        found, body = await client.ask(sent)
        assert found == status, body
        assert len(refused) == (status == 401)
        assert len(seen.requests) == (status == 200), "nothing else reached the application"


def test_own_addresses_are_told_from_others() -> None:
    assert is_own("127.0.0.1")
    assert is_own("127.9.9.9"), "all of 127.0.0.0/8"
    assert not is_own(OUTSIDE)
    assert is_own("no address"), "what can't be told is inside"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.connect((OUTSIDE, 9))  # sends nothing
        assert is_own(found.getsockname()[0]), "the pod's address, at which its ports are reached as well"


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tokens"
    monkeypatch.setenv(runtime.POD_TOKENS, str(folder))
    return folder


def read(folder: Path) -> PodTokens:
    return PodEnvironment({runtime.POD_TOKENS: str(folder)}).pod_tokens()


def test_a_pod_draws_tokens_once_and_each_port_its_own(tokens: Path) -> None:
    make_pod_tokens()
    first = {path.name: path.read_bytes() for path in tokens.iterdir()}
    assert set(first) == {"server", "explainer", "auditor"}
    assert len(set(first.values())) == 3
    assert {path.stat().st_mode & 0o777 for path in tokens.iterdir()} == {0o400}
    make_pod_tokens()
    assert {path.name: path.read_bytes() for path in tokens.iterdir()} == first, "the auditor was started again"
    shown = read(tokens).auditor
    assert shown is not None
    assert shown.shown_in([(NAME, first["auditor"])])
    assert not shown.shown_in([(NAME, first["server"])])


def test_a_file_that_changes_later_changes_nothing(tokens: Path) -> None:
    make_pod_tokens()
    auditor, before = read(tokens).auditor, (tokens / "auditor").read_bytes()
    (tokens / "auditor").unlink()
    (tokens / "auditor").write_bytes(b"f" * 64)
    assert auditor is not None
    assert auditor.shown_in([(NAME, before)])
    assert not auditor.shown_in([(NAME, b"f" * 64)])


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"0" * 63, b"0" * 65, b"0" * 32 + b" " + b"0" * 31, b"\xff" * 64, None]
)
def test_a_file_that_holds_no_token_keeps_a_process_from_starting(tokens: Path, content: bytes | None) -> None:
    make_pod_tokens()
    (tokens / "auditor").unlink()
    if content is not None:
        (tokens / "auditor").write_bytes(content)
    with pytest.raises(InvalidSettings, match=runtime.POD_TOKENS):
        read(tokens)


def test_without_a_foreign_runtime_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(runtime.POD_TOKENS, raising=False)
    make_pod_tokens()
    assert PodEnvironment({}).pod_tokens() == PodTokens()
    assert Guard.of(None, lambda: None) is None
    assert json.dumps(dict(TOKEN.headers)) == json.dumps({POD_TOKEN_HEADER: VALUE.decode()})
