"""Fair classification by reductions: moments and weights against definitions and fairlearn, training, and that every
answer says what was applied."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from governed_api.evidence import AppliedMitigation
from governed_api.validation import validate
from governed_serving.artefact import decode_manifest
from governed_serving.records import LedgerEntry
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.protocol.v1 import V1Codec
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.signature import Signature
from governed_serving.trainer import gates, pipeline
from governed_serving.trainer.dataset import reweighing
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.reductions import Moments, chosen
from support.model_manifests import valid
from unit.server.planes import MemoryJournal, plane
from unit.server.tabular_model import manifest, tabular, v2_body
from unit.trainer.manifests import inline, resolved
from unit.trainer.neighbours import Workplace
from unit.trainer.test_job import files

CONSTRAINTS = ["demographicParity", "equalizedOdds"]


def people(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whether the label is favourable, and a group of three."""
    rng = np.random.default_rng(seed)
    group = np.array(["f", "m", "x"], object)[rng.choice(3, rows, p=[0.4, 0.4, 0.2])]
    return rng.random(rows) < np.where(group == "m", 0.6, 0.3), group


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_moments_are_differences_of_rates(constraint: str) -> None:
    label, group = people(600)
    decided = np.random.default_rng(1).random(600) < 0.4
    moments = Moments(constraint, label, {"sex": group})
    events = {"": np.ones(600, bool), "favorable": label, "other": ~label}
    assert len(moments.names) == (3 if constraint == "demographicParity" else 6)
    for (attribute, name, event), value in zip(moments.names, moments.of(decided), strict=True):
        rows = events[event]
        assert attribute == "sex"
        assert value == pytest.approx(decided[rows & (group == name)].mean() - decided[rows].mean(), abs=1e-12)
    assert moments.largest(decided) == pytest.approx(np.abs(moments.of(decided)).max())


@pytest.mark.filterwarnings("ignore")  # pandas' about fairlearn's own lines
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_moments_and_weights_are_those_of_fairlearn(constraint: str) -> None:
    reductions = pytest.importorskip("fairlearn.reductions")
    pandas = pytest.importorskip("pandas")
    label, group = people(900, 2)
    rng = np.random.default_rng(3)
    decided = rng.random(900) < 0.4
    theirs = reductions.DemographicParity() if constraint == "demographicParity" else reductions.EqualizedOdds()
    theirs.load_data(np.zeros((900, 1)), label.astype(int), sensitive_features=group)
    gamma = theirs.gamma(lambda _: decided.astype(float))
    ours = Moments(constraint, label, {"sex": group})
    named = {"": "all", "favorable": "label=1", "other": "label=0"}
    for (_, name, event), value in zip(ours.names, ours.of(decided), strict=True):
        assert gamma["+", named[event], name] == pytest.approx(value, abs=1e-12)
    multipliers = {name: float(v) for name, v in zip(ours.names, rng.normal(size=len(ours.names)) * 0.3, strict=True)}
    plus = pandas.Series(0.0, index=gamma.index)
    for (_, name, event), value in multipliers.items():
        plus["+" if value > 0 else "-", named[event], name] = abs(value)
    error = reductions.ErrorRate()
    error.load_data(np.zeros((900, 1)), label.astype(int), sensitive_features=group)
    signed = np.asarray(error.signed_weights()) + np.asarray(theirs.signed_weights(plus))
    wanted = ours.weighted(multipliers)
    np.testing.assert_array_equal(wanted.favorable, signed > 0)
    np.testing.assert_allclose(wanted.weight, 900 * np.abs(signed) / np.abs(signed).sum(), rtol=1e-5)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_weighted_labels_are_the_best_response(constraint: str) -> None:
    """Of all 2^8 decisions that are functions of eight kinds of rows, those that fit the weighted labels best have the
    least Lagrangian."""
    label, group = people(400, 4)
    kind = np.random.default_rng(5).integers(0, 8, 400)
    moments = Moments(constraint, label, {"sex": group})
    multipliers = {name: 0.4 * (-1) ** k for k, name in enumerate(moments.names)}
    wanted, found = moments.weighted(multipliers), []
    for bits in product([False, True], repeat=8):
        decided = np.array(bits)[kind]
        lagrangian = (decided != label).mean() + float(moments.of(decided) @ list(multipliers.values()))
        found.append((lagrangian, float((wanted.weight * (decided != wanted.favorable)).sum())))
    lagrangian, cost = np.array(found).T
    assert lagrangian[cost.argmin()] == pytest.approx(lagrangian.min(), abs=1e-9)
    assert np.corrcoef(lagrangian, cost)[0, 1] == pytest.approx(1, abs=1e-6)


