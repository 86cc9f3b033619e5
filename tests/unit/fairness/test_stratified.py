"""Differences of all rates within strata: their verdicts, what missing labels leave open, and how exact they are."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from governed_api.governance import Bias
from governed_api.verdict import MetricFinding
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.metrics.labelled import worst_case
from governed_serving.fairness.metrics.measures import findings
from governed_serving.fairness.metrics.metrics import METRICS
from governed_serving.fairness.metrics.roster import panel_of
from governed_serving.fairness.metrics.stratified import ADJUSTED, ADJUSTED_LABEL_METRICS, Within
from governed_serving.fairness.metrics.verdict import judge

Table = list[list[int]]
"""[unfavourable outcome, favourable outcome], each [unfavourable label, favourable label, none]."""
EOD = "adjustedEqualOpportunityDifference"


def cells_of(**strata: dict[str, Table]) -> Cells:
    cells = Cells(("sex", "office"))
    for stratum, groups in strata.items():
        for group, table in groups.items():
            cells.put((group, stratum), np.array(table, np.int64))
    return cells


def line(name: str, cells: Cells, bound: float = 0.1) -> MetricFinding:
    bias: dict[str, Any] = {
        "protectedAttributes": [{"name": "sex", "privileged": ["m"]}],
        "strata": ["office"],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": name, "thresholdLower": -bound, "thresholdUpper": bound}],
        "minSamples": 1,
    }
    return next(m for m in judge(Bias.model_validate(bias), cells).metrics if m.group == "f")


def deserving(rows: int, favoured: float) -> Table:
    """Rows of which half deserve favour, and ``favoured`` of these get it; of the others .2 do."""
    half = rows // 2
    k, fp = round(half * favoured), round(half * 0.2)
    return [[half - fp, half - k, 0], [fp, k, 0]]


def test_equal_opportunity_within_strata_sees_through_who_applies_where() -> None:
    """Both offices treat all alike; f apply where fewer are favoured."""
    cells = cells_of(
        strict={"f": deserving(9000, 0.3), "m": deserving(3000, 0.3)},
        kind={"f": deserving(3000, 0.8), "m": deserving(9000, 0.8)},
    )
    raw, within = line("equalOpportunityDifference", cells), line(EOD, cells)
    assert (raw.verdict, within.verdict, within.value) == ("Fail", "Pass", pytest.approx(0.0, abs=1e-9))


def test_what_is_unfair_within_strata_fails() -> None:
    """In each office f get less; in all they seem to get as much, since they apply where more are favoured."""
    cells = cells_of(
        strict={"f": deserving(3000, 0.3), "m": deserving(9000, 0.55)},
        kind={"f": deserving(9000, 0.65), "m": deserving(3000, 0.9)},
    )
    assert line("equalOpportunityDifference", cells).verdict == "Unknown"
    found = line(EOD, cells)
    assert (found.verdict, found.value) == ("Fail", pytest.approx(-0.25, abs=1e-3))


def test_without_a_stratum_that_both_have_nothing_is_defined() -> None:
    cells = cells_of(a={"f": deserving(400, 0.3)}, b={"m": deserving(400, 0.8)})
    for name in ADJUSTED:
        found = line(name, cells)
        assert (found.verdict, found.value, found.lower, found.upper) == ("Unknown", None, None, None)
        assert found.message == "fewer than 10 rows on a side, in strata that both sides have"
    unlabelled = cells_of(a={g: [[0, 0, 200], [0, 0, 200]] for g in "fm"})
    assert line(EOD, unlabelled).message == "no labels yet"


def test_support_counts_the_overlap_of_the_rate() -> None:
    """A stratum in which no f deserved favour says nothing of true positives, and much of false ones."""
    cells = cells_of(
        a={"f": [[300, 0, 0], [100, 0, 0]], "m": deserving(800, 0.5)}, b={g: [[9, 4, 0], [2, 5, 0]] for g in "fm"}
    )
    assert line(EOD, cells).message == "fewer than 10 rows on a side, in strata that both sides have"
    found = line("adjustedFalsePositiveRateDifference", cells)
    assert (found.samples, found.value is None) == (400 + 400 + 11 + 11, False)
    assert line("adjustedAverageOddsDifference", cells).value is None, "one of its two rates has no support"


@pytest.mark.parametrize("name", ADJUSTED)
@pytest.mark.parametrize("seed", range(3))
def test_intervals_stay_within_what_is_possible(name: str, seed: int) -> None:
    """Also where a stratum has a row of each, or all are favoured."""
    rng = np.random.default_rng(seed)
    strata = {s: {g: rng.integers(0, [[3, 40, 2]] * 2).tolist() for g in "fm"} for s in "abc"}
    strata["d"] = {g: [[0, 0, 0], [1, 1, 0]] for g in "fm"}
    (one,) = findings(name, cells_of(**strata), ("sex",), ("m",), ("office",))
    found = one.sequence(0.95)
    least = 0.0 if name == "adjustedEqualizedOddsDifference" else -1.0
    assert least <= found.lower <= one.value <= found.upper <= 1.0


SMALL = Within(
    np.array([[[3, 2, 2], [2, 4, 1]], [[4, 1, 0], [1, 2, 2]]]),
    np.array([[[2, 1, 1], [1, 3, 2]], [[1, 1, 1], [2, 5, 0]]]),
)


def completions(side: np.ndarray) -> list[np.ndarray]:
    """Every way to label the rows of all strata that have no label."""
    missing = [(s, outcome) for s in range(len(side)) for outcome in (0, 1)]
    found = []
    for chosen in product(*(range(int(side[s, o, 2]) + 1) for s, o in missing)):
        full = side.copy()
        for (s, o), favourable in zip(missing, chosen, strict=True):
            full[s, o] += (side[s, o, 2] - favourable, favourable, -side[s, o, 2])
        found.append(full)
    return found


def few_labels(seed: int) -> Within:
    """The first one by hand; then any two strata, with zeros."""
    if not seed:
        return SMALL
    rng = np.random.default_rng(seed)
    u, p = (rng.integers(0, [[4, 4, 3], [4, 4, 3]], (2, 2, 3)) for _ in range(2))
    return Within(u, p)


@pytest.mark.parametrize("name", sorted(ADJUSTED_LABEL_METRICS))
@pytest.mark.parametrize("seed", range(8))
def test_the_worst_case_within_strata_is_over_all_labels(name: str, seed: int) -> None:
    within = few_labels(seed)
    values = over_all_labels(name, within)
    cells = cells_of(**{s: {"f": within.u[i].tolist(), "m": within.p[i].tolist()} for i, s in enumerate("ab")})
    found = worst_case(name, panel_of(cells, ("sex",), ["m"]), "f", within)
    assert found is not None
    if ADJUSTED[name] == "averageOddsDifference":  # two rates share their labels: too wide, never too narrow
        assert found.lower <= values.min() + 1e-12
        assert found.upper >= values.max() - 1e-12
        return
    assert found.upper == pytest.approx(values.max())
    if ADJUSTED[name] == "equalizedOddsDifference":
        assert found.lower <= values.min() + 1e-12
    else:
        assert found.lower == pytest.approx(values.min())


def over_all_labels(name: str, within: Within) -> np.ndarray:
    """The values that are defined: Σ wᵢ(k₁/n₁ − k₀/n₀) ÷ Σ wᵢ of each labelling, of each rate."""
    us, ps = (np.stack(completions(side)) for side in within)  # (labellings, strata, 2, 3)
    found = []
    for rate in METRICS[ADJUSTED[name]].rates:
        (k1, n1), (k0, n0) = ([x.astype(float)[:, None] for x in rate(us)], [x.astype(float) for x in rate(ps)])
        weight = n1 * n0 / np.maximum(n1 + n0, 1)
        gap = k1 / np.maximum(n1, 1) - k0 / np.maximum(n0, 1)
        with np.errstate(invalid="ignore"):
            found.append((weight * gap).sum(-1) / weight.sum(-1))
    combined = METRICS[ADJUSTED[name]].combine(found, [np.zeros(())] * len(found))
    return combined[~np.isnan(combined)]


def test_where_no_label_is_missing_there_is_no_worst_case() -> None:
    cells = cells_of(a={"f": deserving(400, 0.3), "m": deserving(400, 0.3)})
    assert line(EOD, cells).worst_case is None
    assert worst_case("adjustedStatisticalParityDifference", panel_of(cells, ("sex",), ["m"]), "f", SMALL) is None


@pytest.mark.parametrize("place", [0, 1])
def test_a_stratum_in_which_one_outcome_has_no_label_is_not_judged(place: int) -> None:
    """In office b nobody who was refused is followed up: each true positive rate there seems to be 1."""
    blind: Table = [[0, 0, 400], [100, 900, 0]]
    known: Table = [[400, 100, 0], [100, 900, 0]]
    cells = cells_of(a=dict.fromkeys("fm", known), b={g: blind if i == place else known for i, g in enumerate("fm")})
    found = line(EOD, cells, 0.5)
    assert found.verdict == "Unknown"
    assert (
        found.message
        == f"in one of the strata no unfavorable outcome of {'fm'[place]} has a label yet: the rate can't be known"
    )
    assert line("adjustedPredictiveParityDifference", cells, 0.5).verdict == "Pass"


@pytest.mark.parametrize("group", "fm")
def test_a_blind_stratum_that_only_one_side_has_holds_nothing_up(group: str) -> None:
    known: dict[str, Table] = {g: [[400, 100, 0], [100, 900, 0]] for g in "fm"}
    cells = cells_of(a=known, b={group: [[0, 0, 400], [100, 900, 0]]})
    assert (line(EOD, cells, 0.5).verdict, line(EOD, cells, 0.5).value) == ("Pass", 0.0)


def haenszel(tables: dict[str, dict[str, Table]]) -> float:
    """Of true positive rates: Σ (k₁m₀ − k₀m₁)/N over Σ n₁n₀/N."""
    over = under = 0.0
    for groups in tables.values():
        (m1, k1), (m0, k0) = ((groups[g][0][1], groups[g][1][1]) for g in "fm")
        both = k1 + m1 + k0 + m0
        over, under = over + (k1 * m0 - k0 * m1) / both, under + (k1 + m1) * (k0 + m0) / both
    return over / under


def test_what_is_unfair_in_many_small_strata_is_seen_beside_fair_large_ones() -> None:
    """64 large offices treat all alike, 400 smaller ones don't: no choice of the largest speaks for all."""
    tables: dict[str, dict[str, Table]] = {f"l{i:03}": dict.fromkeys("fm", deserving(40, 0.5)) for i in range(64)}
    for i in range(400):
        tables[f"s{i:03}"] = {"f": deserving(30, 0.2), "m": deserving(30, 0.8)}
    found = line(EOD, cells_of(**tables))
    assert (found.verdict, found.value) == ("Fail", pytest.approx(haenszel(tables)))
    assert found.samples == 64 * 40 + 400 * 30


def test_in_more_strata_than_can_be_asked_about_the_value_is_told_and_not_judged() -> None:
    tables = {f"{i:04}": dict.fromkeys("fm", deserving(10, 0.4)) for i in range(1001)}
    found = line(EOD, cells_of(**tables), 0.5)
    assert (found.value, found.lower, found.upper) == (0.0, None, None)
    assert (found.verdict, found.message) == (
        "Unknown",
        "more than 1,000 strata that both sides have: no interval, and so no judgement",
    )
    del tables["0000"]
    assert line(EOD, cells_of(**tables), 0.5).verdict == "Pass"


def test_the_order_of_strata_changes_nothing() -> None:
    rng = np.random.default_rng(8)
    tables = {f"{i:02}": {g: rng.integers(0, 30, (2, 3)).tolist() for g in "fm"} for i in range(40)}
    one, other = line(EOD, cells_of(**tables)), line(EOD, cells_of(**dict(reversed(tables.items()))))
    assert (one.value, one.lower, one.upper) == (other.value, other.lower, other.upper)
