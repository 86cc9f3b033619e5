"""The service over ASGI: contract, records, provenance, bad input, jobs."""

import asyncio
import json

import httpx
import numpy as np
import pytest

from governed_serving.blackbox.columns import plain
from governed_serving.blackbox.errors import NotExplainable, PredictorAway
from governed_serving.crypto import DirectoryStore, Kek, Keyring
from governed_serving.explainer.scales import logit
from governed_serving.explainer.service.jobs import ATTEMPTS, Job, JobStore
from governed_serving.explainer.service.live import chosen
from governed_serving.explainer.service.protocol import seed_of
from governed_serving.explainer.service.recorder import ExplanationRecorder
from governed_serving.explainer.service.watch import Counted, Watch
from governed_serving.records import ExplanationRecord
from support.asgi import cut_short
from unit.explainer import models
from unit.explainer.beds import Bed, MemoryJournal, Xor, until

PATH = "/v2/models/loans/explain"


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


async def test_answer_has_contract_fields_and_is_what_the_journal_holds(bed):
    body = models.request(models.table(2, 9), "req-7")
    answer = await bed.client.post(PATH, content=body)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["model_name"], found["id"]) == ("loans", "req-7")
    assert set(found["digests"]) == {"model", "background", "code"}
    for row in found["explanations"]:
        assert row["method"] == "exact"
        assert row["target"] == "yes"
        assert abs(row["additivity_residual"]) < 1e-12
        total = row["base_value"] + sum(entry["attribution"] for entry in row["attributions"])
        assert total == pytest.approx(row["prediction"], abs=1e-12)
        assert [entry["feature"] for entry in row["attributions"]] == ["age", "income", "job", "sex"]
        assert row["fidelity"]["insertion"] >= row["fidelity"]["deletion"]
    (record,) = bed.journal.records
    assert isinstance(record, ExplanationRecord)
    assert record.body == answer.content
    assert record.id == "req-7"


@pytest.mark.parametrize("method", ["shap", "exact", "sampled", "permutation", "lime", "anchors", "counterfactual"])
async def test_same_id_replays_to_the_same_bits(tmp_path, method):
    body = models.request(models.table(1, 9), "req-8", method=method, max_evaluations=400)
    first = await Bed(tmp_path / "a").client.post(PATH, content=body)
    second = await Bed(tmp_path / "b").client.post(PATH, content=body)
    assert first.status_code == 200
    assert first.content == second.content


async def test_seed_comes_from_the_id_unless_given(bed):
    def lime(request_id, **more):
        return models.request(models.table(1, 9), request_id, method="lime", max_evaluations=300, **more)

    one, two, same = [
        await bed.client.post(PATH, content=lime(i, **m)) for i, m in (("a", {}), ("b", {}), ("b", {"seed": None}))
    ]
    assert one.json()["explanations"][0]["attributions"] != two.json()["explanations"][0]["attributions"]
    assert two.content == same.content
    given = await bed.client.post(PATH, content=lime("b", seed=one.json()["explanations"][0]["seed"]))
    assert given.json()["explanations"][0]["attributions"] == one.json()["explanations"][0]["attributions"]


@pytest.mark.parametrize("request_id", [*"abcdefgh", "0" * 128])
def test_a_derived_seed_is_a_number_that_every_json_reader_keeps(request_id):
    seed = seed_of(request_id)
    assert int(float(seed)) == seed


def test_a_share_of_requests_is_chosen_whatever_their_ids():
    ids = [f"request-{number}" for number in range(4000)]
    assert [sum(chosen(one, share) for one in ids) / 4000 for share in (0, 1)] == [0, 1]
    assert 0.22 < sum(chosen(one, 0.25) for one in ids) / 4000 < 0.28


async def test_budget_gives_the_best_answer_so_far_with_its_error(tmp_path):
    ticks = iter(np.arange(0, 1e4, 0.004))
    bed = Bed(tmp_path)
    bed.engine._clock = lambda: float(next(ticks))
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9), budget_ms=60_000))
    row = answer.json()["explanations"][0]
    assert row["method"] == "sampled"
    assert row["exact"]
    assert row["stopped"] == "complete"


