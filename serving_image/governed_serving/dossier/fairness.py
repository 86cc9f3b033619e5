"""The page's section on groups: what was decided in the data, by the model on held-out rows, and in service."""

from collections.abc import Mapping, Sequence

from governed_api.evidence import (
    AdjustedDifference,
    AttributeAudit,
    Evaluation,
    Mitigation,
    StratumAudit,
    StratumDisparity,
)
from governed_api.page.markup import Safe, tag, text
from governed_api.page.parts import figure, number, percent, pill, section, table
from governed_api.verdict import (
    WITHIN_THRESHOLDS,
    BiasVerdict,
    CalibrationCurve,
    LabelCorrections,
    MetricFinding,
    SetCoverage,
    Slices,
)
from governed_serving.dossier.dossier import Dossier
from governed_serving.dossier.served import REVISION
from governed_serving.dossier.svg import Estimate, Line, curves, dots, forest
from governed_serving.fairness.counts.cells import UNKNOWN, Cells, GroupTable
from governed_serving.fairness.inference.intervals import clopper_pearson, rate_difference
from governed_serving.fairness.metrics.metrics import RATES, reference_groups

__all__ = ["fairness_section"]

_LEVEL = 0.95
_LEAST = 10
_NAMES = {
    "statisticalParityDifference": "statistical parity difference",
    "disparateImpactRatio": "disparate impact ratio",
    "equalOpportunityDifference": "equal opportunity difference",
    "averageOddsDifference": "average odds difference",
    "equalizedOddsDifference": "equalised odds difference",
    "predictiveParityDifference": "predictive parity difference",
}


def fairness_section(dossier: Dossier) -> Safe:
    """Everything about groups."""
    auditor = dossier.auditor
    lead = text(
        [
            "Rates of the favourable outcome by protected group, in three places: in the data that the model "
            "learnt from, on rows "
            "held out from training, and in what was served. ",
            "Where groups differ in all but not within strata (or the other way round), both are shown: that is "
            "Simpson's paradox.",
        ]
    )
    blocks = [
        _verdict(dossier, auditor) if auditor else tag("p", "No live verdict has been reported yet.", class_="none")
    ]
    if dossier.served is not None and dossier.served.strange:
        blocks.append(_strange(dossier.served.strange))
    attributes = list(dict.fromkeys([*dossier.data_audit, *dossier.evaluation.groups, *dossier.watched]))
    for attribute in attributes:
        blocks.append(_attribute(dossier, attribute))
    if not attributes:
        blocks.append(tag("p", "No protected attribute is watched (spec.governance.bias is absent).", class_="none"))
    return section("fairness", "Groups and bias", *blocks, lead=lead)


def _verdict(dossier: Dossier, auditor: BiasVerdict) -> Safe:
    ratios = [m for m in auditor.metrics if m.name == "disparateImpactRatio"]
    differences = [m for m in auditor.metrics if m.name != "disparateImpactRatio"]
    status = WITHIN_THRESHOLDS[auditor.verdict]
    said = text([tag("strong", f"BiasWithinThresholds = {status} "), pill(auditor.verdict), " "])
    return text(
        [
            tag("h3", "Live verdict"),
            tag("p", said, auditor.summary, f" ({auditor.samples:,} decisions)."),
            _metric_table(auditor.metrics),
            _margins(auditor.metrics),
            _generated(dossier, auditor),
            _alarms(auditor),
            _labels(auditor),
            _corrections(auditor.corrections),
            *_metric_forests(differences, 0.0, "difference (unprivileged − privileged)"),
            *_metric_forests(ratios, 1.0, "ratio (unprivileged / privileged)"),
            _slices(auditor.slices),
            _coverage(auditor.coverage),
            *[_calibration(attribute, shown) for attribute, shown in auditor.calibration.items()],
            tag(
                "p",
                "Intervals hold at all times together (confidence sequences, shared over all comparisons), so "
                "that looking after every request raises no false alarm.",
                class_="small",
            ),
        ]
    )


