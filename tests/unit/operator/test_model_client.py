"""What the commands' client says of a model that refuses, is late or is away, and how it waits for explanations."""

import json

import httpx
import pytest

from governed_operator.local.client import ModelClient
from governed_operator.local.json_client import ClientError

METADATA = {"inputs": [{"name": "income", "datatype": "FP32", "shape": [-1, 1]}]}
ANSWER = {"explanations": [{"method": "exact"}]}
ROW = {"income": 1.0}


class Service:
    """Answers by path; ``asked``: method and last part of each path. What is raised is raised."""

    def __init__(self, **answers: list[httpx.Response | Exception]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.parameters: list[object] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/models/loans":
            return httpx.Response(200, json=METADATA)
        part = request.url.path.rpartition("/")[2]
        self.asked.append(f"{request.method} {part}")
        if request.method == "POST":
            body = json.loads(request.content)
            assert body["inputs"][0]["data"] == [1.0]
            self.parameters.append(body.get("parameters"))
        left = self.answers[part]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(service: Service) -> ModelClient:
    return ModelClient("http://model", "loans", timeout=5.0, transport=httpx.MockTransport(service))


def told(service: Service) -> ClientError:
    with pytest.raises(ClientError) as raised:
        client(service).explain(ROW, {})
    return raised.value


def job(status: str, **more: object) -> httpx.Response:
    return httpx.Response(200, json={"id": "t1", "status": status, **more})


TICKET = httpx.Response(202, json={"id": "t1", "status": "queued"})
LATE = httpx.ReadTimeout("late")


def test_an_answer_that_is_late_isnt_a_model_that_is_away() -> None:
    late = told(Service(explain=[LATE]))
    assert late.status == 504
    assert "no answer within 5 s; ask again when the machine is less busy" in str(late)
    away = told(Service(explain=[httpx.ConnectError("refused")]))
    assert (away.status, "is the model running there?" in str(away)) == (None, True)


@pytest.mark.parametrize("document", [{"error": "too busy"}, "too busy", ["too busy"]])
def test_a_refusal_is_told_whatever_form_it_has(document: object) -> None:
    refused = told(Service(explain=[httpx.Response(503, json=document)]))
    assert refused.status == 503
    assert "answered 503" in str(refused)
    assert "too busy" in str(refused)


def test_what_isnt_json_is_told() -> None:
    assert "answered 502 and no JSON" in str(told(Service(explain=[httpx.Response(502, text="<html>")])))


@pytest.mark.parametrize("late", [LATE, httpx.Response(504, json={"error": "lower max_evaluations"})])
def test_an_explanation_that_takes_longer_than_a_request_may_is_fetched(late: httpx.Response | Exception) -> None:
    service = Service(explain=[late], explanations=[TICKET], t1=[job("done", result=ANSWER)])
    assert client(service).explain_in_time(ROW, {"seed": 7}) == ANSWER
    assert service.asked == ["POST explain", "POST explanations", "GET t1"]
    assert service.parameters == [{"seed": 7}] * 2


def test_a_request_that_bounds_its_time_itself_is_not_asked_for_longer() -> None:
    service = Service(explain=[httpx.Response(504, json={"error": "no answer within 5 ms"})])
    with pytest.raises(ClientError, match="answered 504"):
        client(service).explain_in_time(ROW, {"budgetMilliseconds": 5})
    assert service.asked == ["POST explain"]


def test_another_refusal_isnt_asked_again() -> None:
    service = Service(explain=[httpx.Response(400, json={"error": "no"})])
    with pytest.raises(ClientError, match="answered 400: no"):
        client(service).explain_in_time(ROW, {"seed": 7})
    assert service.asked == ["POST explain"]


def test_a_job_is_waited_for_until_it_is_done() -> None:
    service = Service(explanations=[TICKET], t1=[job("queued"), job("running"), job("done", result=ANSWER)])
    assert client(service).explain_later(ROW, {}, patience=60.0, every=0.0) == ANSWER
    assert service.asked.count("GET t1") == 3


def test_a_job_that_failed_or_stays_says_so() -> None:
    failed = Service(explanations=[TICKET], t1=[job("failed", error="the model answered NaN")])
    with pytest.raises(ClientError, match="the explanation t1 failed: the model answered NaN"):
        client(failed).explain_later(ROW, {}, patience=60.0)
    stays = Service(explanations=[TICKET], t1=[job("running")])
    with pytest.raises(ClientError, match=r"t1 is still running after 0 s; ask for /v2/models/loans/explanations/t1"):
        client(stays).explain_later(ROW, {}, patience=0.0, every=0.0)