@pytest.mark.parametrize("method", ["shap", "exact", "sampled", "permutation", "lime", "anchors", "counterfactual"])
async def test_a_budget_too_small_for_anything_still_gives_what_is_known(tmp_path, method):
    ticks = iter(np.arange(0, 1e4, 1.0))
    bed = Bed(tmp_path)
    bed.engine._clock = lambda: float(next(ticks))
    rows = models.table(2, 9)
    answer = await bed.client.post(PATH, content=models.request(rows, budget_ms=1, method=method))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    truth = models.probabilities(rows)
    assert found["evaluations"] <= 2 + 40 + 2 * 64  # the rows, the background, and at most one first step of each row
    for row, expected in zip(found["explanations"], truth, strict=True):
        assert row["stopped"] == "budget"
        if method == "anchors":
            assert (row["anchor"], row["interval"], row["certified"]) == ([], [0.0, 1.0], False)
        elif method == "counterfactual":
            assert (row["counterfactuals"], row["already"]) == ([], bool(expected[0] < expected[1]) and row["already"])
        else:
            assert not row["exact"]
            assert row["prediction"] == pytest.approx(expected[1])
            assert {tuple(one["interval"]) for one in row["attributions"]} == {(None, None)}


def _without(name):
    columns = models.table(1, 9)
    del columns[name]
    return models.request(columns)


BAD = {
    "no JSON": (b"{", "expected a V2 inference request"),
    "a feature is missing": (_without("job"), "expected feature 'job'"),
    "an unknown feature": (models.request({**models.table(1, 9), "shoe": np.ones(1, np.float32)}), "no feature 'shoe'"),
    "NaN": (
        models.request({**models.table(1, 9), "age": np.array([None])}).replace(
            b'"BYTES", "data": [null]', b'"FP32", "data": [null]'
        ),
        "age",
    ),
    "text where a number is due": (
        models.request({**models.table(1, 9), "age": models.strings(["x"])}),
        "age: expected a number",
    ),
    "a number where text is due": (
        models.request({**models.table(1, 9), "job": np.ones(1, np.float32)}),
        "job: expected BYTES",
    ),
    "an unknown method": (
        models.request(models.table(1, 9), method="magic"),
        "parameters.method: expected one of anchors",
    ),
    "an unknown parameter": (models.request(models.table(1, 9), speed=9), "speed"),
    "a wrong target": (models.request(models.table(1, 9), target="maybe"), "expected one of no, yes"),
    "a wrong group": (models.request(models.table(1, 9), groups={"g": ["hat"]}), "no feature 'hat'"),
    "too few evaluations": (models.request(models.table(1, 9), max_evaluations=1), "maxEvaluations"),
    "a forbidden webhook": (models.request(models.table(1, 9), webhook="http://hooks.example.evil/x"), ""),
}


@pytest.mark.parametrize("case", [name for name in BAD if "webhook" not in name])
async def test_bad_input_is_400_and_leaves_no_record(bed, case):
    body, expected = BAD[case]
    answer = await bed.client.post(PATH, content=body)
    assert answer.status_code == 400, answer.text
    assert expected in answer.json()["error"]
    assert bed.journal.records == []


async def test_journal_full_is_503_and_nothing_goes_out(bed):
    bed.journal.full = True
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9)))
    assert answer.status_code == 503
    assert "attributions" not in answer.text


async def test_model_that_answers_nan_is_502(tmp_path):
    bed = Bed(tmp_path, lambda columns: np.full((len(columns["age"]), 2), np.nan))
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9)))
    assert answer.status_code == 502


