"""Engines of others: the licence, the pipe to their process, and their answers in our form.

A stand-in speaks for alibi; tests/local/explainer has the real one.
"""

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from governed_api.governance import Explainer
from governed_api.resources import Resources
from governed_api.validation import validate
from governed_serving.blackbox.errors import BudgetExhausted, EngineAway, NotExplainable, UnknownMethod
from governed_serving.explainer.engines import coding as pipe_coding
from governed_serving.explainer.engines import worker as pipe
from governed_serving.explainer.engines.alibi import alibi_methods, alibi_overall, alibi_worker
from governed_serving.explainer.engines.worker import INHERITED, Bounds, Matrix, Worker, matrix_of, message_of
from governed_serving.explainer.service.engine import Engine
from governed_serving.explainer.service.lanes import Busy
from governed_serving.explainer.service.methods import METHODS
from governed_serving.explainer.service.overview import Whole, overview
from governed_serving.explainer.service.process import engine_bounds
from governed_serving.explainer.service.protocol import ExplainRequest, Parameters, parse
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
if os.path.exists("slow"):
    import time
    time.sleep(1.5)
more = json.load(open("hello.json")) if os.path.exists("hello.json") else {}
send({"hello": {**more, "alibi": "0.0", "pid": str(os.getpid()), "variables": " ".join(os.environ)}})
while (message := receive()) is not None:
    if "task" not in message:  # a stop that came twice
        continue
    if os.path.exists("done.json"):
        with open("done.json") as file:
            send({"done": json.load(file)})
        continue
    task = message["task"]
    how = task.get("how", "")
    if how == "die":
        os._exit(3)
    if how == "hang":
        receive()
    if how == "deaf":
        import time
        time.sleep(60)
    if how == "mad":
        os.write(1, b"\\xff\\xff\\xff\\xff")
    if how == "mute":
        send({})
    if how == "eat":
        try:
            bytearray(1 << 30)
        except MemoryError:
            send({"failed": "MemoryError: no"})
            continue
    if how == "refuse":
        send({"failed": "ValueError: no" + "!" * 10_000})
        continue
    answers = [ask(task.get("background")), ask(task.get("rows"))] if task["method"] != "text anchors" else []
    if how == "stubborn":
        receive()
    if any("stop" in one for one in answers):
        send({"failed": "stopped"})
        continue
    if task["method"] == "text anchors":
        send({"texts": ["good UNK"]})
        receive()
        send({"done": {"features": [0], "rules": ["good"], "precision": 1.0, "coverage": None, "success": True}})
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
def worker(tmp_path, monkeypatch):
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    ended.clear()
    made = Worker(Path(sys.executable), program, Bounds(silence=20), ended.append)
    yield made
    made.close()


ended = []
"""Why processes of the worker's are no more."""


def bounded(worker, **changed):
    worker._bounds = dataclasses.replace(worker._bounds, **changed)


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
        run(worker, task(how="refuse"), ask)
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
    ("how", "told"),
    [
        ("die", "it ended"),
        ("hang", "said nothing for 0.5 s"),
        ("mad", "a frame of 4294967295 bytes"),
        ("mute", "a frame that says nothing"),
    ],
)
def test_a_worker_that_is_lost_is_said_and_started_again(worker, how, told):
    worker.start()
    bounded(worker, silence=0.5)
    with pytest.raises(EngineAway, match=told):
        run(worker, task(how=how), lambda matrix: matrix)
    bounded(worker, silence=20)
    assert run(worker, task(), lambda matrix: matrix)
    assert ended == ["lost"]


def test_one_that_keeps_ending_begins_later_each_time(worker):
    for _ in range(2):
        with pytest.raises(EngineAway, match="it ended"):
            run(worker, task(how="die"), lambda matrix: matrix)
    with pytest.raises(EngineAway, match="ended 2 times in a row; it begins again in 1 s"):
        run(worker, task(), lambda matrix: matrix)
    time.sleep(1.1)
    assert run(worker, task(), lambda matrix: matrix)
    assert ended == ["lost", "lost"]
    with pytest.raises(EngineAway, match="it ended"):
        run(worker, task(how="die"), lambda matrix: matrix)
    assert run(worker, task(), lambda matrix: matrix)  # what went well since is remembered


