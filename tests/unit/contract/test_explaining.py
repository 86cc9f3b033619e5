"""Options of an explanation: one table, which manifest, request, command, OpenAPI and README keep to."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import typer
from pydantic.alias_generators import to_camel

from governed_api.explaining import FORMER_NAMES, OPTIONS, request_schema
from governed_api.governance import Explainer, ExplainerConfig
from governed_operator.cli import app
from governed_operator.settings import Images
from governed_serving.explainer.service.protocol import Parameters
from governed_serving.server.app.openapi import explain_operation

ROOT = Path(__file__).parents[3]
README = (ROOT / "serving_image/governed_serving/explainer/README.md").read_text()
OWN = {"namespace", "context", "url", "api-key-file", "json", "help"}
"""Flags of the command that say where to ask and how to print."""


def within(place: str) -> set[str]:
    return {name for name, option in OPTIONS.items() if option.within(place)}


def flags() -> set[str]:
    (command,) = [c for n, c in typer.main.get_command(app).commands.items() if n == "explain"]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def test_the_manifest_has_the_table_s_options() -> None:
    assert set(ExplainerConfig.model_fields) == within("manifest")


def test_a_request_has_the_table_s_options_under_the_manifest_s_names() -> None:
    fields = msgspec.structs.fields(Parameters)
    assert {field.name for field in fields} == within("request")
    assert {field.encode_name for field in fields} == {to_camel(name) for name in within("request")}
    assert set(FORMER_NAMES.values()) <= {field.encode_name for field in fields}


def test_the_command_has_the_table_s_options_as_flags() -> None:
    told = {f"--{name.replace('_', '-')}" for name in within("command")}
    former = {flag for option in OPTIONS.values() for flag in option.former_flags}
    assert flags() - {f"--{name}" for name in OWN} == told | former


def test_openapi_has_the_table_s_options() -> None:
    body = explain_operation()["requestBody"]["content"]["application/json"]["schema"]  # type: ignore[index]
    assert body["properties"]["parameters"] == request_schema()
    assert set(request_schema()["properties"]) == {to_camel(name) for name in within("request")}  # type: ignore[call-overload, arg-type]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_readme_has_every_option(name: str) -> None:
    assert re.search(rf"`{to_camel(name)}`", README), f"explainer/README.md names no `{to_camel(name)}`"


def unmade(engine: str) -> list[str]:
    """What an engine of the manifest lacks: its side of ours, its worker, its place in the process, image and page."""
    room = ROOT / "serving_image/governed_serving/explainer"
    lacking = [
        f"engines/{name}.py" for name in (engine, f"{engine}_worker") if not (room / f"engines/{name}.py").exists()
    ]
    if f'explainer.engine == "{engine}"' not in (room / "service/process.py").read_text():
        lacking.append("service/process.py")
    if f"explainer_{engine}" not in Images.__dataclass_fields__:
        lacking.append("an image in operator/governed_operator/settings.py")
    if f"\n## {engine} as an engine\n" not in README:
        lacking.append("a chapter of explainer/README.md")
    return lacking


ENGINES = [e for part in get_args(Explainer.model_fields["engine"].annotation) for e in get_args(part)]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_of_the_manifest_has_all_that_makes_it(engine: str) -> None:
    assert unmade(engine) == []


def test_a_planted_engine_is_noticed() -> None:
    assert {"alibi", "captum"} <= set(ENGINES)
    assert len(unmade("planned")) == 5


def test_what_can_t_be_said_somewhere_has_its_reason() -> None:
    for name, option in OPTIONS.items():
        assert {place for place, _ in option.not_in} <= {"manifest", "request", "command"}, name
        assert all(len(reason) > 10 for _, reason in option.not_in), name


def test_former_names_are_told_nowhere_but_as_former() -> None:
    for name in FORMER_NAMES:
        rest = README.replace("`max_evaluations` and `budget_ms` are taken as former names of two", "")
        assert f"`{name}`" not in rest
