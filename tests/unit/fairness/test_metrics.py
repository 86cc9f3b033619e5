"""Published figures to 1e-6, and fairlearn as the oracle for everything else."""

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_serving.fairness.inference.hypotheses import chi_square
from governed_serving.fairness.metrics.metrics import (
    METRICS,
    Cells,
    GroupTable,
    coded,
    compare,
    confusion,
    entropy_index,
    group_rates,
    impact_ratios,
    reference_groups,
    spread,
)

BERKELEY = {
    "A": (512, 313, 89, 19), "B": (353, 207, 17, 8), "C": (120, 205, 202, 391),
    "D": (138, 279, 131, 244), "E": (53, 138, 94, 299), "F": (22, 351, 24, 317),
}  # fmt: skip
"""Department → admitted and rejected men, admitted and rejected women (Bickel et al. 1975)."""


def table_of(**groups: tuple[int, int, int, int]) -> GroupTable:
    """Group → (TN, FP, FN, TP)."""
    counts = np.zeros((len(groups), 2, 3), np.int64)
    for place, (tn, fp, fn, tp) in enumerate(groups.values()):
        counts[place, :, :2] = [[tn, fn], [fp, tp]]
    return GroupTable(list(groups), counts)


def berkeley() -> Cells:
    cells = Cells(("sex", "department"))
    for department, numbers in BERKELEY.items():
        for (sex, admitted), count in zip((("M", 1), ("M", 0), ("F", 1), ("F", 0)), numbers, strict=True):
            rows = np.zeros(count, np.int64)
            cells.add({"sex": (rows, [sex]), "department": (rows, [department])}, np.full(count, admitted))
    return cells


def test_compas() -> None:
    """ProPublica's two-year table; "high risk" is outcome 1, so the favourable outcome is its complement."""
    table = table_of(black=(990, 805, 532, 1369), white=(1139, 349, 461, 505))
    rates = group_rates(table)
    assert rates["black"]["falsePositiveRate"] == pytest.approx(0.448468, abs=1e-6)
    assert rates["white"]["falsePositiveRate"] == pytest.approx(0.234543, abs=1e-6)
    assert 1 - rates["black"]["truePositiveRate"] == pytest.approx(0.279853, abs=1e-6)
    assert 1 - rates["white"]["truePositiveRate"] == pytest.approx(0.477226, abs=1e-6)
    (found,) = compare(table, ["white"])
    expected = {
        "statisticalParityDifference": 0.240200, "equalOpportunityDifference": 0.197373,
        "falsePositiveRateDifference": 0.213925, "averageOddsDifference": 0.205649,
        "equalizedOddsDifference": 0.213925, "predictiveParityDifference": 0.038379,
    }  # fmt: skip
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    favourable = GroupTable(table.groups, table.counts[:, ::-1, :])
    (flipped,) = compare(favourable, ["white"], ["disparateImpactRatio"])
    assert flipped.metrics["disparateImpactRatio"] == pytest.approx(0.631593, abs=1e-6)


def test_berkeley_aggregate_and_paradox() -> None:
    cells = berkeley()
    table = cells.by("sex")
    (found,) = compare(table, ["M"])
    assert cells.rows == 4526
    assert found.metrics["statisticalParityDifference"] == pytest.approx(-0.141645, abs=1e-6)
    assert found.metrics["disparateImpactRatio"] == pytest.approx(0.681830, abs=1e-6)
    assert chi_square(table.counts.sum(2)).statistic == pytest.approx(92.205280, abs=1e-6)


