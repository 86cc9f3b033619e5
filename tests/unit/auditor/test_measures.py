"""Every metric that a manifest may name has an effect; scores checked against scipy, statsmodels, scikit-learn,
fairlearn."""

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import scipy.stats
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from statsmodels.stats.weightstats import CompareMeans

from governed_api.governance import Bias, BiasMetric
from governed_serving.artefact import Feature, Lineage, Manifest, Output
from governed_serving.auditor.service.folding import Fold
from governed_serving.fairness.counts.cells import Cells, coded
from governed_serving.fairness.counts.scores import Moments, ScoreTable
from governed_serving.fairness.metrics.measures import NEED_LABELS, SCORE_METRICS, findings
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.records import Column, EventRecord, PredictionFrame

from ..fairness.test_metrics import berkeley

NAMES = get_args(BiasMetric)


def rows(count: int, seed: int) -> dict[str, np.ndarray]:
    """Two groups whose scores differ in place and spread; labels follow the scores."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b"], count)
    score = np.clip(rng.normal(np.where(group == "a", 0.4, 0.55), np.where(group == "a", 0.2, 0.15)), 0.001, 0.999)
    return {"group": group, "score": score.astype(np.float32), "label": (rng.random(count) < score).astype(int)}


def counted(data: dict[str, np.ndarray], threshold: float = 0.5) -> Cells:
    """Cells with scores, the labels learnt row by row as they are when they come late."""
    cells = Cells(("g", "s"), scored=[("g",)])
    stratum = np.where(data["score"] * 100 % 2 < 1, "x", "y")
    outcome = data["score"] >= threshold
    cells.add({"g": coded(data["group"]), "s": coded(stratum)}, outcome, data["label"] > 0.5, data["score"])
    assert cells.scores is not None
    for group, score, label in zip(data["group"], data["score"], data["label"], strict=True):
        cells.scores.learn({"g": str(group)}, float(score), float(label))
    return cells


def value(name: str, cells: Cells) -> float:
    (found,) = [f for f in findings(name, cells, ["g"], ["b"], ["s"]) if f.group in ("a", "(all)")]
    return found.value


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_value_inside_its_interval_and_a_verdict(name: str) -> None:
    cells = counted(rows(2000, 0))
    found = findings(name, cells, ["g"], ["b"], ["s"], probabilities=True)
    assert found
    for one in [*found, *findings(name, cells, ["g"], ["b"], ["s"])]:
        inner, outer = one.sequence(0.9), one.sequence(0.9999)
        assert outer.lower <= inner.lower <= one.value <= inner.upper <= outer.upper
        assert one.support >= 200
    beyond = max(one.sequence(0.999).upper for one in found) + 0.01
    bias = {
        "protectedAttributes": [{"name": "g", "privileged": ["b"]}],
        "strata": ["s"],
        "favorableOutcome": {"label": "1"},
        "metrics": [{"name": name, "thresholdLower": beyond}],
    }
    assert judge(Bias.model_validate(bias), cells).verdict == "Fail"
    bias["metrics"] = [{"name": name, "thresholdLower": -9.0, "thresholdUpper": 9.0}]
    assert judge(Bias.model_validate(bias), cells).verdict == "Pass"


def test_score_metrics_equal_their_oracles() -> None:
    data = rows(3000, 1)
    cells = counted(data)
    a, b = (data["score"][data["group"] == g].astype(np.float64) for g in "ab")
    assert value("scoreMeanDifference", cells) == pytest.approx(a.mean() - b.mean(), abs=1e-9)
    error = CompareMeans.from_data(a, b).std_meandiff_pooledvar
    pooled = error / np.sqrt(1 / len(a) + 1 / len(b))
    assert value("scoreStandardizedMeanDifference", cells) == pytest.approx((a.mean() - b.mean()) / pooled, abs=1e-9)
    frame = MetricFrame(
        metrics={"mae": mean_absolute_error, "rmse": root_mean_squared_error},
        y_true=data["label"], y_pred=data["score"].astype(np.float64), sensitive_features=data["group"],
    ).by_group  # fmt: skip
    for name, key in (("meanAbsoluteErrorDifference", "mae"), ("rootMeanSquaredErrorDifference", "rmse")):
        assert value(name, cells) == pytest.approx(frame[key]["a"] - frame[key]["b"], abs=1e-6)


def test_distance_is_scipys_for_scores_on_the_grid_and_no_larger_between() -> None:
    data = rows(3000, 2)
    fine = value("scoreDistributionDistance", counted(data))
    a, b = (data["score"][data["group"] == g] for g in "ab")
    exact = scipy.stats.ks_2samp(a, b).statistic
    assert exact - 0.01 <= fine <= exact + 1e-12
    data["score"] = (np.round(data["score"] * 256) / 256).astype(np.float32)
    a, b = (data["score"][data["group"] == g] for g in "ab")
    assert value("scoreDistributionDistance", counted(data)) == pytest.approx(
        scipy.stats.ks_2samp(a, b).statistic, abs=1e-12
    )


def test_calibration_error_is_that_of_the_reliability_curve() -> None:
    data = rows(4000, 3)
    cells = counted(data)
    expected = {}
    for group in "ab":
        own = data["group"] == group
        score, label = data["score"][own], data["label"][own]
        rate, mean = calibration_curve(label, score, n_bins=10)
        weight = np.histogram(score, np.linspace(0, 1, 11))[0]
        expected[group] = float((weight[weight > 0] * np.abs(rate - mean)).sum() / weight.sum())
    found = {f.group: f.value for f in findings("calibrationError", cells, ["g"], ["b"])}
    assert found == pytest.approx(expected, abs=1e-6)
    assert value("calibrationDifference", cells) == pytest.approx(expected["a"] - expected["b"], abs=1e-6)


def test_adjusted_difference_sees_through_simpsons_paradox() -> None:
    (found,) = findings("adjustedStatisticalParityDifference", berkeley(), ["sex"], ["M"], ["department"])
    assert found.value == pytest.approx(0.018425, abs=1e-6)
    assert found.sequence(0.95).lower < 0 < found.sequence(0.95).upper
    (whole,) = findings("statisticalParityDifference", berkeley(), ["sex"], ["M"])
    assert whole.sequence(0.95).upper < 0


def test_impact_ratios_are_against_the_most_selected_and_leave_tiny_categories_out() -> None:
    cells = Cells(("g",))
    for group, count, favourable in (("a", 500, 250), ("b", 490, 98), ("c", 10, 9)):
        cells.add({"g": (np.zeros(count, np.int64), [group])}, np.arange(count) < favourable)
    (found,) = findings("impactRatio", cells, ["g"], ["c"])
    assert (found.group, found.reference, found.value) == ("b", "a", pytest.approx(0.4))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.lists(st.integers(0, 39), max_size=5),
)
def test_scores_add_up_to_the_same_bytes_in_any_split(values: list[float], cuts: list[int]) -> None:
    score = np.array(values, np.float32)
    groups = np.arange(len(score)) % 3

    def table(part: np.ndarray) -> ScoreTable:
        made = ScoreTable([("g",)])
        made.add({"g": (groups[part], ["a", "b", "c"])}, score[part])
        return made

    merged = ScoreTable([("g",)])
    for part in np.split(np.random.default_rng(0).permutation(len(score)), sorted(c for c in cuts if c < len(score))):
        merged.merge(ScoreTable.load(msgspec.msgpack.decode(msgspec.msgpack.encode(table(part).dump()))))
    assert merged.dump() == table(np.arange(len(score))).dump()
    own = score[groups == 0].astype(np.float64)
    found = merged.groups[("g",), "a"].score
    assert found.mean == pytest.approx(sum(own) / len(own), rel=1e-12)
    if len(own) > 1:
        assert found.variance == pytest.approx(np.var(own / 2.0**100, ddof=1) * 2.0**200, rel=1e-6)


def test_a_label_that_is_taken_back_leaves_no_trace() -> None:
    table = ScoreTable([("g",), ("g", "h")])
    table.learn({"g": "a", "h": "x"}, 0.3, 1.0)
    before = table.dump()
    table.learn({"g": "a", "h": "x"}, 0.9, 0.0)
    assert table.dump() != before
    table.learn({"g": "a", "h": "x"}, 0.9, 0.0, back=True)
    assert table.dump() == before
    assert {name for _, name in table.groups} == {"a", "a ∧ x"}
    assert table.groups[("g",), "a"].error == Moments(
        1, *(table.groups[("g",), "a"].error.total, table.groups[("g",), "a"].error.squares)
    )


def test_the_bound_of_a_distribution_holds_at_all_times() -> None:
    from governed_serving.fairness.metrics.measures import _uniform_radius

    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(40):
        score = rng.random(1000)
        looks = range(32, 1000, 60)
        missed += any(scipy.stats.kstest(score[:n], "uniform").statistic > _uniform_radius(n, 0.05) for n in looks)
    assert missed <= 2


def scored_bias(**more: object) -> Bias:
    metrics = [{"name": n, "thresholdUpper": 0.1} for n in SCORE_METRICS]
    return Bias.model_validate({"protectedAttributes": [{"name": "g"}], "metrics": metrics, "minSamples": 1, **more})


def test_scores_and_late_labels_of_a_regression_are_folded_from_the_journal() -> None:
    fold = Fold(scored_bias(favorableOutcome={"threshold": 100.0}), "r")
    score = np.array([80.0, 120.0, 95.5, 200.25], np.float32)
    features = {"g": Column("BYTES", np.array([0, 1, 0, 1], "<i4").tobytes(), ["a", "b"])}
    times, ones = np.zeros(4), np.ones(4, "<i4")
    outputs = {"prediction": Column("FP32", score.tobytes())}
    frame = PredictionFrame("m", "r", "x", list("wxyz"), times.tobytes(), ones.tobytes(), features, outputs)
    fold.record(frame)
    truth = [90.0, 120.0, 90.5, 100.25]
    for one, label in zip("wxyz", truth, strict=True):
        fold.record(EventRecord("label", one, "m", "r", 1.0, msgspec.json.encode({"id": one, "label": label})))
    found = {f.group: f for f in findings("rootMeanSquaredErrorDifference", fold.cells(), ["g"], ["b"])}
    assert found["a"].value == pytest.approx(np.sqrt((10**2 + 5**2) / 2) - np.sqrt(100**2 / 2), abs=1e-6)
    restored = Fold(fold.bias, "r")
    assert restored.load(msgspec.msgpack.decode(msgspec.msgpack.encode(fold.dump())))
    assert restored.dump() == fold.dump()
    assert fold.rows_of(frame, 3)[0].score == 200.25


def test_the_score_of_a_classifier_is_the_probability_of_the_favourable_class() -> None:
    manifest = Manifest(
        "m", "classification", [Feature("g", "categorical", "BYTES")], ["g"], [Output("label", "BYTES", [-1])], "y",
        "float", Lineage("", "", "", {}), {}, classes=["no", "yes"],
    )  # fmt: skip
    fold = Fold(scored_bias(favorableOutcome={"label": "no"}), "r", manifest)
    features = {"g": Column("BYTES", np.array([0, 1], "<i4").tobytes(), ["a", "b"])}
    outputs = {
        "probabilities": Column("FP32", np.array([[0.75, 0.25], [0.5, 0.5]], np.float32).tobytes(), width=2),
        "label": Column("BYTES", np.array([0, 0], "<i4").tobytes(), ["no"]),
    }
    times, ones = np.zeros(2).tobytes(), np.ones(2, "<i4").tobytes()
    fold.record(PredictionFrame("m", "r", "x", ["p", "q"], times, ones, features, outputs))
    scores = fold.cells().scores
    assert scores is not None
    assert {g: s.score.mean for (_, g), s in scores.groups.items()} == {"a": 0.75, "b": 0.5}


def test_intersections_are_judged_when_asked_for() -> None:
    """Neither sex nor race differs alone; together they do (Kearns et al. 2018)."""
    cells = Cells(("sex", "race"))
    for sex, race, favourable in (("f", "x", 450), ("f", "y", 50), ("m", "x", 50), ("m", "y", 450)):
        columns = {"sex": (np.zeros(500, np.int64), [sex]), "race": (np.zeros(500, np.int64), [race])}
        cells.add(columns, np.arange(500) < favourable)
    spec = {
        "protectedAttributes": [{"name": "sex"}, {"name": "race"}],
        "favorableOutcome": {"label": "1"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    }
    assert judge(Bias.model_validate(spec), cells).verdict == "Pass"
    found = judge(Bias.model_validate({**spec, "intersections": True}), cells)
    assert found.verdict == "Fail"
    assert "sex ∧ race" in found.summary


BOTH: dict[str, Any] = {
    "protectedAttributes": [{"name": "sex"}, {"name": "race"}],
    "favorableOutcome": {"threshold": 0.5},
    "intersections": True,
}


def of_two_axes(size: int, seed: int) -> dict[str, np.ndarray]:
    """Scores that are low for one intersection and high for another, so that neither axis differs alone."""
    rng = np.random.default_rng(seed)
    sex, race = rng.choice(["f", "m"], size), rng.choice(["x", "y"], size)
    score = np.clip(rng.normal(np.where((sex == "f") == (race == "x"), 0.35, 0.65), 0.1), 0.001, 0.999)
    label = (rng.random(size) < 0.5).astype(int)
    return {"sex": sex, "race": race, "score": score.astype(np.float32), "label": label}


def folded(data: dict[str, np.ndarray], metric: str, ids: str = "") -> Fold:
    """Through the journal's records: predictions, then their labels."""
    metrics = [{"name": metric, "thresholdLower": -0.1, "thresholdUpper": 0.1}]
    fold = Fold(Bias.model_validate({**BOTH, "metrics": metrics}), "r")
    size = len(data["score"])
    features = {}
    for name in ("sex", "race"):
        codes, words = coded(data[name])
        features[name] = Column("BYTES", codes.astype("<i4").tobytes(), words)
    requests = [f"{ids}{i}" for i in range(size)]
    outputs = {"prediction": Column("FP32", data["score"].tobytes())}
    times, ones = np.zeros(size).tobytes(), np.ones(size, "<i4").tobytes()
    fold.record(PredictionFrame("m", "r", "x", requests, times, ones, features, outputs))
    for one, label in zip(requests, data["label"].tolist(), strict=True):
        fold.record(EventRecord("label", one, "m", "r", 1.0, msgspec.json.encode({"id": one, "label": label})))
    return fold


