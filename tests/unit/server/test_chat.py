"""OpenAI completions of a foreign runtime: masked, reserved, recorded, streamed; nothing gets past."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from governed_serving.journal.errors import JournalFull
from governed_serving.server.app.internal import InternalApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway
from governed_serving.server.chat.request import CHAT, COMPLETIONS, places, with_places
from governed_serving.server.chat.request import strings as strings_of
from governed_serving.server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    JournalUnavailable,
    MaskingFailed,
    NotFound,
    Overloaded,
    QuotaExceeded,
    UpstreamFailed,
)
from governed_serving.server.explanation import Accepted, Explained
from unit.server.conversations import Explainer, Pieces, World, chunk, read
from unit.server.planes import until


async def test_masked_on_the_way_in_and_in_the_journal() -> None:
    world = World()
    identity, body, *_ = await world.chat()
    assert world.seen[0]["messages"][0]["content"] == "my <MASKED>"
    assert world.seen[0]["model"] == "inner"
    assert json.loads(body)["choices"][0]["message"]["content"] == "a <MASKED> answer"
    assert json.loads(body)["model"] == "chat"
    prompt = '[{"role":"user","content":"my <MASKED>"}]'
    assert world.records() == [(prompt, "started", "", 0), (prompt, "complete", "a <MASKED> answer", 8)]
    assert {f.ids[0] for f in world.journal.frames} == {identity}
    assert world.admission.open == 0


async def test_strings_everywhere_are_masked() -> None:
    world = World()
    await world.chat(
        [{"type": "text", "text": "secret"}], user="secret", tools=[{"function": {"description": "secret"}}]
    )
    assert "secret" not in json.dumps(world.seen[0])


async def test_completions() -> None:
    world = World(lambda _: httpx.Response(200, json={"choices": [{"index": 0, "text": "done"}]}))
    await world.gateway.answer(COMPLETIONS, json.dumps({"prompt": "a secret", "max_tokens": 4}).encode())
    assert world.records()[-1][:3] == ("a <MASKED>", "complete", "done")


@pytest.mark.parametrize(
    ("path", "body", "kind", "words"),
    [
        (CHAT, b"{", InvalidRequest, "byte 1"),
        (CHAT, b'{"messages": ' + b"[" * 100_000, InvalidRequest, "expected JSON, found"),
        (CHAT, b'{"messages": [{"content": "\xff"}]}', InvalidRequest, "expected JSON, found"),
        (
            CHAT,
            b'{"messages": [{}], "metadata": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
            InvalidRequest,
            "nested at most 64",
        ),
        (
            CHAT,
            b'{"messages": [{}], "stream_options": [1]}',
            InvalidRequest,
            "stream_options: expected an object, found list",
        ),
        (CHAT, b'{"messages": [{}], "stream": "yes"}', InvalidRequest, "stream: expected true or false, found str"),
        (
            COMPLETIONS,
            b'{"prompt": "hi", "messages": 5}',
            InvalidRequest,
            "messages: expected a list of messages, found int",
        ),
        (COMPLETIONS, b'{"prompt": "hi", "messages": true}', InvalidRequest, "messages: expected a list"),
        (CHAT, b'{"messages": [1]}', InvalidRequest, "messages[0]: expected an object, found int"),
        (CHAT, b'{"messages": [{}], "model": {"a": 1}}', InvalidRequest, "model: expected a string, found dict"),
        (CHAT, b"{}", InvalidRequest, "messages: expected a list of messages, found nothing"),
        (CHAT, b'{"messages":"hello"}', InvalidRequest, "found str"),
        (CHAT, b'{"messages":[{"role":"user","content":"x"}],"model":"other"}', NotFound, "'other'"),
        (
            CHAT,
            b'{"messages":[{"content":[{"type":"image_url","image_url":{}}]}]}',
            InvalidRequest,
            "'image_url', which can't be masked",
        ),
        (
            CHAT,
            b'{"messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
            InvalidRequest,
            "max_tokens: expected a whole number",
        ),
        (COMPLETIONS, b'{"prompt":[1,2]}', InvalidRequest, "token ids, which can't be masked"),
    ],
)
async def test_bad_requests_are_named(path: str, body: bytes, kind: type[Exception], words: str) -> None:
    world = World()
    with pytest.raises(kind) as caught:
        await world.gateway.answer(path, body)
    assert words in str(caught.value)
    assert world.seen == []
    assert world.admission.open == 0


async def test_masking_that_errs_lets_nothing_through() -> None:
    world = World()
    with pytest.raises(MaskingFailed):
        await world.chat("boom")
    assert world.seen == []
    assert world.journal.frames == []


async def test_a_full_journal_lets_nothing_through() -> None:
    world = World()
    world.journal.error = JournalFull("full")
    with pytest.raises(JournalUnavailable):
        await world.chat()
    assert world.seen == []
    assert world.admission.open == 0
    open_world = World(journal_policy="Open")
    open_world.journal.error = JournalFull("full")
    await open_world.chat()
    assert open_world.metrics.count["journal_lost_records"] == 2


async def test_tokens_are_reserved_first_and_settled_after() -> None:
    gate = asyncio.Event()
    world = World(tokens=100)
    world.journal.gate = gate
    first = asyncio.create_task(world.chat("hi", max_tokens=60))
    await until(lambda: world.journal.frames)
    assert world.left() < 40  # the first holds its reservation while it runs
    with pytest.raises(QuotaExceeded, match="at most 100 tokens"):
        await world.chat("hi", max_tokens=60)
    gate.set()
    await first
    assert world.left() == 92  # the runtime said 8
    await world.chat("hi", max_tokens=60)
    assert world.metrics.count["tokens"] == 16


async def test_a_runtime_that_knows_only_the_older_name_of_the_limit_is_bound_by_it_too() -> None:
    world = World(tokens=5000)
    await world.chat(max_tokens=None, max_completion_tokens=7)
    await world.chat(max_tokens=900, max_completion_tokens=7)
    assert [m["max_tokens"] for m in world.seen] == [7, 7], "what was reserved is what may be generated"


async def test_without_max_tokens_the_reservation_binds_the_runtime() -> None:
    world = World(tokens=5000)
    message = {"messages": [{"role": "user", "content": "hi"}]}
    await world.gateway.answer(CHAT, json.dumps(message).encode())
    assert world.seen[0]["max_tokens"] == 1024


async def test_a_failing_runtime_is_502_and_costs_nothing() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    for answer in (away, lambda _: httpx.Response(500, text="oops")):
        world = World(answer, tokens=1000)
        with pytest.raises(UpstreamFailed, match="runtime"):
            await world.chat()
        assert world.left() == 1000
        assert world.admission.open == 0
    refusing = World(lambda _: httpx.Response(400, json={"error": {"message": "no such sampler"}}))
    with pytest.raises(InvalidRequest, match="no such sampler"):
        await refusing.chat()


async def test_streams_pass_and_are_recorded_before_they_end() -> None:
    usage = {"usage": {"total_tokens": 9}}
    body = Pieces([chunk("a sec"), chunk("ret"), chunk(**usage), b"data: [DONE]\n\n"])
    world = World(lambda _: httpx.Response(200, stream=body), tokens=1000)
    stream = await world.chat(stream=True)
    pieces: list[bytes] = []
    recorded: list[int] = []
    async for piece in stream.pieces:
        pieces.append(piece)
        recorded.append(len(world.journal.frames))
    assert pieces[-1] == b"data: [DONE]\n\n"
    assert recorded == [1, 1, 1, 2]  # the completion is in the journal before the client learns of the end
    assert len(pieces) == 4  # the client did not ask for usage, and what was held back has an event of its own
    assert world.seen[0]["stream_options"] == {"include_usage": True}
    assert world.records()[-1][1:] == ("complete", "a <MASKED>", 9)
    assert world.left() == 991
    await world.gateway.close()
    assert body.closed
    assert world.metrics.count["streams_cut"] == 0


async def test_usage_passes_when_asked_for() -> None:
    body = Pieces([chunk("a "), chunk(usage={"total_tokens": 9}), b"data: [DONE]\n\n"])
    world = World(lambda _: httpx.Response(200, stream=body))
    pieces = await read(await world.chat(stream=True, stream_options={"include_usage": True}))
    assert len(pieces) == 3
    assert pieces[-1] == b"data: [DONE]\n\n"


async def test_a_client_that_leaves_is_recorded_and_settled() -> None:
    gate = asyncio.Event()
    body = Pieces([chunk("begin "), chunk("never")], gate)
    world = World(lambda _: httpx.Response(200, stream=body), tokens=1000)
    stream = await world.chat("hi", stream=True)
    await anext(stream.pieces)
    await stream.pieces.aclose()  # type: ignore[attr-defined]
    await until(lambda: len(world.journal.frames) == 2)
    await world.gateway.close()
    assert world.records()[-1][1:3] == ("cut", "begin ")
    assert world.admission.open == 0
    assert world.left() > 980
    assert world.metrics.count["streams_cut"] == 1
    assert body.closed


async def test_a_runtime_that_dies_midway_ends_the_stream_with_an_error() -> None:
    body = Pieces([chunk("begin "), chunk("undecided")], error=httpx.ReadError("gone"))
    world = World(lambda _: httpx.Response(200, stream=body))
    pieces = await read(await world.chat(stream=True))
    assert b"ReadError" in pieces[-1]
    await world.gateway.close()
    assert world.records()[-1][1:3] == ("cut", "begin ")


FINISHED = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])


@pytest.mark.parametrize(
    "end",
    [
        [],
        [b": ping\n\n"],
        [chunk(usage={"total_tokens": 9})],
        [chunk(error={"message": "out of memory"}, choices=[])],
        [b'data: {"error": "out of memory"}\n\n', FINISHED, b"data: [DONE]\n\n"],
        [chunk(choices=[{"index": 1, "delta": {"content": "other"}}]), FINISHED],
        [b"data: {\n\n", b"data: [DONE]\n\n"],
        [b"data: [1]\n\n"],
        [chunk(choices=7)],
        [chunk(choices=[[1]])],
        [chunk(choices=[{"index": "x"}])],
        [b"data: \xff\n\n"],
        [b"event: [DONE]\n\n"],
        [b"data: [DON"],
    ],
)
async def test_a_stream_that_is_not_over_is_cut(end: list[bytes]) -> None:
    """Neither told to the client as complete, nor kept as such."""
    world = World(lambda _: httpx.Response(200, stream=Pieces([chunk("begin "), *end])))
    pieces = await read(await world.chat(stream=True))
    assert b'"server_error"' in pieces[-1]
    assert b"data: [DONE]\n\n" not in pieces
    await world.gateway.close()
    assert world.records()[-1][1] == "cut"
    assert world.metrics.count["streams_cut"] == 1


async def test_a_stream_whose_choices_are_finished_is_over_without_a_word() -> None:
    world = World(lambda _: httpx.Response(200, stream=Pieces([chunk("all "), FINISHED])))
    assert (await read(await world.chat(stream=True)))[-1] == b"data: [DONE]\n\n"
    assert world.records()[-1][1:3] == ("complete", "all ")


async def test_what_comes_behind_the_end_is_not_read() -> None:
    body = Pieces([chunk("all "), b"data: [DONE]\n\n" + chunk("more"), chunk("still more")], error=httpx.ReadError("x"))
    world = World(lambda _: httpx.Response(200, stream=body))
    assert (await read(await world.chat(stream=True)))[-1] == b"data: [DONE]\n\n"
    assert world.records()[-1][1:3] == ("complete", "all ")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
async def test_only_cr_and_lf_end_a_line_of_a_stream(separator: str) -> None:
    text = f"one{separator}two "
    raw = json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}, ensure_ascii=False).encode()
    world = World(lambda _: httpx.Response(200, stream=Pieces([b"data: " + raw + b"\n\n", b"data: [DONE]\n\n"])))
    pieces = await read(await world.chat(stream=True))
    assert pieces[-1] == b"data: [DONE]\n\n"
    assert world.records()[-1][1:3] == ("complete", text)


@pytest.mark.parametrize(
    ("status", "fields", "told", "wait"),
    [
        (400, {}, 400, None), (404, {}, 404, None), (413, {}, 413, None), (422, {}, 422, None), (401, {}, 502, None),
        (403, {}, 502, None), (500, {}, 502, None), (302, {}, 502, None), (429, {"retry-after": "7"}, 429, "7"),
        (429, {}, 429, "1"), (503, {"retry-after": "30"}, 503, "30"), (503, {"retry-after": "99999999"}, 503, "3600"),
        (429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 429, "1"), (429, {"retry-after": "-5"}, 429, "1"),
        (429, {"retry-after": "0"}, 429, "1"), (429, {"retry-after": "\u0665"}, 429, "1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_runtime_refuses_is_told_with_its_own_status(
    status: int, fields: dict[str, str], told: int, wait: str | None, stream: bool
) -> None:
    headers = {name: value.encode() for name, value in fields.items()}
    error = {"error": {"message": "no secret here"}}
    world = World(lambda _: httpx.Response(status, json=error, headers=headers), tokens=1000)
    app = application(Gateway("chat", why="", chat=world.gateway))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": stream, "max_tokens": 10}
        answer = await http.post(CHAT, json=body)
    assert (answer.status_code, answer.headers.get("retry-after")) == (told, wait)
    assert "no <MASKED> here" in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert world.left() == 1000


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [(CHAT, 400, "invalid_request_error"), (COMPLETIONS, 400, "invalid_request_error"),
     ("/v1/embeddings", 404, "invalid_request_error"), ("/v2/models/chat/infer", 404, None)],
)  # fmt: skip
async def test_errors_have_the_form_of_their_protocol(path: str, status: int, kind: str | None) -> None:
    app = application(Gateway("chat", why="", chat=World().gateway))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        answer = await http.post(path, content=b"{")
        wrong = await http.get(path)
    assert (answer.status_code, wrong.status_code) == (status, 405)
    for one in (answer, wrong):
        error = one.json()["error"]
        assert isinstance(error, dict) == (kind is not None), error
        assert kind is None or error["type"] == kind


async def test_a_journal_that_fills_midway_withholds_the_end() -> None:
    body = Pieces([chunk("a"), b"data: [DONE]\n\n"])
    world = World(lambda _: httpx.Response(200, stream=body))
    stream = await world.chat(stream=True)
    world.journal.error = JournalFull("full")
    pieces = await read(stream)
    assert b"journal" in pieces[-1]
    assert b"data: [DONE]\n\n" not in pieces
    await world.gateway.close()


def test_places_and_their_replacement_agree() -> None:
    value = {"a": ["x", {"b": "y", "c": 1}], "d": None, "e": "z", "f": {"g": 13800138000, "138 key": 2}, "seed": 10**9}
    assert list(strings_of(value)) == ["x", "y", "z"]
    found = list(places(value))
    assert [place for place, _ in found if not place.endswith("(key)")] == ["a[0]", "a[1].b", "e", "f.g"]
    assert [text for place, text in found if place.endswith("(key)")] == [*"abcdefg", "138 key", "seed"]
    assert with_places(value, iter([text for _, text in found])) == value
    changed = with_places(value, iter([f"<{text}>" for _, text in found]))
    assert changed["<f>"] == {"<g>": "<13800138000>", "<138 key>": 2}
    assert with_places({"m": {"1": 1, "2": 2}}, iter(["m", "<X>", "<X>"])) == {"m": {"<X>": 1, "<X> 2": 2}}


async def test_container_concurrency_makes_the_rest_wait() -> None:
    gate = asyncio.Event()
    body = Pieces([chunk("a"), chunk("b")], gate)
    world = World(lambda _: httpx.Response(200, stream=body), concurrency=1, timeout=60)
    stream = await world.chat(stream=True)
    await anext(stream.pieces)
    second = asyncio.create_task(world.chat(stream=True))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.seen) == 1
    gate.set()
    await read(stream)
    await read(await second)
    assert len(world.seen) == 2
    await world.gateway.close()
    assert world.admission.open == 0


async def test_too_long_a_wait_and_too_slow_a_runtime_are_504() -> None:
    gate = asyncio.Event()
    world = World(
        lambda _: httpx.Response(200, stream=Pieces([chunk("a"), chunk("b")], gate)), concurrency=1, timeout=1.5
    )
    stream = await world.chat(stream=True)
    await anext(stream.pieces)
    with pytest.raises(DeadlineExceeded, match=r"within 1\.5 s"):
        await world.chat()
    gate.set()
    await read(stream)
    await world.gateway.close()

    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    late = World(slow)
    with pytest.raises(DeadlineExceeded):
        await late.chat()


async def test_whose_turn_would_come_too_late_is_refused_at_once() -> None:
    world = World(lambda _: httpx.Response(200, stream=Pieces([chunk("a")])), concurrency=1, timeout=10)
    now = 0.0
    world.pipeline.clock = lambda: now
    first = await world.chat(stream=True)
    waiting = [asyncio.create_task(world.chat(stream=True)) for _ in range(3)]
    await until(lambda: world.pipeline.backlog.waiting == 3)
    await read(first)
    second = await waiting[0]
    now = 4.0
    await read(second)
    await waiting[1]
    assert world.pipeline.backlog.waiting == 1
    more = asyncio.create_task(world.chat(stream=True))
    await until(lambda: world.pipeline.backlog.waiting == 2)
    with pytest.raises(Overloaded, match="found what waits to take about 8 s"):
        await world.chat(stream=True)
    for refused in (world.gateway.answer(CHAT, b"no JSON"), world.gateway.explain(b"no JSON", later=False)):
        with pytest.raises(Overloaded):  # before anything is decoded
            await refused
    for stream in (waiting[1], waiting[2], more):
        await read(await stream)
    await world.gateway.close()
    assert world.admission.open == 0


async def test_explained_completions_are_governed_and_masked() -> None:
    explainer = Explainer()
    world = World(explainer=explainer.client())
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "my secret"}]
    body = {"messages": messages, "max_tokens": 16, "explain": {"budget_ms": 500}}
    answer = (await world.gateway.explain(json.dumps(body).encode(), later=False)).answer
    assert isinstance(answer, Explained)
    assert json.loads(answer.document) == {"seen": True}
    assert "explain" not in world.seen[0]
    assert [state for _, state, _, _ in world.records()] == ["started", "complete"]
    ((path, sent),) = explainer.asked
    assert path == "/v2/models/chat/explain"
    assert (sent["id"], sent["parameters"]) == (world.journal.frames[0].ids[0], {"budget_ms": 500})
    texts = {one["name"]: one["data"][0] for one in sent["inputs"]}
    assert texts["prompt"] == "my <MASKED>"
    assert texts["completion"] == "a <MASKED> answer"
    assert json.loads(texts["messages"])[1]["content"] == "my <MASKED>"
    assert world.metrics.requests["explain", 200] == 1


async def test_explanations_of_completions_can_wait() -> None:
    explainer = Explainer()
    world = World(
        lambda _: httpx.Response(200, json={"choices": [{"index": 0, "text": "done"}]}), explainer=explainer.client()
    )
    answer = await world.gateway.explain(b'{"prompt": "a word", "max_tokens": 4}', later=True)
    assert isinstance(answer.answer, Accepted)
    await world.gateway.explaining().ticket("x")
    assert [path for path, _ in explainer.asked] == ["/v2/models/chat/explanations", "/v2/models/chat/explanations/x"]
    assert [one["data"] for one in explainer.asked[0][1]["inputs"]] == [["a word"], ["done"], [""]]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"{", InvalidRequest, "byte 1"),
        (b'{"prompt":"x","explain":3}', InvalidRequest, "explain: expected an object"),
        (b'{"prompt":"x","stream":true}', InvalidRequest, "stream: expected false"),
        (b'{"prompt":["x","y"]}', InvalidRequest, "expected one text to explain"),
        (b'{"messages":[{"role":"system","content":"x"}]}', InvalidRequest, "expected a user's message of plain text"),
        (b'{"prompt":"x","max_tokens":1}', InvalidRequest, "found an empty one"),
    ],
)
async def test_what_cannot_be_explained_is_refused(body: bytes, kind: type[Exception], words: str) -> None:
    world = World(lambda _: httpx.Response(200, json={"choices": []}), explainer=Explainer().client())
    with pytest.raises(kind, match=words):
        await world.gateway.explain(body, later=False)
    assert world.admission.open == 0


async def test_without_an_explainer_there_is_none() -> None:
    world = World()
    with pytest.raises(NotFound, match=r"expected spec\.explainer"):
        await world.gateway.explain(b'{"prompt":"x"}', later=False)
    assert world.seen == []


async def test_the_explainers_prompts_wait_for_open_requests_and_leave_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("governed_serving.server.chat.gateway.PATIENCE", 60.0)
    gate = asyncio.Event()
    world = World(lambda _: httpx.Response(200, stream=Pieces([chunk("he"), chunk("llo")], gate)))
    stream = await world.chat(stream=True)
    reading = asyncio.create_task(read(stream))
    asking = asyncio.create_task(world.gateway.internal(COMPLETIONS, b'{"prompt":"my secret","model":"chat"}'))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.seen) == 1
    gate.set()
    await reading
    await asking
    assert world.seen[1] == {"prompt": "my secret", "model": "inner"}
    assert len(world.journal.frames) == 2


async def test_behind_endless_requests_the_explainer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governed_serving.server.chat.gateway.PATIENCE", 0.01)
    world = World()
    world.pipeline.idle.clear()
    assert json.loads(await world.gateway.internal(CHAT, b'{"messages":[{"role":"user","content":"x"}]}'))["id"] == "x"


async def test_routes_of_a_runtime_with_an_explainer() -> None:
    explainer = Explainer()
    world = World(
        lambda _: httpx.Response(200, json={"choices": [{"index": 0, "text": "done"}]}), explainer=explainer.client()
    )
    gateway = Gateway("chat", why="", chat=world.gateway)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application(gateway)), base_url="http://server") as http:
        body = {"prompt": "a word", "max_tokens": 4}
        now = await http.post("/v2/models/chat/explain", json=body)
        later = await http.post("/v2/models/chat/explanations", json=body)
        ticket = await http.get("/v2/models/chat/explanations/abc")
        other = await http.post("/v2/models/other/explain", json=body)
        ready = [(await http.get(f"/v2/models/{model}/ready")).status_code for model in ("chat", "other")]
    assert ready == [200, 404]
    assert (now.status_code, later.status_code, ticket.status_code, other.status_code) == (200, 202, 200, 404)
    lane: Any = InternalApp(gateway, 1 << 20, lambda *_: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(lane), base_url="http://lane") as http:
        scored = await http.post(COMPLETIONS, json={"prompt": "x", "logprobs": 1})
        infer = await http.post("/v2/models/chat/infer", json={})
    assert scored.json()["choices"][0]["text"] == "done"
    assert world.seen[-1] == {"prompt": "x", "logprobs": 1, "model": "inner"}
    assert (infer.status_code, len(world.journal.frames)) == (404, 4)
