"""Who calls travels with a request: through the door of each protocol, against the caller's own limits, over what a
request says of audited attributes, into the record."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
import msgspec
import pytest

from governed_api import routes
from governed_api.callers import caller_pseudonym
from governed_api.governance import Limit, Quota
from governed_serving.access.directory import Directory, Known
from governed_serving.access.failures import MOST
from governed_serving.access.gate import Gate
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.hosting import listen, web_server
from governed_serving.journal import numbers, strings
from governed_serving.records import LedgerEntry, PredictionFrame, canonical, encode_frame
from governed_serving.server import accounts as accounts_room
from governed_serving.server.accounts import Accounts
from governed_serving.server.app.connection import FastPathConnection
from governed_serving.server.app.fast_path import BodyRoom, FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.chat.attributes import Attributes
from governed_serving.server.chat.request import CHAT
from governed_serving.server.errors import QuotaExceeded, TooManyTokens, Unavailable
from governed_serving.server.identifiers import Identifiers
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import LocalQuota
from governed_serving.server.rpc.messages import MESSAGES
from governed_serving.server.rpc.service import RpcServer
from support import raw_http2
from unit.access.people import SECRET, caller, document, gate_of, key
from unit.server.conversations import ANSWER, Pieces, World, chunk
from unit.server.planes import MemoryJournal, plane, until
from unit.server.tabular_model import v2_body
from unit.server.test_attributes import BIAS
from unit.server.test_connection import LINE, Connection
from unit.server.test_rpc import Client, typed

A, B, S = key("a"), key("b"), key("s")
BEARER = b"authorization: Bearer %b\r\n"
TEAM = caller_pseudonym(SECRET, "team")


def accounts_of(gate: Gate, store: str | None = None) -> Callable[[ServerMetrics], Accounts]:
    return lambda metrics: Accounts("team-a/credit", gate.pseudonym, metrics, store)


def behind(gate: Gate, **options: Any) -> Gateway:
    gateway = Gateway("credit", why="", gate=gate)
    data = plane(accounts=accounts_of(gate), **options)
    gateway.service = HttpService(data, V2Codec(data.signature, "credit", "r1"))
    return gateway


@asynccontextmanager
async def served(gate: Gate, **options: Any) -> AsyncIterator[Connection]:
    gateway = behind(gate, **options)
    server = web_server(FastPathApp(gateway, application(gateway), 1 << 20), grace=60, http=FastPathConnection)
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([sock]))
    await until(lambda: server.started)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        server.should_exit = True
        await task


def infer(text: str | None, **body: Any) -> bytes:
    content = json.dumps(v2_body(**body)).encode()
    shown = b"" if text is None else BEARER % text.encode()
    return LINE + b"host: x\r\n" + shown + b"content-length: %d\r\n\r\n%b" % (len(content), content)


async def test_a_key_that_is_revoked_between_two_requests_of_a_connection() -> None:
    gate, journal = gate_of(caller("team", A)), MemoryJournal()
    async with served(gate, journal=journal) as c:
        c.send(infer(A))
        assert (await c.answer())[0] == 200
        gate.directory = Directory(document(caller("team", B), sequence=2), "team-a", "credit")
        c.send(infer(A))
        status, headers, body = await c.answer()
        assert (status, headers["www-authenticate"].split()[0]) == (401, "bearer")
        assert list(json.loads(body)) == ["error"]
        c.send(infer(B))
        assert (await c.answer())[0] == 200, "the connection goes on"
    assert [frame.callers for frame in journal.frames] == [[TEAM]] * 2
    assert b"team" not in b"".join(encode_frame(frame) for frame in journal.frames)


async def test_pipelined_requests_are_judged_one_by_one() -> None:
    async with served(gate_of(caller("team", A), caller("scraper", S, roles=["scrape"]))) as c:
        c.send(infer(A) + infer(None) + infer(S) + infer(A))
        assert [(await c.answer())[0] for _ in range(4)] == [200, 401, 403, 200]


async def test_nothing_is_read_of_a_body_whose_sender_nobody_knows() -> None:
    async with served(gate_of(caller("team", A))) as c:
        c.send(LINE + b"host: x\r\ncontent-length: 1000000000\r\n\r\n")
        status, headers, _ = await c.answer()
        assert (status, headers["connection"]) == (401, "close"), "before 413, and before the body"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (BEARER % A.encode() * 2, 401),
        (BEARER % A.encode() + b"x-api-key: " + A.encode() + b"\r\n", 401),
        (b"api-key: " + A.encode() + b"\r\n", 200),
        (b"authorization: Bearer " + "ключ".encode() + b"\r\n", 401),
        (b"authorization: Bearer " + b"a" * 20_000 + b"\r\n", 401),
        (b"authorization: Bearer " + b"a" * (1 << 20) + b"\r\n", 431),
    ],
)
async def test_odd_credentials_on_the_fast_path(fields: bytes, status: int) -> None:
    async with served(gate_of(caller("team", A))) as c:
        content = json.dumps(v2_body()).encode()
        c.send(LINE + b"host: x\r\n" + fields + b"content-length: %d\r\n\r\n%b" % (len(content), content))
        assert (await c.answer())[0] == status


async def test_a_body_in_pieces_is_its_senders_who_are_counted_once() -> None:
    gate = gate_of(caller("team", A))
    async with served(gate) as c:
        whole = infer(A)
        for piece in (whole[:-300], whole[-300:-100], whole[-100:]):
            c.send(piece)
            await asyncio.sleep(0.01)
        assert (await c.answer())[0] == 200
    assert gate.allowed == {"call": 1}


@pytest.fixture
async def rpc() -> AsyncIterator[Client]:
    gateway = behind(gate_of(caller("team", A), caller("scraper", S, roles=["scrape"])), journal=MemoryJournal())
    room = BodyRoom(1 << 22)
    server = RpcServer(gateway, 1 << 20, room)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        journal: Any = gateway.serving().plane.pipeline._journal
        yield Client(channel, gateway, journal, room, port)
    await server.stop(0)


async def code_of(rpc: Client, method: str, metadata: Any = (), stem: str = "", **fields: Any) -> str:
    service = "grpc.health.v1.Health" if method == "Check" else "inference.GRPCInferenceService"
    name = stem or method
    call = rpc.channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=MESSAGES[f"{name}Request"].SerializeToString,
        response_deserializer=MESSAGES[f"{name}Response"].FromString,
    )
    answer = call(MESSAGES[f"{name}Request"](**fields), timeout=60, metadata=metadata)
    assert "credit" not in (await answer.details() or "")
    return str((await answer.code()).name)


def shows(text: str, times: int = 1) -> Any:
    return (("authorization", f"Bearer {text}"),) * times


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("ModelInfer", {"model_name": "credit", "inputs": typed()}),
        ("ModelMetadata", {"name": "credit"}),
        ("ModelReady", {"name": "credit"}),
        ("ServerMetadata", {}),
    ],
)
async def test_grpc_knows_who_calls(rpc: Client, method: str, fields: dict[str, Any]) -> None:
    assert await code_of(rpc, method, **fields) == "UNAUTHENTICATED"
    assert await code_of(rpc, method, shows(B), **fields) == "UNAUTHENTICATED"
    assert await code_of(rpc, method, shows(A, 2), **fields) == "UNAUTHENTICATED"
    assert await code_of(rpc, method, shows(S), **fields) == "PERMISSION_DENIED"
    assert await code_of(rpc, method, shows(A), **fields) == "OK"
    assert await code_of(rpc, method, (("x-api-key", A),), **fields) == "OK"


async def _raw_call(port: int, value: bytes) -> bytes:
    """ServerMetadata with an authorization that no library would send, until it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw_http2.call(b"/inference.GRPCInferenceService/ServerMetadata", [(b"authorization", value)]))
    got = b""
    while raw_http2.status_of(got) is None:
        got += await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    return got


