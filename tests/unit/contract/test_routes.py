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
    assert unused - {"IMPORTANCES", "QUALITY"} == set(), "the two reports are named by the explainer's own table"
