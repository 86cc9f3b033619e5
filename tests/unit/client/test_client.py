"""The client of a notebook: what it makes of answers, of refusals, and of what no model answers."""

import json
import math
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

import governed
from governed_operator.local import json_client
from governed_operator.local.json_client import JsonClient
from governed_operator.local.workdir import Workdir

METADATA = {
    "inputs": [
        {"name": "income", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "loans", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "purpose", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "married", "datatype": "BOOL", "shape": [-1, 1]},
    ],
    "parameters": {"classes": ["no", "yes"], "coverage": 0.9},
}
ROW = {"income": 1.5, "loans": 2, "purpose": "car", "married": True}
KEY = "gmk_" + "a" * 16 + "_" + "B" * 43
OURS = "019a0000-0000-7000-8000-000000000000"

Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


def answered(rows: int = 1, **more: object) -> httpx.Response:
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [rows, 2], "data": [0.25, 0.75] * rows},
        {"name": "label", "datatype": "BYTES", "shape": [rows], "data": ["yes"] * rows},
        {"name": "prediction_set", "datatype": "BOOL", "shape": [rows, 2], "data": [False, True] * rows},
    ]
    about = {"revision": "r1", "mitigation": "reweighing"}
    headers = {"x-prediction-id": OURS, "x-governed-promise": "e30.e30.AA"}
    return httpx.Response(200, json={"id": "mine", "outputs": outputs, "parameters": about, **more}, headers=headers)