@pytest.mark.parametrize("name", sorted(SCORE_METRICS))
def test_scores_of_intersections_are_what_one_column_of_joint_values_gives(name: str) -> None:
    data = of_two_axes(3000, 6)
    cells = folded(data, name).cells()
    found = findings(name, cells, ["sex", "race"], ())
    joined = np.array([f"{s} ∧ {r}" for s, r in zip(data["sex"], data["race"], strict=True)])
    alone = findings(name, counted({**data, "group": joined}), ["g"], ())
    assert {f.group: (f.value, f.samples, f.support) for f in found} == {
        f.group: (f.value, f.samples, f.support) for f in alone
    }
    assert len(found) == (4 if name == "calibrationError" else 3)


def test_scores_that_differ_at_an_intersection_alone_are_judged_there() -> None:
    fold = folded(of_two_axes(4000, 7), "scoreMeanDifference")
    found = judge(fold.bias, fold.cells())
    assert found.verdict == "Fail"
    assert "sex ∧ race" in found.summary
    assert {f.verdict for f in found.metrics if f.attribute != "sex ∧ race"} == {"Pass"}
    without = Fold(fold.bias.model_copy(update={"intersections": False}), "r")
    assert not without.load(fold.dump()), "counts with intersections are not counts without"


def test_scores_of_intersections_add_up_over_replicas_and_restarts() -> None:
    data = of_two_axes(400, 8)
    whole = folded(data, "calibrationDifference").window.total().dump()
    first, second = ({k: v[part] for k, v in data.items()} for part in (slice(0, 150), slice(150, None)))
    window = folded(first, "calibrationDifference").window.merge(folded(second, "calibrationDifference", "b").window)
    assert window.total().dump() == whole
    fold = folded(data, "calibrationDifference")
    restored = Fold(fold.bias, "r")
    assert restored.load(msgspec.msgpack.decode(msgspec.msgpack.encode(fold.dump())))
    assert restored.dump() == fold.dump()


