"""The routes, through ASGI without a socket: paths, status codes, error bodies, headers, the OpenAPI page."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from governed_api.governance import Limit, Quota
from governed_api.routes import ASSETS
from governed_serving.journal.errors import JournalFull
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.internal import MAX_OPEN, InternalApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.explainer_client import ExplainerClient
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import LocalQuota
from governed_serving.server.rows import Rows
from support.asgi import cut_short
from unit.server.planes import MemoryJournal, plane, predictor, until
from unit.server.tabular_model import CATEGORIES, NUMBERS, ROW, v2_body

INFER = "/v2/models/credit/infer"


def gateway(**options: Any) -> Gateway:
    made = Gateway("credit", why="")
    data = plane(**options)
    made.service = HttpService(data, V2Codec(data.signature, "credit", "r1"))
    return made


def client(made: Gateway, *, max_body: int = 1 << 20) -> httpx.AsyncClient:
    app: Any = FastPathApp(made, application(made), max_body)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(gateway(journal=MemoryJournal())) as made:
        yield made


async def test_infer_hot_and_versioned_agree(http: httpx.AsyncClient) -> None:
    hot = await http.post(INFER, json=v2_body(2, identity="a"))
    cold = await http.post("/v2/models/credit/versions/r1/infer", json=v2_body(2, identity="a"))
    assert hot.status_code == cold.status_code == 200
    same = ("model_name", "model_version", "id", "outputs")
    assert [hot.json()[k] for k in same] == [cold.json()[k] for k in same]
    assert hot.headers["x-request-id"] == cold.headers["x-request-id"] == "a"
    ours = {"prediction_id": hot.headers["x-prediction-id"]}
    assert hot.json()["parameters"] == {"revision": "r1", "ledger": "pending"} | ours
    assert [o["shape"] for o in hot.json()["outputs"]] == [[2, 2], [2]]


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        (INFER, "infer"),
        ("/v2/models/credit/versions/r1/infer", "infer"),
        ("/v2/models/credit/explain", "explain"),
        ("/v1/models/credit:predict", "predict"),
        ("/v1/models/credit:explain", "explain"),
        ("/invocations", "predict"),
        ("/v1/embeddings", "embeddings"),  # of which this model has none, which is said then
    ],
)
async def test_beyond_capacity_a_refusal_comes_before_the_body_is_decoded(
    path: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that costs as much as an answer leaves no capacity for answers."""
    made = gateway(journal=MemoryJournal(), timeout=10)
    assert made.service is not None
    monkeypatch.setattr(made.service.plane.pipeline.backlog, "seconds", lambda: 8.4)
    async with client(made) as http:
        answer = await http.post(path, content=b"no JSON")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "4")
        assert "found what waits to take about 8 s" in answer.text
        monkeypatch.setattr(made.service.plane.pipeline.backlog, "seconds", lambda: 5.0)
        wrong = 404 if verb == "embeddings" else 400
        assert (await http.post(path, content=b"no JSON")).status_code == wrong
    requests = made.service.plane.metrics.requests
    assert (requests[verb, 503], requests[verb, wrong]) == (1, 1)


async def test_an_id_is_made_and_returned(http: httpx.AsyncClient) -> None:
    answer = await http.post(INFER, json=v2_body())
    assert answer.json()["id"] == answer.headers["x-request-id"] == answer.headers["x-prediction-id"]
    assert answer.json()["parameters"] == {"revision": "r1", "ledger": "pending"}
    assert len(answer.json()["id"]) == 36


async def test_an_id_cant_inject_headers(http: httpx.AsyncClient) -> None:
    answer = await http.post(INFER, json=v2_body(identity="a\r\nx-evil: 1"))
    assert answer.status_code == 400
    assert "x-evil" not in answer.headers
    answer = await http.post(INFER, json=v2_body(identity="请求 1"))
    assert answer.json()["id"] == "请求 1"
    assert answer.headers["x-request-id"] == "?? 1"


async def test_binary_in_and_out(http: httpx.AsyncClient) -> None:
    raw = np.array([8200.0], np.float32).tobytes()
    message = v2_body()
    del message["inputs"][0]["data"]
    message["inputs"][0]["parameters"] = {"binary_data_size": 4}
    message["parameters"] = {"binary_data_output": True}
    head = json.dumps(message).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"}
    answer = await http.post(INFER, content=head + raw, headers=headers)
    size = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:size])["outputs"]
    scores = np.frombuffer(answer.content[size : size + 8], np.float32)
    plain = (await http.post(INFER, json=v2_body())).json()
    assert scores.tolist() == pytest.approx(plain["outputs"][0]["data"])
    assert outputs[1]["parameters"]["binary_data_size"] == 4 + len(plain["outputs"][1]["data"][0])