async def test_predictor_away_is_503(tmp_path):
    def away(_):
        raise PredictorAway("expected the model server")

    answer = await Bed(tmp_path, away).client.post(PATH, content=models.request(models.table(1, 9)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_more_than_the_lane_holds_is_503(tmp_path):
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(columns):
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        return models.probabilities(columns)

    bed = Bed(tmp_path, slow)
    calls = [
        asyncio.create_task(bed.client.post(PATH, content=models.request(models.table(1, 9), f"r{i}")))
        for i in range(3)
    ]
    await until(lambda: bed.lane.inside == 3)
    refused = await bed.client.post(PATH, content=models.request(models.table(1, 9), "late"))
    gate.set()
    assert refused.status_code == 503
    assert [call.status_code for call in await asyncio.gather(*calls)] == [200, 200, 200]


async def test_job_is_accepted_computed_and_delivered(bed):
    body = models.request(models.table(1, 9), "job-1", webhook="http://hooks.example/done")
    accepted = await bed.client.post("/v2/models/loans/explanations", content=body)
    assert accepted.status_code == 202
    location = accepted.headers["location"]
    assert (await bed.client.get(location)).json()["status"] == "queued"
    runners = [asyncio.create_task(run()) for run in (bed.jobs.run, bed.jobs.run_deliveries)]
    await until(lambda: bed.delivered)
    for runner in runners:
        runner.cancel()
    done = (await bed.client.get(location)).json()
    assert done["status"] == "done"
    assert done["result"]["id"] == "job-1"
    assert json.loads(bed.delivered[0][1])["result"] == done["result"]
    assert bed.journal.records[0].id == "job-1"


async def test_jobs_survive_a_restart_and_lie_sealed(tmp_path):
    first = Bed(tmp_path)
    for i in range(3):
        answer = await first.client.post(
            "/v2/models/loans/explanations", content=models.request(models.table(1, 9), f"job-{i}")
        )
        assert answer.status_code == 202
    full = await first.client.post("/v2/models/loans/explanations", content=models.request(models.table(1, 9), "job-3"))
    assert full.status_code == 503
    assert not any(b"nurse" in p.read_bytes() or b"inputs" in p.read_bytes() for p in tmp_path.iterdir())
    second = Bed(tmp_path)
    assert second.jobs.restored == 3
    runner = asyncio.create_task(second.jobs.run())
    await until(lambda: len(second.journal.records) == 3)
    runner.cancel()
    assert [record.id for record in second.journal.records] == ["job-0", "job-1", "job-2"]


async def test_job_retries_while_the_predictor_is_away_then_fails(tmp_path):
    calls = []

    def away(_):
        calls.append(1)
        raise PredictorAway("expected the model server")

    bed = Bed(tmp_path, away)
    bed.jobs.submit("j", models.request(models.table(1, 9), "j"), "")
    runner = asyncio.create_task(bed.jobs.run())
    await until(lambda: bed.jobs.get("j").status == "failed")
    runner.cancel()
    assert len(calls) == ATTEMPTS
    assert len(bed.pauses) == ATTEMPTS - 1


async def test_job_with_a_bad_request_fails_at_submission(bed):
    body, _ = BAD["a forbidden webhook"]
    answer = await bed.client.post("/v2/models/loans/explanations", content=body)
    assert answer.status_code == 400
    assert "webhook" in answer.json()["error"]


async def test_unknown_job_and_model_are_named(bed):
    assert (await bed.client.get("/v2/models/loans/explanations/none")).status_code == 404
    other = await bed.client.post("/v2/models/other/explain", content=models.request(models.table(1, 9)))
    assert "expected model 'loans'" in other.json()["error"]


def test_job_store_removes_what_a_crash_left(tmp_path):
    (tmp_path / "x.partial").write_bytes(b"half")
    assert JobStore(tmp_path, Xor()).all() == []
    assert list(tmp_path.iterdir()) == []


DAMAGE = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "one bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "sealed nonsense": lambda _: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_job_costs_that_job_alone(tmp_path, damage):
    keyset = Keyring(Kek(bytes(32)), DirectoryStore(tmp_path / "keysets")).keyset("journal")
    told = []
    store = JobStore(tmp_path, keyset, log=lambda *_, **more: told.append(more))
    for n in range(3):
        store.save(Job(f"j{n}", b"{}", float(n)))
    path = store._path("j1")
    data = DAMAGE[damage](path.read_bytes())
    path.write_bytes(keyset.seal(b"\xc1", path.name.encode()) if data is None else data)
    again = JobStore(tmp_path, keyset, log=lambda *_, **more: told.append(more))
    assert [job.id for job in again.all()] == ["j0", "j2"]
    assert (again.unreadable, len(told)) == (1, 1)
    assert path.with_name(path.name + ".damaged").exists(), "kept to be looked at"
    assert again.load("j1") is None, "asked for: unknown, and can be asked for anew"
    assert [job.id for job in JobStore(tmp_path, keyset).all()] == ["j0", "j2"], "and told once"


async def test_probes_and_metrics(bed):
    assert (await bed.client.get("/healthz/live")).status_code == 200
    assert (await bed.client.get("/healthz/ready")).status_code == 200
    await bed.client.post(PATH, content=models.request(models.table(1, 9)))
    text = (await bed.client.get("/metrics")).text
    assert (
        'governed_explainer_requests_total{method="shap",model_name="loans",namespace="default",status="200"} 1.0'
        in text
    )


async def test_protected_attribute_never_changes_in_a_counterfactual(bed):
    body = models.request(models.table(12, 3), method="counterfactual")
    answer: httpx.Response = await bed.client.post(PATH, content=body)
    rows = answer.json()["explanations"]
    found = [one for row in rows for one in row["counterfactuals"]]
    assert found
    assert all(change["feature"] != "sex" for one in found for change in one["changes"])
    assert all(one["prediction"] >= 0.5 for one in found)


async def test_overview_is_computed_once_and_recorded(bed):
    first, second = await asyncio.gather(*(bed.client.get("/v2/models/loans/overview") for _ in range(2)))
    assert first.status_code == 200
    assert first.content == second.content
    (record,) = bed.journal.records
    assert record.body == first.content
    found = first.json()
    assert {one["player"] for one in found["permutation_importance"]} == {"age", "income", "job", "sex"}
    assert {one["feature"]: one["kind"] for one in found["effects"]}["job"] == "partial dependence"
    assert found["mean_absolute_attribution"][0]["player"] in ("age", "job")
    assert sum(rule["rows"] for rule in found["surrogate"]["rules"]) == 27


async def test_stability_compares_halves_of_the_background(bed):
    row = (await bed.client.post(PATH, content=models.request(models.table(1, 9)))).json()["explanations"][0]
    assert -1 <= row["stability"] <= 1


@pytest.mark.parametrize("path", [PATH, "/v2/models/loans/explanations"])
async def test_a_client_that_goes_in_the_middle_of_a_body_is_refused_not_a_traceback(bed, path):
    app = bed.client._transport.app
    assert await cut_short(app, "POST", path, (), models.request(models.table(1, 9))) == [400]
    assert bed.journal.records == []


def saturated(columns):
    """Softmax of margins so far apart that the likelier class rounds to 1 in single precision."""
    margin = 30 + 10 * (np.asarray(columns["age"], float) - 45) / 20 + 5 * (np.asarray(columns["sex"]) == "male")
    odds = np.stack([np.exp(-margin), np.ones_like(margin)], axis=1)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("method", ["shap", "exact", "sampled", "permutation"])
async def test_the_logit_scale_tells_what_saturated_probabilities_hide(tmp_path, method):
    bed, rows = Bed(tmp_path, saturated), models.table(2, 9)
    plain = await bed.client.post(PATH, content=models.request(rows, method=method))
    answer = await bed.client.post(PATH, content=models.request(rows, method=method, scale="logit"))
    assert answer.json()["parameters"]["scale"] == "logit"
    odds, background = (logit(saturated(c).astype(float))[:, 1] for c in (rows, bed.engine.model.background))
    for flat, row, expected in zip(plain.json()["explanations"], answer.json()["explanations"], odds, strict=True):
        assert "scale" not in flat
        assert max(abs(one["attribution"]) for one in flat["attributions"]) < 1e-6
        assert row["scale"] == "logit"
        assert row["prediction"] == pytest.approx(expected)
        assert row["base_value"] == pytest.approx(background.mean())
        assert abs(row["additivity_residual"]) < 1e-9
        found = {one["feature"]: one["attribution"] for one in row["attributions"]}
        assert abs(found["age"]) + abs(found["sex"]) > 0.5
        assert found["job"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"scale": "probit"}, "parameters.scale: expected output or logit, found 'probit'"),
        ({"scale": "logit", "method": "anchors"}, "anchors attributes nothing"),
        ({"scale": "logit", "method": "counterfactual"}, "counterfactual attributes nothing"),
    ],
)
async def test_a_scale_that_cannot_be_is_refused(bed, asked, expected):
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9), **asked))
    assert answer.status_code == 400
    assert expected in answer.json()["error"]