def _metric_table(metrics: Sequence[MetricFinding]) -> Safe | None:
    rows = [
        [
            _NAMES.get(m.name, m.name),
            f"{m.attribute}: {m.group} against {m.reference}",
            number(m.value),
            f"[{number(m.lower)}, {number(m.upper) if m.upper is not None else '∞'}]",
            _bounds(m),
            text([pill(m.verdict), " within the margin" if m.within_margin else ""]),
        ]
        for m in metrics
    ]
    headings = ["metric", "comparison", "value", "interval", "allowed", "verdict"]
    return table(headings, rows, numeric=(2, 3)) if rows else None


def _margins(metrics: Sequence[MetricFinding]) -> Safe | None:
    """What Pass and Fail say where a margin is declared."""
    if all(m.margin is None for m in metrics):
        return None
    said = "Where a margin is declared, Pass says that the value lies within the allowed bounds widened by the margin, "
    said += "and Fail that it lies outside the bounds themselves. Both are wrong with at most the chance that the "
    said += "confidence level leaves, all comparisons and looks together."
    return tag("p", said, class_="small")


def _generated(dossier: Dossier, auditor: BiasVerdict) -> Safe | None:
    """What counts as favourable in generated text, and of whom it can't be said."""
    if not dossier.pattern:
        return None
    missing = [f"{name} in {rows:,}" for name, rows in auditor.missing.items()]
    return tag(
        "p",
        "Favourable is an answer in which ",
        tag("code", dossier.pattern),
        " is found. The model was not trained here: there is no audit of data and no held-out evaluation.",
        f" Attributes missing from requests: {', '.join(missing)}." if missing else "",
    )


def _alarms(auditor: BiasVerdict) -> Safe | None:
    """What the failed verdict demands or who took it over; and what else the auditor warns of."""
    alarm, lines = auditor.alarm, []
    if alarm.acknowledged_by:
        lines.append(tag("p", f"Acknowledged by {alarm.acknowledged_by}: {alarm.reason}. No action is in force."))
    elif alarm.active:
        ends = "It ends when the verdict has passed long enough, or a person acknowledges it."
        lines.append(tag("p", f"Action in force: {alarm.in_force}. {ends}"))
    if auditor.alarms:
        lines.append(tag("p", f"Alarms raised: {', '.join(auditor.alarms)}.", class_="callout"))
    return text(lines) if lines else None


def _labels(auditor: BiasVerdict) -> Safe | None:
    """Who has labels, and where metrics could lie if the other rows had any."""
    open_ = [m for m in auditor.metrics if m.worst_case is not None]
    if not open_ or not auditor.labels:
        return None
    shares = [
        [f"{attribute}: {share.group}", share.outcome, f"{share.labelled:,} of {share.rows:,}", number(share.share)]
        for attribute, listed in auditor.labels.items()
        for share in listed
    ]
    worst = [
        [
            _NAMES.get(m.name, m.name),
            f"{m.attribute}: {m.group} against {m.reference}",
            number(m.value),
            f"[{number(m.worst_case.lower)}, {number(m.worst_case.upper)}]" if m.worst_case else "",
        ]
        for m in open_
    ]
    said = "Values and intervals take rows without a label as missing at random. The worst case does not: it is where "
    said += "the value lies whatever labels those rows have, without sampling error."
    return text(
        [
            tag("h4", "Labels that have not come"),
            tag("p", said, class_="callout"),
            table(["group", "outcome", "labelled rows", "share"], shares, numeric=(3,)),
            table(["metric", "comparison", "value", "worst case"], worst, numeric=(2, 3)),
        ]
    )


def _strange(counts: Mapping[str, int]) -> Safe:
    """Labels of a ledger that was written before labels were held against the model's classes."""
    said = (
        "These labels name no class of the model. They count neither as favourable nor as unfavourable; post what was "
    )
    said += "meant as a correction."
    rows = [[word, f"{count:,}"] for word, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:20]]
    if len(counts) > len(rows):
        said += f" {len(counts) - len(rows)} more texts are not shown."
    return text([tag("h4", "Labels of no class"), tag("p", said), table(["label", "rows"], rows, numeric=(1,))])