def test_a_killed_one_is_noticed_between_tasks(worker):
    worker.start()
    os.kill(int(worker.about["pid"]), 9)
    worker._process.wait()
    assert run(worker, task(), lambda matrix: matrix)
    assert ended == ["lost"]


def test_a_budget_that_ends_lets_the_process_off_its_task(worker):
    worker.start()
    before = worker.about["pid"]
    for _ in range(3):
        with pytest.raises(BudgetExhausted, match="which can't be cut short; raise budgetMilliseconds"):
            worker.run(task(how="hang"), lambda matrix: matrix, Rule, left=0.3)
        assert run(worker, task(method="text anchors"), lambda _: np.zeros((1, 2))), "it gave up and is free again"
    assert (worker.about["pid"], ended) == (before, [])


def test_a_budget_cuts_what_goes_on(worker):
    worker.start()
    bounded(worker, grace=0.3)
    before = worker.about["pid"]
    with pytest.raises(BudgetExhausted):
        worker.run(task(how="deaf"), lambda matrix: matrix, Rule, left=0.3)
    assert run(worker, task(), lambda matrix: matrix)
    assert (worker.about["pid"] != before, ended) == (True, ["budget"])


def test_a_caller_without_time_isnt_kept_while_a_process_gives_up(worker):
    worker.start()
    bounded(worker, grace=60)
    begun = time.monotonic()
    with pytest.raises(BudgetExhausted):
        worker.run(task(how="deaf"), lambda matrix: matrix, Rule, left=0.1)
    with pytest.raises(BudgetExhausted):
        worker.run(task(), lambda matrix: matrix, Rule, left=0.1)
    assert time.monotonic() - begun < 40, "neither waited for it"
    worker.close()


def test_a_budget_shorter_than_any_task_took_is_refused_at_once_by_name(worker):
    def slowly(matrix):
        time.sleep(0.3)
        return matrix

    assert run(worker, task(), slowly)
    asked = []
    with pytest.raises(BudgetExhausted, match=r"\(the fastest anchors here took \d{3,} ms\); raise budgetMilliseconds"):
        worker.run(task(), asked.append, Rule, left=0.005)
    assert asked == [], "nothing was computed for it"
    assert run(worker, task(), lambda matrix: matrix), "one that has time is served"
    assert worker._least["anchors"] < 0.6, "the fastest counts"
    assert ended == []


def test_a_process_that_got_half_a_task_is_ended(worker):
    worker.start()
    before = worker._process.pid
    os.kill(before, signal.SIGSTOP)  # it reads no more
    with pytest.raises(BudgetExhausted):
        worker.run(task(more="x" * (1 << 22)), lambda matrix: matrix, Rule, left=0.5)
    assert ended == ["budget"]
    assert run(worker, task(), lambda matrix: matrix)
    assert worker._process.pid != before


def test_a_task_that_takes_too_long_is_cut_without_a_budget(worker):
    worker.start()
    bounded(worker, task=0.3, grace=0.2)
    with pytest.raises(EngineAway, match=r"took longer than 0.3 s"):
        run(worker, task(how="deaf"), lambda matrix: matrix)
    bounded(worker, task=20)
    assert run(worker, task(), lambda matrix: matrix)
    assert ended == ["budget"]


def test_one_that_does_not_give_up_is_cut(worker):
    def over(_):
        raise BudgetExhausted("over")

    worker.start()
    bounded(worker, grace=0.3)
    with pytest.raises(BudgetExhausted, match="over"):
        run(worker, task(how="stubborn"), over)
    assert ended == ["budget"]
    assert run(worker, task(), lambda matrix: matrix)


def test_a_budget_that_ends_while_libraries_load_costs_no_process(worker, tmp_path):
    (tmp_path / "slow").touch()
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            worker.run(task(), lambda matrix: matrix, Rule, left=0.1)
    begun = worker._process.pid
    assert run(worker, task(), lambda matrix: matrix)
    assert (int(worker.about["pid"]), ended) == (begun, [])