@pytest.mark.parametrize("method", ["shap", "exact"])
async def test_an_exact_row_has_the_same_bits_in_any_batch(bed, method):
    rows = models.table(7, 9)

    async def explained(index):
        part = {name: values[index] for name, values in rows.items()}
        answer = await bed.client.post(PATH, content=models.request(part, method=method))
        return [[one["attribution"] for one in row["attributions"]] for row in answer.json()["explanations"]]

    together = await explained(np.arange(7))
    assert await explained(np.arange(6, -1, -1)) == together[::-1]
    for index in range(7):
        assert await explained([index]) == [together[index]]


def beside_others(columns):
    """As a model whose scale is taken over the batch: a row's answer depends on the rows beside it."""
    incomes = np.asarray(columns["income"], float)
    p = 1 / (1 + np.exp(-(incomes - incomes.mean()) / 10))
    return np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize("method", ["shap", "exact", "sampled", "permutation"])
async def test_nothing_is_called_exact_where_answers_depend_on_their_neighbours(tmp_path, method):
    answer = await Bed(tmp_path, beside_others).client.post(
        PATH, content=models.request(models.table(2, 9), method=method)
    )
    for row in answer.json()["explanations"]:
        assert row["batch_dependence"] > 1e-3
        assert not row["exact"]
        assert {tuple(one["interval"]) for one in row["attributions"]} == {(None, None)}


