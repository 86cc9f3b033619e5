"""Sets and intervals with a promised coverage: thresholds, groups, the graph that serves them, held-out evidence."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from governed_api.evidence import ConformalCoverage, ConformalEvaluation
from governed_api.lifecycle import Conformal
from governed_api.validation import validate
from governed_serving.artefact import Output, decode_manifest
from governed_serving.journal import numbers
from governed_serving.records import LedgerEntry
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.signature import Signature
from governed_serving.trainer import conformal
from governed_serving.trainer.conformal import apart, calibrate, extend, measure
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.errors import InvalidTraining, TrainingFailed
from governed_serving.trainer.evaluation import predict
from governed_serving.trainer.export import decisions
from governed_serving.trainer.preprocessing import session
from support.model_manifests import valid
from unit.server.planes import MemoryJournal, plane
from unit.server.tabular_model import CATEGORIES, CLASSES, NUMBERS, manifest, tabular, v2_body
from unit.trainer.manifests import ADMISSIONS_BIAS, admissions, inline, resolved
from unit.trainer.neighbours import Workplace
from unit.trainer.test_job import files
from unit.trainer.test_job import predict as served

SIZES = [0, 1, 2, 4, 5, 8, 9, 10, 19, 20, 99, 100, 101, 399, 998, 999, 1000]
COVERAGES = [0.5, 0.501, 0.7, 0.75, 0.8, 0.9, 0.95, 0.999]


def people(rows: int, seed: int = 0, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Dataset:
    """Three classes; sex a categorical group, age a number in bands, floor a number by its values."""
    rng = np.random.default_rng(seed)
    sex = np.array(["f", "m", "x"], object)[rng.choice(3, rows, p=shares)]
    age = rng.integers(18, 80, rows).astype(np.float32)
    floor = rng.integers(0, 3, rows).astype(np.float32)
    named = np.array(["< 30", "[30, 50)", "≥ 50"], object)[np.digitize(age, [30, 50])]
    score = rng.normal(size=rows).astype(np.float32)
    label = np.clip(np.round(score + 1 + rng.normal(size=rows) * (0.3 + (sex == "m"))), 0, 2).astype(np.int64)
    groups = {"sex": sex, "age": named, "floor": np.array([str(int(v)) for v in floor], object)}
    types = {"score": "numeric", "sex": "categorical", "age": "numeric", "floor": "numeric"}
    features = {"score": score, "sex": sex, "age": age, "floor": floor}
    return Dataset(features, types, label, ("a", "b", "c"), groups, {"age": (30.0, 50.0)})


def graph(classes: tuple[str, ...] = ("a", "b", "c")) -> bytes:
    """Scores of three classes from ``score``, or a prediction, as the trainer exports them."""
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1]) for n in ("score", "age", "floor")]
    inputs.append(helper.make_tensor_value_info("sex", TensorProto.STRING, ["batch", 1]))
    width = len(classes) or 1
    factors = onnx.numpy_helper.from_array(np.linspace(-1.5, 2, width, dtype=np.float32)[None], "factors")
    out = helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["batch", width])
    nodes = [helper.make_node("Mul", ["score", "factors"], ["raw"])]
    front = helper.make_model(
        helper.make_graph(nodes, "front", inputs, [out], [factors]),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)],
        ir_version=10,
    )
    back = decisions(classes)
    del front.opset_import[:]
    front.opset_import.extend(back.opset_import)
    front.ir_version = back.ir_version
    data: bytes = onnx.compose.merge_models(front, back, io_map=[("raw", "scores")]).SerializeToString()
    return data


def made(
    rows: Dataset, asked: Conformal, attributes: list[str], model: bytes | None = None
) -> tuple[bytes, conformal.Calibrated]:
    model = graph(tuple(map(str, rows.classes))) if model is None else model
    asked = asked.model_copy(update={"group_conditional": bool(attributes)})
    found = calibrate(asked, rows, predict(session(model, "all"), rows), attributes)
    return extend(model, found, rows), found


def asked(coverage: float = 0.9, **more: Any) -> Conformal:
    return Conformal.model_validate({"coverage": coverage, **more})


# ---- thresholds ----


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_threshold_is_the_rank_that_the_promise_needs(n: int, coverage: float) -> None:
    """An oracle of its own: the least threshold t for which #{nonconformity ≤ t} ≥ (n + 1)·coverage."""
    values = np.random.default_rng(n).normal(size=n)
    reached = [t for t in values if Fraction(int((values <= t).sum())) >= (n + 1) * Fraction(str(coverage))]
    assert bool(reached) == (n >= conformal.least_rows(coverage))
    assert conformal._threshold(values, coverage) == min(reached, default=np.inf)
    tied = np.round(values)
    reached = [t for t in tied if Fraction(int((tied <= t).sum())) >= (n + 1) * Fraction(str(coverage))]
    assert conformal._threshold(tied, coverage) == min(reached, default=np.inf)


