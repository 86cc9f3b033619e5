"""alibi itself, in its environment: each of its methods beside ours, hostile requests, and how it ends.

Its worker runs; the model is a function of this process.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from governed_api import runtime
from governed_api.governance import Explainer
from governed_serving.artefact import Feature
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable
from governed_serving.explainer.engines.alibi import PROGRAM, alibi_methods, alibi_overall, alibi_worker
from governed_serving.explainer.engines.worker import Bounds
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.overview import overview
from governed_serving.explainer.service.protocol import ExplainRequest, Parameters
from support.waiting import eventually
from unit.explainer import models
from unit.explainer.test_trees_and_linear import BACKGROUND, NAMES, ROWS, TABLE, converted, fitted

pytestmark = pytest.mark.xdist_group("alibi")  # its libraries take ten seconds to load: one worker for all

DIGEST = "sha256:" + "0" * 64
ended = []


@pytest.fixture(scope="module")
def worker():
    python = os.environ.get(runtime.ALIBI_PYTHON, "")
    if not os.access(python, os.X_OK):
        pytest.skip("no environment with alibi: tests/run makes one where pip can; or set GOVERNED_ALIBI_PYTHON")
    made = alibi_worker(Path(python), Bounds(memory=1 << 30), ended.append)
    yield made
    made.close()


def ask(worker, rows, predict=models.probabilities, model=None, **parameters):
    engine = Engine(model or models.model(), predict, Explainer(), methods=alibi_methods(worker))
    return engine.explain(ExplainRequest("asked", rows, Parameters(**parameters)))


def of(features, **changed):
    """A manifest of these features."""
    return msgspec.structs.replace(models.manifest(), features=features, inputs=[f.name for f in features], **changed)


def attributions(answer):
    return [[one["attribution"] for one in row["attributions"]] for row in answer["explanations"]]


def columns(table):
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(NAMES)}


def by_column(kind):
    """A forest of scikit-learn's that takes one input per feature, as our models do."""
    model = onnx.load_from_string(converted(fitted(kind)))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in NAMES]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.node.insert(0, helper.make_node("Concat", NAMES, ["X"], axis=1))
    if kind == "regressor":
        model.graph.node.append(helper.make_node("Identity", ["variable"], ["prediction"]))
        model.graph.output[-1].name = "prediction"
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["forest", "regressor", "boosted"])
def test_tree_shap_is_ours(worker, kind):
    content, features = by_column(kind), [Feature(name, "numeric", "FP32") for name in NAMES]
    session = onnxruntime.InferenceSession(content)
    task = "regression" if kind == "regressor" else "classification"
    manifest = of(features, task=task, favorable=None)

    def predict(asked):
        return session.run([session.get_outputs()[-1].name], {name: asked[name][:, None] for name in NAMES})[0]

    model = ExplainedModel(manifest, DIGEST, content, columns(BACKGROUND))
    answer = ask(worker, columns(ROWS), predict, model, method="tree")
    ours = Engine(model, predict, Explainer()).explain(ExplainRequest("o", columns(ROWS), Parameters(method="tree")))
    np.testing.assert_allclose(attributions(answer), attributions(ours), atol=1e-6)
    for row in answer["explanations"]:
        assert row["exact"]
        assert abs(row["additivity_residual"]) < 1e-4
        assert row["engine"]["shap"] == "0.43.0"
    wide = ExplainedModel(manifest, DIGEST, content, columns(TABLE[:150]))
    (row,) = ask(worker, columns(ROWS[:1]), predict, wide, method="tree")["explanations"]
    assert (row["exact"], row["background_rows"]) == (False, 100)  # shap would draw a hundred of them
    assert {tuple(one["interval"]) for one in row["attributions"]} == {(None, None)}
    pair = ask(worker, columns(ROWS[:1]), predict, model, method="tree", groups={"pair": ["f0", "f1"]})
    assert pair["explanations"][0]["summed_columns"] == 8  # not the pair's own Shapley value


def sentiment(asked):
    good = np.array([0.9 if "good" in text and "not" not in text else 0.1 for text in asked["review"]])
    return np.stack([1 - good, good], axis=1)


def review(text):
    return {"review": models.strings([text])}


TEXT = ExplainedModel(of([Feature("review", "text", "BYTES")]), DIGEST, b"", review("a film"))


def test_anchors_of_a_text_are_its_own_spans(worker):
    text = "this film is good , really 好看 <EMAIL>"
    answer = ask(worker, review(text), sentiment, TEXT, method="anchors")
    (row,) = answer["explanations"]
    assert [(one["rule"], text[slice(*one["span"])]) for one in row["anchor"]] == [("good", "good")]
    assert row["certified"]
    assert row["precision"] >= 0.95
    assert row["coverage"] is None
    assert json.dumps(ask(worker, review(text), sentiment, TEXT, method="anchors")) == json.dumps(answer)
    parts = review("it is good. that is not so. fine.")
    (row,) = ask(worker, parts, sentiment, TEXT, method="anchors", level="sentence")["explanations"]
    assert [one["rule"] for one in row["anchor"]] == ["that is not so."]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_no_text_is_refused(worker, text):
    with pytest.raises(NotExplainable, match="expected text to explain, found none"):
        ask(worker, review(text), sentiment, TEXT, method="anchors")


def test_a_long_text_stays_within_its_memory(worker):
    words = review(" ".join(["good"] + [f"w{i}" for i in range(400)]))
    (row,) = ask(worker, words, sentiment, TEXT, method="anchors", max_evaluations=500_000)["explanations"]
    assert row["evaluations"] > 100