@pytest.mark.parametrize("asked", [4, 5, 16, 30])
@pytest.mark.parametrize("method", ["shap", "sampled", "permutation", "anchors", "counterfactual", "lime"])
async def test_max_evaluations_binds_every_method(bed, method, asked):
    answer = await bed.client.post(
        PATH, content=models.request(models.table(1, 9), method=method, max_evaluations=asked)
    )
    assert answer.status_code == 200, answer.text
    row = answer.json()["explanations"][0]
    of_a_row = method in ("anchors", "counterfactual", "lime")
    assert row["evaluations"] <= (asked if of_a_row else asked * 40 + 41)  # each coalition meets 40 background rows
    assert of_a_row or row["method"] == "exact" or row["coalitions"] <= asked


async def test_what_is_no_attribution_moves_no_importances(tmp_path):
    ticks = iter(np.arange(0, 1e4, 1.0))
    bed = Bed(tmp_path)
    bed.engine._clock = lambda: float(next(ticks))
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9), budget_ms=1))
    journal = MemoryJournal()
    watch = Watch(
        ("age", "income", "job", "sex"), ExplanationRecorder(journal, "loans", "r1"), bed.metrics, tmp_path, Xor()
    )
    await watch.observe(answer.json())
    assert watch.monitor.report()["reference"]["samples"] == 0


HIERARCHY = {"person": ["age", "sex"], "money": ["income", "job"]}


@pytest.mark.parametrize(
    ("counted", "asked", "samples"),
    [
        (Counted(), {}, 1),
        (Counted(), {"scale": "logit"}, 0),
        (Counted("logit"), {"scale": "logit"}, 1),
        (Counted("logit"), {}, 0),
        (Counted(), {"method": "sampled"}, 1),
        (Counted(), {"method": "lime"}, 0),
        (Counted(), {"hierarchy": HIERARCHY}, 0),
        (Counted(owen=HIERARCHY), {"hierarchy": HIERARCHY}, 1),
        (Counted(owen=HIERARCHY), {}, 0),
    ],
    ids=range(9),
)
async def test_importances_count_attributions_of_one_kind_and_say_which(tmp_path, counted, asked, samples):
    bed, journal = Bed(tmp_path), MemoryJournal()
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 9), max_evaluations=400, **asked))
    names = ("age", "income", "job", "sex")
    watch = Watch(names, ExplanationRecorder(journal, "loans", "r1"), bed.metrics, tmp_path, Xor(), counted=counted)
    await watch.observe(answer.json())
    found = watch.importances()
    assert (found["reference"]["samples"], found["left_out"]) == (samples, 1 - samples)
    assert found["unit"].startswith("mean share")
    assert (found["scale"], found["values"]) == (counted.scale, "Owen" if counted.owen else "Shapley")
    other = await bed.client.post(PATH, content=models.request(models.table(1, 9), "q", method="anchors"))
    await watch.observe(other.json())
    assert watch.left_out == 1 - samples, "a rule is no attribution that was left out"