def test_libraries_may_load_for_longer_than_a_silence(worker, tmp_path):
    (tmp_path / "slow").touch()
    bounded(worker, silence=0.3)
    worker.start()
    assert ended == []
    bounded(worker, starting=0.3)
    worker._kill()
    with pytest.raises(EngineAway, match=r"said nothing for 0.3 s"):
        worker.start()


def test_one_is_served_some_wait_and_more_are_sent_away(worker):
    worker.start()
    bounded(worker, waiting=1)
    held, go, got = threading.Event(), threading.Event(), []

    def ask(matrix):
        held.set()
        assert go.wait(60)
        return matrix

    first = threading.Thread(target=lambda: got.append(run(worker, task(), ask)))
    second = threading.Thread(target=lambda: got.append(run(worker, task(), lambda matrix: matrix)))
    first.start()
    assert held.wait(60)
    with pytest.raises(BudgetExhausted):
        worker.run(task(), lambda matrix: matrix, Rule, left=0.1)
    second.start()
    while worker._inside < 2:
        time.sleep(0.01)
    with pytest.raises(Busy, match="2 explanations wait for the engine already"):
        run(worker, task(), lambda matrix: matrix)
    go.set()
    first.join(60)
    second.join(60)
    assert (len(got), ended) == (2, [])


def test_memory_and_frames_are_bounded(worker, monkeypatch):
    bounded(worker, memory=256 << 20)
    with pytest.raises(NotExplainable, match="MemoryError: no; it may have 256 MiB, ask for less"):
        run(worker, task(how="eat"), lambda matrix: matrix)
    assert run(worker, task(), lambda matrix: matrix)
    monkeypatch.setattr(pipe, "LONGEST_FRAME", 4096)
    with pytest.raises(NotExplainable, match="takes 4096 bytes at once, found"):
        run(worker, task(more="x" * 5000), lambda matrix: matrix)
    assert run(worker, task(), lambda matrix: matrix)


def test_a_refusal_is_told_in_a_sentence(worker):
    with pytest.raises(NotExplainable) as told:
        run(worker, task(how="refuse"), lambda matrix: matrix)
    assert len(str(told.value)) < 600


def test_it_gets_no_variable_of_ours(worker, monkeypatch):
    for name in ("GOVERNED_ARCHIVE_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    worker.start()
    allowed = {*INHERITED, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LC_CTYPE"}
    assert set(worker.about["variables"].split()) <= allowed


def test_a_pipe_is_not_closed_under_who_waits_on_it(worker, monkeypatch):
    """Its number would be the next file's, whose bytes the waiting thread would take."""
    worker.start()
    waits, go = threading.Event(), threading.Event()

    def await_(self, pipe, *more, inner=Worker._await):
        inner(self, pipe, *more)
        waits.set()
        assert go.wait(60)

    monkeypatch.setattr(Worker, "_await", await_)
    process, raised = worker._process, []

    def asks():
        with pytest.raises(EngineAway) as caught:
            run(worker, task(how="hang"), lambda matrix: matrix)
        raised.append(str(caught.value))

    asking, closing = threading.Thread(target=asks), threading.Thread(target=worker.close)
    asking.start()
    assert waits.wait(60)
    closing.start()
    assert process.wait(60) == -signal.SIGKILL
    closing.join(0.2)
    assert (closing.is_alive(), process.stdin.closed, process.stdout.closed) == (True, False, False)
    go.set()
    for thread in (asking, closing):
        thread.join(60)
    assert (process.stdin.closed, process.stdout.closed) == (True, True)
    assert (raised, ended) == (["the engine is closed"], [])


def test_what_is_closed_stays_closed(worker):
    worker.start()
    worker.close()
    with pytest.raises(EngineAway, match="closed"):
        run(worker, task(), lambda matrix: matrix)


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
        ({"method": "lime"}, "expected one of anchors, shap, tree, found 'lime'", UnknownMethod),
        ({"method": "shap", "groups": {"g": ["age", "sex"]}}, "groups: expected none", NotExplainable),
        ({"method": "tree"}, "expected an ONNX model|expected 'probabilities' to come from a tree", NotExplainable),
        ({"method": "anchors", "field": "age"}, "expected a text feature .job, sex., found 'age'", NotExplainable),
        ({"method": "anchors", "max_evaluations": 40}, "more than 40 rows and can't be cut short", NotExplainable),
    ],
)
def test_what_alibi_does_not_do_is_said(worker, asked, told, error):
    with pytest.raises(error, match=told):
        explained(worker, **asked)


