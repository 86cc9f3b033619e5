"""Explanations as a person reads them."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from governed_operator.local.bars import signed_bar


def explanation_view(answer: dict[str, Any]) -> RenderableType:
    """Every row of an explain answer: attributions as bars, largest first, with what vouches for them."""
    return Group(*(_one(e) for e in answer.get("explanations", [])))


def _one(explanation: dict[str, Any]) -> RenderableType:
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
        f"{label} {_short(explanation[key])}"
        for key, label in (
            ("method", "method"),
            ("target", "target"),
            ("base_value", "base value"),
            ("prediction", "prediction"),
            ("additivity_residual", "additivity residual"),
            ("evaluations", "evaluations"),
            ("seed", "seed"),
        )
        if explanation.get(key) is not None
    ]
    return Group(table, Text(" · ".join(facts), style="dim"))


def _number(value: Any) -> float:
    if isinstance(value, list):
        return _number(value[0]) if value else 0.0
    return float(value or 0.0)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