async def test_an_overview_says_the_unit_of_each_figure(tmp_path):
    plain, logit = Bed(tmp_path / "a"), Bed(tmp_path / "b", config={"scale": "logit"})
    one, other = [(await bed.client.get("/v2/models/loans/overview")).json() for bed in (plain, logit)]
    figures = {
        "mean_absolute_attribution",
        "permutation_importance",
        "mean_absolute_interaction",
        "effects",
        "surrogate",
    }
    assert set(one["units"]) == figures & one.keys()
    assert set(one["units"].values()) == {"output"}
    assert {k for k, unit in other["units"].items() if unit == "log-odds"} >= {"mean_absolute_attribution"}
    assert one["permutation_importance"] == other["permutation_importance"]
    assert one["mean_absolute_attribution"] != other["mean_absolute_attribution"]


# ---- what the manifest declares ----


DECLARED = [
    {"hierarchy": HIERARCHY},
    {"interactions": 3},
    {"scale": "logit"},
    {"confidence": 0.8},
    {"precision": 0.5},
]


@pytest.mark.parametrize("config", DECLARED, ids=[next(iter(c)) for c in DECLARED])
async def test_what_the_manifest_declares_is_what_a_request_would_ask_and_is_replayed(tmp_path, config):
    def content(**asked):
        return models.request(models.table(1, 9), "r-1", **{"maxEvaluations": 64, **asked})

    name, value = next(iter(config.items()))
    method = {"method": "sampled"} if name in ("confidence", "precision") else {}
    declaring, plain = Bed(tmp_path / "a", config=config), Bed(tmp_path / "b")
    declared = (await declaring.client.post(PATH, content=content(**method))).json()
    asked = (await plain.client.post(PATH, content=content(**method, **config))).json()
    assert declared == asked
    assert declared["parameters"][name] == value, "in the ledger"
    replayed = (await plain.client.post(PATH, content=content(**declared["parameters"]))).json()
    assert replayed == declared
    other = {"hierarchy": {}, "interactions": False, "scale": "output", "confidence": 0.99, "precision": 1.0}[name]
    own = (await declaring.client.post(PATH, content=content(**method, **{name: other}))).json()
    alone = (await plain.client.post(PATH, content=content(**method, **{name: other}))).json()
    assert own["explanations"] == alone["explanations"], "a request may ask otherwise"


@pytest.mark.parametrize("config", DECLARED, ids=[next(iter(c)) for c in DECLARED])
@pytest.mark.parametrize(
    "asked",
    [{"method": m} for m in ("lime", "anchors", "counterfactual", "exact", "owen")]
    + [{"interactions": True}, {"groups": {"both": ["age", "sex"]}}, {"scale": "logit"}],
    ids=str,
)
async def test_a_declaration_hinders_no_request_that_has_no_use_for_it(tmp_path, config, asked):
    content = models.request(models.table(1, 9), "r-1", max_evaluations=64, **asked)
    answers = [
        await Bed(tmp_path / str(i), config=c).client.post(PATH, content=content) for i, c in enumerate((config, {}))
    ]
    needs = asked == {"method": "owen"} and "hierarchy" in config
    assert answers[0].status_code == (200 if needs else answers[1].status_code), answers[0].text


CONSTRAINTS = {"immutable": ["job"], "direction": {"age": "increase"}, "step": {"income": 5.0}}


@pytest.mark.parametrize("declared", [CONSTRAINTS, {}], ids=["manifest", "request"])
async def test_counterfactuals_keep_to_what_was_declared(tmp_path, declared):
    bed, rows = Bed(tmp_path, config=declared), models.table(12, 5)
    asked = {} if declared else CONSTRAINTS
    answer = await bed.client.post(PATH, content=models.request(rows, method="counterfactual", **asked))
    assert answer.status_code == 200, answer.text
    changed = [c for e in answer.json()["explanations"] for one in e["counterfactuals"] for c in one["changes"]]
    assert {c["feature"] for c in changed} == {"age", "income"}
    assert answer.json()["explanations"][0]["immutable"] == ["sex", "job"]
    for change in changed:
        if change["feature"] == "age":
            assert change["to"] > change["from"]
        else:
            steps = (change["to"] - change["from"]) / 5
            assert abs(steps - round(steps)) < 1e-4
            assert round(steps) != 0
    assert answer.json()["parameters"]["direction"] == {"age": "increase"}


