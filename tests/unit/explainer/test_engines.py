"""Engines of others: the licence, the pipe to their process, and their answers in our form.

A stand-in speaks for alibi; tests/local/explainer has the real one.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from governed_api.governance import Explainer
from governed_api.validation import validate
from governed_serving.blackbox.errors import BudgetExhausted, NotExplainable, UnknownMethod
from governed_serving.explainer.engines import worker as pipe
from governed_serving.explainer.engines.alibi import alibi_methods, alibi_worker
from governed_serving.explainer.engines.worker import EngineAway, Matrix, Worker, matrix_of, message_of
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.methods import METHODS
from governed_serving.explainer.service.protocol import parse
from unit.explainer import models

STAND_IN = """
import base64, json, os, sys
def send(message):
    body = json.dumps(message).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()
def receive():
    head = sys.stdin.buffer.read(4)
    return json.loads(sys.stdin.buffer.read(int.from_bytes(head, "big"))) if head else None
def ask(matrix):
    send({"ask": matrix})
    return receive()
send({"hello": {"alibi": "0.0", "pid": str(os.getpid())}})
while (message := receive()) is not None:
    task = message["task"]
    if task.get("die"):
        os._exit(3)
    if task.get("hang"):
        receive()
    if task.get("mad"):
        os.write(1, b"\\xff\\xff\\xff\\xff")
    if task.get("refuse"):
        send({"failed": "ValueError: no"})
        continue
    answers = [ask(task["background"]), ask(task["rows"])]
    if any("stop" in one for one in answers):
        send({"failed": "stopped"})
        continue
    if task["method"] == "anchors":
        send({"done": {"features": [2], "rules": ["job = nurse"], "precision": 0.97, "coverage": 0.3, "success": True}})
        continue
    rows, features = task["rows"]["shape"]
    zeros = base64.b64encode(bytes(8 * rows * 2 * features)).decode()
    base = base64.b64encode(bytes(16)).decode()
    send({"done": {"values": {"shape": [rows * 2, features], "data": zeros}, "base": {"shape": [1, 2], "data": base}}})