def test_adult_incomes() -> None:
    table = confusion(["F"] * 10771 + ["M"] * 21790, np.r_[np.arange(10771) < 1179, np.arange(21790) < 6662])
    (found,) = compare(table, ["M"], ["statisticalParityDifference", "disparateImpactRatio"])
    assert found.metrics["statisticalParityDifference"] == pytest.approx(-0.196276, abs=1e-6)
    assert found.metrics["disparateImpactRatio"] == pytest.approx(0.358023, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_spread_is_fairlearns(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 300
    group, truth = rng.integers(0, groups, rows), rng.integers(0, 2, rows)
    predicted = (rng.random(rows) < rng.random(groups)[group]).astype(int)
    data = {"y_true": truth, "y_pred": predicted, "sensitive_features": group}
    found = spread(confusion(group, predicted, truth))
    assert found["demographicParityDifferenceMaxMin"] == pytest.approx(fairlearn.demographic_parity_difference(**data))
    assert found["demographicParityRatioMinMax"] == pytest.approx(fairlearn.demographic_parity_ratio(**data))
    assert found["equalizedOddsDifferenceMaxMin"] == pytest.approx(fairlearn.equalized_odds_difference(**data))
    assert found["equalizedOddsRatioMinMax"] == pytest.approx(fairlearn.equalized_odds_ratio(**data))
    assert found["equalOpportunityDifferenceMaxMin"] == pytest.approx(fairlearn.equal_opportunity_difference(**data))


def test_fairlearns_documented_figures() -> None:
    """Selection rates .75 and .5, and one group always right where the other is always wrong among the unfavourable."""
    group = np.repeat(["a", "b"], 4)
    truth, predicted = np.array([1, 1, 1, 0, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 1, 1, 0, 0])
    found = spread(confusion(group, predicted, truth))
    assert found["demographicParityDifferenceMaxMin"] == pytest.approx(0.25)
    assert found["demographicParityRatioMinMax"] == pytest.approx(0.666667, abs=1e-6)
    assert found["equalizedOddsDifferenceMaxMin"] == pytest.approx(1.0)


def test_entropy_equals_its_definition_row_by_row() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    benefit = predicted - truth + 1
    share = benefit / benefit.mean()
    logs = np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0)
    counts = confusion(np.zeros(500), predicted, truth).counts[0]
    assert float(entropy_index(counts, 1)) == pytest.approx(logs.mean(), abs=1e-12)
    assert float(entropy_index(counts, 2)) == pytest.approx((share**2 - 1).mean() / 2, abs=1e-12)


def test_impact_ratios_leave_out_categories_below_two_per_cent() -> None:
    table = confusion(
        ["a"] * 500 + ["b"] * 490 + ["c"] * 10, np.r_[np.arange(500) < 250, np.arange(490) < 98, np.ones(10)]
    )
    found = impact_ratios(table, 0.02)
    assert found == {"a": 1.0, "b": pytest.approx(0.4), "c": None}


def test_undefined_rates_are_nan_and_never_raise() -> None:
    table = confusion(["a", "a", "b"], [1, 0, 0])
    (found,) = compare(table, ["a"])
    assert found.metrics["statisticalParityDifference"] == pytest.approx(-0.5)
    assert all(
        np.isnan(found.metrics[name])
        for name in METRICS
        if name not in ("statisticalParityDifference", "disparateImpactRatio")
    )


def test_reference_is_named_or_the_most_selected() -> None:
    table = confusion(["a"] * 4 + ["b"] * 4, [1, 1, 1, 0, 1, 0, 0, 0])
    assert reference_groups(table) == ("a",)
    assert reference_groups(table, ["b"]) == ("b",)
    assert reference_groups(table, ["z"]) == ()
    assert compare(table, ["z"]) == []


def test_metrics_broadcast_over_replicates() -> None:
    rng = np.random.default_rng(2)
    u, p = rng.integers(1, 50, (2, 7, 2, 3))
    for metric in METRICS.values():
        together = metric(u, p)
        assert together == pytest.approx([float(metric(a, b)) for a, b in zip(u, p, strict=True)])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 199), min_size=0, max_size=6))
def test_any_split_in_any_order_gives_the_same_bytes(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    sex, age = rng.choice(["F", "M"], 200), rng.choice(["x", "y", "z"], 200)
    outcome, label = rng.integers(0, 2, 200), rng.integers(0, 3, 200)

    def counted(rows: np.ndarray) -> Cells:
        cells = Cells(("sex", "age"))
        if len(rows):
            cells.add({"sex": coded(sex[rows]), "age": coded(age[rows])}, outcome[rows], label[rows])
        return cells

    parts = [counted(part) for part in np.split(rng.permutation(200), sorted(cuts))]
    merged = Cells(("sex", "age"))
    for place in rng.permutation(len(parts)):
        merged.merge(Cells.load(parts[place].dump()))
    assert merged.dump() == counted(np.arange(200)).dump()


def test_many_values_are_bounded_and_counted() -> None:
    cells = Cells(("a",), limit=10)
    cells.add({"a": coded(np.arange(100))}, np.zeros(100))
    assert (cells.rows, len(cells.counts), cells.overflow) == (100, 11, 90)