def test_the_overview_is_alibis_and_near_ours(worker):
    engine = Engine(models.model(), models.probabilities, Explainer(), methods=alibi_methods(worker))
    theirs, ours = overview(engine, alibi_overall(worker)), overview(Engine(models.model(), models.probabilities,
                                                                            Explainer()))  # fmt: skip
    assert theirs["engine"]["name"] == "alibi"
    assert "engine" not in ours
    assert overview(engine, alibi_overall(worker)) == theirs
    mine = {one["player"]: one for one in ours["permutation_importance"]}
    for one in theirs["permutation_importance"]:
        low, high = one["interval"]
        assert low <= one["value"] <= high
        assert one["value"] == pytest.approx(mine[one["player"]]["value"], rel=0.35)
    for one, other in zip(theirs["effects"], ours["effects"], strict=True):
        assert (one["feature"], one["kind"]) == (other["feature"], other["kind"])
        assert sum(one["rows"]) == sum(other["rows"]) == 40
        if one["kind"] == "partial dependence":
            found = dict(zip(one["grid"], one["values"], strict=True))
            assert found == pytest.approx(dict(zip(other["grid"], other["values"], strict=True)), abs=1e-12)
        else:
            between = np.interp(other["grid"], one["grid"], one["values"])
            np.testing.assert_allclose(between, other["values"], atol=0.06)


def test_strange_rows_are_explained_or_refused(worker):
    rows = models.table(2, 9)
    rows["job"] = models.strings(["astronaut <= 5 && x\n$(touch pwned)", "nurse"])
    (row, _) = ask(worker, rows, method="shap")["explanations"]
    assert abs(row["additivity_residual"]) < 1e-6
    rules = ask(worker, rows, method="anchors")["explanations"]
    assert all(row["certified"] for row in rules)
    rows["age"][0] = np.nan

    def patient(asked):
        return models.probabilities({**asked, "age": np.nan_to_num(asked["age"])})

    theirs = ask(worker, rows, patient, method="shap")
    ours = Engine(models.model(), patient, Explainer()).explain(ExplainRequest("o", rows, Parameters(method="shap")))
    np.testing.assert_allclose(attributions(theirs), attributions(ours), atol=1e-6)
    with pytest.raises(NotExplainable, match="makes no rules of missing values"):
        ask(worker, rows, patient, method="anchors")
    (row, _) = ask(worker, models.table(2, 9), method="shap", model=models.model(1))["explanations"]
    assert abs(row["additivity_residual"]) < 1e-6  # against one background row


def test_sixty_features_are_bounded_by_what_was_allowed(worker):
    features = [Feature(f"f{i}", "numeric", "FP32") for i in range(60)]
    rng = np.random.default_rng(0)
    weights = rng.normal(size=60)

    def predict(asked):
        p = 1 / (1 + np.exp(-np.stack([asked[f.name] for f in features], axis=1) @ weights))
        return np.stack([1 - p, p], axis=1)

    background = {f.name: rng.normal(size=50).astype(np.float32) for f in features}
    rows = {f.name: rng.normal(size=1).astype(np.float32) for f in features}
    model = ExplainedModel(of(features), DIGEST, b"", background)
    (row,) = ask(worker, rows, predict, model, method="shap", max_evaluations=400)["explanations"]
    assert len(row["attributions"]) == 60
    assert row["evaluations"] <= 100 + 400 * 50
    with pytest.raises(NotExplainable, match="alibi needs more than 3000 rows"):
        ask(worker, rows, predict, model, method="anchors", max_evaluations=3000)
    ended.clear()

    def slowly(asked):  # however fast the machine, the budget ends within a few questions
        time.sleep(0.4)
        return predict(asked)

    with pytest.raises(BudgetExhausted):
        ask(worker, rows, slowly, model, method="anchors", budget_milliseconds=1500)
    assert ended in ([], ["budget"])  # it gave up when it asked again, or was cut


def test_a_budget_that_is_over_when_the_engine_is_asked_costs_no_process(worker):
    ended.clear()
    with pytest.raises(BudgetExhausted, match="budget ended"):
        ask(worker, models.table(2, 9), method="shap", budget_milliseconds=1e-6)
    assert ask(worker, models.table(2, 9), method="shap")
    assert ended == []


BUSY = """
import os, sys
from pathlib import Path
import numpy as np
from governed_serving.explainer.engines.alibi import alibi_worker
from governed_serving.explainer.engines.worker import Matrix, message_of
worker = alibi_worker(Path(sys.argv[1]))
rows = message_of(np.zeros((1, 40)))
task = {"method": "shap", "names": [str(i) for i in range(40)], "background": message_of(np.ones((100, 40))),
        "rows": rows, "outputs": 1, "seed": 1, "samples": 1000}
def ask(matrix):
    if len(matrix) > 1000:
        os.write(1, b"%d\\n" % worker._process.pid)
        os.kill(os.getpid(), 9)
    return matrix[:, :1]
worker.run(task, ask, dict)
"""


def test_it_ends_with_the_explainer(worker):  # noqa: ARG001  what skips without an environment
    command = [sys.executable, "-c", BUSY, os.environ[runtime.ALIBI_PYTHON]]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=180, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    eventually(lambda: PROGRAM.name not in command_of(pid), within=20, every=0.1, what="the engine gone")


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
