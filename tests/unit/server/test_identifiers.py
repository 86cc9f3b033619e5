"""Identity is ours: what a client calls its request is repeated and kept, masked, and never identifies a prediction."""

import json
from typing import Any

import httpx
import pytest

from governed_serving.records import PredictionFrame, decode_frame, encode_frame
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.explainer_client import ExplainerClient
from governed_serving.server.protocol.v2 import V2Codec
from unit.server.conversations import World
from unit.server.planes import MemoryJournal, plane
from unit.server.tabular_model import ROW, v2_body

V2 = "/v2/models/credit"
PATHS = {
    "V2": f"{V2}/infer",
    "V2 of a version": f"{V2}/versions/r1/infer",
    "V1": "/v1/models/credit:predict",
    "explain": f"{V2}/explain",
    "explain of a version": f"{V2}/versions/r1/explain",
    "explain later": f"{V2}/explanations",
    "V1 explain": "/v1/models/credit:explain",
}


class Site:
    """A model behind its routes, and an explainer that remembers what it was asked."""

    def __init__(self, *, text: bool = False, **options: Any) -> None:
        self.journal, self.asked = MemoryJournal(), list[dict[str, Any]]()
        data = plane(text=text, journal=self.journal, **options)
        data.pipeline.explainer = ExplainerClient(
            "http://explainer", "credit", timeout=5, transport=httpx.MockTransport(self._explain)
        )
        gateway = Gateway("credit", why="", service=HttpService(data, V2Codec(data.signature, "credit", "r1")))
        app: Any = FastPathApp(gateway, application(gateway), 1 << 20)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")

    def _explain(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        return httpx.Response(202 if request.url.path.endswith("explanations") else 200, json={"id": "x"})

    async def post(self, name: str, identity: str | None, headers: dict[str, str] | None = None) -> httpx.Response:
        body: dict[str, Any] = {"instances": [ROW]} if name.startswith("V1") else v2_body()
        return await self.http.post(PATHS[name], json=body | {"id": identity}, headers=headers)


@pytest.mark.parametrize("name", PATHS)
async def test_two_requests_of_one_name_are_two_predictions(name: str) -> None:
    site = Site()
    answers = [await site.post(name, "application-7") for _ in range(2)]
    assert [a.status_code for a in answers] == [202 if "later" in name else 200] * 2
    ours = [a.headers["x-prediction-id"] for a in answers]
    assert len(set(ours)) == 2
    assert all(len(one) == 36 and one[14] == "7" for one in ours)
    assert site.journal.ids == ours, "the journal knows them by our ids alone"
    assert site.journal.called == ["application-7"] * 2
    assert [a.headers["x-request-id"] for a in answers] == ["application-7"] * 2
    if "explain" in name:
        assert [one["id"] for one in site.asked] == ours, "no explanation can be had, or replaced, by another's name"
    else:
        assert [a.json()["id"] for a in answers] == ["application-7"] * 2


@pytest.mark.parametrize("name", PATHS)
async def test_the_header_is_repeated_and_kept_where_the_body_has_no_id(name: str) -> None:
    site = Site()
    bare = await site.post(name, None, {"x-request-id": "trace 1"})
    both = await site.post(name, "mine", {"x-request-id": "trace 2"})
    assert [a.headers["x-request-id"] for a in (bare, both)] == ["trace 1", "trace 2"]
    assert site.journal.called == ["trace 1", "mine"]
    assert [a.headers["x-prediction-id"] for a in (bare, both)] == site.journal.ids
    if "explain" not in name:
        assert bare.json()["id"] == site.journal.ids[0], "without an id of the client's, the answer's is ours"
        assert both.json()["id"] == "mine"


@pytest.mark.parametrize("value", ["x" * 129, "tab\there", "caf\u00e9"], ids=["long", "not printable", "not ASCII"])
@pytest.mark.parametrize("name", PATHS)
async def test_a_header_that_cant_be_kept_is_refused(name: str, value: str) -> None:
    site = Site()
    answer = await site.http.post(PATHS[name], json={}, headers=[(b"x-request-id", value.encode("latin-1"))])
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("X-Request-Id: expected")
    assert site.journal.ids == []


async def test_what_a_client_calls_its_request_is_masked_in_the_journal_and_repeated_as_it_was() -> None:
    site = Site(text=True)
    body = v2_body(text="plain", identity="secret 1")
    answer = await site.http.post(PATHS["V2"], json=body, headers={"x-request-id": "secret 2"})
    assert (answer.json()["id"], answer.headers["x-request-id"]) == ("secret 1", "secret 2")
    answer = await site.http.post(PATHS["V2"], json=body | {"id": None}, headers={"x-request-id": "secret 3"})
    assert site.journal.called == ["<MASKED> 1", "<MASKED> 3"]
    refused = await site.http.post(PATHS["V2"], json=body | {"id": "boom"})
    assert refused.status_code == 503, "what can't be masked isn't kept (failurePolicy Closed)"
    assert "boom" not in refused.text


async def test_chats_too() -> None:
    world = World()
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    answers = [await world.gateway.answer("/v1/chat/completions", body, "my secret") for _ in range(2)]
    frames = world.journal.frames
    assert [frame.ids[0] for frame in frames] == [a.id for a in answers for _ in range(2)]
    assert [frame.client_ids for frame in frames] == [["my <MASKED>"]] * 4
    assert len({a.id for a in answers}) == 2


def test_a_record_from_before_has_no_names() -> None:
    frame = PredictionFrame("m", "r", "a", ["1"], b"", b"", {}, {}, ["mine"])
    old = encode_frame(frame).replace(b"\x9c", b"\x99", 1).removesuffix(b"\x91\xa4mine\x90\x80")
    assert decode_frame(old) == PredictionFrame("m", "r", "a", ["1"], b"", b"", {}, {})
    before_units = encode_frame(frame).replace(b"\x9c", b"\x9b", 1).removesuffix(b"\x80")
    assert decode_frame(before_units) == frame
    assert decode_frame(encode_frame(frame)) == frame
