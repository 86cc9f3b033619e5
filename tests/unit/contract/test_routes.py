"""Paths: what an app answers, a client asks for; and no other room writes a path down."""

import ast
import re
from pathlib import Path

import pytest

import governed_operator
import governed_serving
from governed_api import routes

PATHS = {name: value for name, value in vars(routes).items() if name.isupper() and isinstance(value, str)}
LITERAL = re.compile(r"/(v1|v2|healthz)/|/v2$|/metrics$")


def paths_by_hand(tree: ast.Module) -> list[str]:
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    found = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in prose)
    return [n.value for n in found if isinstance(n.value, str) and LITERAL.match(n.value)]


def test_no_path_is_written_by_hand() -> None:
    found = {}
    for package in (governed_operator, governed_serving):
        room = Path(str(package.__file__)).parent
        for file in room.rglob("*.py"):
            place = str(file.relative_to(room))
            if paths := paths_by_hand(ast.parse(file.read_text())):
                found[place] = paths
    assert found == {}


@pytest.mark.parametrize("planted", ['x = "/v1/verdict"', 'x = f"/v2/models/{m}/infer"', 'get("/healthz/live")'])
def test_a_planted_path_is_found(planted: str) -> None:
    assert paths_by_hand(ast.parse(planted))


def test_every_path_is_one_of_its_own_and_used() -> None:
    assert len(set(PATHS.values())) == len(PATHS)
    rooms = [Path(str(package.__file__)).parent for package in (governed_operator, governed_serving)]
    text = "".join(file.read_text() for room in rooms for file in room.rglob("*.py"))
    built = {"PROOF"} | {n for n in PATHS if n.endswith("_PATH")}  # runtime's, under another name
    unused = {n for n in PATHS if f"routes.{n}" not in text} - built
    assert unused == set()


CALLS = {
    "get": "GET",
    "post": "POST",
    "put": "PUT",
    "delete": "DELETE",
    "stream": "",
    "request": "",
    "_ask": "",
    "_json": "",
}
CLIENTS = (
    "archive/client.py", "server/explainer_client.py", "server/predictors/upstream.py", "blackbox/client.py",
    "auditor/service/decision_review.py", "local/client.py", "local/proof.py", "local/showcase.py",
)  # fmt: skip
APPS = (
    "server/app/routes.py",
    "explainer/service/app.py",
    "auditor/service/app.py",
    "archive/app.py",
    "hosting/answers.py",
)
ALIASES = {"PROOF": {"PROOF_INCLUSION", "PROOF_CONSISTENCY"}}


def named(node: ast.AST) -> set[str]:
    """Names of routes in an expression."""
    names = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "routes"}
    return {name for one in names for name in ALIASES.get(one, {one})}


def asked(tree: ast.Module) -> set[tuple[str, str]]:
    """(method, route) of every call that a client makes; "" where the method isn't written beside it."""
    found: set[tuple[str, str]] = set()
    beside: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            method = CALLS[node.func.attr] or next((w for w in words if w.isupper()), "")
            here = {name for argument in node.args for name in named(argument)}
            found |= {(method, name) for name in here}
            beside |= here
    return found | {("", name) for name in named(tree) - beside}


def answered(tree: ast.Module) -> set[tuple[str, str]]:
    """(method, route) that an app registers: by decorator, by call, or in a table of (path, methods, handler)."""
    found = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CALLS
            and node.args
        ):
            found |= {(CALLS[node.func.attr], name) for name in named(node.args[0])}
        elif isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[1], ast.Tuple):
            methods = [e.value for e in node.elts[1].elts if isinstance(e, ast.Constant)]
            found |= {(method, name) for method in methods for name in named(node.elts[0])}
    return found


def unanswered(clients: set[tuple[str, str]], apps: set[tuple[str, str]]) -> set[tuple[str, str]]:
    served = {name for _, name in apps}
    return {(m, n) for m, n in clients if (m, n) not in apps and (m or n not in served)}


def trees(places: tuple[str, ...]) -> list[ast.Module]:
    rooms = [Path(str(package.__file__)).parent for package in (governed_operator, governed_serving)]
    files = [room / place for place in places for room in rooms if (room / place).is_file()]
    assert len(files) == len(places)
    return [ast.parse(file.read_text()) for file in files]


def test_what_a_client_asks_for_an_app_answers() -> None:
    apps = {found for tree in trees(APPS) for found in answered(tree)}
    for name in ("IMPORTANCES", "QUALITY", "OVERVIEW"):
        apps.add(("GET", name))  # registered in a loop
    clients = {found for tree in trees(CLIENTS) for found in asked(tree)}
    assert len(clients) > 25
    assert unanswered(clients, apps) - {("GET", "TILES")} == set()  # a route pattern of its own, from C2SP's tile paths


@pytest.mark.parametrize(
    ("client", "app"),
    [
        ('self._ask("PUT", routes.REF.format(model=m))', "@app.get(routes.REF)\nasync def f(): ..."),
        ("client.get(routes.VERDICT)", "@app.get(routes.FINDINGS)\nasync def f(): ..."),
        ("path = self._url + routes.EXPLAIN.format(model=m)", 'table = [(routes.BLOB, ("GET",), handler)]'),
    ],
)
def test_a_planted_disagreement_is_found(client: str, app: str) -> None:
    assert unanswered(asked(ast.parse(client)), answered(ast.parse(app)))
