"""The faults that are planted: one small change of one expression or statement, found in the syntax tree.

Left out is what no test should pin: annotations, the words of a ``Literal``, docstrings, ``__all__``, decorators, log
lines, the words of an error, of a command line's help and of a metric's description, and the ``strict`` of a ``zip``.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant", "mutants"]

DESCRIPTIVE = ("help", "strict")
"""Keyword arguments that no test should pin: words for people; and of ``zip``, whose two sides are made of the same
things, a guard like an assertion."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
DROPPED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete)
"""Statements that a mutant leaves out."""


@dataclass(frozen=True)
class Mutant:
    """``path`` (below the repository) with bytes ``start:end`` replaced; ``line`` counts from 1, ``source`` is that
    line's text.

    ``statement`` is the line where the statement begins that holds the change: a folded constant has no line of its
    own.
    """

    path: str
    statement: int
    line: int
    source: str
    start: int
    end: int
    before: str
    after: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Names the mutant whatever lines are added above it."""
        return self.path, self.source, f"{self.before} → {self.after}"

    def planted(self, content: bytes) -> bytes:
        """``content`` of the file with this fault in it."""
        return content[: self.start] + self.after.encode() + content[self.end :]


def mutants(root: Path, path: str) -> list[Mutant]:
    """Every fault that can be planted in the file ``path`` below ``root``, in order of their places."""
    content = (root / path).read_bytes()
    lines = content.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    planted = []
    for statement, node, replacement in _changes(ast.parse(content), 1):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = content[start:end].decode()
        after = replacement if isinstance(replacement, str) else _text(replacement, node)
        source = lines[node.lineno - 1].decode().strip()
        planted.append(Mutant(path, statement, node.lineno, source, start, end, " ".join(before.split()), after))
    return sorted(planted, key=lambda m: (m.start, m.end, m.after))


Change = tuple[ast.expr | ast.stmt, ast.AST | str]


def _text(replacement: ast.AST, node: ast.AST) -> str:
    text = ast.unparse(replacement)
    return f"({text})" if isinstance(node, ast.expr) and not isinstance(node, ast.Constant) else text


def _changes(node: ast.AST, statement: int) -> Iterator[tuple[int, ast.expr | ast.stmt, ast.AST | str]]:
    """(line of the statement, what is replaced, by what)."""
    if _left_out(node):
        return
    if isinstance(node, ast.stmt):
        statement = node.lineno
        yield from ((statement, *change) for change in _of_statement(node))
    elif isinstance(node, ast.expr):
        yield from ((statement, *change) for change in _of_expression(node))
    for child in _children(node):
        yield from _changes(child, statement)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Without annotations, decorators, docstrings, the words of an error, and descriptions."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        children = [child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)]
        if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg in DESCRIPTIVE):
            continue
        if name == "args" and isinstance(node, ast.Call) and _makes_a_metric(node.func):
            children = children[:1] + children[2:]
        yield from children


def _makes_a_metric(called: ast.expr) -> bool:
    """Whether its second argument is what a scrape tells people about it."""
    return isinstance(called, ast.Name) and called.id in ("Counter", "Gauge", "Histogram")


def _left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr):  # its parts have no places of their own before Python 3.12
        return True
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id == "Literal"
    if isinstance(node, ast.Expr):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        words = isinstance(node.value, ast.Constant)
        return words or (isinstance(called, ast.Name) and called.id == "log")
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id in ("__all__", "__slots__") for t in node.targets)
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _of_statement(node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, DROPPED):
        yield node, "pass"
    elif isinstance(node, ast.Continue):
        yield node, "break"
    elif isinstance(node, ast.Break):
        yield node, "continue"
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield node, "return None"
    elif isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)


def _of_expression(node: ast.expr) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        for place, operation in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[place] = COMPARISONS[type(operation)]()
            yield node, changed
    elif isinstance(node, ast.BoolOp):
        yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node, node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield node, ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.IfExp):
        yield node, ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Constant):
        yield from ((node, changed) for changed in _other_constants(node.value))


def _other_constants(value: object) -> list[str]:
    match value:
        case bool():
            return [repr(not value)]
        case int():
            return [repr(value + 1), f"({value - 1})"]
        case float():
            return [repr(value * 1.25 if value else 0.5)]
        case str():
            return [repr(value + "X")]
        case bytes():
            return [repr(value + b"X")]
    return []


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
