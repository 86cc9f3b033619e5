"""Explanations as a person reads them."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from governed_api.json_types import Json
from governed_operator.local.bars import signed_bar
from governed_operator.local.client import ExplainAnswer, Explanation


def explanation_view(answer: ExplainAnswer) -> RenderableType:
    """Every row of an explain answer: attributions as bars, largest first, with what vouches for them."""
    return Group(*(_one(e) for e in answer.get("explanations", [])))


def _one(explanation: Explanation) -> RenderableType:
    attributions = sorted(explanation.get("attributions", []), key=lambda a: -abs(_number(a.get("attribution"))))
    scale = max((abs(_number(a.get("attribution"))) for a in attributions), default=0.0)
    table = Table(box=None, pad_edge=False, show_header=False)
    for attribution in attributions:
        value = _number(attribution.get("attribution"))
        name = str(attribution.get("feature") or attribution.get("group"))
        table.add_row(
            name, Text(str(attribution.get("value", "")), style="dim"), signed_bar(value, scale), f"{value:+.4f}"
        )
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
    return Group(table, Text(" · ".join(facts), style="dim"))


def _number(value: Json) -> float:
    if isinstance(value, list):
        return _number(value[0]) if value else 0.0
    if isinstance(value, dict):
        raise TypeError(f"expected a number, or a list that begins with one, found {value}")
    return float(value or 0.0)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
