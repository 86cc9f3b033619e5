"""captum as an engine: which networks it takes, which manifests name it, and answers that no network has.

A stand-in speaks for captum; tests/local/explainer has the real one.
"""

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import helper, numpy_helper

from governed_api.governance import Explainer
from governed_api.validation import validate
from governed_serving.artefact import Feature
from governed_serving.blackbox.errors import EngineAway, NotExplainable, UnknownMethod
from governed_serving.explainer.engines.captum import GRADIENT_METHODS, captum_methods, captum_worker
from governed_serving.explainer.engines.worker import Bounds, Worker, message_of
from governed_serving.explainer.graph.layers import read_layers
from governed_serving.explainer.graph.reading import Graph
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.protocol import ExplainRequest, Parameters
from governed_serving.explainer.service.watch import Counted
from unit.explainer import models
from unit.explainer.test_engines import STAND_IN
from unit.explainer.test_trees_and_linear import logistic, mixed

DIGEST = "sha256:" + "0" * 64


def network(width=6, seed=3):
    """Two numbers and a category (five columns), a hidden layer, softmax over two classes; its hidden weights too."""
    hidden = [helper.make_node("Gemm", ["z", "m", "n"], ["h"]), helper.make_node("Relu", ["h"], ["h1"])]
    model, rng = logistic(hidden, "h1"), np.random.default_rng(seed)
    inner = {"m": rng.normal(size=(5, width)), "n": rng.normal(size=width)}
    outer = {"w": rng.normal(size=(2, width))}
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "w"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in (inner | outer).items()
    )
    return model


def explained(model, background=20):
    """The network as an artefact holds it."""
    features = [
        Feature("a", "numeric", "FP32"),
        Feature("b", "numeric", "FP32"),
        Feature("c", "categorical", "BYTES", categories=["r", "g", "b"]),
    ]
    manifest = msgspec.structs.replace(models.manifest(), features=features, inputs=["a", "b", "c"])
    return ExplainedModel(manifest, DIGEST, model.SerializeToString(), mixed(background, 2))


def served(model):
    """What the model answers, by ONNX Runtime."""
    graph = Graph(model.onnx, {})
    return lambda columns: np.asarray(graph.evaluate(["probabilities"], columns)["probabilities"], float)


def test_layers_are_read_back_to_what_encodes_and_answer_as_the_graph():
    model = explained(network())
    layers = read_layers(Graph(model.onnx, {}), "probabilities")
    assert (layers.tensor, [w.shape for w, _ in layers.layers], layers.softmax) == ("z", [(5, 6), (6, 2)], True)
    rows = mixed(9, 5)
    x = layers.columns(rows)
    for place, (weights, bias) in enumerate(layers.layers):
        x = (np.maximum(x, 0) if place else x) @ weights + bias
    shares = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, served(model)(rows), atol=1e-6)


def test_a_relu_that_no_dense_layer_feeds_stays_outside():
    model = logistic([helper.make_node("Relu", ["z"], ["h1"])], "h1")
    layers = read_layers(Graph(model.SerializeToString(), {}), "probabilities")
    assert (layers.tensor, len(layers.layers)) == ("h1", 1)


def test_what_holds_no_network_is_refused_at_the_start():
    rounded = logistic([helper.make_node("Round", ["z"], ["h1"])], "h1")
    rounded.graph.node[-2].op_type = "MatMulInteger"
    with pytest.raises(NotExplainable, match=r"engine captum: .* found MatMulInteger; an int8 model"):
        captum_methods(None, explained(rounded))
    imported = msgspec.structs.replace(models.manifest(), graph=[])
    with pytest.raises(NotExplainable, match="found an import; leave engine out"):
        captum_methods(None, ExplainedModel(imported, DIGEST, b"", models.table(3, 1)))


TRAINED = {"data": {"uri": "file:x.csv", "label": "y", "features": [{"name": "x"}]}}


def manifest(explainer, **lifecycle):
    source = {"predictor": {"model": {"storageUri": "file:x", "digest": DIGEST}}}
    spec = {"explainer": explainer, **({"lifecycle": lifecycle} if lifecycle else source)}
    head = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "m"}}
    return {**head, "spec": spec}