"""


@pytest.fixture
def worker(tmp_path):
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    made = Worker(Path(sys.executable), program, patience=20)
    yield made
    made.close()


def task(**more):
    matrix = message_of(np.array([[1.0, np.nan], [-0.0, 1e-300]]))
    return {"method": "anchors", "background": matrix, "rows": matrix, **more}


class Rule(msgspec.Struct):
    rules: list[str]


def run(worker, given, ask):
    return worker.run(given, ask, Rule)


def test_a_matrix_travels_bit_for_bit():
    sent = np.random.default_rng(0).normal(size=(7, 3))
    sent[0] = np.nan, np.inf, -0.0
    assert matrix_of(message_of(sent)).tobytes() == sent.tobytes()
    for wrong in (
        Matrix([2], "AAAA"),
        Matrix([1], "*"),
        Matrix([3], sent.tobytes().hex()),
        Matrix([-5, 7], "AAAAAAAAAAA="),
    ):
        with pytest.raises(EngineAway, match="expected a matrix"):
            matrix_of(wrong)


def test_a_worker_asks_through_us_and_serves_again(worker):
    asked = []

    def ask(matrix):
        asked.append(matrix)
        return matrix

    for _ in range(2):
        assert run(worker, task(), ask).rules == ["job = nurse"]
    assert len(asked) == 4
    assert np.isnan(asked[0][0, 1])
    with pytest.raises(NotExplainable, match="ValueError: no"):
        run(worker, task(refuse=True), ask)
    assert run(worker, task(), ask)


def test_a_budget_that_ends_stops_the_worker_and_leaves_it_ready(worker):
    def ended(_):
        raise BudgetExhausted("the latency budget ended")

    with pytest.raises(BudgetExhausted):
        run(worker, task(), ended)
    before = worker.about["pid"]
    assert run(worker, task(), lambda matrix: matrix)
    assert worker.about["pid"] == before


def test_a_fault_of_ours_leaves_no_half_a_conversation(worker):
    with pytest.raises(ZeroDivisionError):
        run(worker, task(), lambda matrix: matrix / (1 // 0))
    assert run(worker, task(), lambda matrix: matrix)


@pytest.mark.parametrize(
    ("how", "told"), [("die", "it ended"), ("hang", "said nothing for 0.5 s"), ("mad", "a frame of")]
)
def test_a_worker_that_is_lost_is_said_and_started_again(worker, how, told):
    worker.start()
    worker._patience = 0.5
    with pytest.raises(EngineAway, match=told):
        run(worker, task(**{how: True}), lambda matrix: matrix)
    worker._patience = 20
    assert run(worker, task(), lambda matrix: matrix)


def test_without_an_environment_it_says_how_to_make_one():
    with pytest.raises(EngineAway, match=r"pip install 'alibi\[shap\]==0.9.6' click.*GOVERNED_ALIBI_PYTHON"):
        alibi_worker(Path("/nowhere/bin/python"))
    with pytest.raises(EngineAway, match="it ended"):  # this environment has no alibi
        alibi_worker(Path(sys.executable))


def explained(worker, predict=models.probabilities, **parameters):
    engine = Engine(models.model(), predict, Explainer(), methods=alibi_methods(worker))
    return engine.explain(parse(models.request(models.table(2, 9), **parameters), engine.model.features, "r"))


def test_answers_come_in_our_form(worker):
    answer = explained(worker, method="shap")
    for row in answer["explanations"]:
        assert [one["feature"] for one in row["attributions"]] == ["age", "income", "job", "sex"]
        assert {tuple(one["interval"]) for one in row["attributions"]} == {(None, None)}
        assert not row["exact"]
        assert row["additivity_residual"] == pytest.approx(row["prediction"])  # the stand-in attributes nothing
        assert (row["engine"]["name"], row["engine"]["alibi"], row["engine"]["licence"]) == ("alibi", "0.0", "BSL-1.1")
        assert "fidelity" in row
    (first, second) = explained(worker, method="anchors")["explanations"]
    assert first["anchor"] == [{"player": "job", "rule": "job = nurse"}]
    assert second["evaluations"] == 41


def test_the_model_is_asked_for_the_very_rows(worker):
    seen = []

    def predict(columns):
        seen.append(columns)
        return models.probabilities(columns)

    explained(worker, predict, method="anchors")
    background = models.model().background
    assert len(seen) == 5
    for name, values in seen[1].items():
        assert values.dtype == background[name].dtype
        assert values.tolist() == background[name].tolist()


@pytest.mark.parametrize(
    ("asked", "told", "error"),
    [
        ({"method": "lime"}, "expected one of anchors, shap, found 'lime'", UnknownMethod),
        ({"method": "shap", "groups": {"g": ["age", "sex"]}}, "groups: expected none", NotExplainable),
        ({"method": "anchors", "max_evaluations": 40}, "more than 40 rows and can't be cut short", NotExplainable),
    ],
)
def test_what_alibi_does_not_do_is_said(worker, asked, told, error):
    with pytest.raises(error, match=told):
        explained(worker, **asked)


def manifest(**explainer):
    model = {"storageUri": "file:x", "digest": "sha256:" + "0" * 64}
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": "m"},
        "spec": {"predictor": {"model": model}, "explainer": explainer},
    }


@pytest.mark.parametrize(
    ("explainer", "told"),
    [
        ({"engine": "alibi"}, "needs acceptLicence BSL-1.1: alibi's Business Source License"),
        ({"engine": "alibi", "acceptLicence": "MIT"}, "acceptLicence"),
        ({"engine": "alibi", "acceptLicence": "BSL-1.1", "type": "lime"}, "alibi computes type shap or anchors"),
        ({"engine": "captum", "acceptLicence": "BSL-1.1"}, "engine"),
        ({"engine": "alibi", "acceptLicence": "BSL-1.1"}, ""),
        ({}, ""),
    ],
)
def test_the_engine_needs_its_licence_accepted(explainer, told):
    messages = validate(manifest(**explainer))
    assert (told in messages[0]) if told else messages == [], messages


def test_ours_never_imports_it():
    imported = {name.partition(".")[0] for name in sys.modules}
    assert pipe.__name__ in sys.modules
    assert METHODS
    assert "alibi" not in imported
