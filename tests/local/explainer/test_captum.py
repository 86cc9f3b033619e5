"""captum itself: its gradients beside our own and beside differences of what is served, and through a service."""

import os
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from governed_api import runtime
from governed_api.governance import Explainer
from governed_serving.explainer.engines import captum as ours
from governed_serving.explainer.engines.captum import captum_methods, captum_worker
from governed_serving.explainer.engines.worker import Bounds
from governed_serving.explainer.graph.layers import read_layers
from governed_serving.explainer.graph.reading import Graph
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.protocol import ExplainRequest, Parameters
from support.waiting import eventually
from unit.explainer.test_captum import explained, network, served
from unit.explainer.test_trees_and_linear import mixed

from ..conftest import SAMPLES, governed, in_ledger, start

pytestmark = pytest.mark.xdist_group("captum")  # torch takes seconds to load: one worker for all

MODEL = explained(network())
ROWS = mixed(4, 11)


def python() -> Path:
    return Path(os.environ.get(runtime.CAPTUM_PYTHON) or sys.executable)


@pytest.fixture(scope="module")
def worker():
    made = captum_worker(python(), Bounds(memory=1 << 30))
    yield made
    made.close()


def ask(worker, rows=ROWS, model=MODEL, predict=None, **parameters):
    engine = Engine(model, predict or served(model), Explainer(), methods=captum_methods(worker, model))
    return engine.explain(ExplainRequest("asked", rows, Parameters(**parameters)))["explanations"]


def values(found):
    return np.array([[one["attribution"] for one in row["attributions"]] for row in found])