def _corrections(told: LabelCorrections) -> Safe | None:
    """How many labels were corrected, and what that decides."""
    if not told.corrected:
        return None
    said = f"Labels corrected: {told.corrected:,} of {told.labelled:,}. Values count the corrected ones; Pass and Fail "
    said += "need that the first labels show the same, so that corrections can take a Pass or Fail away, never make "
    said += f"one. Metrics that are Unknown for that: {told.withheld}. Each correction and its reason is in the ledger."
    return text([tag("h4", "Labels that were corrected"), tag("p", said)])


WORDS_OF_MEASURES = {
    "selectionRate": "selected",
    "truePositiveRate": "selected of those who should be",
    "falsePositiveRate": "selected of those who should not",
    "accuracy": "decided rightly",
}


def _slices(slices: Slices) -> Safe | None:
    """Which combinations of values fare otherwise than everybody else."""
    if not slices.looked_at:
        return None
    rows = [
        [
            ", ".join(f"{attribute} {value}" for attribute, value in weak.values.items()),
            ", ".join(f"{stratum} {value}" for stratum, value in weak.within.items()),
            WORDS_OF_MEASURES.get(weak.measure, weak.measure),
            f"{weak.rows:,}",
            percent(weak.rate),
            number(weak.difference),
            f"[{number(weak.lower)}, {number(weak.upper)}]",
            number(weak.log_evidence),
        ]
        for weak in slices.found
    ]
    said = f"{slices.looked_at:,} combinations of two or three values, one protected at least, were compared with "
    said += "everybody else, within strata with the others there"
    said += f"; {slices.left_out:,} smaller ones were not. " if slices.left_out else ". "
    said += (
        "Whenever one looks, the share of mistakes among those found is expected to be at most the verdict's chance "
    )
    said += "of being wrong; where there is nothing, so is the chance of ever finding any. They are shown; the verdict "
    said += "doesn't hang on them."
    headings = ["combination", "within", "what", "rows", "share", "difference", "interval", "log e-value"]
    return text(
        [
            tag("h4", "Subgroups"),
            tag("p", said),
            table(headings, rows, numeric=(3, 4, 5, 7)) if rows else tag("p", "None was found.", class_="none"),
        ]
    )


def _coverage(told: SetCoverage | None) -> Safe | None:
    """How often prediction sets or intervals held the truth of what was served and labelled."""
    if told is None:
        return None
    lines = [("all rows", told.overall)]
    lines += [
        (f"{attribute} {coverage.group}", coverage) for attribute, groups in told.groups.items() for coverage in groups
    ]
    rows = [
        [
            about,
            f"{coverage.covered:,} of {coverage.rows:,}",
            percent(coverage.coverage),
            f"[{percent(coverage.lower)}, {percent(coverage.upper)}]",
            pill(coverage.verdict),
        ]
        for about, coverage in lines
    ]
    said = f"Prediction sets or intervals promise to hold the truth of {percent(told.promised)} of rows like the "
    said += "calibration rows. Pass: shown to hold as many of the labelled rows that were served; Fail: shown to hold "
    said += "fewer than the luck of so few calibration rows leaves; Unknown for long between. It decides nothing."
    headings = ["rows", "covered", "share", "interval", "promise"]
    return text([tag("h4", "Coverage"), tag("p", said), table(headings, rows, numeric=(1, 2))])


def _calibration(attribute: str, shown: Sequence[CalibrationCurve]) -> Safe:
    """Predicted against true, by group, with the bands that the verdict tells."""
    lines = [
        Line(
            curve.group,
            [(b.score, b.rate) for b in curve.bins if b.score is not None and b.rate is not None],
            [
                (b.score, b.lower, b.upper)
                for b in curve.bins
                if b.score is not None and b.lower is not None and b.upper is not None
            ],
        )
        for curve in shown
    ]
    lines.append(Line("as predicted", [(0.0, 0.0), (1.0, 1.0)], guide=True))
    rows = [
        [
            curve.group,
            f"{b.low:.1f} to {b.high:.1f}",
            f"{b.rows:,}",
            number(b.score),
            number(b.rate),
            f"[{number(b.lower)}, {number(b.upper)}]",
        ]
        for curve in shown
        for b in curve.bins
    ]
    headings = [attribute, "predicted", "labelled rows", "mean predicted", "came true", "band"]
    caption = f"Calibration by {attribute}, of rows with labels; all bands hold together, however often one looks. "
    caption += "Dashed: as predicted."
    return text(
        [
            figure(
                curves(f"Calibration by {attribute}", lines, "predicted probability", "share that came true"), caption
            ),
            _details(f"Calibration by {attribute}, bin by bin", table(headings, rows, numeric=(2, 3, 4))),
        ]
    )


