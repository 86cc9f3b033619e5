"""401 and 403 for each route of each port by each role; the routes are those that the applications have."""

from typing import Any

import httpx
import pytest
from starlette.routing import BaseRoute, Mount

from governed_api import routes
from governed_api.callers import CallerRole
from governed_api.route_roles import AUDITOR_ROLES, EXPLAINER_ROLES, RPC_ROLES, SERVER_ROLES, Roles
from governed_serving.access.gate import Gate
from governed_serving.access.guard import CallerGuard, RouteTable
from governed_serving.hosting import Door
from governed_serving.pod_token import PodToken
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway
from governed_serving.server.rpc.messages import SERVICES
from unit.access.people import ROLE_KEYS, gate_of_roles, key
from unit.access.tokens import gate_of, known_by, token
from unit.hosting.test_guard import APPS

TABLES: dict[str, Roles] = {"server": SERVER_ROLES, "explainer": EXPLAINER_ROLES, "auditor": AUDITOR_ROLES}
TOKEN = PodToken(b"0123456789abcdef" * 4)
OPENAI = (routes.COMPLETIONS, routes.CHAT_COMPLETIONS, routes.EMBEDDINGS)


def app_of(port: str, gate: Gate | None = None) -> Any:
    """Behind its door, and the routes within."""
    gate = gate or gate_of_roles(port)
    if port == "server":
        gateway = Gateway("credit", why="", gate=gate)
        inner = application(gateway)
        return FastPathApp(gateway, inner, 1 << 20), inner.routes
    inner = APPS[port]()
    return Door(inner, guard=CallerGuard(gate, TABLES[port], TOKEN)), inner.routes


def registered(found: list[BaseRoute]) -> set[tuple[str, str]]:
    rows = set()
    for route in found:
        if isinstance(route, Mount):
            rows.add(("GET", f"{route.path}/{{path:path}}"))
        else:
            methods = getattr(route, "methods", set()) - {"HEAD"}
            rows |= {(method, getattr(route, "path", "")) for method in methods}
    return rows


@pytest.mark.parametrize("port", TABLES)
def test_every_route_has_a_role_and_every_role_a_route(port: str) -> None:
    _, found = app_of(port)
    assert registered(found) == set(TABLES[port])


def test_every_method_of_grpc_has_a_role() -> None:
    methods = {f"/{name}/{method.name}" for name, file in SERVICES.items() for method in file.service[0].method}
    assert methods == set(RPC_ROLES)


ROWS = sorted((port, *row) for port, table in TABLES.items() for row in table)


async def ask(port: str, method: str, path: str, gate: Gate | None = None, **headers: str) -> httpx.Response:
    app, _ = app_of(port, gate)
    made = path.replace("{path:path}", "x").replace("{", "").replace("}", "")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False)) as http:
        return await http.request(method, f"http://port{made}", headers=headers, content=b"{}")


@pytest.mark.parametrize(("port", "method", "path"), ROWS)
async def test_who_may_ask_what(port: str, method: str, path: str) -> None:
    needed = TABLES[port][method, path]
    nobody = await ask(port, method, path)
    if needed is None:
        assert nobody.status_code in (200, 503)
        assert "credit" not in nobody.text
        return
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer ")
    stranger = await ask(port, method, path, authorization=f"Bearer {key('z')}")
    assert stranger.status_code == 401
    assert "invalid_token" in stranger.headers["www-authenticate"]
    assert "credit" not in nobody.text + stranger.text
    for role, text in ROLE_KEYS.items():
        answer = await ask(port, method, path, **{"x-api-key": text})
        if role == needed:
            assert answer.status_code not in (401, 403, 405)
        else:
            assert answer.status_code == 403, role
            error = answer.json()["error"]
            assert (error["code"] if path in OPENAI else error).startswith(
                "insufficient_permissions" if path in OPENAI else f"access: expected a consumer with role {needed}"
            )


@pytest.mark.parametrize(("port", "method", "path"), [row for row in ROWS if TABLES[row[0]][row[1:]] is not None])
async def test_a_token_opens_what_the_role_of_its_consumer_does(port: str, method: str, path: str) -> None:
    needed = TABLES[port][method, path]
    other = CallerRole.SCRAPE if needed != CallerRole.SCRAPE else CallerRole.CALL
    gate = gate_of(*(known_by(role, roles=[role]) for role in CallerRole))

    async def status(text: str) -> int:
        return (await ask(port, method, path, gate, authorization=f"Bearer {text}")).status_code

    assert await status(token("ES256", sub=needed)) not in (401, 403, 405)
    assert await status(token("ES256", sub=other)) == 403
    assert await status(token("ES256", sub=needed, exp=1)) == 401


@pytest.mark.parametrize("path", OPENAI)
async def test_openai_clients_are_told_in_their_own_form(path: str) -> None:
    answer = await ask("server", "POST", path, authorization="Bearer EMPTY")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")


@pytest.mark.parametrize("port", TABLES)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", routes.METRICS_PATH, 405),
        ("OPTIONS", routes.METRICS_PATH, 405),
        ("GET", f"{routes.METRICS_PATH}%0A", 404),
        ("GET", f"{routes.LIVE_PATH}/", 404),
        ("GET", f"//{routes.LIVE_PATH}", 404),
    ],
)
async def test_what_has_no_row_is_told_to_callers_alone(port: str, method: str, path: str, status: int) -> None:
    assert (await ask(port, method, path)).status_code == 401
    assert (await ask(port, method, path, **{"api-key": ROLE_KEYS[CallerRole.SCRAPE]})).status_code == status


@pytest.mark.parametrize("port", ["explainer", "auditor"])
async def test_containers_of_the_pod_show_its_token(port: str) -> None:
    assert (await ask(port, "GET", routes.METRICS_PATH, **TOKEN.headers)).status_code == 200
    other = PodToken(PodToken.draw())
    assert (await ask(port, "GET", routes.METRICS_PATH, **other.headers)).status_code == 401


async def test_a_pods_token_opens_nothing_at_the_clients_port() -> None:
    assert (await ask("server", "GET", routes.METRICS_PATH, **TOKEN.headers)).status_code == 401


async def test_a_key_in_the_query_is_refused_and_not_quoted() -> None:
    text = ROLE_KEYS[CallerRole.SCRAPE]
    answer = await ask("server", "GET", f"{routes.METRICS_PATH}?api_key={text}", **{"x-api-key": text})
    assert answer.status_code == 401
    assert "query string" in answer.json()["error"]
    assert text[20:] not in answer.text


@pytest.mark.parametrize("port", TABLES)
async def test_head_is_judged_like_get(port: str) -> None:
    assert (await ask(port, "HEAD", routes.METRICS_PATH)).status_code == 401
    scrape = {"x-api-key": ROLE_KEYS[CallerRole.SCRAPE]}
    assert (await ask(port, "HEAD", routes.METRICS_PATH, **scrape)).status_code == 200
    assert (await ask(port, "HEAD", routes.LIVE_PATH)).status_code == 200


def test_a_route_that_is_not_in_the_table_is_not_reached() -> None:
    assert RouteTable({("GET", "/a/{b}"): CallerRole.CALL}).find("GET", "/a/b/c") == (404, None)