def test_names_with_the_sign_of_intersections_in_them_stay_apart() -> None:
    """A value may hold what joins the names of an intersection."""
    cells = Cells(("g", "s"))
    for group, rows_of, favourable in (("a ∧ b", 400, 100), ("c", 400, 300)):
        for stratum in ("x", "y"):
            columns = {"g": (np.zeros(rows_of, np.int64), [group]), "s": (np.zeros(rows_of, np.int64), [stratum])}
            cells.add(columns, np.arange(rows_of) < favourable)
    (found,) = findings("adjustedStatisticalParityDifference", cells, ["g"], ["c"], ["s"])
    assert (found.group, found.value) == ("a ∧ b", pytest.approx(-0.5))


def test_small_groups_and_strata_are_not_shown() -> None:
    cells = Cells(("g", "s"))
    for group, stratum, count in (("a", "x", 300), ("b", "x", 300), ("c", "x", 4), ("a", "y", 300), ("b", "y", 3)):
        columns = {"g": (np.zeros(count, np.int64), [group]), "s": (np.zeros(count, np.int64), [stratum])}
        cells.add(columns, np.arange(count) < count // 3)
    spec = {
        "protectedAttributes": [{"name": "g", "privileged": ["a"]}],
        "strata": ["s"],
        "favorableOutcome": {"label": "1"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    }
    found = judge(Bias.model_validate(spec), cells)
    tiny = next(m for m in found.metrics if m.group == "c")
    assert (tiny.value, tiny.lower, tiny.upper, tiny.verdict) == (None, None, None, "Unknown")
    assert [g.group for g in found.groups["g"]] == ["a", "b"]
    row = next(r for r in found.strata if r.group == "b")
    assert row.strata["x"] is not None
    assert row.strata["y"] is None


def test_names_that_wait_for_labels() -> None:
    data = rows(500, 4)
    cells = Cells(("g", "s"), scored=[("g",)])
    columns = {"g": coded(data["group"]), "s": coded(data["group"])}
    cells.add(columns, data["score"] >= 0.5, None, data["score"])
    waiting = {
        n for n in NAMES if any(f.value != f.value or f.support == 0 for f in findings(n, cells, ["g"], ["b"], ["s"]))
    }
    assert waiting - {"adjustedStatisticalParityDifference"} == NEED_LABELS & set(NAMES)