def test_a_text_is_asked_for_as_a_text(worker):
    seen = []

    def predict(columns):
        seen.append(columns["job"].tolist())
        return models.probabilities(columns)

    (row, _) = explained(worker, predict, method="anchors", field="job")["explanations"]
    assert seen[1] == ["good UNK"]
    assert row["anchor"][0]["rule"] in models.JOBS
    assert (row["coverage"], row["level"], row["placeholder"], row["evaluations"]) == (None, "token", "UNK", 1)


def matrix(*values):
    return msgspec.to_builtins(message_of(np.array(values, float)))


ZEROS = np.zeros((4, 4))
BASE = matrix([0, 0])
RULE = {"features": [0], "rules": ["age > 3"], "precision": 0.9, "coverage": None, "success": True}
HOSTILE_ANSWERS = [
    *(("shap", {"values": values, "base": base}) for values, base in [
        (matrix(*np.zeros((4, 3))), BASE), (matrix(*np.zeros((4, 5))), BASE), (matrix(*np.zeros((3, 4))), BASE),
        (matrix(*np.full((4, 4), np.nan)), BASE), (matrix(*np.full((4, 4), np.inf)), BASE),
        (matrix(*ZEROS), matrix([0])),
        ({"shape": [], "data": matrix([0])["data"]}, BASE), (matrix(*ZEROS), {"shape": [1 << 70, 2], "data": ""}),
        ({"shape": [0] * 70, "data": ""}, BASE), (matrix(*ZEROS), matrix([np.nan, 0])),
    ]),
    *(("anchors", {**RULE, **wrong}) for wrong in [
        {"features": [4]}, {"features": [-1]}, {"features": [1 << 62]}, {"precision": 7.5}, {"coverage": -0.1},
        {"rules": ["\x1b[2J"]}, {"rules": ["x" * 20_000]}, {"rules": ["a\nb"]},
    ]),
]  # fmt: skip
"""Of a task with two rows, two outputs and four features."""


@pytest.mark.parametrize(("method", "answer"), HOSTILE_ANSWERS)
def test_answers_that_no_task_has_are_the_engines_fault(worker, tmp_path, method, answer):
    """And end in a sentence: none of them is told, none is an error of ours."""
    (tmp_path / "done.json").write_text(msgspec.json.encode(answer).decode())
    with pytest.raises(EngineAway, match=r"expected .* from the engine|expected printable conditions"):
        explained(worker, method=method)


@pytest.mark.parametrize(
    ("grid", "values"),
    [
        ([[0.0], [1.0]], [[0.0, 0.0]]), ([[0.0], [1.0]], [[0.0], [0.0]]), ([[2.0], [1.0]], [[0.0, 0.0]] * 2),
        ([[np.nan], [1.0]], [[0.0, 0.0]] * 2), ([[-1.0], [99.0]], [[0.0, 0.0]] * 2),
    ],
)  # fmt: skip
def test_curves_that_no_feature_has_are_the_engines_fault(worker, tmp_path, grid, values):
    (tmp_path / "done.json").write_text(
        msgspec.json.encode({"grid": matrix(*grid), "values": matrix(*values), "samples": matrix([0.0])}).decode()
    )
    engine = Engine(models.model(), models.probabilities, Explainer(), methods=alibi_methods(worker))
    with pytest.raises(EngineAway, match="from the engine, found"):
        overview(engine, alibi_overall(worker))
    whole = Whole(engine.model, engine.box(None), 0, np.random.SeedSequence(0))
    with pytest.raises(EngineAway, match="from the engine, found"):
        alibi_overall(worker).effect(whole, "job")


