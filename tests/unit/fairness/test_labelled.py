"""Labels that haven't come: shares per group and outcome, worst cases, and the warning."""

from itertools import product
from typing import Any

import msgspec
import numpy as np
import pytest

from governed_api.governance import Bias
from governed_api.verdict import Bounds, MetricFinding, wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.truth import PostedLabel
from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.labelled import _greatest_quotient, label_shares, uneven, worst_case
from governed_serving.fairness.metrics.measures import NEED_LABELS, SPREADS, largest_gap, least_ratio
from governed_serving.fairness.metrics.metrics import LABEL_METRICS, METRICS, GroupTable, spread
from governed_serving.fairness.metrics.roster import panel_of
from governed_serving.fairness.metrics.verdict import _crossing, judge

Table = list[list[int]]
"""[unfavourable outcome, favourable outcome], each [unfavourable label, favourable label, none]."""


def cells_of(**groups: Table) -> Cells:
    cells = Cells(("sex",))
    for name, table in groups.items():
        cells.put((name,), np.array(table, np.int64))
    return cells


def rules(metric: str = "equalOpportunityDifference", bound: float = 0.2) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "sex", "privileged": ["m"]}],
            "favorableOutcome": {"label": "yes"},
            "metrics": [{"name": metric, "thresholdLower": -bound, "thresholdUpper": bound}],
            "minSamples": 1,
        }
    )


def line(bias: Bias, cells: Cells) -> MetricFinding:
    return next(m for m in judge(bias, cells).metrics if m.group in ("f", "(all)"))


SMALL = {"f": [[3, 2, 2], [2, 4, 1]], "m": [[2, 1, 1], [1, 3, 2]]}


def completions(table: Table) -> list[np.ndarray]:
    """Every way to label the rows that have none."""
    counts = np.array(table, np.int64)
    found = []
    for a, b in product(range(counts[0, 2] + 1), range(counts[1, 2] + 1)):
        full = counts.copy()
        full[0, :2] += (counts[0, 2] - a, a)
        full[1, :2] += (counts[1, 2] - b, b)
        full[:, 2] = 0
        found.append(full)
    return found


def tables_of(seed: int) -> dict[str, Table]:
    """The first one by hand; then any, with zeros."""
    if not seed:
        return SMALL
    rng = np.random.default_rng(seed)
    return {g: rng.integers(0, rng.integers(2, 9, 3), (2, 3)).tolist() for g in "fm"}


@pytest.mark.parametrize("name", sorted(LABEL_METRICS))
@pytest.mark.parametrize("seed", range(12))
def test_the_worst_case_is_that_over_all_labels(name: str, seed: int) -> None:
    tables = tables_of(seed)
    pairs = [*product(completions(tables["f"]), completions(tables["m"]))]
    values = np.array([float(METRICS[name](u, p)) for u, p in pairs])
    found = worst_case(name, panel_of(cells_of(**tables), ("sex",), ["m"]), "f")
    if found is None:
        assert len({*values.tolist()}) == 1 or np.isnan(values).all()
    elif np.isnan(values).all():
        assert found.lower <= found.upper
    elif np.isnan(values).any():  # a rate may be undefined: anything is taken as possible
        assert found.lower <= np.nanmin(values) + 1e-12
        assert found.upper >= np.nanmax(values) - 1e-12
    else:
        assert found.upper == pytest.approx(values.max())
        if name == "equalizedOddsDifference":  # both rates share their labels: too wide, never too narrow
            assert found.lower <= values.min() + 1e-12
        else:
            assert found.lower == pytest.approx(values.min())


