"""Reasons: one documented set, every member emitted, none written by hand elsewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import governed_api
import governed_operator
import governed_serving
from governed_api import reasons
from governed_api.conditions import Condition
from governed_api.reasons import KubernetesReason, Reason, canary_problem

PACKAGES = (governed_api, governed_operator, governed_serving)
ENUMS = {"Reason": Reason, "KubernetesReason": KubernetesReason}
EMITTERS = {"Violation": 1, "Judgement": 1, "PodProblem": 0, "Refusal": 0, "Failure": 0, "Wait": 1}
"""Where a reason stands among the arguments."""


def sources() -> dict[str, ast.Module]:
    """Every module but the set itself."""
    files = (path for package in PACKAGES for path in Path(str(package.__file__)).parent.rglob("*.py"))
    return {str(p): ast.parse(p.read_text()) for p in files if p != Path(reasons.__file__)}


SOURCES = sources()


def literals(tree: ast.Module) -> Iterator[str]:
    """Strings that are values: no docstrings."""
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def by_hand(trees: dict[str, ast.Module]) -> list[str]:
    """Emitters whose reason is a literal, and literals that are a reason's value of two words or more."""
    compound = {r.value for enum in ENUMS.values() for r in enum if len(re.findall("[A-Z][a-z]", r.value)) > 1}
    compound -= {"ReplicaFailure", "NotFound"}  # a condition of Kubernetes', and an exception's name
    found = []
    for path, tree in trees.items():
        found += [f"{path}: {word}" for word in literals(tree) if word in compound]
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)):
            place = EMITTERS.get(call.func.id)  # type: ignore[attr-defined]
            if place is not None and len(call.args) > place and isinstance(call.args[place], ast.Constant):
                found.append(f"{path}:{call.lineno}: {ast.unparse(call)}")
    return found


def test_every_emitter_is_a_class_of_ours() -> None:
    classes = {n.name for tree in SOURCES.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    functions = {n.name for tree in SOURCES.values() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert set(EMITTERS) <= classes | functions, "one that was renamed is looked for no more"


def test_no_reason_is_written_by_hand() -> None:
    assert by_hand(SOURCES) == []


@pytest.mark.parametrize(
    "planted",
    ['x = "BeyondThreshold"', 'Violation(c.READY, "Odd", "m")', 'PodProblem("Odd", "")', 'f(reason="RollingOut")'],
)
def test_a_planted_one_is_found(planted: str) -> None:
    assert by_hand({"planted": ast.parse(planted)})


def test_every_reason_is_emitted_somewhere() -> None:
    used = {
        (node.value.id, node.attr)
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert [f"{name}.{r.name}" for name, enum in ENUMS.items() for r in enum if (name, r.name) not in used] == []


@pytest.mark.parametrize("reason", [r for enum in ENUMS.values() for r in enum])
def test_a_reason_is_a_word_that_a_condition_takes_and_says_what_it_means(reason: Reason) -> None:
    (pattern,) = [m.pattern for m in Condition.model_fields["reason"].metadata if hasattr(m, "pattern")]
    assert re.fullmatch(pattern, reason)
    assert re.fullmatch(r"[A-Z][^\n]{5,110}\.", reason.description)
    assert str(reason) == f"{reason}" == reason.value


def test_reasons_are_told_apart_and_passed_on_ones_stay_words() -> None:
    values = [r.value for enum in ENUMS.values() for r in enum]
    assert len(values) == len(set(values))
    assert canary_problem(KubernetesReason.OOM_KILLED) == "CanaryOOMKilled"
    assert set(ENUMS.values()) < set(get_args(reasons.Cause))