async def test_v1_by_name_and_by_position(http: httpx.AsyncClient) -> None:
    named = await http.post("/v1/models/credit:predict", json={"instances": [ROW, ROW]})
    placed = await http.post("/v1/models/credit:predict", json={"instances": [list(ROW.values())]})
    assert named.status_code == placed.status_code == 200
    assert named.json()["predictions"] == placed.json()["predictions"] * 2
    assert len(named.json()["probabilities"][0]) == 2


V1_ERRORS = {
    "no rows": ({"instances": []}, "at least one row"),
    "missing feature": ({"instances": [{k: v for k, v in ROW.items() if k != "age"}]}, "expected feature 'age'"),
    "unknown feature": ({"instances": [ROW | {"salary": 1}]}, "instances[0].salary"),
    "too few values": ({"instances": [[1, 2]]}, "expected 12 values"),
    "wrong type": ({"instances": [ROW | {"age": "old"}]}, "'age': expected FP32 numbers, found a string"),
    "not instances": ({"inputs": []}, "instances"),
}


@pytest.mark.parametrize("name", V1_ERRORS)
async def test_v1_errors(http: httpx.AsyncClient, name: str) -> None:
    body, words = V1_ERRORS[name]
    answer = await http.post("/v1/models/credit:predict", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


VALUES = list(ROW.values())
MLFLOW: dict[str, dict[str, Any]] = {
    "split": {"dataframe_split": {"columns": list(ROW)[::-1], "index": [7, 9], "data": [VALUES[::-1]] * 2}},
    "split without names": {"dataframe_split": {"data": [VALUES] * 2}},
    "split by numbers": {"dataframe_split": {"columns": list(range(len(VALUES))), "data": [VALUES] * 2}},
    "records": {"dataframe_records": [ROW, ROW]},
    "instances": {"instances": [ROW, VALUES], "params": {"gender": "f"}},
    "inputs by column": {"inputs": {name: [value, value] for name, value in ROW.items()}},
    "inputs as columns of one": {"inputs": {name: [[value], [value]] for name, value in ROW.items()}},
    "inputs as rows": {"inputs": [VALUES, ROW], "params": None},
}


@pytest.mark.parametrize("form", MLFLOW)
async def test_mlflow_s_forms_are_answered_as_v1_is(http: httpx.AsyncClient, form: str) -> None:
    expected = (await http.post("/v1/models/credit:predict", json={"instances": [ROW, ROW]})).json()
    answer = await http.post("/invocations", json=MLFLOW[form], headers={"X-Request-Id": "mine"})
    assert answer.status_code == 200, answer.text
    assert {**answer.json(), "id": ""} == {**expected, "id": ""}
    assert answer.headers["x-request-id"] == "mine"


async def test_what_mlflow_asks_is_governed() -> None:
    journal = MemoryJournal()
    quota = LocalQuota(Quota(requests=[Limit(limit=1, window="1m")]), "k")
    async with client(gateway(journal=journal, quota=quota)) as limited:
        first = await limited.post("/invocations", json=MLFLOW["records"])
        second = await limited.post("/invocations", json=MLFLOW["records"])
    assert (first.status_code, second.status_code) == (200, 429)
    assert journal.ids == [first.json()["id"]]


MLFLOW_ERRORS: dict[str, tuple[Any, str]] = {
    "nothing": (
        {},
        "expected one of dataframe_split, dataframe_records, instances, inputs in an MLflow request, found none",
    ),
    "two forms": ({"instances": [ROW], "inputs": [ROW]}, "found instances and inputs"),
    "a list": ([ROW], "an MLflow request"),
    "no rows": ({"dataframe_records": []}, "dataframe_records: expected at least one row"),
    "no columns": ({"inputs": {}}, "inputs: expected at least one row"),
    "unknown": ({"dataframe_records": [ROW, ROW | {"salary": 1}]}, "dataframe_records[1].salary: expected one of"),
    "missing": ({"inputs": {"age": [1]}}, "inputs[0]: expected feature"),
    "ragged": ({"inputs": {"age": [1], "job": [1, 2]}}, "inputs.job: expected 1 values as in the others, found 2"),
    "short row": (
        {"dataframe_split": {"columns": ["age"], "data": [[1], []]}},
        "dataframe_split.data[1]: expected a list",
    ),
    "few values": ({"dataframe_split": {"data": [[1]]}}, "dataframe_split.data[0]: expected 12 values"),
    "a name twice": ({"dataframe_split": {"columns": ["age", "age"], "data": []}}, "found 'age' twice"),
    "mixed names": ({"dataframe_split": {"columns": ["age", 1], "data": []}}, "found something else among them"),
    "columns of one name": ({"dataframe_split": {"columns": "age", "data": []}}, "expected a list of names"),
    "no frame": ({"dataframe_split": [[1]]}, 'expected {"columns": [...], "data": [[...]]}'),
    "an object of records": ({"dataframe_records": {"age": [1]}}, "dataframe_records: expected a list of rows"),
    "params": ({"instances": [ROW], "params": [1]}, "params: expected an object"),
    "wrong type": ({"instances": [ROW | {"age": "old"}]}, "'age': expected FP32 numbers, found a string"),
    "a scalar for twelve": ({"inputs": [1, 2]}, "inputs[0]: expected 12 values"),
}


@pytest.mark.parametrize("name", MLFLOW_ERRORS)
async def test_a_wrong_request_of_mlflow_s_says_where(http: httpx.AsyncClient, name: str) -> None:
    body, words = MLFLOW_ERRORS[name]
    answer = await http.post("/invocations", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def test_mlflow_s_ping_says_whether_it_serves(http: httpx.AsyncClient) -> None:
    assert (await http.get("/ping")).status_code == 200
    async with client(Gateway("credit", why="it loads")) as away:
        assert (await away.get("/ping")).status_code == 503


async def test_metadata_and_health(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v2")).json()["extensions"] == ["binary_tensor_data", "explain"]
    assert (await http.get("/v2/models")).json() == {"models": ["credit"]}
    assert (await http.get("/")).json()["openapi"] == "/openapi.json"
    for path in ("/", "/v2", "/v2/models/credit", "/healthz/live", "/metrics"):
        head, got = await http.head(path), await http.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert (await http.head(INFER)).status_code == 405
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/healthz/live",
        "/healthz/ready",
        "/v2/models/credit/ready",
        "/v2/models/credit/versions/r1/ready",
    ):
        assert (await http.get(path)).status_code == 200, path
    metadata = (await http.get("/v2/models/credit")).json()
    assert [i["name"] for i in metadata["inputs"]] == [*NUMBERS, *CATEGORIES]
    assert metadata["inputs"][0] == {"name": "income", "datatype": "FP32", "shape": [-1, 1]}
    assert metadata["versions"] == ["r1"]
    assert (await http.get("/v1/models")).json()["models"] == ["credit"]
    assert (await http.get("/v1/models/credit")).json() == {"name": "credit", "ready": True}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/credit/versions/r9/infer", 404),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v2/models/credit/explain", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/nowhere", 404),
        ("GET", INFER, 405),
    ],
)
async def test_what_is_not_there_is_named(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await http.request(method, path, json=v2_body() if method == "POST" else None)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert "\n" not in answer.json()["error"]


async def test_loading_is_503_everywhere_but_live() -> None:
    async with client(Gateway("credit")) as http:
        assert (await http.get("/healthz/live")).status_code == 200
        for method, path in (
            ("GET", "/healthz/ready"),
            ("GET", "/v2/models/credit/ready"),
            ("GET", "/v2/models/credit"),
            ("POST", INFER),
        ):
            answer = await http.request(method, path, json=v2_body() if method == "POST" else None)
            assert answer.status_code == 503, path
            assert "loaded and verified" in answer.json()["error"]


async def test_body_limit_is_413_with_and_without_length() -> None:
    async with client(gateway(), max_body=500) as http:
        assert (await http.post(INFER, json=v2_body())).status_code == 413

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"x" * 100

        for path in (INFER, "/v2/models/credit/explain"):
            answer = await http.post(path, content=chunks())
            assert answer.status_code == 413
            assert "expected at most 500 bytes" in answer.json()["error"]


async def test_quota_is_429_with_retry_after() -> None:
    quota = LocalQuota(Quota(requests=[Limit(limit=1, window="1m")]), "k")
    async with client(gateway(quota=quota)) as http:
        assert (await http.post(INFER, json=v2_body())).status_code == 200
        refused = await http.post(INFER, json=v2_body())
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"] == f'"requests-1m";r=0;t={refused.headers["retry-after"]}'
        assert refused.headers["ratelimit-policy"] == '"requests-1m";q=1;w=60'
        assert "at most 1 requests in 1m" in refused.json()["error"]
        text = (await http.get("/metrics")).text
    assert (
        'governed_quota_refusals_total{component="server",model_name="credit",name="credit",namespace="default",quota="requests"} 1.0'  # noqa: E501
        in text
    )
    assert 'verb="infer"} 1.0' in text
    assert 'governed_request_duration_seconds_bucket{component="server",le="+Inf"' in text


async def test_full_journal_is_503() -> None:
    journal = MemoryJournal()
    journal.error = JournalFull("4 of 4 bytes are used")
    async with client(gateway(journal=journal)) as http:
        answer = await http.post(INFER, json=v2_body())
    assert answer.status_code == 503
    assert "4 of 4 bytes are used" in answer.json()["error"]
    assert answer.headers["retry-after"] == "5"


async def test_compressed_bodies_are_taken_or_refused_in_words(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(json.dumps(v2_body(2, identity="z")).encode())
    answer = await http.post(INFER, content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "z"
    answer = await http.post(INFER, content=b"x", headers={"content-encoding": "br"})
    assert answer.status_code == 415
    assert "found 'br'" in answer.json()["error"]


async def test_openapi_has_the_hot_routes(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    operation = document["paths"]["/v2/models/{model}/infer"]["post"]
    assert "inputs" in operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"model", "Inference-Header-Content-Length"} <= {p["name"] for p in operation["parameters"]}
    assert "/v2/models/{model}/explain" in document["paths"]


async def test_the_page_of_the_routes_loads_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.status_code == 200
    named = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(named) == 3
    for path in named:
        assert path.startswith(f"{ASSETS}/"), path
        assert (await http.get(path)).status_code == 200
    assert "://" not in re.sub(r"window\.location\.\w+", "", page.text)
    assert (await http.get(f"{ASSETS}/../core.py")).status_code == 404
    assert (await http.get("/redoc")).status_code == 404


def explaining(answer: Any, *, text: bool = False) -> tuple[Gateway, MemoryJournal]:
    journal = MemoryJournal()
    made = gateway(text=text, journal=journal)
    assert made.service is not None
    made.service.plane.pipeline.explainer = ExplainerClient(
        "http://explainer", "credit", timeout=5, transport=httpx.MockTransport(answer)
    )
    return made, journal


async def test_explain_predicts_journals_and_proxies_masked_columns() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"explanations": []})

    made, journal = explaining(answer, text=True)
    async with client(made) as http:
        body = v2_body(text="a secret", identity="e1") | {"parameters": {"method": "shap", "seed": 7}}
        assert (await http.post("/v2/models/credit/explain", json=body)).json() == {"explanations": []}
        v1 = await http.post("/v1/models/credit:explain", json={"instances": [ROW | {"note": "secret"}]})
    assert v1.status_code == 200
    assert journal.called[0] == "e1"
    sent = json.loads(seen[0].content)
    assert (sent["id"], sent["parameters"]) == (journal.ids[0], {"method": "shap", "seed": 7})
    columns = {t["name"]: t["data"] for t in sent["inputs"]}
    assert columns.pop("note") == ["a <MASKED>"]
    assert columns == {k: [np.float32(v).item() if k in NUMBERS else v] for k, v in ROW.items()}
    assert seen[0].url.path == "/v2/models/credit/explain"
    assert seen[0].headers["x-governed-internal"] == "server"


async def test_explainer_away_is_503_naming_it() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    made, journal = explaining(away)
    async with client(made) as http:
        answer = await http.post("/v2/models/credit/explain", json=v2_body(identity="e1"))
    assert answer.status_code == 503
    assert "explainer at http://explainer" in answer.json()["error"]
    assert journal.called == ["e1"]


@pytest.mark.parametrize(
    ("fault", "status"), [(httpx.ReadTimeout, 504), (httpx.WriteTimeout, 504), (httpx.ConnectTimeout, 503)]
)
async def test_an_explainer_that_computes_for_too_long_is_no_explainer_that_is_away(
    fault: type[httpx.TimeoutException], status: int
) -> None:
    """A client that is told 504 may ask for the explanation as a job; `governed run --once` does."""

    def silent(request: httpx.Request) -> httpx.Response:
        raise fault("silence", request=request)

    made, journal = explaining(silent)
    async with client(made) as http:
        answer = await http.post("/v2/models/credit/explain", json=v2_body(identity="e1"))
    assert answer.status_code == status
    assert journal.called == ["e1"]
    assert made.service is not None
    assert made.service.plane.metrics.requests["explain", status] == 1


async def test_the_explainers_own_refusal_passes() -> None:
    made, _ = explaining(lambda _: httpx.Response(400, json={"error": "parameters.method: expected shap"}))
    async with client(made) as http:
        answer = await http.post("/v2/models/credit/explain", json=v2_body())
    assert answer.status_code == 400
    assert "parameters.method" in answer.json()["error"]


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 502, 503, 504])
async def test_each_reason_to_refuse_an_explanation_has_its_status(status: int) -> None:
    made, _ = explaining(lambda _: httpx.Response(status, json={"error": "why"}))
    async with client(made) as http:
        answers = [
            await http.post("/v2/models/credit/explain", json=v2_body()),
            await http.post("/v2/models/credit/explanations", json=v2_body()),
            await http.get("/v2/models/credit/explanations/t"),
            await http.get("/v2/models/credit/quality"),
        ]
    assert [(a.status_code, a.json()) for a in answers] == [(status, {"error": "explainer: why"})] * 4
    assert made.service is not None
    assert made.service.plane.metrics.requests["explain", status] == 2