@pytest.mark.parametrize("seed", range(10))
def test_the_worst_case_of_average_odds_is_exact_for_many_labels_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = {g: rng.integers(1, rng.choice([3, 40, 300], 3), (2, 3), endpoint=True).tolist() for g in "fm"}
    ends = {}
    for group, table in tables.items():
        (d, b, refused), (c, a, favoured) = table
        x, y = np.arange(favoured + 1)[:, None], np.arange(refused + 1)
        odds = (a + x) / (a + x + b + y) + (c + favoured - x) / (c + favoured - x + d + refused - y)
        ends[group] = odds.min(), odds.max()
    found = worst_case("averageOddsDifference", panel_of(cells_of(**tables), ("sex",), ["m"]), "f")
    assert found is not None
    assert found.lower == pytest.approx((ends["f"][0] - ends["m"][1]) / 2)
    assert found.upper == pytest.approx((ends["f"][1] - ends["m"][0]) / 2)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("equalOpportunityDifferenceMaxMin", "equalOpportunityDifference"),
        ("accuracyDifferenceMaxMin", "accuracyDifference"),
    ],
)
def test_the_worst_case_over_all_groups_is_the_largest_gap(name: str, rate: str) -> None:
    groups = {k: [[c * 20 for c in row] for row in v] for k, v in SMALL.items()}
    panel = panel_of(cells_of(**groups), ("sex",), ["m"])
    pair, found = worst_case(rate, panel, "f"), worst_case(name, panel, "(all)")
    assert pair is not None
    assert found is not None
    assert found.upper == pytest.approx(max(abs(pair.lower), abs(pair.upper)))
    assert found.lower == pytest.approx(0.0 if pair.lower < 0 < pair.upper else min(abs(pair.lower), abs(pair.upper)))


@pytest.mark.parametrize("name", sorted(SPREADS.keys() & NEED_LABELS))
@pytest.mark.parametrize("most", ["f", "m", "x"])
def test_the_worst_case_over_all_groups_holds_no_group_against_itself(name: str, most: str) -> None:
    """One group has most of the rows without a label: its own rate reaches furthest to both sides."""
    groups = {g: [[60, 40, 0], [40, 60, 0]] for g in ("f", "m", "x")} | {most: [[9, 6, 6], [6, 9, 6]]}
    groups |= {"x" if most != "x" else "f": [[30, 20, 0], [20, 40, 1]]}
    (few, *others), cells = [g for g in groups if g != most], cells_of(**groups)
    every = product(*(completions(groups[g]) for g in (most, few, *others)))
    values = [spread(GroupTable((most, few, *others), np.array(tables)))[name] for tables in every]
    found = worst_case(name, panel_of(cells, ("sex",), []), "(all)")
    assert found is not None
    if "Odds" in name:  # both rates share their labels: too wide, never too narrow
        assert found.lower <= min(values) + 1e-12
        assert found.upper >= max(values) - 1e-12
    else:
        assert (found.lower, found.upper) == (pytest.approx(min(values)), pytest.approx(max(values)))


def test_where_every_row_has_a_label_or_none_is_needed_there_is_no_worst_case() -> None:
    full = cells_of(f=[[30, 20, 0], [20, 40, 0]], m=[[20, 10, 0], [10, 30, 0]])
    assert line(rules(), full).worst_case is None
    assert "have a label" not in judge(rules(), full).summary
    selection = rules("statisticalParityDifference")
    assert judge(selection, cells_of(**SMALL)).labels == {}
    assert line(selection, cells_of(f=[[9, 9, 99], [9, 9, 99]], m=[[9, 9, 99], [9, 9, 99]])).worst_case is None
    ppv = cells_of(f=[[3, 2, 90], [20, 40, 0]], m=[[2, 1, 90], [10, 30, 0]])
    assert line(rules("predictiveParityDifference"), ppv).worst_case is None, "nobody's PPV hangs on the unfavoured"