@pytest.mark.parametrize(("coverage", "least"), [(0.5, 1), (0.75, 3), (0.8, 4), (0.9, 9), (0.95, 19), (0.999, 999)])
def test_the_least_rows_are_those_at_which_the_rank_exists(coverage: float, least: int) -> None:
    assert conformal.least_rows(coverage) == least
    assert conformal._threshold(np.arange(float(least)), coverage) == least - 1


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_coverage_of_new_rows_is_what_was_promised(coverage: float) -> None:
    """Over 400 draws of 99 calibration rows: ⌈100·coverage⌉/100 exactly, in the mean, as the theory says."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        values = rng.exponential(size=99)
        covered.append(1 - np.exp(-conformal._threshold(values, coverage)))
    assert np.mean(covered) == pytest.approx(coverage, abs=0.006)


# ---- sets and intervals, against an independent reckoning ----


def brute(rows: Dataset, new: Dataset, model: bytes, coverage: float, attributes: list[str], least: int) -> np.ndarray:
    """Row by row, by the definition: a class is in the set if it is at least as probable as the threshold of some group
    of the row asks, or the likeliest."""
    fit, own = predict(session(model, "all"), rows).scores, predict(session(model, "all"), new).scores
    truth = np.array([fit[i, rows.label[i]] for i in range(rows.rows)])

    def cut(chosen: np.ndarray) -> float:
        ordered = [*sorted(truth[chosen].tolist(), reverse=True), 0.0]
        return ordered[-(-len(ordered) * round(coverage * 100) // 100) - 1]

    sets = np.zeros(own.shape, bool)
    for i in range(new.rows):
        cuts = []
        for name in attributes:
            column = rows.groups[name]
            large = {g for g in set(column) if (column == g).sum() >= least}
            group = new.groups[name][i]
            mask = column == group if group in large else ~np.isin(column.astype(str), list(large))
            cuts.append(cut(mask) if mask.sum() >= least else min(cut(mask), cut(np.ones(rows.rows, bool))))
        threshold = min(cuts) if cuts else cut(np.ones(rows.rows, bool))
        sets[i] = own[i] >= np.float32(threshold * (1 - 64 * 2e-6))
        sets[i, own[i].argmax()] = True
    return sets


@pytest.mark.parametrize("attributes", [[], ["sex"], ["age"], ["floor"], ["sex", "age", "floor"]])
@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.6, 0.38, 0.02), (0.9, 0.08, 0.02)])
def test_sets_are_those_of_the_definition(attributes: list[str], shares: tuple[float, ...]) -> None:
    rows, new, model = people(600, 1, shares), people(300, 2, shares), graph()
    whole, _ = made(rows, asked(0.8), attributes)
    answers = session(whole, "all").run(["prediction_set", "probabilities", "label"], inputs(new))
    np.testing.assert_array_equal(answers[0], brute(rows, new, model, 0.8, attributes, 100))
    np.testing.assert_array_equal(answers[1], predict(session(model, "all"), new).scores)
    place = {name: k for k, name in enumerate(rows.classes)}
    assert all(row[place[label]] for row, label in zip(answers[0], answers[2], strict=True)), "the label is in the set"


def inputs(rows: Dataset) -> dict[str, np.ndarray]:
    return {name: column.reshape(-1, 1) for name, column in rows.features.items()}


def test_values_that_nobody_saw_and_missing_ones_take_the_shared_threshold() -> None:
    rows = people(900, 3, (0.6, 0.38, 0.02))
    whole, found = made(rows, asked(0.8), ["sex", "age", "floor"])
    by = {g.attribute: g for g in found.groups}
    assert set(by["sex"].own) == {"f", "m"}
    others = rows.at(np.flatnonzero(rows.groups["sex"] == "x"))
    assert by["sex"].rest_rows == others.rows < 30
    alone = calibrate(asked(0.8), others, predict(session(graph(), "all"), others), [])
    assert by["sex"].rest == min(alone.threshold, found.threshold), "the more careful: that of few rows varies much"
    assert {by["age"].rest, by["floor"].rest} == {0.0}, "nobody is left: nothing but everything is promised"
    new = people(4, 4)
    odd = {"score": np.zeros(4, np.float32), "sex": np.array(["", "(missing)", "é", "X"], object)}
    odd |= {"age": np.full(4, np.nan, np.float32), "floor": np.full(4, 99, np.float32)}
    new = replace(new, features=odd)
    least = min(by[name].rest for name in by)
    (probabilities, sets) = session(whole, "all").run(["probabilities", "prediction_set"], inputs(new))
    np.testing.assert_array_equal(
        sets, (probabilities >= np.float32(least)) | np.eye(3, dtype=bool)[probabilities.argmax(1)]
    )


def test_small_groups_share_a_threshold_where_together_they_are_enough() -> None:
    rows = people(2000, 5, (0.9, 0.05, 0.05))
    _, found = made(rows, asked(0.8, minGroupRows=150), ["sex"])
    assert set(found.groups[0].own) == {"f"}
    others = rows.at(np.flatnonzero(rows.groups["sex"] != "f"))
    alone = calibrate(asked(0.8), others, predict(session(graph(), "all"), others), [])
    assert found.groups[0].rest == alone.threshold
    assert found.groups[0].rest_rows == others.rows


@pytest.mark.parametrize(("few", "whole"), [(0, True), (1, True), (5, True), (8, True), (9, False), (40, False)])
@pytest.mark.parametrize("regression", [False, True])
def test_a_group_with_too_few_rows_for_a_rank_gets_everything(few: int, whole: bool, regression: bool) -> None:
    """Of a group with 0, 1 or 5 calibration rows nothing less is covered with a chance of .9. Group x is the hard one:
    with the threshold of all its rows were covered in half of the cases."""
    rows, new = people(400 + few, 21, (0.6, 0.4, 0.0)), people(300, 22, (0.0, 0.0, 1.0))
    rows.features["sex"][:few] = rows.groups["sex"][:few] = "x"
    if regression:
        rows, new = (replace(r, classes=(), label=r.features["score"] * 2 + r.label) for r in (rows, new))
    model, _ = made(rows, asked(0.9), ["sex"], graph(() if regression else ("a", "b", "c")))
    (answers,) = session(model, "all").run(["prediction_interval" if regression else "prediction_set"], inputs(new))
    if regression:
        assert np.isfinite(answers).all()
        assert (np.minimum(-answers[:, 0], answers[:, 1]) > 3e38).all() == whole
    else:
        assert answers.all() == whole


def test_ties_at_the_threshold_are_inside_on_another_machine_as_well() -> None:
    """Rows of a few categories have a few probabilities; the threshold is one of them, and most rows have it. Another
    batch or processor may round it one step down, and all of them were out."""
    rows = people(500, 23)
    rows.features["score"][:] = np.float32(0.7)
    told = predict(session(graph(), "all"), rows)
    label = np.argsort(told.scores[0])[np.repeat([2, 1, 0], [250, 230, 20])]
    rows = replace(rows, label=label.astype(np.int64))
    for moved in (told.scores, np.nextafter(told.scores, 1), told.scores * np.float32(1 + 3e-6)):
        found = calibrate(asked(0.9), rows, replace(told, scores=moved), [])
        (sets,) = session(extend(graph(), found, rows), "all").run(["prediction_set"], inputs(rows))
        assert sets[np.arange(500), rows.label].mean() == 0.96


def test_the_label_is_in_the_set_where_probabilities_round_to_the_same_and_all_where_they_are_no_numbers() -> None:
    rows = people(400, 24)
    model, found = made(rows, asked(0.5), [])
    assert found.threshold > 0.4
    scores = np.concatenate([-np.logspace(-12, -5, 200), np.logspace(-12, -5, 200), [np.nan]]).astype(np.float32)
    nearly = {**inputs(people(401, 24)), "score": scores[:, None]}
    label, probabilities, sets = session(model, "all").run(["label", "probabilities", "prediction_set"], nearly)
    place = np.array(["abc".index(one) for one in label])
    assert (probabilities.argmax(1) != place).any(), "the label is of the scores, which round to equal probabilities"
    assert sets[np.arange(401), place].all()
    assert sets[-1].all()


def test_a_model_that_predicts_no_numbers_promises_nothing() -> None:
    rows = people(400, 25)
    told = predict(session(graph(), "all"), rows)
    told.scores[:3] = np.nan
    with pytest.raises(TrainingFailed, match=r"none for 3 of 400: lower the learning rate"):
        calibrate(asked(0.9), rows, told, [])


def test_constant_residuals_give_intervals_that_hold_them() -> None:
    """One residual for all rows: the interval's ends are the labels, and rounding decides."""
    for shift in (0.0, 0.5, 1e6):
        rows = people(500, 26)
        model = graph(())
        rows = replace(rows, classes=())
        label = predict(session(model, "all"), rows).scores[:, 0] + np.float32(shift)
        rows = replace(rows, label=label)
        whole, found = made(rows, asked(0.999 if shift else 0.5, share=0.9), ["sex"], model)
        (ends,) = session(whole, "all").run(["prediction_interval"], inputs(rows))
        wide = (ends[:, 0] <= label) & (label <= ends[:, 1])
        assert wide.all(), shift
        if shift == 0.5:
            assert {g.rest for g in found.groups} == {float(np.finfo(np.float32).max)}, "500 rows are too few for .999"