def test_small_groups_and_missing_ones_have_no_moment() -> None:
    label, group = people(500, 6)
    group[:29], group[29:80] = "rare", "(missing)"
    names = {name for _, name, _ in Moments("demographicParity", label, {"sex": group}).names}
    assert names == {"f", "m", "x"}
    nobody = Moments("equalizedOdds", label[:5], {"sex": group[:5]})
    assert (nobody.names, nobody.largest(label[:5])) == ([], 0.0)
    assert nobody.weighted({}).weight.tolist() == [1.0] * 5
    everybody = Moments("equalizedOdds", np.ones(500, bool), {"sex": group})
    assert {event for *_, event in everybody.names} == {"favorable"}


@pytest.mark.parametrize(
    ("violations", "expected"),
    [
        ([(0.01, 0.01), (0.0, 0.0)], 0),
        ([(0.3, 0.3), (0.01, 0.05), (0.02, 0.02), (0.0, 0.0)], 2),
        ([(0.3, 0.3), (0.1, 0.12), (0.2, 0.05)], 2),
        ([(0.3, 0.3)], 0),
    ],
)
def test_the_first_within_the_constraint_ships_else_the_nearest(
    violations: list[tuple[float, float]], expected: int
) -> None:
    assert chosen(violations, 0.02) == expected


# ---- training ----