async def test_later_explanations_are_fetched_by_ticket() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(202, json={"id": "t"})
            if request.method == "POST"
            else httpx.Response(200, json={"path": request.url.path})
        )

    made, _ = explaining(answer)
    async with client(made) as http:
        assert (await http.post("/v2/models/credit/explanations", json=v2_body())).status_code == 202
        assert (await http.get("/v2/models/credit/explanations/t")).json() == {
            "path": "/v2/models/credit/explanations/t"
        }
        assert (await http.get("/v2/models/credit/importances")).json() == {"path": "/v2/models/credit/importances"}


def lane(counted: dict[str, int]) -> Any:
    """The internal lane over a model of the test's process."""
    model = predictor()

    async def compute(columns: Any) -> Any:
        return model.run(columns)

    def count(name: str, number: int) -> None:
        counted[name] = counted.get(name, 0) + number

    rows = Rows(V2Codec(model.signature, "credit", "r1"), model.signature, compute, count)
    return InternalApp(Gateway("credit", why="", rows=rows), 1 << 20, count)


async def test_the_internal_lane() -> None:
    counted: dict[str, int] = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(lane(counted)), base_url="http://lane") as http:
        message = v2_body(5) | {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
        answer = await http.post(INFER, json=message)
        plain = await http.post(INFER, json=v2_body(1))
        other = await http.get("/metrics")
    size = int(answer.headers["inference-header-content-length"])
    scores = np.frombuffer(answer.content[size:], np.float32).reshape(5, 2)
    assert scores.sum(axis=1).tolist() == pytest.approx([1.0] * 5)
    assert plain.json()["outputs"][0]["data"] == pytest.approx(scores[0].tolist(), abs=1e-6)
    assert other.status_code == 404
    assert counted == {"internal_rows": 6}


async def test_the_internal_lane_is_bounded_and_says_when_to_come_again() -> None:
    counted: dict[str, int] = {}
    app = lane(counted)

    async def unended() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lane") as http:
        calls = [asyncio.create_task(http.post(INFER, content=unended())) for _ in range(MAX_OPEN)]
        await until(lambda: app._room.locked())
        answer = await http.post(INFER, json=v2_body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert counted == {"internal_refused": 1}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (await http.post(INFER, json=v2_body())).status_code == 200


@pytest.mark.parametrize("path", [INFER, "/v2/models/credit/versions/r1/infer", "/v2/models/credit/explain"])
@pytest.mark.parametrize("pieces", [(), (b'{"inputs": [',), (b"", b"{")])
async def test_a_client_that_goes_in_the_middle_of_a_body_is_no_fault_of_ours(
    path: str, pieces: tuple[bytes, ...]
) -> None:
    made = gateway()
    app = FastPathApp(made, application(made), 1 << 20)
    assert await cut_short(app, "POST", path, (), *pieces) == [400]
    assert app.room.held == 0


async def test_half_a_body_is_not_computed_on_the_lane() -> None:
    assert await cut_short(lane(lambda *_: None), "POST", INFER, (), json.dumps(v2_body()).encode()) == [400]
