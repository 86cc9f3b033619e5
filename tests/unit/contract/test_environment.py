"""What a pod template sets is what the process in it reads, and what a process can't do without is set."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from governed_api import runtime
from governed_serving import code_closure

ROOT = Path(__file__).parents[3]
CONSTANTS = {
    name: value for name, value in vars(runtime).items() if isinstance(value, str) and value.startswith("GOVERNED_")
}
BY_HAND = {
    "GOVERNED_HOST": "the address of a process that is started by hand; a pod listens on all",
    "GOVERNED_THREADS": "an override of what the container's CPU quota says",
    "GOVERNED_DRAIN_SECONDS": "for an endpoint that learns late of a leaving pod",
    "GOVERNED_MAX_BODY_BYTES": "the limit of a body",
    "GOVERNED_ALIBI_PYTHON": "an environment with alibi on the machine of whoever runs a model; the image has its own",
    "GOVERNED_CAPTUM_PYTHON": "an environment with captum, likewise",
}
"""Read with a default and set by no template, with the reason."""


SHARED = {"GOVERNED_NAMESPACE", "GOVERNED_POD_NAME", "GOVERNED_REPORT", "GOVERNED_TRACK"}
"""Who and where a pod is: given to all its containers, read by some."""


def role_containers() -> list[tuple[str, str, dict[str, Any]]]:
    """(golden case, role, container) of every process of ours that the operator starts."""
    found = []
    for output in sorted((ROOT / "tests/golden").glob("*/output.yaml")):
        for document in yaml.safe_load_all(output.read_text()):
            for container in _containers(document):
                words = [*container.get("command", []), *container.get("args", [])]
                roles = [w for w in words if isinstance(w, str) and w.startswith("governed_serving.")]
                if roles:
                    found.append((output.parent.name, roles[0], container))
    return found


def _containers(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [container for item in node for container in _containers(item)]
    if not isinstance(node, dict):
        return []
    here = [c for kind in ("initContainers", "containers") for c in node.get(kind) or []]
    return here + [container for value in node.values() for container in _containers(value)]


@cache
def reads(role: str) -> frozenset[str]:
    """Variables that the code of ``role`` names."""
    files = code_closure.closure([f"{role}.__main__"])
    text = "\n".join(path.read_text() for name, path in files.items() if "/" not in name and name != runtime.__name__)
    return frozenset(CONSTANTS[name] for name in CONSTANTS if re.search(rf"\bruntime\.{name}\b", text))


REQUIRING = {"required", "required_path", "required_url", "content"}


@cache
def needs(role: str, verb: str) -> frozenset[str]:
    """Variables without which ``role`` doesn't start: ``env.required…(runtime.NAME, …)`` and the like, in its own
    modules."""
    entry = {"serve": f"{role}.serve", "fetch": f"{role}.fetching.fetch"}.get(verb, f"{role}.__main__")
    found = set()
    for name, path in code_closure.closure([entry]).items():
        if "/" in name or not name.startswith(role):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "model":
                    found.add(runtime.SPEC)
                argument = node.args[0] if node.args else None
                if node.func.attr in REQUIRING and isinstance(argument, ast.Attribute) and argument.attr in CONSTANTS:
                    found.add(CONSTANTS[argument.attr])
    return frozenset(found)


def given(container: dict[str, Any]) -> set[str]:
    return {v["name"] for v in container.get("env", []) if v["name"].startswith("GOVERNED_")}


def disagreements(role: str, container: dict[str, Any]) -> list[str]:
    """What is set for nobody, and what is missing."""
    verb = [*container.get("command", []), *container.get("args", [])][-1]
    unread, lacking = given(container) - reads(role) - SHARED, needs(role, verb) - given(container)
    return [
        *(f"{name} is set and {role} never reads it" for name in sorted(unread)),
        *(f"{role} needs {name} and it isn't set" for name in sorted(lacking)),
    ]


CONTAINERS = role_containers()


@pytest.mark.parametrize(
    ("role", "container"), [c[1:] for c in CONTAINERS], ids=[f"{c[0]}-{c[1]}-{c[2]['name']}" for c in CONTAINERS]
)
def test_a_container_is_given_what_its_process_reads(role: str, container: dict[str, Any]) -> None:
    assert disagreements(role, container) == []


def test_every_role_is_looked_at() -> None:
    roles = {role.removeprefix("governed_serving.") for _, role, _ in CONTAINERS}
    assert roles == {"archive", "auditor", "explainer", "importer", "server", "trainer"}
    assert all(needs(f"governed_serving.{role}", "") for role in ("auditor", "explainer", "server", "trainer"))


def test_every_variable_of_the_contract_is_read_and_set() -> None:
    """A name that only one side knows is left over from a change."""
    read = {name for role in {role for _, role, _ in CONTAINERS} for name in reads(role)}
    set_by_templates = {name for *_, container in CONTAINERS for name in given(container)}
    assert set(CONSTANTS.values()) - read == set()
    assert read - set_by_templates - BY_HAND.keys() == set()
    assert BY_HAND.keys() <= read - set_by_templates


def test_no_process_reads_a_variable_by_a_name_of_its_own() -> None:
    for package in ("serving_image/governed_serving", "operator/governed_operator/desired"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"[\"']GOVERNED_[A-Z_]+[\"']", path.read_text()), path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda env: [*env, {"name": "GOVERNED_GRPC_PORT", "value": "1"}], "GOVERNED_GRPC_PORT is set and"),
        (lambda env: [v for v in env if v["name"] != "GOVERNED_SPEC"], "needs GOVERNED_SPEC and"),
        (
            lambda env: [v | {"name": v["name"].replace("_SPEC", "_SPECIFICATION")} for v in env],
            "GOVERNED_SPECIFICATION is set and",
        ),
    ],
)
def test_a_planted_difference_is_told(change: Any, told: str) -> None:
    role, container = next(c[1:] for c in CONTAINERS if c[1] == "governed_serving.auditor")
    found = disagreements(role, container | {"env": change(container["env"])})
    assert any(told in line for line in found), found
