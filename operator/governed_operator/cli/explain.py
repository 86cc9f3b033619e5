"""`governed explain`: asks a served model for an explanation."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic.alias_generators import to_camel
from typer.models import OptionInfo

from governed_api.explaining import OPTIONS
from governed_api.json_types import Scalar
from governed_api.runtime import PORT_HTTP
from governed_operator.cli.api_key import ApiKeyFile, api_key_headers
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster, reached
from governed_operator.cli.model_options import AsJson, Instance, Name, Url, features, print_json

if TYPE_CHECKING:
    from governed_operator.local.client import ExplainAnswer

_PAIR = "FEATURE=VALUE; repeatable."
_NAMED = "NAME=FEATURE,FEATURE …; repeatable."


def _told(name: str, form: str = "") -> OptionInfo:
    """The flag of an option, by its name and its former ones; ``form``: how its value is written."""
    option = OPTIONS[name]
    told = f"{option.meaning} {form}" if form else option.meaning
    flag: OptionInfo = typer.Option(f"--{name.replace('_', '-')}", *option.former_flags, help=told, show_default=False)
    return flag


_Method = Annotated[str | None, _told("method")]
_Interactions = Annotated[bool, _told("interactions")]
_Target = Annotated[str | None, _told("target")]
_Outcome = Annotated[str | None, _told("outcome")]
_Field = Annotated[str | None, _told("field")]
_Level = Annotated[str | None, _told("level")]
_Groups = Annotated[list[str] | None, _told("groups", _NAMED)]
_Hierarchy = Annotated[list[str] | None, _told("hierarchy", _NAMED)]
_Scale = Annotated[str | None, _told("scale")]
_Evaluations = Annotated[int | None, _told("max_evaluations")]
_Budget = Annotated[float | None, _told("budget_milliseconds")]
_Precision = Annotated[float | None, _told("precision")]
_Confidence = Annotated[float | None, _told("confidence")]
_Seed = Annotated[int | None, _told("seed")]
_KernelWidth = Annotated[float | None, _told("kernel_width")]
_Immutable = Annotated[list[str] | None, _told("immutable", "Repeatable.")]
_Direction = Annotated[list[str] | None, _told("direction", _PAIR)]
_Step = Annotated[list[str] | None, _told("step", _PAIR)]


def command(
    name: Name,
    instance: Instance,
    url: Url = None,
    *,
    api_key_file: ApiKeyFile = None,
    namespace: Namespace = None,
    context: Context = None,
    method: _Method = None,
    interactions: _Interactions = False,
    target: _Target = None,
    outcome: _Outcome = None,
    field: _Field = None,
    level: _Level = None,
    groups: _Groups = None,
    hierarchy: _Hierarchy = None,
    scale: _Scale = None,
    max_evaluations: _Evaluations = None,
    budget_milliseconds: _Budget = None,
    precision: _Precision = None,
    confidence: _Confidence = None,
    seed: _Seed = None,
    kernel_width: _KernelWidth = None,
    immutable: _Immutable = None,
    direction: _Direction = None,
    step: _Step = None,
    as_json: AsJson = False,
) -> None:
    """Explain one prediction of a model that serves here or in a cluster."""
    row, key = features(instance), api_key_headers(api_key_file)
    asked = {
        "method": method or None,
        "interactions": interactions or None,
        "target": target,
        "outcome": outcome,
        "field": field,
        "level": level,
        "groups": _groups("groups", groups) or None,
        "hierarchy": _groups("hierarchy", hierarchy) or None,
        "scale": scale,
        "max_evaluations": max_evaluations,
        "budget_milliseconds": budget_milliseconds,
        "precision": precision,
        "confidence": confidence,
        "seed": seed,
        "kernel_width": kernel_width,
        "immutable": immutable or None,
        "direction": _pairs("direction", direction) or None,
        "step": _numbers("step", step) or None,
    }
    parameters = {to_camel(name): value for name, value in asked.items() if value is not None}
    way = reached(url, PORT_HTTP, name, in_cluster(name, namespace, context))
    _show(_answer(row, parameters, name=name, way=way, key=key), as_json)


def _answer(
    row: dict[str, Scalar],
    parameters: Mapping[str, object],
    *,
    name: str,
    way: AbstractContextManager[str],
    key: Mapping[str, str],
) -> "ExplainAnswer":
    from governed_operator.local.client import ModelClient
    from governed_operator.local.json_client import ClientError

    try:
        with way as at, ModelClient(at, name, headers=key) as client:
            return client.explain_in_time(row, parameters)
    except ClientError as error:
        fail(str(error))


def _show(answer: "ExplainAnswer", as_json: bool) -> None:
    from governed_operator.local.explanation_view import explanation_view
    from governed_operator.local.plain_console import plain_console

    if as_json:
        print_json(answer)
    else:
        plain_console().print(explanation_view(answer))


def _groups(flag: str, words: list[str] | None) -> dict[str, list[str]]:
    """NAME=FEATURE,FEATURE … → features by group; ends the command with what was expected otherwise."""
    groups: dict[str, list[str]] = {}
    for word in words or []:
        name, _, members = word.partition("=")
        features = [feature.strip() for feature in members.split(",") if feature.strip()]
        if not name or not features:
            fail(f"--{flag} {word}: expected NAME=FEATURE,FEATURE …")
        if name in groups:
            fail(f"--{flag} {word}: the group {name} is named twice; list its features once")
        groups[name] = features
    return groups


def _pairs(flag: str, words: list[str] | None) -> dict[str, str]:
    """FEATURE=VALUE … → value by feature; ends the command with what was expected otherwise."""
    pairs: dict[str, str] = {}
    for word in words or []:
        name, _, value = word.rpartition("=")  # a name may hold one
        if not name or not value:
            fail(f"--{flag} {word}: expected FEATURE=VALUE")
        if name in pairs:
            fail(f"--{flag} {word}: {name} is named twice; say it once")
        pairs[name] = value
    return pairs


def _numbers(flag: str, words: list[str] | None) -> dict[str, float]:
    """As :func:`_pairs`, values as numbers."""
    numbers: dict[str, float] = {}
    for name, value in _pairs(flag, words).items():
        try:
            numbers[name] = float(value)
        except ValueError:
            fail(f"--{flag} {name}={value}: expected a number")
    return numbers
