"""Whole verdicts, figure by figure and word by word, over counts that reach every kind of finding."""

from itertools import permutations
from math import inf
from typing import Any

import numpy as np
import pytest

from governed_api.governance import SCORED, Bias
from governed_api.verdict import wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.columns import OTHER
from governed_serving.fairness.counts.grouping import MISSING
from governed_serving.fairness.inference.intervals import binomial_sequence
from governed_serving.fairness.metrics.labelled import worst_case
from governed_serving.fairness.metrics.measures import SPREADS, findings
from governed_serving.fairness.metrics.metrics import METRICS
from governed_serving.fairness.metrics.metrics import RATES as EACH_RATE
from governed_serving.fairness.metrics.promise import alpha_of, promise_of
from governed_serving.fairness.metrics.roster import Roster, agreed, enrolled, panel_of, pooled
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.fairness.monitoring.alarms import Alarm

from .frozen import numbers, same

RATES = [*METRICS, "impactRatio", "adjustedStatisticalParityDifference"]
OVER_ALL = [*SPREADS, "theilIndex", "generalizedEntropyIndex"]
BOUNDS: dict[str, dict[str, float]] = {
    "disparateImpactRatio": {"thresholdLower": 0.8, "thresholdUpper": 1.25},
    "impactRatio": {"thresholdLower": 0.8},
    "demographicParityRatioMinMax": {"thresholdLower": 0.6},
    "equalizedOddsRatioMinMax": {"thresholdLower": 0.5},
    "baseRateDifference": {"thresholdLower": -0.6, "thresholdUpper": 0.6},
    "theilIndex": {"thresholdUpper": 0.3},
}


def bias(names: list[str], **more: Any) -> Bias:
    plain = {"thresholdLower": -0.1, "thresholdUpper": 0.1}
    rules: dict[str, Any] = {
        "protectedAttributes": [{"name": "sex", "privileged": ["m"]}, {"name": "race"}],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": name, **BOUNDS.get(name, plain)} for name in names],
        "strata": ["dept"],
        **more,
    }
    return Bias.model_validate(rules)


