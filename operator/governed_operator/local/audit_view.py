"""Data audit, gate table and bias verdict as a person reads them."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from governed_operator.local.bars import signed_bar

VERDICT_STYLE = {"pass": "green", "fail": "bold red", "unknown": "yellow", "not applicable": "dim"}


def verdict_text(verdict: Any) -> Text:
    return Text(str(verdict), style=VERDICT_STYLE.get(str(verdict).lower(), ""))


def data_audit(audit: dict[str, Any]) -> RenderableType:
    """Disparities in the training data per protected attribute: in all, then within strata (Simpson's paradox)."""
    return Group(*(part for name, found in audit.items() for part in _attribute(name, found)))


def _attribute(name: str, found: dict[str, Any]) -> list[RenderableType]:
    groups = Table("group", "rows", "favourable", "rate", title=f"{name}, in all", title_justify="left", box=None)
    for g in found["groups"]:
        groups.add_row(g["group"], f"{g['rows']:,}", f"{g['favorable']:,}", f"{g['rate']:.4f}")
    out: list[RenderableType] = [groups]
    for d in found["disparities"]:
        text = f"{d['group']} against {d['reference']}: SPD {d['spd']:+.6f}, DIR {_ratio(d['dir'])}"
        out.append(Text(f"{text}, χ² {found['chiSquare']:.3f}", style="bold"))
    for stratum, strata in found.get("strata", {}).items():
        out.append(_strata(stratum, strata))
        out += [_adjusted(stratum, a) for a in strata.get("adjusted", [])]
    return out


def _strata(name: str, found: dict[str, Any]) -> Table:
    rows = found["byStratum"]
    scale = max((abs(r["spd"]) for r in rows), default=0.0)
    table = Table(name, "group", "SPD", "", "DIR", title=f"within {name}", title_justify="left", box=None)
    for r in rows:
        table.add_row(str(r["stratum"]), r["group"], f"{r['spd']:+.4f}", signed_bar(r["spd"], scale), _ratio(r["dir"]))
    return table


def _adjusted(stratum: str, found: dict[str, Any]) -> Text:
    text = f"{found['group']}: SPD {found['spd']:+.4f} in all, {found['adjustedSpd']:+.4f} adjusted for {stratum}"
    if found["reverses"]:
        return Text(f"{text}: the sign flips (Simpson's paradox)", style="bold yellow")
    return Text(text)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}"


def gate_table(gates: list[dict[str, Any]]) -> Table:
    """What was measured, what the manifest allows."""
    table = Table("gate", "measured", "budget", "verdict", "", box=None)
    for g in gates:
        verdict = verdict_text(g["verdict"])
        table.add_row(g["name"], _number(g.get("measured")), _number(g.get("budget")), verdict, g.get("message", ""))
    return table


def bias_table(metrics: list[dict[str, Any]]) -> Table:
    """Metrics with intervals."""
    table = Table("metric", "attribute", "group", "against", "value", "interval", "verdict", box=None)
    for m in metrics:
        stratum = m.get("stratum")
        group = f"{m.get('group', '')}" + (f" ({stratum})" if stratum else "")
        interval = f"[{_number(m.get('lower'))}, {_number(m.get('upper'))}]"
        table.add_row(
            m["name"], m.get("attribute", ""), group, m.get("reference", ""), _number(m.get("value")), interval,
            verdict_text(m["verdict"]),
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