def _metric_forests(metrics: Sequence[MetricFinding], centre: float, label: str) -> list[Safe]:
    """One forest plot per pair of bounds."""
    by_bounds: dict[tuple[float | None, float | None], list[MetricFinding]] = {}
    for m in metrics:
        by_bounds.setdefault((m.threshold_lower, m.threshold_upper), []).append(m)
    plots = []
    for bounds, group in by_bounds.items():
        rows = [Estimate(f"{_short(m.name)}, {m.group}", m.value, m.lower, m.upper) for m in group]
        plots.append(
            figure(
                forest("Live metrics with intervals", rows, label, bounds, centre),
                "Live metrics with their intervals; shaded: what the manifest allows",
            )
        )
    return plots


def _short(name: str) -> str:
    return _NAMES.get(name, name).replace(" difference", "").replace("disparate ", "")


def _bounds(m: MetricFinding) -> str:
    low, high = m.threshold_lower, m.threshold_upper
    parts = [f"≥ {number(low)}" if low is not None else "", f"≤ {number(high)}" if high is not None else ""]
    allowed = ", ".join(p for p in parts if p)
    return allowed if m.margin is None else f"{allowed}; margin {number(m.margin)}"


def _attribute(dossier: Dossier, attribute: str) -> Safe:
    data = dossier.data_audit.get(attribute, AttributeAudit())
    held = dossier.evaluation.groups.get(attribute, AttributeAudit())
    served = dossier.served.cells if dossier.served and dossier.served.cells and dossier.served.cells.rows else None
    return text(
        [
            tag("h3", f"Protected attribute: {attribute}"),
            _banded(attribute, dossier.bands.get(attribute)),
            _rates(attribute, data, held, served),
            _in_all(data, "In the data"),
            _strata(data, "the data", "labels as they were decided"),
            _served_strata(attribute, data, served) if served else None,
            _truths(attribute, served) if served else None,
            _errors(held),
            _offers(attribute, dossier.evaluation),
        ]
    )


def _banded(attribute: str, edges: Sequence[float] | None) -> Safe | None:
    if not edges:
        return None
    borders = ", ".join(f"{edge:.12g}" for edge in edges)
    said = f"{attribute} is a number. Its groups are bands, the same in data, training and service, with borders at "
    return tag("p", f"{said}{borders}; a value on a border belongs to the band above it.", class_="small")


def _rates(attribute: str, data: AttributeAudit, held: AttributeAudit, served: Cells | None) -> Safe:
    places: dict[str, list[tuple[str, int, int]]] = {}
    if data.groups:
        places["data (labels)"] = [(g.group, g.rows, g.favorable) for g in data.groups]
    if held.groups:
        places["held-out (model)"] = [(g.group, g.rows, g.favorable) for g in held.groups]
    if served is not None and attribute in served.axes:
        counted = served.by(attribute)
        triples = zip(counted.groups, counted.rows.tolist(), counted.counts[:, 1].sum(1).tolist(), strict=True)
        places["served (model)"] = [(str(g), int(n), int(k)) for g, n, k in triples]
    groups = list(dict.fromkeys(g for rates in places.values() for g, _, _ in rates))
    shown = {
        place: [_rate(groups.index(g), g, n, k) for g, n, k in rates if n >= _LEAST] for place, rates in places.items()
    }
    rows = [
        [place, g, f"{n:,}", f"{k:,}", percent(k / n if n else None), _ci(k, n)]
        for place, rates in places.items()
        for g, n, k in rates
    ]
    plot = dots(f"Favourable outcome by {attribute}", shown, groups, "rate of the favourable outcome, 95 % interval")
    return text(
        [
            figure(plot, f"Rates of the favourable outcome by {attribute}, wherever they are known."),
            _details(
                "Figures",
                table(["where", "group", "rows", "favourable", "rate", "95 % interval"], rows, numeric=(2, 3, 4, 5)),
            ),
        ]
    )