def by_hand(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Integrated gradients of class "yes" by our own arithmetic, (rows, players): mean over the background."""
    layers = read_layers(Graph(MODEL.onnx, {}), "probabilities")
    (first, shift), (last, bias) = layers.layers
    x, b = layers.columns(ROWS), layers.columns(MODEL.background)

    def gradient(z: np.ndarray) -> np.ndarray:
        inner = z @ first + shift
        scores = np.maximum(inner, 0) @ last + bias
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        into = p[..., 1:] * (last[:, 1] - p @ last.T)  # of softmax, back through the last layer
        found: np.ndarray = ((inner > 0) * into) @ first.T
        return found

    columns = np.zeros((len(x), x.shape[1]))
    for row in range(len(x)):
        path = b[:, None, :] + points[None, :, None] * (x[row] - b)[:, None, :]
        columns[row] = (np.einsum("bsc,s->bc", gradient(path), weights) * (x[row] - b)).mean(axis=0)
    return np.stack([columns[:, 0], columns[:, 1], columns[:, 2:].sum(axis=1)], axis=1)


def test_integrated_gradients_are_our_own(worker):
    points, weights = np.polynomial.legendre.leggauss(64)
    found = ask(worker, method="integratedGradients", max_evaluations=64, precision=1e-9)
    assert {(row["coalitions"], row["stopped"]) for row in found} == {(64, "evaluations")}
    np.testing.assert_allclose(values(found), by_hand((points + 1) / 2, weights / 2), atol=1e-5)
    finest = by_hand((np.arange(4000) + 0.5) / 4000, np.full(4000, 1 / 4000))
    np.testing.assert_allclose(values(ask(worker, method="integratedGradients")), finest, atol=2e-3)


@pytest.mark.parametrize("scale", ["output", "logit"])
def test_they_sum_to_what_the_answer_has_over_the_background(worker, scale):
    outputs = served(MODEL)
    found = ask(worker, method="integratedGradients", scale=scale)
    for row, answer, total in zip(found, outputs(ROWS), values(found).sum(axis=1), strict=True):
        assert row["additivity_residual"] == pytest.approx(row["prediction"] - row["base_value"] - total, abs=1e-12)
        told = row["prediction"] if scale == "output" else 1 / (1 + np.exp(-row["prediction"]))
        assert told == pytest.approx(answer[1], abs=1e-6)
        assert row["network_residual"] < 1e-6
    spread = max(abs(row["prediction"] - row["base_value"]) for row in found)
    assert max(abs(row["additivity_residual"]) for row in found) <= 1e-3 * spread
    if scale == "output":
        assert found[0]["base_value"] == pytest.approx(outputs(MODEL.background)[:, 1].mean(), abs=1e-6)


def test_saliency_is_the_slope_of_what_is_served(worker):
    outputs, h = served(MODEL), np.float32(1e-2)

    def moved(by: np.float32) -> np.ndarray:
        return outputs({**ROWS, "b": ROWS["b"] + by})[:, 1]  # a column that isn't scaled

    up, down = (moved(h) - moved(np.float32(0))) / h, (moved(np.float32(0)) - moved(-h)) / h
    smooth = np.abs(up - down) < 0.02  # no kink in between
    assert smooth.sum() >= 2
    found = values(ask(worker, method="saliency"))[:, 1]
    np.testing.assert_allclose(found[smooth], np.abs(up + down)[smooth] / 2, atol=5e-3)
    signed = values(ask(worker, method="inputXGradient"))[:, 1]
    np.testing.assert_allclose(signed[smooth], ((up + down) / 2 * ROWS["b"])[smooth], atol=5e-3)


def test_deep_lift_of_log_odds_is_complete_and_a_row_s_own(worker):
    found = ask(worker, method="deepLift", scale="logit")
    assert max(abs(row["additivity_residual"]) for row in found) < 1e-9
    first = {name: column[:1] for name, column in ROWS.items()}
    np.testing.assert_allclose(values(ask(worker, first, method="deepLift", scale="logit")), values(found)[:1])


def test_a_budget_ends_the_refinement_and_is_replayed_by_its_steps(worker, monkeypatch):
    monkeypatch.setattr(ours, "SHARE", 0.0)
    cut = ask(worker, method="integratedGradients", precision=1e-9, budget_milliseconds=60_000)
    assert {(row["coalitions"], row["stopped"]) for row in cut} == {(16, "budget")}
    again = ask(worker, method="integratedGradients", precision=1e-9, max_evaluations=16)
    assert values(again).tobytes() == values(cut).tobytes()


def test_groups_are_the_sums_of_their_features(worker):
    alone = values(ask(worker, method="integratedGradients"))
    together = values(ask(worker, method="integratedGradients", groups={"both": ["a", "b"]}))
    np.testing.assert_allclose(sorted(together[0]), sorted([alone[0, 0] + alone[0, 1], alone[0, 2]]), atol=1e-12)


def test_requests_at_once_get_their_own_answers(worker):
    whole, got = values(ask(worker, method="saliency")), {}

    def one(row: int) -> None:
        rows = {name: column[row : row + 1] for name, column in ROWS.items()}
        got[row] = values(ask(worker, rows, method="saliency"))

    threads = [threading.Thread(target=one, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    np.testing.assert_allclose(np.concatenate([got[row] for row in range(4)]), whole, atol=1e-12)


def test_through_a_service_in_the_ledger_and_again_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv(runtime.CAPTUM_PYTHON, str(python()))
    manifest = yaml.safe_load((SAMPLES / "admissions.yaml").read_text())
    del manifest["metadata"]["annotations"]
    manifest["spec"]["lifecycle"]["compression"] = {"method": "magnitudePruning", "sparsity": 0.1}
    manifest["spec"]["explainer"] = {"engine": "captum", "type": "integratedGradients"}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(manifest))
    running = start(tmp_path / "model.yaml", tmp_path / "work", tmp_path / "log", "admissions")
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [value]}
        for name, value in {"department": "A", "sex": "male"}.items()
    ]
    body = {"inputs": inputs}
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{running.url}/explain", json=body)
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["explanations"]
        assert (found["method"], found["engine"]["captum"], found["exact"]) == ("integratedGradients", "0.9.0", False)
        assert abs(found["additivity_residual"]) < 1e-3
        size = {one["feature"]: abs(one["attribution"]) for one in found["attributions"]}
        assert size["department"] > size["sex"], found
        again = client.post(f"{running.url}/explain", json={"inputs": inputs, "parameters": {"seed": found["seed"]}})
        assert again.json()["explanations"] == [found], "the same row and parameters, the same bits"
        refused = client.post(f"{running.url}/explain", json={**body, "parameters": {"method": "shap"}})
        assert (refused.status_code, "expected one of deepLift" in refused.text) == (400, True), refused.text
    identity = answer.json()["id"]
    eventually(lambda: identity in in_ledger(running, "explanation"), within=60, what="its explanation is recorded")
    assert running.stop() == 0
    whole = governed("verify", tmp_path / "work")
    assert whole.returncode == 0, whole.stdout + whole.stderr
