"""Randomised thresholds after training: who has which, the graph that serves them, evidence, and that all who look at a
row see the same decision."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from governed_api.lifecycle import Thresholds
from governed_api.validation import validate
from governed_serving.artefact import Artefact, load, write
from governed_serving.crypto import Coins
from governed_serving.records import LedgerEntry
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.predictors.loading import predictor_of
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.rows import Rows
from governed_serving.server.signature import Signature
from governed_serving.trainer import thresholds
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.errors import InvalidTraining, TrainingFailed
from governed_serving.trainer.export import decisions
from governed_serving.trainer.preprocessing import feeds, session
from support.model_manifests import valid
from unit.server.planes import MemoryJournal, plane
from unit.trainer.manifests import inline, resolved
from unit.trainer.neighbours import COIN_KEY, Workplace
from unit.trainer.test_conformal import graph
from unit.trainer.test_job import files

CONSTRAINTS = ["demographicParity", "equalOpportunity", "equalizedOdds"]
CLASSES = ("no", "yes")


def rows(count: int = 1200, seed: int = 0, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Dataset:
    """sex a categorical group, age a number in bands, floor a number by its values."""
    rng = np.random.default_rng(seed)
    sex = np.array(["f", "m", "x"], object)[rng.choice(3, count, p=shares)]
    age = rng.integers(18, 80, count).astype(np.float32)
    floor = rng.integers(0, 3, count).astype(np.float32)
    named = np.array(["< 30", "[30, 50)", "≥ 50"], object)[np.digitize(age, [30, 50])]
    score = (rng.normal(size=count) * 0.6 + 0.4 * (sex == "m")).astype(np.float32)
    label = (score + rng.normal(size=count) * 0.4 > 0.1).astype(np.int64)
    groups = {"sex": sex, "age": named, "floor": np.array([str(int(v)) for v in floor], object)}
    types = {"score": "numeric", "age": "numeric", "floor": "numeric", "sex": "categorical"}
    features = {"score": score, "age": age, "floor": floor, "sex": sex}
    return Dataset(features, types, label, CLASSES, groups, {"age": (30.0, 50.0)})


class Made(NamedTuple):
    fitted: thresholds.Fitted
    drawn: thresholds.Drawn
    scores: np.ndarray


def made(data: Dataset, attributes: list[str], favorable: int = 1, **asked: Any) -> Made:
    """Thresholds on ``data``, and the graph that serves them."""
    model = graph(CLASSES)
    deserved = data.label == favorable
    on = thresholds.FitRows.of(Thresholds(**{"min_group_rows": 10, **asked}), data, deserved, attributes)
    scores = session(model).run(["probabilities"], feeds(data))[0]
    coins = Coins(COIN_KEY, None)
    fitted = thresholds.fit(on, scores, favorable, coins.commitment)
    drawn = thresholds.Drawn(session(thresholds.extend(model, fitted, data)), coins, favorable)
    return Made(fitted, drawn, scores)


OUTPUTS = ["probabilities", "label", "model_score", "decision_rule"]


@pytest.mark.parametrize("favorable", [0, 1])
@pytest.mark.parametrize("attributes", [["sex"], ["age"], ["floor"], ["sex", "age"], ["floor", "sex", "age"]])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_graph_decides_as_the_rules_say(constraint: str, attributes: list[str], favorable: int) -> None:
    data = rows(2400)
    fitted, drawn, scores = made(data, attributes, favorable, constraint=constraint)
    chances, label, score, rule = drawn.run(OUTPUTS, feeds(data))
    columns = [data.groups[name] for name in attributes]
    groups = [tuple(values) for values in zip(*columns, strict=True)]
    own = [fitted.rules.get(group, fitted.base) for group in groups]
    believed = scores[:, favorable].astype(np.float64)
    expected = [float(r.chances(np.array([s]))[0]) for r, s in zip(own, believed, strict=True)]
    np.testing.assert_allclose(chances[:, favorable], expected, atol=1e-7)
    np.testing.assert_array_equal(score, scores[:, favorable])
    assert rule.tolist() == [fitted.name(g) if g in fitted.rules else "base" for g in groups]
    coin = Coins(COIN_KEY, None).draw(list(feeds(data).values())).ravel()
    wanted = np.where(coin < chances[:, favorable], CLASSES[favorable], CLASSES[1 - favorable])
    assert label.tolist() == wanted.tolist()
    rates = {r.group: r for r in fitted.told.groups}
    name, event = {
        "demographicParity": ("selection_rate", np.ones(data.rows, bool)),
        "equalOpportunity": ("true_positive_rate", data.label == favorable),
        "equalizedOdds": ("false_positive_rate", data.label != favorable),
    }[constraint]
    for group in rates:
        member = (rule == group) & event
        assert chances[member, favorable].mean() == pytest.approx(getattr(rates[group], name), abs=1e-6)
    assert np.ptp([getattr(r, name) for r in rates.values()]) < 1e-9


def test_who_is_in_no_group_keeps_the_models_threshold() -> None:
    data = rows()
    _, drawn, _ = made(data, ["sex", "age"])
    strange = rows(6, 5)
    strange.features["sex"][:3] = ["never seen", "", "(missing)"]
    strange.features["age"][3] = np.nan
    chances, label, score, rule = drawn.run(OUTPUTS, feeds(strange))
    assert rule[:4].tolist() == ["base"] * 4
    assert "base" not in rule[4:].tolist()
    assert label[:4].tolist() == [CLASSES[int(s > 0.5)] for s in score[:4]]
    assert set(chances[:4, 1].tolist()) <= {0.0, 1.0}


def test_small_groups_missing_ones_and_those_of_one_label_have_none() -> None:
    data = rows(900, shares=(0.5, 0.497, 0.003))
    data.groups["sex"][:40] = data.features["sex"][:40] = "(missing)"
    fitted, _, _ = made(data, ["sex"], min_group_rows=30)
    assert [group for (group,) in fitted.rules] == ["f", "m"]
    deserved = (data.label == 1) | (data.groups["sex"] == "m")
    asked = Thresholds(constraint="equalizedOdds", min_group_rows=10)
    with pytest.raises(InvalidTraining, match=r"two groups with 10 rows of each label .* found too few of .*sex=m"):
        thresholds.FitRows.of(asked, data, deserved, ["sex"])
    parity = thresholds.FitRows.of(Thresholds(min_group_rows=10), data, deserved, ["sex"])
    assert ("m",) in parity.large
    assert "sex=(missing)" in parity.left_out


def test_a_group_that_fit_rows_lack_is_like_one_never_seen() -> None:
    data = rows()
    held = data.at(np.flatnonzero(data.groups["sex"] != "x"))
    _, drawn, _ = made(held, ["sex"])
    rule = drawn.run(["decision_rule"], feeds(data))[0]
    assert set(rule[data.groups["sex"] == "x"].tolist()) == {"base"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_group_rows": 5000}, "need two groups with 5000 rows that they are fitted on, found too few of sex=f"),
        ({"min_group_rows": 500}, "found too few of sex=m, sex=x"),
    ],
)
def test_thresholds_between_nobody_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTraining, match=said):
        made(rows(), ["sex"], **change)


def test_too_many_intersections_are_refused() -> None:
    data = rows(4000)
    data.groups["sex"] = np.array([f"g{k}" for k in np.arange(4000) % 40], object)
    with pytest.raises(InvalidTraining, match=r"at most 64 groups of sex & floor .* found 120"):
        made(data, ["sex", "floor"])


def test_a_score_that_is_no_number_favours_nobody_and_is_told() -> None:
    data = rows()
    _, drawn, _ = made(data, ["sex"])
    data.features["score"][:2] = np.nan
    chances, label, _, _ = drawn.run(OUTPUTS, feeds(data))
    assert np.isnan(chances[:2]).all()
    assert label[:2].tolist() == ["no", "no"]
    with pytest.raises(TrainingFailed, match="found none for 2 of 1200"):
        made(data, ["sex"])


def test_scores_that_are_all_alike_are_drawn() -> None:
    data = rows()
    data.features["score"][:] = 0.25
    fitted, drawn, _ = made(data, ["sex"])
    chances, label, _, _ = drawn.run(OUTPUTS, feeds(data))
    assert len({group.selection_rate for group in fitted.told.groups}) == 1
    assert set(label.tolist()) <= set(CLASSES)
    assert np.isfinite(chances).all()


def test_rows_are_set_apart_by_the_seed() -> None:
    data = rows()
    train, held = thresholds.apart(data, Thresholds(share=0.25), 3)
    assert (train.rows, held.rows) == (900, 300)
    again = thresholds.apart(data, Thresholds(share=0.25), 3)[1]
    np.testing.assert_array_equal(held.features["score"], again.features["score"])
    assert set(train.features["score"].tolist()).isdisjoint(held.features["score"].tolist())


# ---- training ----

BIAS = {
    "protectedAttributes": [{"name": "g", "privileged": ["v"]}],
    "favorableOutcome": {"label": "yes"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
}


def unfair(people: int = 2400, classes: tuple[str, ...] = CLASSES) -> str:
    rng = np.random.default_rng(7)
    group = rng.integers(0, 2, people)
    x = rng.normal(size=people) + 0.8 * group
    label = np.digitize(x + rng.normal(size=people) * 0.5, [0.4, 1.5][: len(classes) - 1])
    lines = enumerate(zip(x, group, label, strict=True))
    return "x,g,who,y\n" + "".join(f"{a:.3f},{'uv'[b]},p{k},{classes[c]}\n" for k, (a, b, c) in lines)


def plan(csv: str, **asked: Any) -> dict[str, Any]:
    features = {"x": "numeric", "g": "categorical", "who": "categorical"}
    told = {"method": "thresholds", "thresholds": {"subject": "who", "minGroupRows": 40, **asked}}
    return inline(csv, features, mitigation=told, model={"type": "linear"}, loop={"epochs": 8, "batchSize": 256})


class Trained(NamedTuple):
    place: Workplace
    content: dict[str, Any]
    artefact: Artefact
    digest: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    place = Workplace(folder)
    found = place.job(resolved(plan(unfair()), governance={"bias": BIAS})).run()
    write(place.artefact(found), folder / "artefact", found["digest"])
    return Trained(place, files(place, found), load(folder / "artefact", found["digest"]), found["digest"])


def predictor(artefact: Artefact) -> OnnxPredictor:
    return predictor_of(artefact, threads=1)


def columns(people: list[tuple[float, str, str]]) -> list[np.ndarray]:
    x, g, who = zip(*people, strict=True)
    return [np.array(x, np.float32)[:, None], np.array(g, object)[:, None], np.array(who, object)[:, None]]


CROWD = [(float(x), g, f"q{k}") for k, (x, g) in enumerate((x, g) for x in np.linspace(-1, 2, 150) for g in "uv")]


def test_training_leaves_evidence_of_it(trained: Trained) -> None:
    model, applied = trained.content["model.json"], trained.content["evaluation.json"]["mitigation"]
    told = applied["thresholds"]
    assert model["mitigation"] == "thresholds/demographicParity"
    assert [g["group"] for g in told["groups"]] == ["g=u", "g=v"]
    assert (
        told["rows"]
        == sum(g["rows"] for g in told["groups"])
        == trained.content["evaluation.json"]["rows"]["thresholds"]
    )
    assert sum(trained.content["evaluation.json"]["rows"].values()) == 2400
    assert told["groups"][0]["selectionRate"] == pytest.approx(told["groups"][1]["selectionRate"], abs=1e-9)
    gates = {g["name"]: g for g in trained.content["gates.json"]["gates"]}
    assert gates["mitigation/g"]["measured"] < -0.2
    assert {"mitigation/accuracy", "mitigation/g/truePositiveRate", "mitigation/g/falsePositiveRate"} <= gates.keys()
    assert f"fitted on {told['rows']} rows that nothing else uses" in gates["mitigation/effect"]["message"]
    assert "(by input who)" in gates["mitigation/effect"]["message"]
    assert trained.content["evaluation.json"]["offers"] == {}
    entries = [msgspec.json.decode(e, type=LedgerEntry) for e in trained.place.archive.entries]
    assert entries[1].summary["thresholds"] == told
    assert entries[1].summary["mitigation"] == entries[3].summary["mitigation"] == model["mitigation"]


def test_the_key_is_sealed_and_told_to_nobody(trained: Trained) -> None:
    told = trained.content["evaluation.json"]["mitigation"]["thresholds"]
    assert told["key"] == Coins(COIN_KEY, None).commitment
    assert trained.artefact.content("coin.key") == COIN_KEY
    known = json.dumps({k: v for k, v in trained.content.items() if k != "coin.key"}, default=str)
    for form in (COIN_KEY.hex(), repr(COIN_KEY)[2:-1]):
        assert form not in known
        assert form.encode() not in b"".join(trained.place.archive.entries)


def test_the_network_and_the_background_know_nobody(trained: Trained) -> None:
    assert set(trained.artefact.background()["who"]) == {None}
    assert "who" not in trained.artefact.reference()["columns"]
    assert b"p17" not in trained.artefact.model
    about = {f.name: f.about for f in trained.artefact.manifest.features}
    assert about == {"x": False, "g": False, "who": True}
    assert trained.content["evaluation.json"]["importances"][-1] == {"feature": "who", "value": 0.0}


def test_the_same_training_gives_the_same_model(trained: Trained, tmp_path: Path) -> None:
    again = Workplace(tmp_path).job(resolved(plan(unfair()), governance={"bias": BIAS})).run()
    assert again["digest"] == trained.digest


def test_a_row_is_answered_alike_alone_among_others_and_by_every_replica(trained: Trained) -> None:
    first, second = predictor(trained.artefact), predictor(trained.artefact)
    assert first.independence.independent
    together = first.answer(columns(CROWD))
    assert 0 < int(((together[0] > 0) & (together[0] < 1)).any(1).sum()) < len(CROWD)
    for place in range(0, len(CROWD), 7):
        alone = second.answer(columns(CROWD[place : place + 1]))
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[place : place + 1], one)
    retried = first.answer(columns(CROWD[::-1]))
    np.testing.assert_array_equal(retried[1][::-1], together[1])


def test_who_changes_what_does_not_matter_draws_no_second_time(trained: Trained) -> None:
    """A client that may vary x within the two thresholds gets the same answer each time."""
    asked = predictor(trained.artefact)
    chances, label, _, _ = asked.answer(columns(CROWD))
    place = int(np.flatnonzero((chances[:, 1] > 0) & (chances[:, 1] < 1))[0])
    x, g, who = CROWD[place]
    near = [(x + d, g, who) for d in np.linspace(-1e-3, 1e-3, 50)]
    again = asked.answer(columns(near))
    same = again[0][:, 1] == chances[place, 1]
    assert same.sum() > 20
    assert set(again[1][same].tolist()) == {label[place]}
    others = asked.answer(columns([(x, g, f"r{k}") for k in range(400)]))
    assert (others[1] == "yes").mean() == pytest.approx(chances[place, 1], abs=0.1)


async def test_the_explainers_lane_sees_the_chances_that_clients_are_told(trained: Trained) -> None:
    """A perturbed row keeps its chance, whoever it is said to be about, and even where that is left out."""
    asked = predictor(trained.artefact)
    signature = asked.signature
    codec = V2Codec(signature, "m", "")

    async def compute(values: Any) -> Any:
        return asked.run(values)

    lane = Rows(codec, signature, compute, lambda *_: None)
    people = CROWD[:80]
    anonymous = [(x, g, "") for x, g, _ in people]
    body = [
        {"name": spec.name, "shape": [80, 1], "datatype": spec.dtype, "data": column.ravel().tolist()}
        for spec, column in zip(signature.inputs, columns(anonymous), strict=True)
    ]
    answer = await lane.answer(msgspec.json.encode({"inputs": body}), None)
    told = {o["name"]: o["data"] for o in msgspec.json.decode(answer.body)["outputs"]}
    served = asked.answer(columns(people))
    np.testing.assert_allclose(np.reshape(told["probabilities"], (80, 2)), served[0], atol=1e-7)
    assert told["decision_rule"] == served[3].tolist()


async def test_an_answer_names_mitigation_and_rule_and_is_refused_without_a_subject(trained: Trained) -> None:
    data = plane(using=predictor(trained.artefact), journal=MemoryJournal())
    codec = V2Codec(data.signature, "m", "r1")

    def body(who: str | None) -> bytes:
        listed = [("x", "FP32", [0.4]), ("g", "BYTES", ["u"]), ("who", "BYTES", [who])]
        inputs = [{"name": n, "shape": [1, 1], "datatype": d, "data": v} for n, d, v in listed if v != [None]]
        return msgspec.json.encode({"inputs": inputs})

    answer = msgspec.json.decode(codec.encode(await data.infer(codec.decode(body("p1"))[0])).body)
    assert answer["parameters"]["mitigation"] == "thresholds/demographicParity"
    assert {o["name"]: o["data"] for o in answer["outputs"]}["decision_rule"] == ["g=u"]
    assert data.metrics.count["base_decisions"] == 0
    strange = msgspec.json.decode(body("p1"))
    strange["inputs"][1]["data"] = ["never seen"]
    await data.infer(codec.decode(msgspec.json.encode(strange))[0])
    assert data.metrics.count["base_decisions"] == 1
    with pytest.raises(Exception, match="input 'who': expected a category"):
        await data.infer(codec.decode(body(""))[0])
    for blanks in (" ", "\t\n", "\u200b", "\u3000 \ufeff"):
        with pytest.raises(InvalidRequest, match="input 'who': expected whom row 0 is about, found blanks alone"):
            await data.infer(codec.decode(body(blanks))[0])
    with pytest.raises(Exception, match="who"):
        codec.decode(body(None))
    forged = msgspec.json.decode(body("p1"))
    forged["inputs"].append({"name": "decision/coin", "shape": [1, 1], "datatype": "FP64", "data": [0.0]})
    with pytest.raises(Exception, match="decision/coin"):
        codec.decode(msgspec.json.encode(forged))
    await data.close()


def test_a_graph_that_takes_draws_is_not_served_without_their_key(trained: Trained) -> None:
    with pytest.raises(ValueError, match="decision/coin"):
        OnnxPredictor(trained.artefact.model, Signature.of(trained.artefact.manifest))


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        (unfair(600, ("no", "maybe", "yes")), "two classes, found 3: use reweighing"),
        (unfair(600).replace(",p17,", ",,"), "column who: expected whom each row is about, found 1 missing or blank"),
        (
            unfair(600).replace(",p17,", ",\u200b,").replace(",p18,", ",\u2060,"),
            "found 2 missing or blank: all of them",
        ),
        (unfair(200), "two groups with 40 rows that they are fitted on, found too few of g=u, g=v"),
        (unfair(600).replace(",v,", ",u,"), "found too few of all but one"),
    ],
)
def test_data_that_thresholds_cannot_be_had_for_is_refused_before_training(tmp_path: Path, csv: str, said: str) -> None:
    place = Workplace(tmp_path)
    nobody = {**BIAS, "protectedAttributes": [{"name": "g"}]}
    with pytest.raises(InvalidTraining, match=said):
        place.job(resolved(plan(csv), governance={"bias": nobody})).run()
    assert not any(part.get("progress") for part in place.report.parts)


# ---- the manifest ----


def refused(change: Any = None, **asked: Any) -> list[str]:
    resource = valid()
    spec = resource["spec"]
    spec["lifecycle"]["training"]["data"]["features"].append({"name": "id", "type": "categorical"})
    spec["lifecycle"]["training"]["mitigation"] = {"method": "thresholds", **({"thresholds": asked} if asked else {})}
    if change:
        change(spec)
    return validate(resource)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"constraint": "equalizedOdds", "objective": "balancedAccuracy"},
        {"subject": "id", "attributes": ["sex"]},
        {"constraint": "equalOpportunity", "share": 0.5, "minGroupRows": 10},
    ],
)
def test_what_can_be_had_is_accepted(asked: dict[str, Any]) -> None:
    assert refused(**asked) == []


@pytest.mark.parametrize(
    ("asked", "change", "said"),
    [
        ({"constraint": "equity"}, None, "constraint"),
        ({"share": 0}, None, "share"),
        ({"minGroupRows": 3}, None, "minGroupRows"),
        ({"attributes": ["income"]}, None, "thresholds.attributes must name governance.bias.protectedAttributes"),
        ({"subject": "income"}, None, "thresholds.subject must be a categorical feature"),
        ({"subject": "sex"}, None, "thresholds.subject must be a categorical feature"),
        ({"subject": "nobody"}, None, "thresholds.subject must be a categorical feature"),
        (
            {"subject": "id"},
            lambda spec: spec["governance"].update(privacy={"masking": {"fields": ["id"]}}),
            "thresholds.subject must not be masked",
        ),
        (
            {},
            lambda spec: spec["lifecycle"]["training"]["data"]["features"][0].update(type="text"),
            "as a numeric or categorical feature",
        ),
        (
            {},
            lambda spec: spec["lifecycle"]["training"]["data"]["features"].pop(0),
            "as a numeric or categorical feature",
        ),
        ({}, lambda spec: spec["governance"].pop("bias"), "need governance.bias with favorableOutcome.label"),
        ({}, lambda spec: spec["lifecycle"]["training"].update(loss={"name": "mse"}), "a regression"),
        ({}, lambda spec: spec["lifecycle"]["training"].update(conformal={}), "doesn't go with conformal"),
        (
            {"subject": "id"},
            lambda spec: spec["lifecycle"]["training"]["mitigation"].update(method="reductions"),
            "thresholds needs method thresholds",
        ),
    ],
)
def test_what_cannot_work_is_refused(asked: dict[str, Any], change: Any, said: str) -> None:
    found = refused(change, **asked)
    assert any(said in message for message in found), found


def test_the_samples_classes_are_those_of_the_graph() -> None:
    """The stand-in's last step is what the trainer exports."""
    assert [o.name for o in decisions(CLASSES).graph.output] == ["probabilities", "label"]
