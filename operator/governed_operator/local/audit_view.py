"""Data audit, gate table and bias verdict as a person reads them."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from governed_api.evidence import AdjustedDifference, AttributeAudit, DataAudit, StratumAudit
from governed_api.report import GateResult, MetricVerdict
from governed_operator.local.bars import signed_bar

VERDICT_STYLE = {"pass": "green", "fail": "bold red", "unknown": "yellow", "not applicable": "dim"}


def verdict_text(verdict: str) -> Text:
    return Text(verdict, style=VERDICT_STYLE.get(verdict.lower(), ""))


def data_audit(audit: DataAudit) -> RenderableType:
    """Disparities in the training data per protected attribute: in all, then within strata (Simpson's paradox)."""
    return Group(*(part for name, table in audit.items() for part in _attribute(name, table)))


def _attribute(name: str, audited: AttributeAudit) -> list[RenderableType]:
    groups = Table("group", "rows", "favourable", "rate", title=f"{name}, in all", title_justify="left", box=None)
    for g in audited.groups:
        groups.add_row(g.group, f"{g.rows:,}", f"{g.favorable:,}", _number(g.rate))
    out: list[RenderableType] = [groups]
    for d in audited.disparities:
        text = f"{d.group} against {d.reference}: SPD {d.spd:+.6f}, DIR {_ratio(d.dir)}"
        test = "–" if audited.chi_square is None else f"{audited.chi_square:.3f}"
        out.append(Text(f"{text}, χ² {test}", style="bold"))
    for stratum, strata in audited.strata.items():
        out.append(_strata(stratum, strata))
        out += [_adjusted(stratum, a) for a in strata.adjusted if a.adjusted_spd is not None]
    return out


def _strata(name: str, audited: StratumAudit) -> Table:
    rows = audited.by_stratum
    scale = max((abs(r.spd) for r in rows), default=0.0)
    table = Table(name, "group", "SPD", "", "DIR", title=f"within {name}", title_justify="left", box=None)
    for r in rows:
        table.add_row(str(r.stratum), r.group, f"{r.spd:+.4f}", signed_bar(r.spd, scale), _ratio(r.dir))
    return table


def _adjusted(stratum: str, difference: AdjustedDifference) -> Text:
    text = (
        f"{difference.group}: SPD {difference.spd:+.4f} in all, {difference.adjusted_spd:+.4f} adjusted for {stratum}"
    )
    low, high = difference.adjusted_interval
    if low is not None and high is not None:
        text += f" [{low:+.4f}, {high:+.4f}]"
    low_change, high_change = difference.change_interval
    if difference.change is not None and low_change is not None and high_change is not None:
        text += f", a change of {difference.change:+.4f} [{low_change:+.4f}, {high_change:+.4f}]"
    if difference.reverses:
        chance = "" if difference.shown or low is None else "; the adjusted difference may be chance"
        return Text(f"{text}: the sign flips (Simpson's paradox){chance}", style="bold yellow")
    if difference.confounded:
        return Text(f"{text}: half or more goes with {stratum} (confounding), the sign stays", style="yellow")
    return Text(text)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}"


def gate_table(gates: Sequence[GateResult]) -> Table:
    """What was measured, what the manifest allows."""
    table = Table("gate", "measured", "budget", "verdict", "", box=None)
    for g in gates:
        table.add_row(g.name, _number(g.measured), _number(g.budget), verdict_text(g.verdict), g.message)
    return table


def bias_table(metrics: Sequence[MetricVerdict]) -> Table:
    """Metrics with intervals."""
    table = Table("metric", "attribute", "group", "against", "value", "interval", "verdict", box=None)
    for m in metrics:
        interval = f"[{_number(m.lower)}, {_number(m.upper)}]"
        verdict = verdict_text(m.verdict)
        table.add_row(m.name, m.attribute, m.group, m.reference, _number(m.value), interval, verdict)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