def test_a_greeting_overrides_nothing_and_stays_short(worker, tmp_path):
    """It goes into every answer, and so into the ledger."""
    told = {
        "licence": "MIT",
        "code": "sha256:0",
        "name": "ours",
        "x" * 65: "1",
        "long": "1" * 65,
        "esc": "\x1b[2J",
        "e": "",
    }
    (tmp_path / "hello.json").write_text(msgspec.json.encode(told | {f"n{k}": "1" for k in range(1000)}).decode())
    (first, _) = explained(worker, method="anchors")["explanations"]
    engine = first["engine"]
    assert (engine["name"], engine["licence"], engine["code"][:7]) == ("alibi", "BSL-1.1", "sha256:")
    assert len(engine["code"]) > 40
    assert len(engine) <= 3 + 16
    assert not {"x" * 65, "long", "esc", "e"} & set(engine)


def test_numbers_that_a_column_cannot_hold_are_refused():
    rows = {"n": np.array([1, 2], np.int32), "b": np.array([True, False])}
    coding = pipe_coding.Coding(("n", "b"), {name: values.dtype for name, values in rows.items()}, {})
    assert coding.columns(np.array([[3.0, 1.0]]))["n"].tolist() == [3]
    for wrong in ([np.nan, 1], [np.inf, 1], [1e300, 1], [1, np.nan], [1, 2]):
        with pytest.raises(EngineAway, match=r"expected values of (int32|bool) for"):
            coding.columns(np.array([wrong], float))


@pytest.mark.parametrize("method", ["shap", "anchors"])
def test_what_stands_for_no_category_is_refused(worker, method):
    engine = Engine(models.model(), models.probabilities, Explainer(), methods=alibi_methods(worker))
    request = parse(models.request(models.table(2, 9), method=method), engine.model.features, "r")
    coding = pipe_coding.Coding.of(engine.model, request.columns)
    matrix = coding.matrix(request.columns)
    for wrong in (np.where([False, False, True, False], 99.0, matrix), np.where(True, np.nan, matrix), matrix[:, :2]):
        with pytest.raises(EngineAway, match="from the engine, found"):
            coding.columns(wrong)


def test_rules_of_missing_numbers_are_refused(worker):
    rows = models.table(2, 9)
    rows["age"][1] = np.nan
    engine = Engine(models.model(), lambda c: models.probabilities(models.table(len(c["age"]), 1)), Explainer(),
                    methods=alibi_methods(worker))  # fmt: skip
    with pytest.raises(NotExplainable, match=r"age: .* makes no rules of missing values, found one in the rows"):
        engine.explain(ExplainRequest("r", rows, Parameters(method="anchors")))


def test_an_overview_of_one_row_says_what_it_lacks(worker):
    engine = Engine(models.model(1), models.probabilities, Explainer(), methods=alibi_methods(worker))
    with pytest.raises(NotExplainable, match="needs two background rows, found one"):
        overview(engine, alibi_overall(worker))


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
        ({"engine": "alibi", "acceptLicence": "BSL-1.1", "resources": {"limits": {"memory": "768Mi"}}}, "at least 1Gi"),
        ({"engine": "alibi", "acceptLicence": "BSL-1.1", "resources": {"limits": {"memory": "2Gi"}}}, ""),
        ({"resources": {"limits": {"memory": "512Mi"}}}, ""),
        ({"engine": "captum", "acceptLicence": "BSL-1.1"}, "go together"),
        ({"engine": "alibi", "acceptLicence": "BSL-1.1"}, ""),
        ({}, ""),
    ],
)
def test_the_engine_needs_its_licence_accepted(explainer, told):
    messages = validate(manifest(**explainer))
    assert any(told in one for one in messages) if told else messages == [], messages


@pytest.mark.parametrize(
    ("limit", "memory"), [(None, 2048), ("1Gi", 640), ("2Gi", 1664), ("16Gi", 2048), ("1000M", 569), ("600Mi", 512)]
)
def test_its_memory_is_what_the_container_has_beside_ours(limit, memory):
    given = {"memory": limit} if limit else {}
    assert engine_bounds(Explainer(resources=Resources(limits=given))).memory >> 20 == memory


def test_ours_never_imports_it():
    imported = {name.partition(".")[0] for name in sys.modules}
    assert pipe.__name__ in sys.modules
    assert METHODS
    assert "alibi" not in imported