@pytest.mark.parametrize(
    ("config", "asked", "why"),
    [
        ({"direction": {"age": "increase"}}, {"direction": {"age": "decrease"}}, "the manifest has another one"),
        ({"step": {"income": 5.0}}, {"step": {"income": 1}}, "the manifest has another one"),
        ({}, {"direction": {"job": "increase"}}, "expected numeric features"),
        ({}, {"step": {"wealth": 1}}, "expected numeric features"),
        ({}, {"step": {"age": 0}}, "above 0"),
        ({}, {"step": {"age": -1.5}}, "above 0"),
        ({}, {"direction": {"age": "up"}}, "direction"),
        ({}, {"immutable": ["wealth"]}, "no feature 'wealth'"),
        ({}, {"immutable": ["age", "income", "job"]}, "no feature may change"),
    ],
    ids=range(9),
)
async def test_constraints_that_bind_or_name_nothing_are_refused(tmp_path, config, asked, why):
    bed = Bed(tmp_path, config=config)
    answer = await bed.client.post(PATH, content=models.request(models.table(1, 5), method="counterfactual", **asked))
    assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    "config",
    [
        {"hierarchy": {"person": ["age", "wealth"]}},
        {"hierarchy": {"a": ["b"], "b": ["a"]}},
        {"hierarchy": {"age": ["income"]}},
        {"immutable": ["wealth"]},
        {"direction": {"job": "increase"}},
        {"step": {"wealth": 1.0}},
    ],
    ids=range(6),
)
def test_an_explainer_does_not_start_with_what_its_model_does_not_have(tmp_path, config):
    with pytest.raises(NotExplainable):
        Bed(tmp_path, config=config).engine.check()
    Bed(tmp_path, config={"hierarchy": HIERARCHY} | CONSTRAINTS).engine.check()


@pytest.mark.parametrize("value", [0.85, 0.1, 1 / 3, 1e-45, 3.4e38, 16777217.0, -0.0, 5e-324])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_cell_is_told_as_the_shortest_number_that_reads_back_as_the_same(dtype, value):
    with np.errstate(over="ignore"):
        cell = dtype(value)
    told = plain(cell)
    if not np.isfinite(cell):
        assert told is None
        return
    with np.errstate(over="ignore"):
        assert dtype(told) == cell
    assert len(repr(told)) <= len(repr(float(cell)))
    assert dtype is not np.float32 or value != 0.85 or told == 0.85


async def test_former_names_of_options_are_taken_and_told_by_todays(bed):
    rows = models.table(1, 9)
    former = models.request(rows, method="sampled", max_evaluations=64, budget_ms=60_000)
    now = models.request(rows, method="sampled", maxEvaluations=64, budgetMilliseconds=60_000)
    answers = [await bed.client.post(PATH, content=body) for body in (former, now)]
    assert answers[0].json()["parameters"] == answers[1].json()["parameters"]
    assert answers[0].json()["parameters"]["maxEvaluations"] == 64
    both = await bed.client.post(PATH, content=models.request(rows, budget_ms=5, budgetMilliseconds=5))
    assert both.status_code == 400
    assert "budgetMilliseconds: expected once, found budget_ms too" in both.json()["error"]


@pytest.mark.parametrize("width", [0, -1, "wide"])
async def test_lime_has_a_width_of_the_request_or_a_refusal(bed, width):
    rows = models.table(1, 9)
    wide, narrow = [
        (await bed.client.post(PATH, content=models.request(rows, method="lime", kernelWidth=asked))).json()
        for asked in (5.0, 0.3)
    ]
    assert wide["explanations"] != narrow["explanations"]
    refused = await bed.client.post(PATH, content=models.request(rows, method="lime", kernelWidth=width))
    assert (refused.status_code, "kernelWidth" in refused.text) == (400, True), refused.text