def test_the_gate_names_who_shares_a_threshold_and_says_where_nobody_has_one() -> None:
    rows, held = people(900, 3, (0.6, 0.38, 0.02)), people(900, 27, (0.6, 0.38, 0.02))
    model, found = made(rows, asked(0.8), ["sex", "age"])
    sex, age = conformal.gate(measure(session(model, "all"), found, held, ["sex", "age"]))
    assert (sex.verdict, age.verdict) == ("pass", "pass")
    assert sex.message.endswith("; x: fewer than 100 calibration rows each, one threshold for all of them")
    assert age.message.endswith("if they are like the calibration rows")
    model, found = made(rows, asked(0.8, minGroupRows=10_000), ["sex"])
    (gate,) = conformal.gate(measure(session(model, "all"), found, held, ["sex"]))
    assert (gate.name, gate.verdict, gate.measured) == ("coverage/sex", "not applicable", None)
    assert gate.message.startswith("f, m, x: fewer than 10000 calibration rows each")


def test_every_group_is_covered_where_one_threshold_leaves_one_behind() -> None:
    """The noise is that of men: with one threshold they are covered less than promised."""
    rows, new = people(20_000, 16), people(20_000, 17)
    plain, plainly = made(rows, asked(0.9), [])
    by_group, grouped = made(rows, asked(0.9), ["sex"])
    one = measure(session(plain, "all"), plainly, new, ["sex"])
    each = measure(session(by_group, "all"), grouped, new, ["sex"])
    assert one.overall.coverage == pytest.approx(0.9, abs=0.01)
    behind = {g.group: g.coverage or 0.0 for g in one.groups["sex"]}
    assert behind["m"] < 0.87
    assert all((g.coverage or 0.0) > 0.885 for g in each.groups["sex"])
    assert all(g.own for g in each.groups["sex"])
    assert not any(g.own for g in one.groups["sex"])
    assert [(g.name, g.verdict) for g in conformal.gate(each)] == [("coverage/sex", "pass")]
    assert [(g.name, g.verdict) for g in conformal.gate(one)] == [("coverage", "pass")]