@pytest.mark.parametrize("slip", [b"\xff\xfe", b"\x80", b"\xc3", "é".encode("latin-1")])
async def test_a_key_with_a_slip_is_refused_and_stands_in_no_log(
    rpc: Client, slip: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    got = await _raw_call(rpc.port, b"Bearer " + A.encode() + slip)
    assert raw_http2.status_of(got) == 16, "UNAUTHENTICATED"
    said = caplog.text + "".join(capfd.readouterr())
    assert A.split("_")[2] not in said + got.decode("latin-1")
    assert "Traceback" not in said


@pytest.mark.parametrize("path", [b"/\xff/x", b"/\xc3", b"\x80"])
async def test_a_call_whose_path_is_no_text_ends_no_server(rpc: Client, path: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", rpc.port)
    writer.write(raw_http2.call(path))
    await asyncio.sleep(0.5)
    writer.close()

    async def answered() -> bool:
        return await code_of(rpc, "ServerLive") == "OK"

    for _ in range(100):
        if await answered():
            return
        await asyncio.sleep(0.1)
    pytest.fail("gRPC answers again")


async def test_grpc_reads_nothing_of_a_message_whose_sender_nobody_knows(rpc: Client) -> None:
    """More than the server takes: one that was read would be RESOURCE_EXHAUSTED."""
    call = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for metadata, code in (((), "UNAUTHENTICATED"), (shows(S), "PERMISSION_DENIED"), (shows(A), "RESOURCE_EXHAUSTED")):
        answer = call(bytes(3 << 20), timeout=60, metadata=metadata)
        assert (await answer.code()).name == code


async def test_grpc_counts_each_call_once_and_puts_a_flood_off(rpc: Client) -> None:
    gate = rpc.gateway.gate
    assert gate is not None
    for _ in range(MOST):
        assert await code_of(rpc, "ServerMetadata", shows(B)) == "UNAUTHENTICATED"
    assert await code_of(rpc, "ServerMetadata", shows(B)) == "RESOURCE_EXHAUSTED"
    assert await code_of(rpc, "ServerMetadata", shows(A)) == "OK"
    assert (gate.refused, gate.allowed) == ({"unknown": MOST, "throttled": 1}, {"call": 1})


async def test_grpc_records_who_called(rpc: Client) -> None:
    assert await code_of(rpc, "ModelInfer", shows(A), model_name="credit", inputs=typed()) == "OK"
    assert [frame.callers for frame in rpc.journal.frames] == [[TEAM]]


async def test_grpc_health_names_no_service_to_strangers(rpc: Client) -> None:
    assert await code_of(rpc, "ServerLive") == await code_of(rpc, "ServerReady") == "OK"
    assert await code_of(rpc, "Check", stem="HealthCheck") == "OK"
    for service in ("credit", "nothing"):
        assert await code_of(rpc, "Check", stem="HealthCheck", service=service) == "UNAUTHENTICATED"
    assert await code_of(rpc, "Check", shows(A), stem="HealthCheck", service="credit") == "OK"


def http(gateway: Gateway) -> httpx.AsyncClient:
    app: Any = FastPathApp(gateway, application(gateway), 1 << 20)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


INFER = routes.INFER.format(model="credit")


async def test_a_callers_own_limit_holds_over_all_protocols_and_for_that_caller_alone() -> None:
    limits = [{"unit": "requests", "limit": 2, "windowSeconds": 3600}]
    gate = gate_of(caller("team", A, limits=limits), caller("other", B))
    gateway = behind(gate, journal=MemoryJournal())
    async with http(gateway) as client:
        first = await client.post(INFER, json=v2_body(), headers={"x-api-key": A})
        assert first.headers["ratelimit"].startswith('"requests-3600s";r=1')
        v1 = await client.post(
            routes.V1_PREDICT.format(model="credit"), json={"instances": [{}]}, headers={"x-api-key": A}
        )
        assert v1.status_code == 400, "what is no request uses nothing"
        assert (await client.post(INFER, json=v2_body(), headers={"x-api-key": A})).status_code == 200
        over = await client.post(INFER, json=v2_body(), headers={"x-api-key": A})
        assert over.status_code == 429
        assert int(over.headers["retry-after"]) > 0
        assert over.json()["error"].startswith("consumer.limits.requests: expected at most 2 requests in 3600s")
        other = await client.post(INFER, json=v2_body(), headers={"x-api-key": B})
        assert (other.status_code, "ratelimit" in other.headers) == (200, False)
    metrics = gateway.serving().plane.metrics
    assert dict(metrics.refusals) == {"caller_requests": 1}
    assert 'quota="caller_requests"} 1.0' in metrics.text().decode()


async def test_what_the_model_refuses_a_caller_has_not_used() -> None:
    limits = [{"unit": "requests", "limit": 2, "windowSeconds": 3600}]
    why = ["loading"]
    gateway = behind(gate_of(caller("team", A, limits=limits)), ready=lambda: why[0])
    async with http(gateway) as client:
        for _ in range(5):
            assert (await client.post(INFER, json=v2_body(), headers={"x-api-key": A})).status_code == 503
        why[0] = ""
        answers = [(await client.post(INFER, json=v2_body(), headers={"x-api-key": A})).status_code for _ in range(3)]
    assert answers == [200, 200, 429]


async def test_a_caller_over_the_limit_uses_nothing_of_the_models_quota() -> None:
    limits = [{"unit": "requests", "limit": 1, "windowSeconds": 3600}]
    gate = gate_of(caller("greedy", A, limits=limits), caller("other", B))
    gateway = behind(gate, quota=LocalQuota(Quota(requests=[Limit(limit=3, window="1h")]), "k"))
    async with http(gateway) as client:
        greedy = [(await client.post(INFER, json=v2_body(), headers={"x-api-key": A})).status_code for _ in range(9)]
        other = [(await client.post(INFER, json=v2_body(), headers={"x-api-key": B})).status_code for _ in range(3)]
    assert greedy == [200] + [429] * 8
    assert other == [200, 200, 429]


async def test_requests_of_a_caller_in_flight_are_bounded_and_freed() -> None:
    journal = MemoryJournal()
    journal.gate = asyncio.Event()
    gateway = behind(gate_of(caller("team", A, maxConcurrent=2), caller("other", B)), journal=journal)
    async with http(gateway) as client:

        async def post(text: str) -> int:
            return (await client.post(INFER, json=v2_body(), headers={"x-api-key": text})).status_code

        waiting = [asyncio.create_task(post(A)) for _ in range(2)]
        await until(lambda: gateway.serving().plane.admission.open == 2)
        assert await post(A) == 429
        other = asyncio.create_task(post(B))
        await until(lambda: gateway.serving().plane.admission.open == 3)
        journal.gate.set()
        assert await asyncio.gather(*waiting, other) == [200] * 3
        assert await post(A) == 200


def known(**more: Any) -> tuple[Gate, Known]:
    gate = gate_of(caller("team", A, **more))
    return gate, gate.known(A)


async def test_tokens_of_a_conversation_are_reserved_settled_and_never_overspent() -> None:
    gate, team = known(limits=[{"unit": "tokens", "limit": 100, "windowSeconds": 3600}])
    world = World(lambda _: httpx.Response(200, json=ANSWER), accounts=accounts_of(gate))

    async def ask(most: int) -> Any:
        message = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": most}
        return await world.gateway.answer(CHAT, json.dumps(message).encode(), caller=team)

    with pytest.raises(TooManyTokens, match="larger than the window"):
        await ask(1000)

    async def spend() -> None:
        for _ in range(13):  # 8 tokens each, of which more are reserved
            await ask(16)

    with pytest.raises(QuotaExceeded, match=r"consumer\.limits\.tokens") as error:
        await spend()
    assert error.value.retry_after
    assert 64 <= world.metrics.count["tokens"] <= 100
    assert world.seen[0]["max_tokens"] == 16, "what is reserved bounds the runtime"
    assert {tuple(frame.callers) for frame in world.journal.frames} == {(TEAM,)}
    await world.pipeline.drain()
    assert world.pipeline.account_of(team).open == 0  # type: ignore[union-attr]


def told(frame: PredictionFrame, name: str) -> list[Any]:
    column = frame.features[name]
    return (strings(column) if column.dtype == "BYTES" else numbers(column)).ravel().tolist()


async def test_a_caller_cant_lie_about_its_group() -> None:
    gate = gate_of(caller("team", A, attributes={"age": "61", "purpose": "car", "income": "1"}), caller("other", B))
    journal = MemoryJournal()
    gateway = behind(gate, journal=journal, audited=("age", "purpose", "nowhere"))
    async with http(gateway) as client:
        for text in (A, B):
            assert (await client.post(INFER, json=v2_body(2), headers={"x-api-key": text})).status_code == 200
    mine, others = journal.frames
    assert (told(mine, "age"), told(mine, "purpose")) == ([61.0, 61.0], ["car", "car"])
    assert told(others, "age") == [41.0, 41.0]
    assert told(mine, "income") == told(others, "income"), "what isn't audited is the request's to say"


async def test_an_attribute_that_is_no_value_of_the_input_is_the_operators_to_correct() -> None:
    gateway = behind(gate_of(caller("team", A, attributes={"age": "old"})), audited=("age",))
    async with http(gateway) as client:
        answer = await client.post(INFER, json=v2_body(), headers={"x-api-key": A})
    assert (answer.status_code, "ModelConsumer" in answer.json()["error"]) == (Unavailable.status, True)


async def test_attributes_of_a_conversation_come_from_who_calls() -> None:
    gate, team = known(attributes={"sex": "female", "office": "north", "ticket": "9"})
    world = World(accounts=accounts_of(gate))
    world.gateway._attributes = Attributes(BIAS, world.metrics)
    metadata = {"sex": "male", "origin": "x", "office": "south", "ticket": "7"}
    message = {"messages": [{"role": "user", "content": "hi"}], "metadata": metadata}
    await world.gateway.answer(CHAT, json.dumps(message).encode(), caller=team)
    found = {name: strings(column)[0] for name, column in world.journal.frames[-1].features.items()}
    assert (found["sex"], found["origin"], found["office"]) == ("female", "x", "north")
    assert world.seen[0]["metadata"] == {"office": "north", "ticket": "7"}


async def test_changed_limits_hold_for_the_next_request_and_what_is_open_goes_on() -> None:
    accounts = Accounts("k", lambda _: "p", ServerMetrics("n", "m"))
    before, after = Known("x", frozenset(), max_concurrent=2), Known("x", frozenset(), max_concurrent=1)
    account = accounts.of(before)
    accounts.enter(account, 0)
    assert accounts.of(after) is account
    with pytest.raises(QuotaExceeded):
        accounts.enter(accounts.of(after), 0)
    assert account.open == 1


def test_the_account_that_was_used_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_room, "MOST", 3)
    accounts = Accounts("k", lambda known: known.name, ServerMetrics("n", "m"))
    people = [Known(str(number), frozenset()) for number in range(4)]
    first, second, _ = (accounts.of(one) for one in people[:3])
    assert accounts.of(people[0]) is first
    accounts.of(people[3])
    assert accounts.of(people[0]) is first
    assert accounts.of(people[1]) is not second


def test_frames_of_before_there_were_callers_are_read() -> None:
    frame = PredictionFrame("m", "r", "a", ["i"], b"", b"", {}, {}, ["c"], ["p"], {"tokensIn": bytes(8)})
    fields = msgspec.msgpack.decode(encode_frame(frame))
    older, oldest = (msgspec.msgpack.encode(fields[:-n]) for n in (1, 2))
    read = [msgspec.msgpack.decode(old, type=PredictionFrame) for old in (older, oldest)]
    assert [(one.callers, one.units) for one in read] == [(["p"], {}), ([], {})]


class Proofs:
    """Receipts of answers that were given to ``caller``."""

    def __init__(self, caller: str) -> None:
        self.caller = caller

    async def receipt(self, id: str) -> bytes:
        if not self.caller:
            return b"no proof at all"
        summary = {} if self.caller == "nobody" else {"caller": self.caller}
        entry = LedgerEntry("prediction", "team-a", "credit", id, "2027-01-01T00:00:00.000Z", summary=summary)
        return LogProof(canonical(entry), 0, (), "note\n\n— x\n").text().encode()


@pytest.mark.parametrize(
    ("given_to", "mine", "auditors"), [(TEAM, 200, 200), ("0" * 32, 404, 200), ("nobody", 404, 200), ("", 404, 200)]
)
async def test_a_receipt_is_given_to_whose_answer_it_is(given_to: str, mine: int, auditors: int) -> None:
    gateway = behind(gate_of(caller("team", A), caller("auditor", B, roles=["call", "audit"])))
    gateway.receipts = Proofs(given_to)
    path = routes.RECEIPT.format(model="credit", id=Identifiers()())
    async with http(gateway) as client:
        answers = [await client.get(path, headers={"x-api-key": text}) for text in (A, B)]
    assert [answer.status_code for answer in answers] == [mine, auditors]
    if mine == 404:
        assert "no answer" in answers[0].json()["error"], "as for one that nobody was given"


async def test_a_stream_goes_on_when_its_callers_key_is_revoked() -> None:
    gate, team = known(maxConcurrent=1)
    hold = asyncio.Event()
    pieces = Pieces([chunk("one "), chunk("two"), b"data: [DONE]\n\n"], hold)
    world = World(lambda _: httpx.Response(200, stream=pieces), accounts=accounts_of(gate))
    message = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = await world.gateway.answer(CHAT, json.dumps(message).encode(), caller=team)
    gate.directory = Directory(document(sequence=2), "team-a", "credit")
    with pytest.raises(QuotaExceeded, match=r"consumer\.maxConcurrent"):
        await world.gateway.answer(CHAT, json.dumps(message).encode(), caller=team)
    hold.set()
    got = b"".join([piece async for piece in answer.pieces])
    assert got.endswith(b"data: [DONE]\n\n")
    assert b"two" in got
    await world.pipeline.drain()
    assert world.pipeline.account_of(team).open == 0  # type: ignore[union-attr]
    assert {tuple(frame.callers) for frame in world.journal.frames} == {(TEAM,)}
