"""Answers and explanations as a person reads them."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from governed_api.json_types import Json
from governed_operator.local.bars import signed_bar
from governed_operator.local.client import (
    Condition,
    ExplainAnswer,
    Explained,
    Explanation,
    InferAnswer,
    Metadata,
)
from governed_operator.local.columns import Tensor

SET, INTERVAL = "prediction_set", "prediction_interval"
"""Outputs with a promised coverage."""
PAIRS = 10
"""Interactions that are printed."""

GROUPS = 20
"""Groups of a hierarchy that are printed."""


def answer_view(answer: InferAnswer, metadata: Metadata) -> RenderableType:
    """Every output of a V2 answer, a line each, and the request's id. ``metadata``: of the model, which names what a
    column of probabilities or of a set is about."""
    described = metadata.get("parameters", {})
    classes = [str(name) for name in described.get("classes", [])]
    promise = f"holds the truth with a chance of {described['coverage']:g}" if "coverage" in described else ""
    table = Table(box=None, pad_edge=False, show_header=False)
    for output in answer["outputs"]:
        promised = promise if output["name"] in (SET, INTERVAL) else ""
        table.add_row(output["name"], Text(_values(output, classes), style="bold"), Text(promised, style="dim"))
    mitigation = answer.get("parameters", {}).get("mitigation", "")
    when = "decided" if mitigation.startswith("thresholds/") else "trained"
    told = f" · {when} with mitigation of bias: {mitigation}" if mitigation else ""
    return Group(table, Text(f"request {answer['id']}{told}", style="dim"))


def _values(output: Tensor, classes: Sequence[str]) -> str:
    """Classes by name: of probabilities before each, of a set those that are in it."""
    data = output["data"]
    if output["name"] not in (SET, "probabilities") or not classes or len(data) % len(classes):
        return ", ".join(_short(value) for value in data)
    parts = []
    for start in range(0, len(data), len(classes)):
        row = list(zip(classes, data[start : start + len(classes)], strict=True))
        if output["name"] == SET:
            parts.append("{" + ", ".join(name for name, inside in row if inside) + "}")
        else:
            parts.append(", ".join(f"{name} {_short(value)}" for name, value in row))
    return "; ".join(parts)


def explanation_view(answer: ExplainAnswer) -> RenderableType:
    """Every row of an explain answer: attributions as bars, largest first, a rule or changes, with what vouches for
    them."""
    return Group(*(_one(e) for e in answer.get("explanations", [])))


def _one(explanation: Explanation) -> RenderableType:
    attributions = sorted(explanation.get("attributions", []), key=lambda a: -abs(_number(a.get("attribution"))))
    scale = max((abs(_number(a.get("attribution"))) for a in attributions), default=0.0)
    table = Table(box=None, pad_edge=False, show_header=False)
    for attribution in attributions:
        value = _number(attribution.get("attribution"))
        name, own = attribution.get("feature") or attribution.get("group"), str(attribution.get("value", ""))
        table.add_row(
            Text(str(name if name is not None else own)),  # a word of a text is its own name
            Text(own if name is not None else "", style="dim"),
            signed_bar(value, scale),
            f"{value:+.4f}",
            Text("" if explanation.get("exact", True) else _interval(attribution), style="dim"),
        )
    more = [*_groups(explanation), *_pairs(explanation, scale), *_rule(explanation), *_changes(explanation)]
    facts = [
        f"{label} {_short(value)}"
        for label, value in (
            ("method", explanation.get("method")),
            ("target", explanation.get("target")),
            ("base value", explanation.get("base_value")),
            ("prediction", explanation.get("prediction")),
            ("additivity residual", explanation.get("additivity_residual")),
            ("evaluations", explanation.get("evaluations")),
            ("seed", explanation.get("seed")),
        )
        if value is not None
    ]
    return Group(table, *more, Text(" · ".join(facts), style="dim"))


def _groups(explanation: Explanation) -> list[RenderableType]:
    """What groups of a hierarchy have together; nothing where none was asked for."""
    groups = explanation.get("groups", [])
    if not groups:
        return []
    scale = max(abs(_number(group.get("attribution"))) for group in groups)
    table = Table(box=None, pad_edge=False, show_header=False)
    for group in sorted(groups, key=lambda one: -abs(_number(one.get("attribution"))))[:GROUPS]:
        value, within = _number(group.get("attribution")), group.get("within")
        table.add_row(
            str(group.get("group")),
            Text(f"within {within}" if within else "", style="dim"),
            signed_bar(value, scale),
            f"{value:+.4f}",
        )
    rest = f"; {len(groups) - GROUPS} smaller ones not shown" if len(groups) > GROUPS else ""
    return [Text(f"groups: what their members have together{rest}", style="dim"), table]


def _pairs(explanation: Explanation, scale: float) -> list[RenderableType]:
    """The strongest interactions, on the scale of the attributions; nothing where none were asked for."""
    if "interactions" not in explanation:
        return []
    table = Table(box=None, pad_edge=False, show_header=False)
    shown = explanation["interactions"][:PAIRS]
    for pair in shown:
        value = _number(pair.get("interaction"))
        table.add_row(" × ".join(pair.get("between", [])), signed_bar(value, scale), f"{value:+.4f}")
    others = len(explanation["interactions"]) - len(shown) + explanation.get("interactions_left_out", 0)
    rest = f"; {others} weaker pairs not shown" if others else ""
    words = f"interactions: what each of a pair has of it, part of the attributions above{rest}"
    return [Text(words, style="dim"), table]


def _rule(explanation: Explanation) -> list[RenderableType]:
    """An anchor, a condition a line, and how often it holds; nothing of other methods."""
    if "anchor" not in explanation:
        return []
    conditions = [
        words
        for part in explanation["anchor"]
        for words in ([part["rule"]] if "rule" in part else [_condition(*one) for one in part["conditions"].items()])
    ]
    if not conditions:
        return [Text("no rule needed: the outcome stays whatever the features are")]
    lines = [Text(f"{'if ' if k == 0 else 'and'} {words}") for k, words in enumerate(conditions)]
    precision, ends = explanation.get("precision"), explanation.get("interval")
    share = "an unknown share" if precision is None else f"{precision:.1%}".replace("%", " %")
    within = f" ({ends[0] * 100:.1f} to {ends[1] * 100:.1f} %)" if ends and precision is not None else ""
    facts = (
        f"holds for {share}{within} of the rows that it fits, {explanation.get('coverage', 0.0) * 100:.3g} % of the "
        "background"
    )
    if "certified" in explanation:
        shown = "shown" if explanation["certified"] else "not shown"
        facts += f"; {shown} to hold for at least {explanation.get('threshold', 0.0) * 100:.3g} %"
    return [*lines, Text(facts, style="dim")]


def _condition(feature: str, condition: Condition) -> str:
    if "equals" in condition:
        return f"{feature} is missing" if condition["equals"] is None else f"{feature} = {condition['equals']}"
    above, up_to = condition.get("above"), condition.get("up_to")
    if above is None:
        return f"{feature} ≤ {up_to:.6g}" if up_to is not None else f"{feature} is any number"
    return f"{feature} > {above:.6g}" if up_to is None else f"{above:.6g} < {feature} ≤ {up_to:.6g}"


def _changes(explanation: Explanation) -> list[RenderableType]:
    """Counterfactuals, nearest first; nothing of other methods."""
    if "counterfactuals" not in explanation:
        return []
    if not explanation["counterfactuals"]:
        already = explanation.get("already")
        return [Text("the row has the outcome already" if already else "no change found that gives the outcome")]
    table = Table(box=None, pad_edge=False, show_header=False)
    for changed in explanation["counterfactuals"]:
        changes = ", ".join(f"{c['feature']} {c['from']} → {c['to']}" for c in changed["changes"])
        facts = f"distance {changed['distance']:.4g} prediction {changed['prediction']:.4g}"
        table.add_row(changes, Text(facts, style="dim"))
    return [table]


def _interval(attribution: Explained) -> str:
    """``[low, high]`` of a sampled figure, or that nothing is known of its error."""
    low, high = attribution.get("interval") or (None, None)
    return "no estimate of error" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"


def _number(value: Json) -> float:
    if isinstance(value, list):
        return _number(value[0]) if value else 0.0
    if isinstance(value, dict):
        raise TypeError(f"expected a number, or a list that begins with one, found {value}")
    return float(value or 0.0)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
