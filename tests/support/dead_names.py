"""Names of the product that the product never uses: functions, classes, methods and constants that only tests, or
nobody, refer to.

By name, not by type: a method counts as used where any object is asked for an attribute of that name. So everything
reported is dead; something dead that shares its name with something alive is not reported. Exports (``__all__``,
imports) are no use.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Definition", "dead"]

PLAIN_DECORATORS = {
    "abstractmethod", "asynccontextmanager", "cache", "cached_property", "classmethod", "contextmanager", "dataclass", "final",  # noqa: E501
    "lru_cache", "overload", "override", "property", "runtime_checkable", "setter", "staticmethod", "total_ordering", "wraps",  # noqa: E501
}  # fmt: skip
"""Decorators that don't hand the name to somebody; any other one (a route, a handler, a validator) registers it."""

MOST_INSIDE = 8
"""Times that a definition may refer to itself; one that is used more often is alive."""

DECLARING_BASES = {"Enum", "Protocol", "StrEnum"}
"""Bases of classes whose members are declared, not called by name here."""


@dataclass(frozen=True)
class Definition:
    """``name`` is qualified in its module: ``Class.method``."""

    path: str
    line: int
    name: str

    @property
    def key(self) -> str:
        return f"{self.path}::{self.name}"


def dead(root: Path, folders: Iterable[str]) -> list[Definition]:
    """Definitions below ``root/folders`` that nothing there refers to outside of the definition itself."""
    trees = {
        path.relative_to(root).as_posix(): ast.parse(path.read_bytes())
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
    }
    used: Counter[str] = Counter()
    for tree in trees.values():
        used.update(_uses(tree))
    return [
        Definition(path, node.lineno, name)
        for path, tree in trees.items()
        for name, node in _definitions(tree.body)
        if (times := used[name.rpartition(".")[2]]) <= MOST_INSIDE
        and times == (Counter(_uses(node))[name.rpartition(".")[2]] if times else 0)
    ]


def _definitions(body: Iterable[ast.stmt], outer: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _definitions([*node.body, *node.orelse], outer)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not _dunder(node.name) and not _registered(node):
                yield f"{outer}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            if not _registered(node):
                yield f"{outer}{node.name}", node
            if not DECLARING_BASES & {_last(base) for base in node.bases}:
                yield from _definitions([s for s in node.body if not _field(s)], f"{outer}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not outer:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((t.id, node) for t in targets if isinstance(t, ast.Name) and not _dunder(t.id) and t.id != "_")


def _field(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _registered(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(_last(decorator) not in PLAIN_DECORATORS for decorator in node.decorator_list)


def _last(node: ast.expr) -> str:
    """``c`` of ``a.b.c(…)[…]``."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _uses(tree: ast.AST) -> Iterator[str]:
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
    yield from _read(tree, aliases)


def _read(node: ast.AST, aliases: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
        return
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            yield aliases.get(name, name)
        case ast.Attribute(attr=name):
            yield name
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
            yield name
        case (
            ast.arg(annotation=ast.Constant(value=str(text))) | ast.AnnAssign(annotation=ast.Constant(value=str(text)))
        ):
            yield from _quoted(text)
        case ast.FunctionDef(returns=ast.Constant(value=str(text))):
            yield from _quoted(text)
        case ast.Subscript(slice=inner):
            for below in ast.walk(inner):
                if isinstance(below, ast.Constant) and isinstance(below.value, str):
                    yield from _quoted(below.value)
        case ast.keyword(arg=str(name)):
            yield name
    for child in ast.iter_child_nodes(node):
        yield from _read(child, aliases)


def _quoted(text: str) -> Iterator[str]:
    """Names in an annotation in quotes."""
    try:
        yield from _read(ast.parse(text, mode="eval"), {})
    except SyntaxError:
        return
