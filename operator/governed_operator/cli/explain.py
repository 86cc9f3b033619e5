"""`governed explain`: asks a served model for an explanation."""

from typing import Annotated

import typer

from governed_api.runtime import PORT_HTTP, on_this_machine
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster, reached
from governed_operator.cli.model_options import AsJson, Instance, Name, Url, features, print_json

_Method = Annotated[str | None, typer.Option(help="Explanation method; default: the manifest's.", show_default=False)]
_Interactions = Annotated[bool, typer.Option("--interactions", help="Show the interactions of pairs of features, too.")]
_Target = Annotated[
    str | None, typer.Option(help="Class whose score is explained; default: the favourable, else the predicted.")
]
_Outcome = Annotated[str | None, typer.Option(help="Class that a counterfactual should reach.")]
_Field = Annotated[str | None, typer.Option(help="Text feature that is explained by its parts.")]
_Level = Annotated[str | None, typer.Option(help="Parts of a text: token, phrase, sentence or nested.")]
_Group = Annotated[
    list[str] | None, typer.Option(help="Features explained as one: NAME=FEATURE,FEATURE …; repeatable.")
]
_Scale = Annotated[str | None, typer.Option(help="output, or logit where probabilities are saturated.")]
_Evaluations = Annotated[
    int | None, typer.Option(help="Coalitions of a sampled method; samples of lime, anchors, counterfactual.")
]
_Budget = Annotated[int | None, typer.Option(help="Milliseconds; the best answer so far comes after them.")]
_Precision = Annotated[float | None, typer.Option(help="Stop once half-widths are below this share of the range.")]
_Confidence = Annotated[float | None, typer.Option(help="Of the intervals; default: 0.95.")]
_Seed = Annotated[int | None, typer.Option(help="Repeats a sampled explanation number by number.")]


def command(
    name: Name,
    instance: Instance,
    url: Url = on_this_machine(PORT_HTTP),
    *,
    namespace: Namespace = None,
    context: Context = None,
    method: _Method = None,
    interactions: _Interactions = False,
    target: _Target = None,
    outcome: _Outcome = None,
    field: _Field = None,
    level: _Level = None,
    group: _Group = None,
    scale: _Scale = None,
    evaluations: _Evaluations = None,
    budget: _Budget = None,
    precision: _Precision = None,
    confidence: _Confidence = None,
    seed: _Seed = None,
    as_json: AsJson = False,
) -> None:
    """Explain one prediction of a model that serves here or in a cluster."""
    from governed_operator.local.client import ClientError, ModelClient
    from governed_operator.local.explanation_view import explanation_view
    from governed_operator.local.plain_console import plain_console

    row = features(instance)
    asked = {
        "method": method or None,
        "interactions": interactions or None,
        "target": target,
        "outcome": outcome,
        "field": field,
        "level": level,
        "groups": _groups(group or []) or None,
        "scale": scale,
        "max_evaluations": evaluations,
        "budget_ms": budget,
        "precision": precision,
        "confidence": confidence,
        "seed": seed,
    }
    parameters = {name: value for name, value in asked.items() if value is not None}
    try:
        with reached(url, PORT_HTTP, in_cluster(name, namespace, context)) as at, ModelClient(at, name) as client:
            answer = client.explain_in_time(row, parameters)
    except ClientError as error:
        fail(str(error))
    if as_json:
        print_json(answer)
        return
    plain_console().print(explanation_view(answer))


def _groups(words: list[str]) -> dict[str, list[str]]:
    """NAME=FEATURE,FEATURE … → features by group; ends the command with what was expected otherwise."""
    groups: dict[str, list[str]] = {}
    for word in words:
        name, _, members = word.partition("=")
        features = [feature.strip() for feature in members.split(",") if feature.strip()]
        if not name or not features:
            fail(f"--group {word}: expected NAME=FEATURE,FEATURE …")
        if name in groups:
            fail(f"--group {word}: the group {name} is named twice; list its features once")
        groups[name] = features
    return groups