def people(labels: int = 2, scale: int = 1) -> Cells:
    """Sexes of very different rates and sizes, races, departments; of every ``labels`` rows one has no label."""
    cells = Cells(("sex", "race", "dept"))
    sexes = {"m": (9, 60), "f": (4, 45), "x": (1, 3), MISSING: (2, 5)}
    for i, (sex, (favoured, rows)) in enumerate(sexes.items()):
        for j, (race, share) in enumerate({"a": 7, "b": 4, "c": 2, "d": 1, OTHER: 1}.items()):
            for k, dept in enumerate("pq"):
                table = np.zeros((2, 3), np.int64)
                for row in range(rows * share * scale // (4 * scale) * scale):
                    outcome = (row * 7 + i + k) % 20 < favoured + j + 4 * k
                    truth = 2 if (row + i + j) % labels == 0 else int((row * 3 + j) % 10 < 3 + 3 * outcome + k)
                    table[int(outcome), truth] += 1
                if table.any():
                    cells.put((sex, race, dept), table)
    return cells


SCENARIOS: dict[str, tuple[Bias, Cells]] = {
    "rates": (bias(RATES), people()),
    "rates of many rows": (bias(RATES), people(5, 40)),
    "rates without labels": (bias(RATES), people(1)),
    "over all": (bias(OVER_ALL), people(4, 10)),
    "over all, intersections": (bias(OVER_ALL[:4], intersections=True, confidenceLevel=0.9), people(3, 20)),
    "a sliding window": (bias(RATES[:2], window={"type": "sliding", "samples": 500}), people()),
    "a large sliding window": (bias(RATES[:1], window={"type": "sliding", "samples": 10_000_000}), people()),
    "too few": (bias(RATES[:1], minSamples=100_000), people()),
    "nobody": (bias(RATES[:2]), Cells(("sex", "race", "dept"))),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_verdicts_stay_what_they_were(name: str) -> None:
    rules, cells = SCENARIOS[name]
    same(f"verdict-{name.replace(' ', '-').replace(',', '')}", wire(judge(rules, cells)))


def crowd(groups: int) -> Cells:
    """Groups of falling sizes, the last ones of a few rows; rates rise with the name."""
    cells = Cells(("race",))
    for place in range(groups):
        rows = max(900 // (place + 1), 3 + place % 9)
        k = rows * (3 + place % 5) // 10
        right = k * 2 // 3
        cells.put((f"r{place:02}",), np.array([[rows - k - right // 2, right // 2, 0], [k - right, right, 0]]))
    return cells


@pytest.mark.parametrize("groups", [9, 45])
def test_verdicts_over_many_groups_stay_what_they_were(groups: int) -> None:
    rules = bias(OVER_ALL[:7] + RATES[:1], protectedAttributes=[{"name": "race"}], strata=[])
    same(f"verdict-{groups}-groups", wire(judge(rules, crowd(groups))))


@pytest.mark.parametrize("name", ["equalOpportunityDifferenceMaxMin", "demographicParityRatioMinMax"])
def test_of_many_groups_an_interval_reaches_as_far_as_two_different_ones_allow(name: str) -> None:
    """The widest range, that of a small group, counts for one of its ends at a time."""
    (one,) = findings(name, cells := crowd(20), ("race",), ())
    panel = panel_of(cells, ("race",), [])
    table, (rate,) = panel.judged, SPREADS[name][0]
    known = [
        (g, int(k), int(n)) for g, k, n in zip(table.groups, *EACH_RATE[rate](table.counts), strict=True) if n >= 10
    ]
    ranges = [binomial_sequence(k, n, 1 - 0.05 * panel.share(g)) for g, k, n in known]
    pairs = list(permutations(ranges, 2))
    found = one.sequence(0.95)
    if name.endswith("MinMax"):
        assert found.lower == pytest.approx(min(a.lower / b.upper for a, b in pairs))
        assert found.upper == pytest.approx(min(1.0, *(b.upper / a.lower for a, b in pairs)))
    else:
        assert found.upper == pytest.approx(max(a.upper - b.lower for a, b in pairs))
        assert found.lower == pytest.approx(max(0.0, *(a.lower - b.upper for a, b in pairs)))


def scored(low: float, high: float, rows: int = 400) -> Cells:
    """Two groups whose scores lie between ``low`` and ``high``; three in four have labels."""
    subject = ("sex",)
    cells = Cells(subject, scored=[subject])
    for sex, power in (("m", 1.0), ("f", 1.7), ("x", 0.5)):
        n = rows if sex != "x" else 8
        scores = (low + (high - low) * ((np.arange(n) * 37 % n + 0.5) / n) ** power).astype(np.float32)
        cells.add({"sex": (np.zeros(n, np.int64), [sex])}, scores > (low + high) / 2, None, scores)
        assert cells.scores is not None
        for row, score in enumerate(scores.tolist()):
            if row % 4:
                truth = float(score * 0.9 + row % 3) if high > 1 else float(row % 7 < 3 + 3 * score)
                cells.scores.learn({"sex": sex}, score, truth)
    return cells


@pytest.mark.parametrize(("kind", "low", "high", "rows"), [
    ("probabilities", 0.0, 1.0, 400), ("many probabilities", 0.1, 0.9, 2300), ("salaries", 20.0, 90.0, 300),
])  # fmt: skip
def test_verdicts_about_scores_stay_what_they_were(kind: str, low: float, high: float, rows: int) -> None:
    outcome = {"label": "yes"} if high <= 1 else {"threshold": 50.0}
    names = [name for name in SCORED if high <= 1 or not name.startswith("calibration")]
    one = [{"name": "sex", "privileged": ["m"]}]
    rules = bias(names, protectedAttributes=one, strata=[], favorableOutcome=outcome)
    cells = scored(low, high, rows)
    same(f"verdict-{kind.replace(' ', '-')}", wire(judge(rules, cells)))
    told = {}
    for name in names:
        for found in findings(name, cells, ["sex"], ["m"], probabilities=high <= 1):
            evidence = [found.evidence(*ends) for ends in ((-0.001, 0.001), (5.0, inf))]
            told[f"{name} {found.group}"] = [found.sequence(0.999), evidence, found.resolution]
    same(f"findings-{kind.replace(' ', '-')}", numbers(told))


def test_worst_cases_stay_what_they_were() -> None:
    cells = people(3)
    panel = panel_of(cells, ["sex"], ["m"])
    told = {f"{n} {g}": worst_case(n, panel, g) for n in (*METRICS, *SPREADS) for g in ("f", "x", "(all)", "nobody")}
    same("worst-cases", numbers(told))


def test_rosters_stay_what_they_were() -> None:
    rules, cells = bias(RATES[:1], intersections=True), people()
    first = enrolled(Roster(), rules, cells, 5.0)
    later = enrolled(first, rules, people(2, 7), 9.0)
    other = enrolled(Roster(), rules, people(2, 7), 7.0)
    kept, gone = pooled(crowd(45), bias(RATES[:1], protectedAttributes=[{"name": "race"}], strata=[]), Roster())
    panels = {
        f"{' '.join(axes)} {base}": panel_of(cells, axes, base, roster)
        for axes in (["sex"], ["race"], ["sex", "race"])
        for base in ((), ("a",), ("m",))
        for roster in (None, later)
    }
    shares = {
        name: [panel.order, panel.base, panel.small, panel.judged.groups, panel.total]
        + [panel.share(one, two) for one in ("a", "f", "zz") for two in (None, "m", "b")]
        for name, panel in panels.items()
    }
    same("rosters", numbers([first, later, agreed([later, other]), gone, kept.dump(), shares]))


def test_promises_are_what_readme_says() -> None:
    whole, sliding = bias(RATES[:1]), bias(RATES[:1], window={"type": "sliding", "samples": 1000})
    assert (tuple(promise_of(whole)), alpha_of(whole)) == ((0.05, None, None), pytest.approx(0.05))
    assert tuple(promise_of(sliding)) == (0.05, 1_000_000, 20_000_000)
    assert alpha_of(sliding) == pytest.approx(0.05 / 4005, rel=1e-12)


def test_an_alarm_ends_after_calm_samples_and_a_person_may_take_it_over() -> None:
    alarm = Alarm("Rollback", 100)
    assert alarm == Alarm("Rollback", 100, False, 0.0, 0.0, "", 0.0, "", None)
    assert (alarm.active, alarm.in_force, alarm.passing_from) == (False, None, None)
    alarm.acknowledge("ann", "no alarm", 1.0)
    assert alarm.acknowledged_by == ""
    alarm.observe("Pass", 10, 1.0)
    assert alarm.passing_from is None
    alarm.observe("Fail", 20, 2.0)
    alarm.observe("Fail", 30, 3.0)
    assert (alarm.active, alarm.since, alarm.in_force) == (True, 2.0, "Rollback")
    alarm.observe("Pass", 40, 4.0)
    assert alarm.passing_from == 40
    alarm.observe("Unknown", 60, 5.0)
    assert alarm.passing_from is None
    alarm.observe("Pass", 70, 6.0)
    alarm.observe("Fail", 71, 6.0)
    assert alarm.passing_from is None
    alarm.observe("Pass", 100, 7.0)
    alarm.observe("Pass", 199, 8.0)
    assert alarm.active
    alarm.acknowledge("ann", "seen", 8.5)
    told = alarm.report()
    assert (alarm.in_force, alarm.acknowledged_at) == (None, 8.5)
    assert (told.action, told.active, told.in_force) == ("Rollback", True, "None")
    assert (told.acknowledged_by, told.reason) == ("ann", "seen")
    alarm.observe("Pass", 200, 9.0)
    assert (alarm.active, alarm.ended, alarm.passing_from) == (False, 9.0, None)
    alarm.observe("Fail", 300, 10.0)
    assert (alarm.active, alarm.since, alarm.acknowledged_by, alarm.reason) == (True, 10.0, "", "")
    assert alarm.report().in_force == "Rollback"


def test_alarms_of_replicas_hear_of_each_other() -> None:
    def alarm(since: float, by: str = "", at: float = 0.0, ended: float = 0.0, active: bool = True) -> Alarm:
        return Alarm("Alert", 1, active, since, ended, by, at, "why" if by else "")

    mine = alarm(5.0)
    mine.hear(alarm(3.0, "ann", 4.0))
    assert (mine.since, mine.acknowledged_by, mine.reason, mine.acknowledged_at) == (3.0, "ann", "why", 4.0)
    mine.hear(alarm(3.0, "bob", 9.0))
    assert mine.acknowledged_by == "ann"
    late = alarm(5.0)
    late.hear(alarm(6.0, "ann", 4.0))
    assert (late.since, late.acknowledged_by) == (5.0, "")
    late.hear(alarm(6.0, "ann", 5.0))
    assert late.acknowledged_by == "ann"
    over = alarm(5.0, ended=7.0)
    over.hear(alarm(7.0, "ann", 9.0, ended=2.0))
    assert (over.since, over.ended, over.acknowledged_by) == (5.0, 7.0, "")
    over.hear(alarm(9.0, "ann", 9.5, ended=8.0))
    assert (over.since, over.ended, over.acknowledged_by) == (5.0, 8.0, "ann")
    calm = alarm(0.0, active=False)
    calm.hear(alarm(1.0, "ann", 2.0, ended=0.5))
    assert (calm.active, calm.ended, calm.acknowledged_by) == (False, 0.5, "")
    deaf = alarm(1.0)
    deaf.hear(alarm(2.0, "ann", 3.0, active=False))
    assert deaf.acknowledged_by == ""
