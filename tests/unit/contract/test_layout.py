"""The shape of the repository: what lies at the top, and that ``operator/`` shadows nothing."""

import ast
import operator
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOP = {
    "LICENSE",
    "README.md",
    "charts",
    "crds",
    "kind-config.yaml",
    "operator",
    "pyproject.toml",
    "serving_image",
    "tests",
}


def tracked() -> list[str]:
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in found.stdout.split("\n") if name]


def test_python_without_an_ending_is_formatted_and_checked_as_well() -> None:
    """A commit hook looks at such files by their first line, and would refuse what CI lets pass."""
    written = {n for n in tracked() if "." not in Path(n).name and is_python(ROOT / n)}
    assert written == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["extend-include"])


def is_python(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


SIGNATURE = 6
"""Parameters given by position; more are grouped, or given by name."""
LINES = 60


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in ("crds", "operator", "serving_image"):
            for node in ast.walk(ast.parse((ROOT / name).read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{name}:{node.lineno} {node.name}", node


def test_functions_are_short_and_take_few_parameters() -> None:
    long, many = [], []
    for where, node in functions():
        positional = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
        if (node.end_lineno or 0) - node.lineno >= LINES:
            long.append(where)
        if len(positional) > SIGNATURE:
            many.append(where)
    assert (long, many) == ([], [])


def test_top_level_holds_exactly_what_the_design_names() -> None:
    top = {name.split("/")[0] for name in tracked() if not name.startswith(".")}
    assert top <= TOP, top - TOP


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "serving_image" / "__init__.py").exists()
    code = "import operator; print(operator.itemgetter.__module__, hasattr(operator, '__file__') and operator.__file__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(operator.__file__) in out