def test_intervals_of_a_regression_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(8)
    rows = people(500, 8)
    rows = replace(rows, classes=(), label=(1e6 + rows.features["score"] * 3 + rng.normal(size=500)).astype(np.float32))
    model = graph(())
    whole, found = made(rows, asked(0.9), ["sex"], model)
    answers = session(whole, "all").run(["prediction", "prediction_interval"], inputs(rows))
    error = np.abs(answers[0].astype(np.float64) - rows.label)
    for group in ("f", "m"):
        mine = np.sort(error[rows.groups["sex"] == group])
        exact = mine[-(-(len(mine) + 1) * 9 // 10) - 1]
        width = (answers[1][:, 1] - answers[1][:, 0].astype(np.float64))[rows.groups["sex"] == group] / 2
        assert exact <= found.groups[0].own[group] <= exact * (1 + 1e-6)
        assert width == pytest.approx(exact, rel=1e-6)
        inside = (answers[1][:, 0] <= rows.label) & (rows.label <= answers[1][:, 1])
        assert inside[rows.groups["sex"] == group].sum() >= -(-(len(mine) + 1) * 9 // 10), "rounding loses no row"


def test_a_gate_fails_only_where_so_few_would_hardly_come_about() -> None:
    rows = people(3000, 9)
    for attributes in ([], ["sex"]):
        whole, found = made(rows, asked(0.95), attributes)
        told = measure(session(whole, "all"), found, people(3000, 10), ["sex"])
        (gate,) = conformal.gate(told)
        assert gate.verdict == "pass"
        (short,) = conformal.gate(told.model_copy(update={"coverage": 0.99}))
        assert (short.name, short.verdict) == (gate.name, "fail")
        assert "0.99 promised; so few or fewer have a chance of" in short.message
        one = measure(session(whole, "all"), found, people(3000, 10).at(np.arange(1)), ["sex"])
        assert {g.verdict for g in conformal.gate(one)} == {"pass"}, "one row shows nothing"


@pytest.mark.parametrize(("n", "m", "k", "coverage"), [(99, 50, 40, 0.9), (20, 300, 200, 0.75), (1000, 1, 0, 0.9)])
def test_the_chance_of_so_few_is_that_of_the_beta_binomial(n: int, m: int, k: int, coverage: float) -> None:
    betabinom = pytest.importorskip("scipy.stats").betabinom
    row = ConformalCoverage(group="f", rows=m, covered=k, lower=0, upper=1, calibration_rows=n, threshold=0, own=True)
    beyond = int((n + 1) * (1 - Fraction(str(coverage))))
    expected = betabinom.cdf(k, m, n + 1 - beyond, beyond)
    assert conformal._chance_of_so_few(row, coverage) == pytest.approx(expected, rel=1e-8)


def test_a_sound_model_hardly_ever_fails_its_gate() -> None:
    """400 draws of calibration and held-out rows; coverage alone would be below its promise in half of them."""
    rng, failed, below = np.random.default_rng(16), 0, 0
    for _ in range(400):
        threshold = conformal._threshold(rng.random(199), 0.9)
        covered = int((rng.random(2000) <= threshold).sum())
        row = ConformalCoverage(
            group="(all)", rows=2000, covered=covered, lower=0, upper=1, calibration_rows=199, threshold=0, own=True
        )
        failed += conformal._gate("coverage", [row], 0.9).verdict == "fail"
        below += covered < 1800
    assert failed <= 12
    assert below > 100


# ---- calibration rows ----


def test_calibration_rows_are_fitted_on_by_nothing_and_the_same_each_time() -> None:
    train = people(1000, 11)
    fitted, held = apart(train, asked(share=0.3), 5)
    assert (fitted.rows, held.rows) == (700, 300)
    scores = np.concatenate([fitted.features["score"], held.features["score"]])
    assert sorted(scores.tolist()) == sorted(train.features["score"].tolist())
    again, other = apart(train, asked(share=0.3), 5)[1], apart(train, asked(share=0.3), 6)[1]
    assert again.features["score"].tolist() == held.features["score"].tolist()
    assert other.features["score"].tolist() != held.features["score"].tolist()


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (40, {"coverage": 0.9}, "needs at least 9 calibration rows, and share 0.2 of 40 training rows are 8"),
        (1, {}, "needs at least 9 calibration rows"),
        (1000, {"coverage": 0.999}, "needs at least 999"),
        (100, {"share": 0.999}, "leaves one class to train on"),
    ],
)
def test_too_few_rows_are_refused_with_what_to_do(rows: int, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTraining, match=said):
        apart(people(rows, 12), asked(**more), 0)


def test_words_in_bands_of_numbers_are_refused() -> None:
    train = replace(
        people(500, 13), types={"score": "numeric", "sex": "categorical", "age": "categorical", "floor": "numeric"}
    )
    with pytest.raises(InvalidTraining, match="age is grouped in bands of numbers and needs type numeric"):
        apart(train, asked(groupConditional=True), 0)
    apart(train, asked(), 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coverage": 0.9999}, "conformal.coverage"),
        ({"coverage": 0.4}, "conformal.coverage"),
        ({"coverage": 1}, "conformal.coverage"),
        ({"coverage": float("nan")}, "conformal.coverage"),
        ({"coverage": "90 %"}, "conformal.coverage"),
        ({"share": 0}, "conformal.share"),
        ({"minGroupRows": 5}, "conformal.minGroupRows"),
        ({"alpha": 0.1}, "alpha"),
    ],
)
def test_what_cannot_be_promised_is_refused(change: dict[str, Any], said: str) -> None:
    manifest = valid()
    manifest["spec"]["lifecycle"]["training"]["conformal"] = change
    assert any(said in message for message in validate(manifest)), validate(manifest)