def _rate(series: int, group: str, n: int, k: int) -> Estimate:
    low, high = clopper_pearson(k, n, _LEVEL)
    return Estimate(group, k / n, low, high, f"{percent(k / n)}  n={n:,}", series)


def _ci(k: int, n: int) -> str:
    if not n:
        return "–"
    low, high = clopper_pearson(k, n, _LEVEL)
    return f"[{percent(low)}, {percent(high)}]"


def _in_all(data: AttributeAudit, title: str) -> Safe:
    lines = []
    for d in data.disparities:
        ratio = "not defined" if d.dir is None else f"{d.dir:.6f}"
        lines.append(
            tag(
                "p",
                tag("strong", f"{title}, in all: "),
                f"{d.group} against {d.reference}: SPD {d.spd:+.6f}, DIR {ratio}".replace("-", "−"),
                f", χ² {data.chi_square:.3f}" if data.chi_square is not None else "",
                ". ",
                "Below four fifths." if d.dir is not None and d.dir < 0.8 else "",
            )
        )
    return text(lines)


def _strata(data: AttributeAudit, where: str, what: str) -> Safe:
    """SPD in all and within each stratum, as audited by the trainer."""
    blocks = []
    for name, stratum in data.strata.items():
        in_all = [AdjustedDifference(group=d.group, spd=d.spd) for d in data.disparities]
        for compared in stratum.adjusted or in_all:
            blocks.append(
                figure(
                    forest(
                        f"{compared.group} against the others by {name}, in {where}",
                        _within(name, data, stratum, compared),
                        "statistical parity difference",
                    ),
                    f"Statistical parity difference of {compared.group} in all and within {name}: {what}.",
                )
            )
            if (compared.reverses or compared.confounded) and compared.adjusted_spd is not None:
                blocks.append(_paradox(compared, name, compared.adjusted_spd))
    return text(blocks)


def _within(name: str, data: AttributeAudit, stratum: StratumAudit, compared: AdjustedDifference) -> list[Estimate]:
    """A group's difference in all, within each value of the stratum, and adjusted for it."""
    group = compared.group
    overall = (d.spd for d in data.disparities if d.group == group)
    low, high = compared.spd_interval
    rows = [Estimate("in all", next(overall, compared.spd), low, high, series=1, strong=True)]
    rows += [_audited(r, f"{name} {r.stratum}") for r in stratum.by_stratum if r.group == group]
    if compared.adjusted_spd is not None:
        low, high = compared.adjusted_interval
        rows.append(Estimate(f"adjusted for {name}", compared.adjusted_spd, low, high, series=2, strong=True))
    return rows


def _audited(row: StratumDisparity, label: str) -> Estimate:
    """An audited difference, with its interval where the audit says the counts."""
    counts = (row.favorable, row.rows, row.reference_favorable, row.reference_rows)
    k1, n1, k0, n0 = counts
    if k1 is None or n1 is None or k0 is None or n0 is None:
        return Estimate(label, row.spd)
    low, high = rate_difference(k1, n1, k0, n0, _LEVEL)
    return Estimate(label, row.spd, low, high)


def _paradox(difference: AdjustedDifference, by: str, adjusted: float) -> Safe:
    said = (
        f"In all, {difference.group} differs by {difference.spd:+.4f}{_around(difference.spd_interval)}; "
        f"compared within {by} by {adjusted:+.4f}{_around(difference.adjusted_interval)}. "
    )
    if difference.change is not None:
        said += f"The change is {difference.change:+.4f}{_around(difference.change_interval)}. "
    if difference.reverses:
        chance = (
            ""
            if difference.shown or difference.adjusted_interval[0] is None
            else "That the difference within has this sign isn't shown: it may be chance. "
        )
        end = "the aggregate is the strata's doing, so both figures belong in any judgement."
        title = "Simpson's paradox. "
    else:
        chance, title = "", "Confounding. "
        end = "half or more of the aggregate is the strata's doing; its sign stays."
    text_ = f"{chance}The groups applied to different values of {by}: {end}"
    return tag("p", tag("strong", title), said.replace("-", "−"), text_, class_="callout")


