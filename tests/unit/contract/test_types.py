"""``Any`` switches mypy off for all that it touches: it may become rarer, never more frequent. Ceilings by room."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("crds/governed_api", "operator/governed", "operator/governed_operator", "serving_image/governed_serving")
DICT = "dict[str, Any]"

CEILINGS: dict[str, tuple[int, int]] = {
    "governed_api": (5, 3),
    "governed_operator.kube": (6, 2),
    "governed_operator.local": (2, 0),
    "governed_operator.loop": (1, 0),
    "governed_operator.policy": (1, 0),
    "governed_operator.watch": (11, 1),
    "governed_serving.archive": (6, 4),
    "governed_serving.artefact": (5, 1),
    "governed_serving.auditor": (15, 6),
    "governed_serving.blackbox": (1, 1),
    "governed_serving.completions": (2, 1),
    "governed_serving.crypto": (7, 1),
    "governed_serving.decoding": (14, 0),
    "governed_serving.dossier": (6, 1),
    "governed_serving.explainer": (17, 12),
    "governed_serving.fairness": (23, 0),
    "governed_serving.hosting": (5, 1),
    "governed_serving.journal": (4, 0),
    "governed_serving.records": (2, 2),
    "governed_serving.server": (62, 20),
    "governed_serving.trainer": (9, 5),
}
"""Room → most uses of ``Any``, and of ``dict[str, Any]``: what was found when the room was last typed.

What stays has a reason: a library without types (ONNX Runtime, Tink, grpc's messages), an event of ASGI, a struct that
msgspec decodes and describes (its schemas know no ``object``, its types no recursion), and what a loader reads back
from its own dump. Elsewhere parsed JSON is ``governed_api.json_types.Json``, a document to be written is a
``Mapping[str, object]``, a column of rows an ``NDArray[np.generic]``. Lower a number when you have made it smaller.
"""


def annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Annotations that are written as strings, parsed."""
    for node in ast.walk(tree):
        given = [node.annotation] if isinstance(node, ast.AnnAssign | ast.arg) else []
        given += [node.returns] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
        for annotation in given:
            for part in ast.walk(annotation) if annotation is not None else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and "Any" in part.value:
                    parsed = ast.parse(part.value, mode="eval").body
                    for below in ast.walk(parsed):
                        if isinstance(below, ast.expr):
                            below.lineno = part.lineno
                    yield parsed


def places(source: str, word: str) -> list[int]:
    """Lines of ``source`` that use ``word`` (Any, or dict[str, Any]), one for each use; not imports, not prose."""
    if "Any" not in source:
        return []
    tree = ast.parse(source)
    nodes = [*ast.walk(tree), *(node for parsed in annotations(tree) for node in ast.walk(parsed))]
    if word == DICT:
        return sorted(n.lineno for n in nodes if isinstance(n, ast.Subscript) and ast.unparse(n) == DICT)
    names = [n.lineno for n in nodes if isinstance(n, ast.Name) and n.id == "Any"]
    return sorted(names + [n.lineno for n in nodes if isinstance(n, ast.Attribute) and n.attr == "Any"])


@cache
def by_room(word: str) -> dict[str, list[str]]:
    """Room → file:line of each use."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
            name = f"{package.split('/')[1]}.{room}" if package != PACKAGES[0] else "governed_api"
            found[name] += [f"{path.relative_to(ROOT)}:{line}" for line in places(path.read_text(), word)]
    return {room: uses for room, uses in found.items() if uses}


@pytest.mark.parametrize(("word", "column"), [("Any", 0), (DICT, 1)])
def test_no_room_says_it_more_often(word: str, column: int) -> None:
    found = by_room(word)
    most = {room: CEILINGS.get(room, (0, 0))[column] for room in found}
    risen = {room: uses for room, uses in found.items() if len(uses) > most[room]}
    assert not risen, "\n".join(
        f"{room}: expected at most {most[room]} × {word}, found {len(uses)}; say what the values are. Its uses:\n  "
        + "\n  ".join(uses)
        for room, uses in risen.items()
    )


def test_every_ceiling_is_that_of_a_room() -> None:
    rooms = {"governed_api"} | {
        f"{package.split('/')[1]}.{path.name.removesuffix('.py')}"
        for package in PACKAGES[1:]
        for path in (ROOT / package).iterdir()
    }
    assert set(CEILINGS) <= rooms


@pytest.mark.parametrize(
    ("planted", "uses", "dicts"),
    [
        ("from typing import Any\nx: Any = 1", [2], []),
        ('def f(x: "list[Any]") -> "dict[str, Any]": ...', [1, 1], [1]),
        ("import typing\ndef f(*, x: typing.Any): ...", [2], []),
        ("\nA = dict[str, Any]\nasync def f() -> dict[\n    str, Any\n]: ...", [2, 4], [2, 3]),
        ('"""Any pod."""\n# Any\nx = "Any"', [], []),
        ("x: 'NDArray[Any] | None' = None", [1], []),
        ("x = cast(dict[str, dict[str, Any]], y)", [1], [1]),
    ],
)
def test_a_planted_use_is_counted(planted: str, uses: list[int], dicts: list[int]) -> None:
    assert places(planted, "Any") == uses
    assert places(planted, DICT) == dicts