BIAS = {
    "protectedAttributes": [{"name": "g", "privileged": ["v"]}],
    "favorableOutcome": {"label": "yes"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
}


def unfair(classes: tuple[str, ...] = ("no", "yes")) -> str:
    rng = np.random.default_rng(7)
    group = rng.integers(0, 2, 2400)
    x = rng.normal(size=2400) + 0.8 * group
    label = np.digitize(x + rng.normal(size=2400) * 0.5, [0.4, 1.5][: len(classes) - 1])
    return "x,g,y\n" + "".join(f"{a:.3f},{'uv'[b]},{classes[c]}\n" for a, b, c in zip(x, group, label, strict=True))


def plan(csv: str, **mitigation: Any) -> dict[str, Any]:
    told = {"method": "reductions", **({"reductions": mitigation} if mitigation else {})}
    features = {"x": "numeric", "g": "categorical"}
    return inline(csv, features, mitigation=told, model={"type": "linear"}, loop={"epochs": 12, "batchSize": 256})


def test_training_reaches_the_constraint_and_leaves_evidence(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    found = place.job(resolved(plan(unfair(), maxDisparity=0.03), governance={"bias": BIAS})).run()
    content = files(place, found)
    told = decode_manifest(json.dumps(content["model.json"]).encode())
    assert told.mitigation == "reductions/demographicParity"
    applied, unmitigated = content["evaluation.json"]["mitigation"], content["evaluation.json"]["unmitigated"]
    steps = applied["steps"]
    assert applied["reached"]
    assert applied["shipped"] == len(steps) - 1 > 0
    assert steps[0]["training"] > 0.1
    assert max(steps[-1]["training"], steps[-1]["validation"]) <= 0.03
    metrics = place.report.parts[-1]["metrics"]
    assert abs(metrics["model.spd.g.u"]) < unmitigated["largestDisparity"]["g"] - 0.15
    gates = {g["name"]: g for g in content["gates.json"]["gates"]}
    assert gates["mitigation/effect"]["verdict"] == "pass"
    assert f"network {applied['shipped']} of {len(steps) - 1} ships" in gates["mitigation/effect"]["message"]
    assert applied["effect"]
    cost = unmitigated["metrics"]["accuracy"] - metrics["accuracy"]
    assert gates["mitigation/accuracy"]["measured"] == pytest.approx(cost, abs=1e-9)
    assert gates["mitigation/g"]["measured"] < -0.15
    assert "without" in gates["mitigation/g"]["message"]
    assert "change in [" in gates["mitigation/g"]["message"]
    entries = [msgspec.json.decode(e, type=LedgerEntry) for e in place.archive.entries]
    assert entries[1].summary["mitigation"] == entries[3].summary["mitigation"] == told.mitigation


def test_a_constraint_out_of_reach_is_told(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    asked = plan(unfair(), maxDisparity=0.0001, iterations=2, constraint="equalizedOdds")
    content = files(place, place.job(resolved(asked, governance={"bias": BIAS})).run())
    applied = content["evaluation.json"]["mitigation"]
    assert not applied["reached"]
    assert len(applied["steps"]) == 3
    validation = [step["validation"] for step in applied["steps"]]
    assert applied["shipped"] == int(np.argmin(validation))
    shipped = applied["shipped"]
    assert content["model.json"].get("mitigation", "") == ("reductions/equalizedOdds" if shipped else "")
    gate = next(g for g in content["gates.json"]["gates"] if g["name"] == "mitigation/effect")
    assert (gate["verdict"], gate["budget"]) == ("fail", 0.0001)
    assert "raise iterations or maxDisparity" in gate["message"]


def test_more_than_two_classes_are_refused(tmp_path: Path) -> None:
    job = Workplace(tmp_path).job(resolved(plan(unfair(("no", "maybe", "yes"))), governance={"bias": BIAS}))
    with pytest.raises(InvalidTraining, match="two classes, found 3: use reweighing"):
        job.run()


@pytest.mark.parametrize(
    ("mitigation", "said"),
    [
        ({"method": "reductions", "reductions": {"maxDisparity": 0}}, "maxDisparity"),
        ({"method": "reductions", "reductions": {"maxDisparity": float("nan")}}, "maxDisparity"),
        ({"method": "reductions", "reductions": {"iterations": 0}}, "iterations"),
        ({"method": "reductions", "reductions": {"constraint": "equity"}}, "constraint"),
        ({"method": "reweighing", "reductions": {}}, "reductions needs method reductions"),
        ({"method": "none", "reductions": {}}, "reductions needs method reductions"),
    ],
)
def test_what_cannot_be_trained_is_refused(mitigation: dict[str, Any], said: str) -> None:
    resource = valid()
    resource["spec"]["lifecycle"]["training"]["mitigation"] = mitigation
    assert any(said in message for message in validate(resource)), validate(resource)


@pytest.mark.parametrize("method", ["reweighing", "reductions", "thresholds"])
def test_mitigation_needs_groups_and_a_decision(method: str) -> None:
    """Reweighing without rules, or of a regression, was silently without effect."""
    resource = valid()
    resource["spec"]["lifecycle"]["training"]["mitigation"] = {"method": method}
    assert validate(resource) == []
    bias = resource["spec"]["governance"].pop("bias")
    said = "need governance.bias with favorableOutcome.label"
    assert any(said in message for message in validate(resource))
    resource["spec"]["governance"]["bias"] = {**bias, "favorableOutcome": {"threshold": 1}}
    assert any(said in message for message in validate(resource))
    resource["spec"]["lifecycle"]["training"]["mitigation"] = {"method": "none"}
    del resource["spec"]["governance"]["bias"]
    assert validate(resource) == []


def drawn(groups: dict[str, int], gap: float = 0.0, seed: int = 11) -> str:
    """Rows of each group; the label is favourable for x above ``gap`` times the group's place."""
    rng, lines = np.random.default_rng(seed), ["x,g,y"]
    for place, (name, rows) in enumerate(groups.items()):
        x = rng.normal(size=rows)
        y = x > gap * place
        lines += [f"{a:.3f},{name},{'yes' if b else 'no'}" for a, b in zip(x, y, strict=True)]
    return "\n".join(lines) + "\n"


NOBODY = {"protectedAttributes": [{"name": "g"}], "favorableOutcome": {"label": "yes"}, "metrics": BIAS["metrics"]}


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"v": 600}, "found too few of all but one"),
        ({"v": 600, "u": 12}, "found too few of g=u"),
        ({"v": 600, "": 200}, r"found too few of g=\(missing\)"),
        ({f"g{k}": 15 for k in range(40)}, "g=g0, g=g1, "),
    ],
)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_constraint_between_nobody_is_refused_before_anything_is_trained(
    tmp_path: Path, groups: dict[str, int], said: str, constraint: str
) -> None:
    """Of one group nothing is asked, and that was "reached" at once."""
    place = Workplace(tmp_path)
    with pytest.raises(InvalidTraining, match=f"two groups of a protected attribute with 30 training rows.*{said}"):
        place.job(resolved(plan(drawn(groups), constraint=constraint), governance={"bias": NOBODY})).run()
    assert not any(part.get("progress") for part in place.report.parts)