def _around(interval: Sequence[float | None]) -> str:
    low, high = interval
    return "" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]"


def _served_strata(attribute: str, data: AttributeAudit, served: Cells) -> Safe:
    """Rates and differences by stratum, recomputed from the journalled predictions."""
    blocks: list[Safe] = []
    if attribute not in served.axes:
        return Safe("")
    privileged = [d.reference for d in data.disparities][:1]
    names = privileged[0].split("+") if privileged else []
    whole = served.by(attribute)
    base = [n for n in names if n in whole.groups] or list(reference_groups(whole, ()))
    for by in data.strata:
        if by not in served.axes or by == attribute:
            continue
        groups = list(whole.groups)
        shown: dict[str, list[Estimate]] = {}
        rows = [_difference("in all", whole, g, base, True) for g in groups if g not in base]
        for value in served.values(by):
            part = served.where(by, value).by(attribute)
            counted = zip(part.groups, part.rows.tolist(), part.counts[:, 1].sum(1).tolist(), strict=True)
            shown[f"{by} {value}"] = [_rate(groups.index(g), g, int(n), int(k)) for g, n, k in counted if n >= _LEAST]
            rows += [_difference(f"{by} {value}", part, g, base, False) for g in groups if g not in base]
        against = "+".join(base)
        kept = [r for r in rows if r is not None]
        blocks.append(tag("h4", f"Served decisions by {by}, recomputed from the ledger"))
        blocks.append(
            figure(
                dots(
                    f"Served: favourable outcome by {by} and {attribute}",
                    {k: v for k, v in shown.items() if v},
                    groups,
                    "rate of the favourable outcome, 95 % interval",
                ),
                f"What the model decided, by {by} and {attribute}.",
            )
        )
        blocks.append(
            figure(
                forest(
                    f"Served: difference to {against} by {by}",
                    kept,
                    "statistical parity difference, 95 % interval",
                ),
                f"Difference to {against}, in all and within {by}; groups of fewer than {_LEAST} rows are left out.",
            )
        )
    return text(blocks)


_ERROR_RATES = {
    "baseRate": "base rate",
    "truePositiveRate": "true positive rate",
    "falsePositiveRate": "false positive rate",
    "predictiveValue": "precision",
    "accuracy": "accuracy",
}


def _truths(attribute: str, served: Cells) -> Safe:
    """Error rates of served decisions whose truth came later, for each revision that decided."""
    if attribute not in served.axes or served.labelled < _LEAST:
        return Safe("")
    rows: list[list[str]] = []
    shown: dict[str, list[Estimate]] = {}
    groups = list(served.by(attribute).groups)
    for revision in served.values(REVISION):
        counted = served.where(REVISION, revision).by(attribute)
        for group, counts in zip(counted.groups, counted.counts, strict=True):
            labelled = int(counts[:, :UNKNOWN].sum())
            if labelled < _LEAST:
                continue
            cases = {name: [int(x) for x in RATES[name](counts)] for name in _ERROR_RATES}
            rows.append([revision, group, f"{labelled:,}", *(_case(k, n) for k, n in cases.values())])
            k, n = cases["truePositiveRate"]
            if n >= _LEAST:
                shown.setdefault(f"revision {revision}", []).append(_rate(groups.index(group), group, n, k))
    if not rows:
        return Safe("")
    title = "Served decisions and what came of them, recomputed from the ledger"
    plot = dots(f"Served: true positive rate by {attribute}", shown, groups, "true positive rate, 95 % interval")
    return text(
        [
            tag("h4", title),
            tag(
                "p",
                f"Labels that came later, joined to the decisions by request id: {served.labelled:,} of "
                f"{served.rows:,} rows. "
                f"Groups of fewer than {_LEAST} labelled rows, and rates over fewer, are left out.",
            ),
            figure(plot, f"Of those who deserved the favourable outcome, how many got it, by {attribute}.")
            if shown
            else None,
            table(
                ["revision", "group", "labelled rows", *_ERROR_RATES.values()],
                rows,
                "Error rates of what was served",
                numeric=range(2, 8),
            ),
        ]
    )