def test_a_pass_on_labels_that_are_missing_says_what_they_could_make_of_it() -> None:
    """True TPR of f .6, of m .9; those f who were wronged never tell. The labelled rows alone show no difference."""
    cells = cells_of(f=[[400, 100, 500], [100, 900, 0]], m=[[400, 100, 0], [100, 900, 0]])
    found = judge(rules(bound=0.1), cells)
    metric = next(m for m in found.metrics if m.group == "f")
    assert metric.verdict == "Pass"
    assert metric.worst_case is not None
    assert (metric.worst_case.lower, metric.worst_case.upper) == (pytest.approx(-0.3), pytest.approx(0.0))
    assert "3,000 of 3,500 samples have a label, the others are taken as missing at random" in found.summary
    assert "equalOpportunityDifference of sex=f anything from -0.3000 to +0.0000" in found.summary
    assert "labels come unevenly: 500 of 1,000 unfavorable of sex=f and" in found.summary
    shares = {(s.group, s.outcome): (s.labelled, s.rows) for s in found.labels["sex"]}
    assert shares["f", "unfavorable"] == (500, 1000)
    assert shares["m", "favorable"] == (1000, 1000)
    assert wire(found)["labels"]["sex"][0]["share"] == 1.0  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("metric", "judged"),
    [
        ("equalOpportunityDifference", False),
        ("averageOddsDifference", False),
        ("accuracyDifference", False),
        ("equalOpportunityDifferenceMaxMin", False),
        ("predictiveParityDifference", True),
    ],
)
def test_labels_of_the_favoured_alone_pass_nothing_that_rests_on_the_others(metric: str, judged: bool) -> None:
    """Loans that were refused never fail: each TPR is 1, and the difference 0."""
    cells = cells_of(f=[[0, 0, 900], [100, 1900, 0]], m=[[0, 0, 100], [100, 1900, 0]])
    found = line(rules(metric), cells)
    assert (found.verdict == "Pass") is judged
    assert ("no unfavorable outcome of" in found.message) is not judged


def test_chance_is_not_told_as_uneven() -> None:
    rng = np.random.default_rng(4)
    told = 0
    for _ in range(200):
        counts = rng.binomial(300, 0.5, (2, 2))
        tables = {
            g: [[int(counts[i, o]), 0, 300 - int(counts[i, o])] for o in range(2)] for i, g in enumerate(("f", "m"))
        }
        told += uneven(label_shares(cells_of(**tables).by("sex"))) is not None
    assert told <= 2


def test_a_groups_lines_are_left_out_where_its_rates_are() -> None:
    shares = label_shares(cells_of(f=[[1, 0, 1], [1, 0, 0]], m=[[40, 0, 0], [40, 0, 0]]).by("sex"))
    assert {one.group for one in shares} == {"m"}


def scored(**groups: Any) -> Cells:
    cells = Cells(("sex",), scored=[("sex",)])
    for name, values in groups.items():
        score = np.asarray(values, np.float32)
        coded = {"sex": (np.zeros(len(score), np.int64), [name])}
        cells.add(coded, np.zeros(len(score), bool), None, score)
    return cells