@pytest.mark.parametrize("method", ["reductions", "reweighing"])
def test_mitigation_that_changes_nothing_is_said_and_named_by_no_answer(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = drawn({"v": 700}).splitlines()
    rows = "\n".join([lines[0], *(line.replace(",v,", f",{g},") for line in lines[1:] for g in "uv")]) + "\n"
    asked = plan(rows, maxDisparity=0.3) if method == "reductions" else plan(rows)
    asked |= {"mitigation": asked["mitigation"] if method == "reductions" else {"method": method}}
    place = Workplace(tmp_path)
    if method == "reweighing":  # a split leaves no two groups quite alike
        monkeypatch.setattr(pipeline, "reweighing", lambda label, _: np.ones(len(label), np.float32))
    content = files(place, place.job(resolved(asked, governance={"bias": NOBODY})).run())
    applied = content["evaluation.json"]["mitigation"]
    assert applied["effect"] is False
    assert content["model.json"].get("mitigation", "") == ""
    gate = next(g for g in content["gates.json"]["gates"] if g["name"] == "mitigation/effect")
    assert "nothing was changed" in gate["message"]
    entries = [msgspec.json.decode(e, type=LedgerEntry) for e in place.archive.entries]
    assert not any("mitigation" in entry.summary for entry in entries)


def test_weights_by_which_few_rows_decide_are_said() -> None:
    """One favourable row of 1,000 of a group weighs what 250 others do."""
    label, group = np.zeros(2000, np.int64), np.repeat(np.array(["u", "v"], object), 1000)
    label[999:1500] = 1
    most = float(reweighing(label, {"g": group}).max())
    assert most > 200
    told = gates.constraint(AppliedMitigation(method="reweighing", largest_weight=most))
    assert f"a row weighs up to {most:.0f} times the mean, so that few rows decide much" in told.message
    assert "weighs up to" not in gates.constraint(AppliedMitigation(method="reweighing", largest_weight=9.0)).message


# ---- every answer says it ----


@pytest.mark.parametrize("mitigation", ["", "reductions/demographicParity"])
async def test_every_answer_says_what_was_applied(mitigation: str) -> None:
    model = tabular()
    signature = Signature.of(msgspec.structs.replace(manifest(model), mitigation=mitigation))
    data = plane(using=OnnxPredictor(model, signature), journal=MemoryJournal())
    for identity, revision in product(["", "mine"], ["", "r1"]):
        codec = V2Codec(signature, "credit", revision)
        response = await data.infer(codec.decode(msgspec.json.encode(v2_body(identity=identity)))[0])
        told = msgspec.json.decode(codec.encode(response).body).get("parameters", {})
        assert told.get("mitigation", "") == mitigation
        assert msgspec.json.decode(V1Codec(signature).encode(response)).get("mitigation", "") == mitigation
    await data.close()