def _case(k: int, n: int) -> str:
    """Per cent with its interval, on one line."""
    if n < _LEAST:
        return "–"
    low, high = clopper_pearson(k, n, _LEVEL)
    return f"{percent(k / n)} [{100 * low:.1f}, {100 * high:.1f}]".replace(" ", "\u00a0")


def _difference(label: str, counts: GroupTable, group: str, base: list[str], strong: bool) -> Estimate | None:
    if group not in counts.groups or not any(b in counts.groups for b in base):
        return None
    ours, theirs = counts.of([group]), counts.of(base)
    n1, n0 = int(ours.sum()), int(theirs.sum())
    if min(n1, n0) < _LEAST:
        return None
    k1, k0 = int(ours[1].sum()), int(theirs[1].sum())
    low, high = rate_difference(k1, n1, k0, n0, _LEVEL)
    return Estimate(f"{label}, {group}", k1 / n1 - k0 / n0, low, high, series=1 if strong else 0, strong=strong)


def _errors(held: AttributeAudit) -> Safe:
    rows = held.errors.groups
    if not rows:
        return Safe("")
    headings = [
        "group",
        "rows",
        "accuracy",
        "selection rate",
        "base rate",
        "true positive rate",
        "false positive rate",
        "precision",
    ]
    rates = [(r.accuracy, r.selection_rate, r.base_rate, r.tpr, r.fpr, r.ppv) for r in rows]
    body = [[r.group, f"{r.rows:,}", *map(percent, told)] for r, told in zip(rows, rates, strict=True)]
    return table(headings, body, "Error rates on held-out rows", numeric=range(1, 8))


def _offers(attribute: str, evaluation: Evaluation) -> Safe:
    """What could be done, and what it would do on held-out rows: for people to decide, none of it is in force."""
    offer = evaluation.offers.get(attribute)
    if offer is None:
        return Safe("")
    before, after = offer.largest_difference_before, offer.largest_difference_after
    rows = [
        ["one threshold for all (in force)", number(before), percent(offer.accuracy_before)],
        ["a threshold per group (offered)", number(after), percent(offer.accuracy_after)],
    ]
    without = evaluation.unmitigated
    if without is not None:
        gap = without.largest_disparity.get(attribute)
        rows.append(["trained without mitigation (measured)", number(gap), percent(without.metrics.get("accuracy"))])
    cuts = ", ".join(f"{group} {value:.4f}" for group, value in sorted(offer.thresholds.items()))
    weights = [[w.group, "favourable" if w.label else "not", number(w.weight)] for w in offer.weights]
    said = (
        "Training was mitigated, as the manifest asks. "
        if without
        else (
            "Reweighing in training isn't in force: lifecycle.training.mitigation.method reweighing would train "
            "with the weights below. "
        )
    )
    return text(
        [
            tag("h4", "What could be done about it"),
            table(["", "largest difference of rates", "accuracy"], rows, _measured_on(offer), numeric=(1, 2)),
            tag("p", f"Thresholds per group in place of {offer.threshold:g}: {cuts}. ", said, class_="small"),
            tag(
                "p",
                "Nothing of this is applied by itself. Whether groups may be treated by different thresholds is "
                "a question of law.",
                class_="small",
            ),
            _details("Weights of reweighing", table(["group", "label", "weight"], weights, numeric=(2,))),
        ]
    )


def _measured_on(offer: Mitigation) -> str:
    if offer.fitted_rows is None or offer.measured_rows is None:
        return "Measured on held-out rows; thresholds were fitted on the same ones, which flatters them"
    return f"Measured on {offer.measured_rows:,} held-out rows; thresholds were fitted on {offer.fitted_rows:,} others"


def _details(title: str, inside: Safe) -> Safe:
    return tag("details", tag("summary", title), inside)