@pytest.mark.parametrize(
    ("explainer", "lifecycle", "told"),
    [
        ({"engine": "captum", "type": "integratedGradients"}, {"training": TRAINED}, ""),
        ({"engine": "captum", "type": "saliency"}, {"training": TRAINED}, ""),
        ({"engine": "captum"}, {"training": TRAINED}, "go together: name both"),
        ({"type": "saliency"}, {"training": TRAINED}, "go together: name both"),
        (
            {"engine": "alibi", "acceptLicence": "BSL-1.1", "type": "inputXGradient"},
            {"training": TRAINED},
            "alibi computes type shap or anchors",
        ),
        ({"engine": "captum", "type": "saliency"}, {}, "leave engine out (type shap), or take engine alibi"),
        (
            {"engine": "captum", "type": "saliency"},
            {"training": TRAINED, "compression": {"method": "dynamicInt8"}},
            "take magnitudePruning or none, or leave engine out",
        ),
        (
            {"engine": "captum", "type": "saliency"},
            {"training": TRAINED, "compression": {"method": "magnitudePruning"}},
            "",
        ),
        (
            {"engine": "captum", "type": "saliency"},
            {"training": {**TRAINED, "mitigation": {"method": "thresholds"}}},
            "captum doesn't go with lifecycle.training.mitigation.method thresholds",
        ),
        (
            {"engine": "captum", "type": "saliency", "resources": {"limits": {"memory": "512Mi"}}},
            {"training": TRAINED},
            "at least 1Gi",
        ),
    ],
)
def test_a_manifest_names_captum_for_what_it_can_explain(explainer, lifecycle, told):
    messages = validate(manifest(explainer, **lifecycle))
    assert any(told in one for one in messages) if told else messages == [], messages


def test_without_an_environment_it_says_how_to_make_one():
    with pytest.raises(EngineAway, match=r"pip install captum==0.9.0\), and set GOVERNED_CAPTUM_PYTHON"):
        captum_worker(Path("/nowhere/bin/python"))


@pytest.fixture
def lying(tmp_path, monkeypatch):
    """An engine that answers what ``done.json`` says."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    worker, model = Worker(Path(sys.executable), program, Bounds(silence=20)), explained(network())

    def explain(method="integratedGradients", **done):
        answer = {
            "values": message_of(np.zeros((2, 3))),
            "errors": message_of(np.zeros((2, 3))),
            "prediction": message_of(served(model)(mixed(1, 7))),
            "base": message_of(np.full((1, 2), 0.5)),
            "steps": 16,
            "gradients": 640,
            "stopped": "residual",
        }
        (tmp_path / "done.json").write_text(json.dumps(msgspec.to_builtins(answer | done)))
        engine = Engine(model, served(model), Explainer(), methods=captum_methods(worker, model))
        (found,) = engine.explain(ExplainRequest("r", mixed(1, 7), Parameters(method=method)))["explanations"]
        return found

    yield explain
    worker.close()


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ({"values": message_of(np.zeros((2, 4)))}, "expected a matrix"),
        ({"values": message_of(np.full((2, 3), np.nan))}, "expected finite values"),
        ({"base": message_of(np.full((1, 2), np.inf))}, "expected finite values"),
        ({"steps": 0}, "counts of steps"),
        ({"gradients": -1}, "counts of steps"),
        ({"stopped": "\x1b[2J"}, "another word"),
        ({"steps": "many"}, "sent something else"),
    ],
)
def test_answers_that_no_network_has_are_the_engines_fault(lying, done, told):
    with pytest.raises(EngineAway, match=told):
        lying(**done)


def test_another_network_than_the_served_one_is_refused(lying):
    with pytest.raises(NotExplainable, match=r"answers 0\.2.* besides what the model answered; leave engine out"):
        lying(prediction=message_of(served(explained(network()))(mixed(1, 7)) + np.array([[0.2, -0.2]])))


def test_answers_are_in_our_form_and_never_shapley_values(lying):
    found = lying()
    assert (found["method"], found["coalitions"], found["gradients"], found["exact"]) == (
        "integratedGradients", 16, 640, False,
    )  # fmt: skip
    assert found["engine"]["name"] == "captum"
    assert found["engine"]["code"].startswith("sha256:")
    assert [one["interval"] for one in found["attributions"]] == [[None, None]] * 3
    assert all(not Counted().has({"method": method}) for method in GRADIENT_METHODS)
    gradient = lying("saliency", stopped="done")
    assert not {"base_value", "additivity_residual", "fidelity"} & set(gradient), "its values sum to nothing"


def test_captum_computes_its_own_methods_alone(lying):
    with pytest.raises(UnknownMethod, match="expected one of deepLift, inputXGradient, integratedGradients, saliency"):
        lying("shap")
    with pytest.raises(NotExplainable, match="expected logit with deepLift, found output"):
        lying("deepLift")


def test_ours_never_imports_it():
    assert "captum" not in {name.partition(".")[0] for name in sys.modules}