class Model:
    """Answers ``steps`` one after the other, the last one for ever, to whatever isn't metadata."""

    def __init__(self, *steps: Step, metadata: object = None) -> None:
        self.steps, self.metadata = list(steps), METADATA if metadata is None else metadata
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path == "/v2/models/loans":
            return httpx.Response(200, json=self.metadata)
        self.asked.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, httpx.Response) else step(request)

    def client(self, **more: object) -> governed.Client:
        options: dict[str, object] = {"model": "loans", **more}
        return governed.Client("http://model", transport=httpx.MockTransport(self), **options)  # type: ignore[arg-type]

    def tensors(self) -> dict[str, tuple[list[int], list[object]]]:
        inputs = json.loads(self.asked[-1].content)["inputs"]
        return {tensor["name"]: (tensor["shape"], tensor["data"]) for tensor in inputs}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that clients sleep between tries, which pass at once."""
    slept: list[float] = []
    made = JsonClient.__init__

    def init(self: JsonClient, *args: object, **more: object) -> None:
        made(self, *args, sleep=slept.append, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(JsonClient, "__init__", init)
    return slept


def test_one_row_is_one_prediction_with_all_that_governance_adds() -> None:
    model = Model(answered())
    with model.client() as client:
        found = client.predict(ROW, promise=True)
    assert (found.outcome, found.probabilities) == ("yes", {"no": 0.25, "yes": 0.75})
    assert (found.prediction_set, found.interval, found.coverage) == (("yes",), None, 0.9)
    assert (found.id, found.revision, found.mitigation) == (OURS, "r1", "reweighing")
    assert found.promise == "e30.e30.AA"
    assert found.outputs["prediction_set"] == [False, True]
    assert model.asked[0].headers["x-governed-promise"] == "1"
    assert model.tensors() == {
        "income": ([1, 1], [1.5]), "loans": ([1, 1], [2]), "purpose": ([1, 1], ["car"]), "married": ([1, 1], [True]),
    }  # fmt: skip


def test_a_data_frame_is_asked_in_one_request_with_nan_as_missing() -> None:
    frame = pd.DataFrame(
        {"income": [1.0, np.nan], "loans": [3.0, 4.0], "purpose": ["car", None], "married": [True, False]}
    )
    model = Model(answered(2))
    found = model.client().predict(frame)
    assert isinstance(found, list)
    assert [one.outcome for one in found] == ["yes", "yes"]
    assert "x-governed-promise" not in model.asked[0].headers
    tensors = model.tensors()
    assert tensors["income"] == ([2, 1], [1.0, None])
    assert tensors["loans"] == ([2, 1], [3, 4])
    assert tensors["purpose"] == ([2, 1], ["car", None])
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("income", np.float32(0.5), 0.5),
        ("income", Decimal("2.5"), 2.5),
        ("income", "7", 7.0),
        ("income", pd.NA, None),
        ("income", pd.NaT, None),
        ("loans", np.int64(3), 3),
        ("loans", 3.0, 3),
        ("loans", "3", 3),
        ("purpose", np.str_("y"), "y"),
        ("purpose", 7, "7"),
        ("married", np.bool_(False), False),
        ("married", "true", True),
    ],
)
def test_a_value_is_sent_as_its_input_takes_it(name: str, value: object, sent: object) -> None:
    model = Model(answered())
    model.client().predict({**ROW, name: value})
    (found,) = model.tensors()[name][1]
    assert (found, type(found)) == (sent, type(sent))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"income": 1.0}, "row 0 has no value for loans: the model needs it"),
        (
            {**ROW, "agee": 1},
            "row 0: the model takes no 'agee': correct the name or leave it out; it takes income, loans",
        ),
        ([ROW, {**ROW, "income": "a lot"}], r"row 1, income: expected a number \(FP32\), found 'a lot'"),
        ([ROW, {**ROW, "income": math.inf}], r"row 1, income: expected a number \(FP32\), found inf"),
        ({**ROW, "income": True}, r"row 0, income: expected a number \(FP32\), found True"),
        ({**ROW, "income": [1.0, 2.0]}, r"row 0, income: expected one value \(FP32\), found 2"),
        ({**ROW, "income": {"a": 1}}, "row 0, income: expected a text, a number, a boolean or None, found dict"),
        ({**ROW, "loans": 2.5}, r"row 0, loans: expected a whole number \(INT64\), found 2.5"),
        ({**ROW, "purpose": 1.0}, r"row 0, purpose: expected a text \(BYTES\), found 1.0"),
        ({**ROW, "purpose": "\ud800"}, "row 0, purpose: expected a text, found half of a surrogate pair"),
        ({**ROW, "married": "maybe"}, r"row 0, married: expected true or false \(BOOL\), found 'maybe'"),
        ({**ROW, "married": 2}, r"row 0, married: expected true or false \(BOOL\), found 2"),
        ([], "rows: expected one at least, found none"),
        (["income"], "row 0: expected a mapping of features, found str"),
        ("income", "rows: expected a mapping, a list of them or a data frame, found str"),
        (7, "rows: expected a mapping, a list of them or a data frame, found int"),
        (pd.DataFrame([[1, 2]], columns=["income", "income"]), "rows: expected each column once, found income"),
    ],
)
def test_rows_that_dont_fit_are_told_before_anything_is_sent(rows: object, words: str) -> None:
    model = Model(answered())
    with pytest.raises(governed.InvalidInput, match=words) as refused:
        model.client().predict(rows)  # type: ignore[call-overload]
    assert model.asked == []
    assert isinstance(refused.value, ValueError)


def test_an_input_with_a_shape_of_its_own_takes_arrays() -> None:
    declared = [{"name": "pixels", "datatype": "FP32", "shape": [-1, 2, 2]}]
    output = {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [0.1, None, 0.3]}
    model = Model(httpx.Response(200, json={"id": "a", "outputs": [output]}), metadata={"inputs": declared})
    found = model.client().predict({"pixels": np.array([[1.0, 2.0], [3.0, 4.5]])})
    assert model.tensors() == {"pixels": ([1, 2, 2], [1, 2, 3, 4.5])}
    assert (found.outcome, found.probabilities, found.prediction_set) == ([0.1, None, 0.3], {}, None)
    assert (found.id, found.promise, found.coverage) == ("a", "", None)
    with pytest.raises(governed.InvalidInput, match=r"row 0, pixels: expected 4 values \(FP32\), found 3"):
        model.client().predict({"pixels": [1, 2, 3]})


def test_a_regression_has_a_number_and_an_interval() -> None:
    outputs = [
        {"name": "prediction", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]},
        {"name": "prediction_interval", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 2, None]},
    ]
    model = Model(httpx.Response(200, json={"id": "a", "outputs": outputs}))
    first, second = model.client().predict([ROW, ROW])
    assert (first.outcome, first.interval, second.outcome) == (1.5, (1.0, 2.0), 2.5)
    assert second.interval is not None
    assert math.isnan(second.interval[1])


def test_an_explanation_is_its_attributions_largest_first() -> None:
    told = {
        "method": "sampled", "target": "yes", "base_value": 0.5, "prediction": 0.75, "exact": False, "seed": 3,
        "additivity_residual": 0.0,
        "attributions": [
            {"feature": "income", "value": 1.5, "attribution": 0.05, "interval": [0.0, 0.1]},
            {"feature": "purpose", "value": "car", "attribution": -0.3, "interval": [None, None]},
            {"group": "money", "attribution": [0.1]},
        ],
    }  # fmt: skip
    model = Model(httpx.Response(200, json={"explanations": [told]}))
    found = model.client().explain(ROW, "sampled", max_evaluations=np.int64(64), seed=3, target=None)
    assert [(one.name, one.attribution, one.interval) for one in found.attributions] == [
        ("purpose", -0.3, None), ("money", 0.1, None), ("income", 0.05, (0.0, 0.1)),
    ]  # fmt: skip
    assert (found.method, found.target, found.base_value, found.prediction) == ("sampled", "yes", 0.5, 0.75)
    assert (found.exact, found.additivity_residual, found.document.get("seed")) == (False, 0.0, 3)
    asked = json.loads(model.asked[0].content)
    assert asked["parameters"] == {"method": "sampled", "maxEvaluations": 64, "seed": 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sead": 1}, "explain has no option 'sead': expected some of method, target"),
        ({"background_rows": 1}, "explain has no option 'background_rows'"),
        ({"seed": object()}, "seed: expected a text, a number, a boolean or None, found object"),
        ({"precision": math.nan}, "precision: expected a finite number"),
    ],
)
def test_an_option_that_there_isnt_is_told(options: dict[str, object], words: str) -> None:
    model = Model(answered())
    with pytest.raises(governed.InvalidInput, match=words):
        model.client().explain(ROW, **options)  # type: ignore[arg-type]
    assert model.asked == []


def test_a_model_is_found_by_its_address_and_a_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = httpx.Response(200, json={"models": ["loans"]})
    assert Model(listed, answered()).client(model=None).predict(ROW).outcome == "yes"
    several = httpx.Response(200, json={"models": ["a", "b"]})
    with pytest.raises(governed.InvalidInput, match="expected its name, since http://model serves not one but a, b"):
        Model(several).client(model=None).predict(ROW)
    with pytest.raises(governed.InvalidInput, match="expected a url, or the name of a model"):
        governed.Client()
    monkeypatch.chdir(tmp_path)
    assert repr(governed.Client(model="loans")) == "governed.Client('http://127.0.0.1:8080')"
    monkeypatch.setattr(Workdir, "serving_port_offset", 300)
    assert repr(governed.Client(model="loans")) == "governed.Client('http://127.0.0.1:8380')"


def told(model: Model, **more: object) -> governed.ClientError:
    with pytest.raises(governed.ClientError) as raised:
        model.client(**more).predict(ROW)
    return raised.value


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 504])
def test_a_refusal_has_its_status_and_the_models_words(status: int) -> None:
    model = Model(httpx.Response(status, json={"error": "input 'a': expected b, found c"}))
    refused = told(model)
    assert isinstance(refused, governed.Refused)
    assert (refused.status, refused.message, refused.retry_after) == (status, "input 'a': expected b, found c", None)
    assert str(refused) == f"/v2/models/loans/infer answered {status}: input 'a': expected b, found c"
    assert len(model.asked) == 1, "nothing says when another try may help"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no such model", "type": "x"}}, "no such model"),
        ({"detail": "no"}, "{'detail': 'no'}"),
        (["no"], "['no']"),
        ({"error": "a\x1b[2Jb\n" + "x" * 5000}, "a\\u001b[2Jb\\n" + "x" * 1993),
    ],
)
def test_a_refusal_of_any_form_is_one_line(body: object, message: str) -> None:
    refused = told(Model(httpx.Response(400, json=body)))
    assert isinstance(refused, governed.Refused)
    assert refused.message == message


@pytest.mark.parametrize("status", [429, 503])
def test_what_says_when_to_come_again_is_asked_again(status: int, pauses: list[float]) -> None:
    model = Model(
        httpx.Response(status, json={"error": "busy"}, headers={"retry-after": "2"}),
        httpx.Response(status, json={"error": "busy"}, headers={"retry-after": "0"}),
        answered(),
    )
    assert model.client().predict(ROW).outcome == "yes"
    assert len(model.asked) == 3
    assert pauses[0] >= 2.0
    assert len({request.content for request in model.asked}) == 1


@pytest.mark.parametrize("status", [400, 404, 500, 502, 504])
def test_nothing_else_is_asked_again(status: int, pauses: list[float]) -> None:
    model = Model(httpx.Response(status, json={"error": "no"}, headers={"retry-after": "1"}))
    refused = told(model)
    assert isinstance(refused, governed.Refused)
    assert (len(model.asked), pauses, refused.retry_after) == (1, [], 1.0)


def test_no_try_is_waited_for_beyond_the_timeout(pauses: list[float]) -> None:
    late = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    model = Model(httpx.Response(429, json={"error": "quota"}, headers={"retry-after": late}))
    refused = told(model, timeout=60.0)
    assert isinstance(refused, governed.Refused)
    assert refused.retry_after is not None
    assert 3000 < refused.retry_after <= 3600
    assert (len(model.asked), pauses) == (1, [])


def test_a_receipt_is_waited_for(pauses: list[float]) -> None:
    early = httpx.Response(404, json={"error": "not yet"}, headers={"retry-after": "5"})
    model = Model(early, httpx.Response(200, text="c2sp.org/tlog-proof@v1\n"))
    assert model.client().receipt(OURS) == "c2sp.org/tlog-proof@v1\n"
    assert [request.url.path for request in model.asked] == [f"/v2/models/loans/predictions/{OURS}/receipt"] * 2
    assert [seconds >= 5.0 for seconds in pauses] == [True]
    never = Model(httpx.Response(404, json={"error": "no such id"}))
    with pytest.raises(governed.Refused, match="no such id"):
        never.client().receipt("../../x")
    assert never.asked[0].url.raw_path == b"/v2/models/loans/predictions/..%2F..%2Fx/receipt"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ConnectError("refused"), governed.Unavailable, "http://model: refused: is the model running there"),
        (httpx.ReadError("reset"), governed.Unavailable, "http://model: reset"),
        (httpx.RemoteProtocolError("cut"), governed.Unavailable, "http://model: cut"),
        (httpx.ConnectTimeout(""), governed.Unavailable, "http://model: ConnectTimeout"),
        (
            httpx.ReadTimeout("late"),
            governed.TimedOut,
            "no answer within 75 s; ask again when the machine is less busy",
        ),
    ],
)
def test_no_answer_is_told_as_such(error: Exception, kind: type[governed.ClientError], words: str) -> None:
    model = Model(error)
    found = told(model)
    assert type(found) is kind
    assert words in str(found)
    assert len(model.asked) == 1


class Cut(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b'{"id": '
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def test_an_answer_that_is_cut_is_none() -> None:
    found = told(Model(lambda _: httpx.Response(200, stream=Cut())))
    assert type(found) is governed.Unavailable
    assert "peer closed connection" in str(found)


PAGE = "<html><body>Bad gateway</body></html>"
NOT_OURS = {
    "a page": (httpx.Response(200, text=PAGE, headers={"content-type": "text/html"}), r"200 and no JSON \(text/html\)"),
    "a list": (httpx.Response(200, json=[1]), "expected a JSON mapping, found list"),
    "another's mapping": (
        httpx.Response(200, json={"ok": True}),
        "expected an answer with an id and outputs, found ok",
    ),
    "outputs without values": (httpx.Response(200, json={"id": "a", "outputs": [{"name": "x"}]}), "found id, outputs"),
    "a row too many": (answered(2), "expected values of 1 rows"),
    "NaN": (httpx.Response(200, content=b'{"id": NaN}'), "and no JSON"),
    "a name twice": (httpx.Response(200, content=b'{"id": "a", "id": "b"}'), "and no JSON"),
    "a nest": (httpx.Response(200, content=b"[" * 100_000), "and no JSON"),
    "no UTF-8": (httpx.Response(200, content=b'{"id": "\xff"}'), "and no JSON"),
    "nothing": (httpx.Response(204), "204 and no JSON"),
    "a redirect": (
        httpx.Response(307, headers={"location": "http://evil/"}),
        r"answered 307, a redirect to http://evil",
    ),
    "a redirect to nowhere": (httpx.Response(304), "answered 304, a redirect to nowhere"),
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_no_model_answers_is_told_as_such(what: str) -> None:
    answer, words = NOT_OURS[what]
    model = Model(answer)
    with pytest.raises(governed.Unreadable, match=words):
        model.client(api_key=KEY).predict(ROW)
    assert len(model.asked) == 1


def test_what_says_that_it_is_packed_and_isnt_is_told_as_such() -> None:
    def wrong(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b"no gzip"), headers={"content-encoding": "gzip"})

    with pytest.raises(governed.Unreadable, match="expected an answer that can be unpacked"):
        Model(wrong).client().predict(ROW)


def test_a_page_with_the_status_of_an_error_is_a_refusal() -> None:
    refused = told(Model(httpx.Response(502, text=PAGE, headers={"content-type": "text/html"})))
    assert isinstance(refused, governed.Refused)
    assert refused.status == 502
    assert "http://model/v2/models/loans/infer answered 502 and no JSON (text/html)" in str(refused)
    assert "Bad gateway" not in str(refused)


@pytest.mark.parametrize("metadata", [{}, {"inputs": [{"name": 1}]}, {"inputs": [], "parameters": {"classes": 1}}])
def test_metadata_that_are_none_are_told(metadata: object) -> None:
    found = told(Model(answered(), metadata={"other": 1} if metadata == {} else metadata))
    assert type(found) is governed.Unreadable
    assert "expected a model's metadata with its inputs" in str(found)


def test_an_answer_beyond_the_bound_isnt_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_client, "LARGEST", 2048)
    drawn: list[int] = []

    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                drawn.append(1)
                yield b" " * 1024

    with pytest.raises(governed.Unreadable, match="expected an answer of at most 2,048 bytes, found more"):
        Model(lambda _: httpx.Response(200, stream=Endless())).client().predict(ROW)
    assert len(drawn) == 3


def test_an_answer_that_drips_ends_with_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(json_client.time, "monotonic", lambda: now[0])

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                now[0] += 1.0
                yield b" "

    found = told(Model(lambda _: httpx.Response(200, stream=Drip())), timeout=5.0)
    assert (type(found), now[0]) == (governed.TimedOut, 6.0)


def test_ready_is_a_yes_or_a_no() -> None:
    yes = httpx.Response(200, json={"ready": True})
    no = httpx.Response(503, json={"error": "starting", "ready": False}, headers={"retry-after": "1"})
    for step, ready in ((yes, True), (no, False), (httpx.ConnectError("refused"), False)):
        model = Model(step)
        assert model.client().ready() is ready
        assert len(model.asked) == 1
    assert Model(httpx.ConnectError("refused")).client(model=None).ready() is False
    with pytest.raises(governed.Refused, match="no such model"):
        Model(httpx.Response(404, json={"error": "no such model"})).client().ready()


def test_the_key_of_each_moment_is_shown() -> None:
    keys = iter(["of metadata", "first", "second"])
    model = Model(answered())
    client = model.client(api_key=lambda: next(keys).rpartition(" ")[2])
    assert [client.predict(ROW).outcome for _ in range(2)] == ["yes", "yes"]
    assert [request.headers["authorization"] for request in model.asked] == ["Bearer first", "Bearer second"]


def repeated(request: httpx.Request) -> httpx.Response:
    return httpx.Response(401, json={"error": f"unknown key {request.headers['authorization']}"})


def beside(request: httpx.Request) -> httpx.Response:
    return httpx.Response(302, headers={"location": f"http://login/?k={request.headers['authorization']}"})


@pytest.mark.parametrize(
    "step",
    [
        repeated,
        beside,
        httpx.ConnectError(f"cannot send Bearer {KEY}"),
        httpx.Response(500, text=PAGE),
        httpx.Response(200),
    ],
)
def test_no_message_and_no_repr_has_the_key(step: Step) -> None:
    model = Model(step)
    client = model.client(api_key=KEY)
    with pytest.raises(governed.ClientError) as raised:
        client.predict(ROW)
    assert model.asked[0].headers["authorization"] == f"Bearer {KEY}"
    said = f"{raised.value!r} {raised.value} {client!r} {client._http!r} {client._http._http.auth!r}"
    assert KEY not in said
    if not isinstance(step, Exception):  # whose own words aren't ours
        assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("key", ["", "a b", "a\n", "ä", "a\x00", None])
def test_what_is_no_key_is_told_without_it(key: str | None) -> None:
    model = Model(answered())
    with pytest.raises(governed.InvalidInput, match="api_key: expected an API key") as refused:
        model.client(api_key=lambda: key).predict(ROW)
    assert model.asked == []
    assert "a b" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["", "model", "ftp://model", "http://", "http://model?x=1", "http://model#x", "http://mo del", "http://model:x", 7],
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(governed.InvalidInput, match="url: expected http://HOST:PORT"):
        governed.Client(url)


def test_an_address_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(governed.InvalidInput, match="leave them out") as refused:
        governed.Client("http://me:hunter2@model")
    assert "hunter2" not in str(refused.value)


def test_an_address_may_have_a_path() -> None:
    model = Model(answered())
    seen: list[str] = []

    def behind(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, json=METADATA) if request.method == "GET" else model(request)

    client = governed.Client("https://host/team/", model="loans", transport=httpx.MockTransport(behind))
    assert client.predict(ROW).outcome == "yes"
    assert seen == ["/team/v2/models/loans", "/team/v2/models/loans/infer"]


@pytest.mark.parametrize(
    ("option", "words"), [({"timeout": 0}, "timeout: expected"), ({"ca": "/nowhere"}, "ca: /nowhere")]
)
def test_an_option_that_cant_be_is_told(option: dict[str, object], words: str) -> None:
    with pytest.raises(governed.InvalidInput, match=words):
        governed.Client("https://model", **option)  # type: ignore[arg-type]
