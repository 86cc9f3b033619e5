"""Promises in answers: who asks gets one, from an announced key, of a record that is in the journal; else no answer."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from governed_serving.archive.ledger.promise import AnnouncedKey, SignedPromise, decode_key
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.journal import Journal, JournalFull
from governed_serving.records import EventRecord, LedgerEntry, canonical
from governed_serving.server.app.fast_path import BodyRoom, FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.errors import InvalidRequest, NotFound, PromiseUnavailable
from governed_serving.server.identity import Identity
from governed_serving.server.messages import Completed, Stream
from governed_serving.server.promises import VALID_SECONDS, Promises
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.rpc.messages import MESSAGES
from governed_serving.server.rpc.service import RpcServer
from unit.journal.samples import cipher
from unit.server.conversations import Pieces, World, chunk, read
from unit.server.planes import IDENTITY, plane, until
from unit.server.tabular_model import ROW, v2_body
from unit.server.test_rpc import typed


class Ledger:
    """Has what was journalled once it is let in; ``instead``: the type under which it has it."""

    def __init__(self, journal: "Kept", *, shipped: bool = True, instead: str = "") -> None:
        self.journal, self.shipped, self.instead = journal, shipped, instead

    async def receipt(self, id: str) -> bytes:
        found = [r for r in self.journal.events if r.id == id]
        if not self.shipped or not found:
            raise NotFound("not yet")
        event = found[0]
        entry = LedgerEntry(self.instead or event.type, "default", event.model, id, "t", summary=event.summary)
        return LogProof(canonical(entry), 0, (), "note\n\n— x\n").text().encode()


class Kept:
    """A real journal; remembers events, and may refuse."""

    def __init__(self, folder: Path) -> None:
        self.inner = Journal(folder, "server-pod", cipher(folder), "PageCache")
        self.events: list[EventRecord] = []
        self.full = False

    async def append(self, record: Any) -> Any:
        if self.full:
            raise JournalFull("no room")
        if isinstance(record, EventRecord):
            self.events.append(record)
        return await self.inner.append(record)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.inner.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def promises(journal: Kept, ledger: Ledger | None = None, identity: Identity = IDENTITY, **more: Any) -> Promises:
    return Promises(identity, journal, ledger or Ledger(journal), 3600, poll=0.001, **more)


async def announced(made: Promises) -> asyncio.Task[None]:
    task = asyncio.create_task(made.run())
    await until(lambda: made._key is not None)
    return task


def gateway(journal: Any, given: Promises | None, **more: Any) -> Gateway:
    data = plane(journal=journal, promises=given, **more)
    return Gateway("credit", why="", service=HttpService(data, V2Codec(data.signature, "credit", "r1")))


def client(made: Gateway) -> httpx.AsyncClient:
    app = FastPathApp(made, application(made), 1 << 20)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


def checked(text: str, journal: Kept) -> SignedPromise:
    """By the key that the journal announces."""
    signed = SignedPromise.parse(text)
    (event,) = (e for e in journal.events if e.id == signed.key)
    signed.verify(decode_key(AnnouncedKey(event.summary["publicKey"], "", "")))
    return signed


PATH, ASK = "/v2/models/credit/infer", {"x-governed-promise": "1"}


async def test_who_asks_gets_a_promise_of_this_very_record(journal: Kept) -> None:
    made = promises(journal)
    task = await announced(made)
    async with client(gateway(journal, made)) as http:
        answer = await http.post(PATH, json=v2_body(), headers=ASK)
        bare = await http.post(PATH, json=v2_body())
        one = await http.post("/v1/models/credit:predict", json={"instances": [ROW]}, headers=ASK)
    task.cancel()
    assert (answer.status_code, "x-governed-promise" in bare.headers) == (200, False)
    signed = checked(answer.headers["x-governed-promise"], journal)
    promise = signed.promise
    assert (promise.id, promise.model, promise.revision) == (answer.headers["x-prediction-id"], "credit", "r1")
    assert (promise.stream, promise.frame, promise.index, promise.delay) == ("server-pod", 1, 0, 3600)
    assert one.status_code == 200, one.text
    assert checked(one.headers["x-governed-promise"], journal).promise.frame == 3


async def test_asked_while_the_key_is_not_in_the_ledger_nothing_is_computed_or_recorded(journal: Kept) -> None:
    ledger = Ledger(journal, shipped=False)
    made = promises(journal, ledger)
    task = asyncio.create_task(made.run())
    async with client(gateway(journal, made)) as http:
        await until(lambda: journal.events)
        answer = await http.post(PATH, json=v2_body(), headers=ASK)
        assert (answer.status_code, "isn't announced yet" in answer.text) == (503, True)
        assert answer.headers["retry-after"]
        assert journal.inner.stats.records == 1, "the announcement alone"
        assert (await http.post(PATH, json=v2_body())).status_code == 200
        ledger.shipped = True
        await until(lambda: made._key is not None)
        assert (await http.post(PATH, json=v2_body(), headers=ASK)).status_code == 200
    task.cancel()


async def test_a_dead_letter_in_the_place_of_the_announcement_announces_nothing(journal: Kept) -> None:
    made = promises(journal, Ledger(journal, instead="deadLetter"))
    task = asyncio.create_task(made.run())
    await until(lambda: journal.events)
    await asyncio.sleep(0.1)
    with pytest.raises(PromiseUnavailable):
        made.check()
    task.cancel()


@pytest.mark.parametrize("policy", ["Closed", "Open"])
async def test_what_is_not_journalled_is_never_promised(journal: Kept, policy: str) -> None:
    made = promises(journal)
    task = await announced(made)
    async with client(gateway(journal, made, journal_policy=policy)) as http:
        journal.full = True
        answer = await http.post(PATH, json=v2_body(), headers=ASK)
        assert (answer.status_code, "x-governed-promise" in answer.headers) == (503, False)
        bare = await http.post(PATH, json=v2_body())
        assert bare.status_code == (200 if policy == "Open" else 503)
    task.cancel()


async def test_a_model_without_promises_says_so(journal: Kept) -> None:
    async with client(gateway(journal, None)) as http:
        answer = await http.post(PATH, json=v2_body(), headers=ASK)
        assert (answer.status_code, "spec.governance.audit.promises" in answer.text) == (400, True)
        answer = await http.post(PATH, json=v2_body(), headers={"x-governed-promise": "maybe"})
        assert (answer.status_code, "expected 1, found 'maybe'" in answer.text) == (400, True)
    async with client(gateway(None, promises(journal))) as http:  # and so does one that records nothing
        assert (await http.post(PATH, json=v2_body(), headers=ASK)).status_code == 400


async def test_routes_that_explain_refuse_the_header(journal: Kept) -> None:
    made = promises(journal)
    async with client(gateway(journal, made)) as http:
        for path in ("/v2/models/credit/explain", "/v2/models/credit/explanations", "/v1/models/credit:explain"):
            answer = await http.post(path, json=v2_body(), headers=ASK)
            assert (answer.status_code, "carry no promise" in answer.text) == (400, True), path


async def test_always_promises_each_answer_once_the_key_is_announced(journal: Kept) -> None:
    made = promises(journal, always=True)
    async with client(gateway(journal, made)) as http:
        assert "x-governed-promise" not in (await http.post(PATH, json=v2_body())).headers
        task = await announced(made)
        answers = await asyncio.gather(*(http.post(PATH, json=v2_body()) for _ in range(20)))
    task.cancel()
    found = [checked(a.headers["x-governed-promise"], journal).promise for a in answers]
    assert [p.id for p in found] == [a.headers["x-prediction-id"] for a in answers]
    assert len({(p.frame, p.index) for p in found}) == 20


async def test_a_clock_outside_of_the_keys_time_stops_it(journal: Kept) -> None:
    clock = Clock()
    made = promises(journal, clock=clock)
    task = await announced(made)
    made.check()
    for moment in (clock.now + VALID_SECONDS + 1, clock.now - 1):
        before, clock.now = clock.now, moment
        with pytest.raises(PromiseUnavailable, match="out of its time"):
            made.check()
        clock.now = before
    task.cancel()


async def test_grpc_carries_it_in_metadata(journal: Kept) -> None:
    made = promises(journal)
    task = await announced(made)
    server = RpcServer(gateway(journal, made), 1 << 20, BodyRoom(1 << 22))
    port = await server.start("127.0.0.1", 0)
    request = MESSAGES["ModelInferRequest"](model_name="credit", inputs=typed())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
            response_deserializer=MESSAGES["ModelInferResponse"].FromString,
        )
        call = infer(request, metadata=(("x-governed-promise", "1"),), timeout=60)
        answer = await call
        trailer = dict(await call.trailing_metadata())
        bare = infer(request, timeout=60)
        await bare
        assert "x-governed-promise" not in dict(await bare.trailing_metadata())
    await server.stop(0)
    task.cancel()
    promise = checked(trailer["x-governed-promise"], journal).promise
    assert promise.id == answer.parameters["prediction_id"].string_param


async def conversation(journal: Kept, pieces: list[bytes] | None = None) -> World:
    made = promises(journal, identity=Identity("chat", "default", "r1"))
    respond = (lambda _: httpx.Response(200, stream=Pieces(pieces))) if pieces else None
    world = World(respond, journal=journal, promises=made)  # type: ignore[arg-type]
    task = await announced(made)
    task.cancel()
    return world


BODY = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
CHAT = "/v1/chat/completions"


async def test_a_completion_carries_it(journal: Kept) -> None:
    world = await conversation(journal)
    answer = await world.gateway.answer(CHAT, json.dumps(BODY).encode(), promise=True)
    assert isinstance(answer, Completed)
    promise = checked(answer.promise, journal).promise
    assert (promise.id, promise.frame) == (answer.id, 2), "behind announcement and prompt: the completed record's"
    async with client(Gateway("chat", why="", chat=world.gateway)) as http:
        found = await http.post(CHAT, json=BODY, headers=ASK)
        assert checked(found.headers["x-governed-promise"], journal).promise.id == found.headers["x-prediction-id"]
        assert "x-governed-promise" not in (await http.post(CHAT, json=BODY)).headers


async def test_a_stream_carries_it_in_its_last_event_but_one(journal: Kept) -> None:
    world = await conversation(journal, [chunk("a "), chunk("b"), b"data: [DONE]\n\n"])
    stream = await world.gateway.answer(CHAT, json.dumps(BODY | {"stream": True}).encode(), promise=True)
    assert isinstance(stream, Stream)
    *_, last, done = await read(stream)
    said = json.loads(last.removeprefix(b"data: "))
    assert (done, said["choices"], said["object"]) == (b"data: [DONE]\n\n", [], "chat.completion.chunk")
    assert checked(said["ledger_promise"], journal).promise.id == stream.id


async def test_a_stream_that_could_not_be_recorded_ends_with_an_error_and_no_promise(journal: Kept) -> None:
    world = await conversation(journal, [chunk("a"), b"data: [DONE]\n\n"])
    stream = await world.gateway.answer(CHAT, json.dumps(BODY | {"stream": True}).encode(), promise=True)
    assert isinstance(stream, Stream)
    journal.full = True
    pieces = b"".join(await read(stream))
    assert b"error" in pieces
    assert b"ledger_promise" not in pieces
    assert b"[DONE]" not in pieces


async def test_a_conversation_is_refused_before_the_runtime_is_asked(journal: Kept) -> None:
    world = World(journal=journal, promises=promises(journal))  # type: ignore[arg-type]
    with pytest.raises(PromiseUnavailable):
        await world.gateway.answer(CHAT, json.dumps(BODY).encode(), promise=True)
    with pytest.raises(InvalidRequest):
        await World().gateway.answer(CHAT, json.dumps(BODY).encode(), promise=True)
    assert world.seen == []