def exact_distance(u: np.ndarray, p: np.ndarray) -> float:
    grid = np.concatenate([u, p])
    one, other = (np.searchsorted(np.sort(x), grid, "right") / len(x) for x in (u, p))
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("rows", [900, 6000])
@pytest.mark.parametrize("seed", range(3))
def test_the_distance_of_scores_is_exact_for_few_and_marked_for_many(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    u, p = rng.beta(400, 400, rows).astype(np.float32), rng.beta(404, 400, rows // 2).astype(np.float32)
    exact = exact_distance(u, p)
    found = line(rules("scoreDistributionDistance"), scored(f=u, m=p))
    if rows == 900:
        assert (found.value, found.resolution) == (pytest.approx(exact), None)
    else:
        assert found.resolution is not None
        assert found.value == found.resolution.lower
        assert found.resolution.lower - 1e-12 <= exact <= found.resolution.upper + 1e-12  # type: ignore[operator]
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower <= exact <= found.upper


def test_scores_that_differ_in_the_last_bit_are_not_called_equal() -> None:
    found = line(rules("scoreDistributionDistance"), scored(f=[0.50001] * 400, m=[0.50002] * 400))
    assert (found.value, found.verdict) == (1.0, "Fail")


def test_counts_of_scores_do_not_depend_on_split_or_order() -> None:
    """Before, in and beyond the change to 8 bits of mantissa."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=5000).astype(np.float32)
    for rows in (1000, 2048, 2049, 5000):
        whole = scored(f=values[:rows])
        parts = [scored(f=part) for part in np.array_split(values[:rows][rng.permutation(rows)], 7)]
        merged = parts[0]
        for part in parts[1:]:
            merged = Cells.load(part.dump()).merge(merged)
        assert merged.dump() == whole.dump()
        assert whole.scores is not None
        assert whole.scores.groups[("sex",), "f"].coarse is (rows > 2048)


def test_counts_of_an_earlier_auditor_are_read_as_those_of_8_bits() -> None:
    dumped = scored(f=[0.25, 0.5]).dump()
    (group,) = dumped["scores"][1]
    group[2] = [*group[2][:6], [98_304, 98_560], [1, 1]]
    assert Cells.load(dumped).scores.groups[("sex",), "f"].coarse  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(20))
def test_the_ends_of_a_spread_are_those_of_all_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.random((rng.integers(2, 6), 2)) * (rng.random() < 0.8), 1)
    ranges = [Interval(low, high) for low, high in ends.tolist()]
    corners = np.array(list(product(*ends.tolist())))
    gaps, greatest = corners.max(1) - corners.min(1), corners.max(1)
    found = largest_gap(ranges)
    assert found.upper == pytest.approx(gaps.max())
    assert found.lower == pytest.approx(max(ends[:, 0].max() - ends[:, 1].min(), 0.0))
    ratios = np.divide(corners.min(1), greatest, out=np.zeros(len(corners)), where=greatest > 0)
    assert least_ratio(ranges).lower == pytest.approx(ratios.min())


@pytest.mark.parametrize("seed", range(12))
def test_the_greatest_quotient_of_sums_is_that_of_every_choice(seed: int) -> None:
    """Where weights are far below 1 too, as those of strata with a row on each side are."""
    rng = np.random.default_rng(seed)
    strata, ways = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    under = rng.integers(0, 4, (strata, ways)) * rng.choice([0.05, 0.25, 3.0])
    over = under * rng.uniform(-1, 1, (strata, ways))
    quotients = [
        over[range(strata), chosen].sum() / below
        for chosen in product(range(ways), repeat=strata)
        if (below := under[range(strata), chosen].sum()) > 0
    ]
    assert _greatest_quotient(over, under) == pytest.approx(max(quotients, default=1.0))


def test_what_a_posted_label_leaves_out_is_empty() -> None:
    label = msgspec.json.decode(b'{"label":1}', type=PostedLabel)
    assert (label.id, label.correct, label.was, label.reason) == ("", False, None, "")
    assert msgspec.json.encode(label) == b'{"label":1}'


@pytest.mark.parametrize(
    ("bounds", "worst", "crosses"),
    [
        ((-0.1, 0.1), (-0.05, 0.05), False),
        ((-0.1, 0.1), (-0.1, 0.1), False),
        ((-0.1, 0.1), (-0.3, -0.2), False),
        ((-0.1, 0.1), (0.2, 0.3), False),
        ((-0.1, 0.1), (-0.3, -0.1), True),
        ((-0.1, 0.1), (0.1, 0.3), True),
        ((-0.1, 0.1), (-0.05, 0.3), True),
        ((-0.1, 0.1), (-0.3, 0.3), True),
        ((None, 0.1), (-5.0, 0.05), False),
        ((None, 0.1), (-5.0, 0.2), True),
        ((0.8, None), (0.9, 5.0), False),
        ((0.8, None), (0.7, 5.0), True),
        ((-0.1, 0.1), (None, 0.3), False),
        ((-0.1, 0.1), (-0.3, None), False),
        ((-0.1, 0.1), None, False),
    ],
)
def test_labels_that_are_missing_matter_where_they_could_move_the_value_over_a_bound(
    bounds: tuple[float | None, float | None], worst: tuple[float | None, float | None] | None, crosses: bool
) -> None:
    """Whatever they are, a value lies within its bounds or outside of them: then they decide nothing."""
    case = None if worst is None else Bounds(lower=worst[0], upper=worst[1])
    metric = MetricFinding.model_construct(threshold_lower=bounds[0], threshold_upper=bounds[1], worst_case=case)
    assert _crossing(metric) == ([worst] if crosses else [])