def test_groups_must_be_told_by_features() -> None:
    manifest = valid()
    training = manifest["spec"]["lifecycle"]["training"]
    training["conformal"] = {"groupConditional": True}
    names = [a["name"] for a in manifest["spec"]["governance"]["bias"]["protectedAttributes"]]
    training["data"]["features"] = [{"name": "income"}] + [{"name": n, "type": "categorical"} for n in names]
    assert not [m for m in validate(manifest) if "groupConditional" in m]
    training["data"]["features"] = [{"name": "income"}]
    assert any("groupConditional needs governance.bias, and each of its" in m for m in validate(manifest))
    training["conformal"] = {"groupConditional": False}
    assert not [m for m in validate(manifest) if "groupConditional" in m]
    training["conformal"] = {"groupConditional": True}
    del manifest["spec"]["governance"]["bias"]
    assert any("groupConditional needs governance.bias" in m for m in validate(manifest))


# ---- served, journalled, in the artefact and the ledger ----


def credit(rows: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    features: dict[str, Any] = {n: (rng.random(rows) * 50).astype(np.float32) for n in NUMBERS}
    features |= {n: np.array(v, object)[rng.integers(0, len(v), rows)] for n, v in CATEGORIES.items()}
    types = dict.fromkeys(NUMBERS, "numeric") | dict.fromkeys(CATEGORIES, "categorical")
    return Dataset(features, types, rng.integers(0, 2, rows), tuple(CLASSES), {"sex": features["sex"]})


async def test_a_set_is_served_and_journalled_and_is_a_function_of_its_own_row() -> None:
    rows = credit(400, 14)
    whole, found = made(rows, asked(0.8), ["sex"], tabular())
    told = manifest(whole)
    told = msgspec.structs.replace(told, outputs=[*told.outputs, Output("prediction_set", "BOOL", [-1, 2])])
    predictor, journal = OnnxPredictor(whole, Signature.of(told)), MemoryJournal()
    body = v2_body(3)
    body["inputs"][-1]["data"] = ["female", "male", "?"]
    codec = V2Codec(predictor.signature, "credit", "r1")
    data = plane(using=predictor, journal=journal)
    reply = codec.encode(await data.infer(codec.decode(msgspec.json.encode(body))[0])).body
    output = msgspec.json.decode(reply)["outputs"][2]
    assert (output["name"], output["datatype"], output["shape"]) == ("prediction_set", "BOOL", [3, 2])
    thresholds = [found.groups[0].own["female"], found.groups[0].own["male"], found.groups[0].rest]
    probabilities = np.array(msgspec.json.decode(reply)["outputs"][0]["data"], np.float32).reshape(3, 2)
    expected = (probabilities >= np.float32(thresholds)[:, None]) | np.eye(2, dtype=bool)[probabilities.argmax(1)]
    assert output["data"] == expected.ravel().tolist()
    (frame,) = journal.frames
    assert numbers(frame.outputs["prediction_set"]).reshape(3, 2).tolist() == expected.tolist()
    new = credit(64, 15)
    columns = [new.features[n].reshape(-1, 1) for n in (*NUMBERS, *CATEGORIES)]
    together = predictor.run(columns)
    for row in range(64):
        for one, many in zip(predictor.run([c[row : row + 1] for c in columns]), together, strict=True):
            assert one[0].tolist() == many[row].tolist() if one.dtype != object else one[0] == many[row]
    await data.close()


def test_a_training_leaves_evidence_of_what_it_promises(tmp_path: Path) -> None:
    """Compressed: calibrated on what ships. In the artefact's files and manifest, the gates, the report, the ledger."""
    place = Workplace(tmp_path)
    plan = admissions(epochs=4) | {"conformal": {"coverage": 0.8, "groupConditional": True}}
    small = {"compression": {"method": "dynamicInt8"}, "gates": {"maxLatencyRatio": 100, "maxAccuracyDrop": 1}}
    job = place.job(resolved(plan, governance={"bias": ADMISSIONS_BIAS}, lifecycle=small))
    found = job.run()
    content = files(place, found)
    told = decode_manifest(json.dumps(content["model.json"]).encode())
    assert (told.variant, told.coverage) == ("int8", 0.8)
    assert told.outputs[-1] == Output("prediction_set", "BOOL", [-1, 2])
    evaluation = ConformalEvaluation.model_validate(content["evaluation.json"]["conformal"])
    assert content["evaluation.json"]["rows"]["calibration"] == evaluation.overall.calibration_rows == 634
    assert {g.group: g.own for g in evaluation.groups["sex"]} == {"female": True, "male": True}
    assert evaluation.overall.lower < 0.8 + 0.05
    probabilities, _, sets = served(content["model.onnx"], department=list("ABCDEF") * 2, sex=["male", "female"] * 6)
    cuts = {g.group: np.float32(g.threshold) for g in evaluation.groups["sex"]}
    wanted = probabilities >= np.array([cuts[s] for s in ["male", "female"] * 6])[:, None]
    np.testing.assert_array_equal(sets, wanted | np.eye(2, dtype=bool)[probabilities.argmax(1)])
    gates = {g["name"]: g["verdict"] for g in content["gates.json"]["gates"]}
    assert gates["coverage/sex"] == "pass"
    entries = [msgspec.json.decode(e, type=LedgerEntry) for e in place.archive.entries]
    assert entries[1].summary["metrics"]["coverage.sex.female"] == evaluation.groups["sex"][0].coverage
    assert "coverage/sex" in [g["name"] for g in entries[2].summary["gates"]]
    assert place.report.parts[-1]["metrics"]["setSize"] == evaluation.overall.size
    train = next(f for f in told.features if f.name == "sex")
    assert train.categories == ["female", "male"]


def test_features_may_not_take_the_outputs_names(tmp_path: Path) -> None:
    plan = inline("prediction_set,y\n1,a\n2,b\n" * 30, {"prediction_set": "numeric"})
    with pytest.raises(InvalidTraining, match="prediction_set"):
        Workplace(tmp_path).job(resolved(plan)).run()
