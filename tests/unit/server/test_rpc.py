"""gRPC: every method of the service, raw and typed contents, errors as status codes."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from governed_api.governance import Limit, Quota
from governed_serving.server.app.fast_path import BodyRoom
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.protocol import binary
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import LocalQuota
from governed_serving.server.rpc import receiving, service
from governed_serving.server.rpc.messages import MESSAGES
from governed_serving.server.rpc.service import RpcServer
from support import raw_http2
from unit.server.planes import MemoryJournal, plane, until
from unit.server.tabular_model import NUMBERS, ROW


class Client:
    def __init__(self, channel: Any, gateway: Gateway, journal: MemoryJournal, room: BodyRoom, port: int = 0) -> None:
        self.channel, self.gateway, self.journal, self.room, self.port = channel, gateway, journal, room, port

    async def __call__(
        self, method: str, message: str = "", service: str = "inference.GRPCInferenceService", **fields: Any
    ) -> Any:
        name = message or method
        call = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=MESSAGES[f"{name}Request"].SerializeToString,
            response_deserializer=MESSAGES[f"{name}Response"].FromString,
        )
        return await call(MESSAGES[f"{name}Request"](**fields), timeout=60)


@pytest.fixture
async def rpc() -> AsyncIterator[Client]:
    journal = MemoryJournal()
    quota = LocalQuota(Quota(requests=[Limit(limit=3, window="1h")]), "k")
    data = plane(journal=journal, quota=quota)
    http = HttpService(data, V2Codec(data.signature, "credit", "r1"))
    gateway = Gateway("credit", why="", service=http, metrics=data.metrics)
    room = BodyRoom(1 << 22)
    server = RpcServer(gateway, 1 << 20, room)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel, gateway, journal, room, port)
    await server.stop(0)
    await data.close()


def typed() -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for name, value in ROW.items():
        number = name in NUMBERS
        contents = {"fp32_contents": [value]} if number else {"bytes_contents": [value.encode()]}
        out.append({"name": name, "datatype": "FP32" if number else "BYTES", "shape": [1, 1], "contents": contents})
    return out


async def test_typed_and_raw_contents_agree(rpc: Client) -> None:
    first = await rpc("ModelInfer", model_name="credit", id="a", inputs=typed())
    bare = [{k: t[k] for k in ("name", "datatype", "shape")} for t in typed()]
    raw = [binary.pack("FP32" if n in NUMBERS else "BYTES", [v]) for n, v in ROW.items()]
    second = await rpc("ModelInfer", model_name="credit", id="b", inputs=bare, raw_input_contents=raw)
    scores = list(first.outputs[0].contents.fp32_contents)
    assert np.frombuffer(second.raw_output_contents[0], np.float32).tolist() == pytest.approx(scores)
    assert first.outputs[1].contents.bytes_contents[0] in (b"yes", b"no")
    assert list(first.outputs[0].shape) == [1, 2]
    assert (first.model_version, first.id, first.parameters["ledger"].string_param) == ("r1", "a", "pending")
    assert rpc.journal.called == ["a", "b"]
    assert [answer.parameters["prediction_id"].string_param for answer in (first, second)] == rpc.journal.ids


async def test_beyond_capacity_a_call_is_refused_before_its_message_is_parsed(
    rpc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rpc.gateway.serving().plane
    monkeypatch.setattr(data.pipeline.backlog, "seconds", lambda: 1e3)
    garbage = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError, match="overloaded, retry later") as refused:
        await garbage(b"\xff" * 9, timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert data.metrics.requests["infer", 503] == 1
    assert (await rpc("ModelReady", name="credit")).ready
    monkeypatch.setattr(data.pipeline.backlog, "seconds", lambda: 0.0)
    with pytest.raises(grpc.aio.AioRpcError, match="bytes that are none"):
        await garbage(b"\xff" * 9, timeout=60)


async def test_an_answer_names_the_mitigation_that_was_trained_with(rpc: Client) -> None:
    plain = await rpc("ModelInfer", model_name="credit", inputs=typed())
    assert "mitigation" not in plain.parameters
    data = rpc.gateway.serving().plane
    data.signature = replace(data.signature, mitigation="reweighing", coverage=0.9)
    told = await rpc("ModelInfer", model_name="credit", inputs=typed())
    assert told.parameters["mitigation"].string_param == "reweighing"
    told = rpc.gateway.serving().metadata()["parameters"]
    assert (told["mitigation"], told["coverage"]) == ("reweighing", 0.9)


async def test_health_and_metadata(rpc: Client) -> None:
    assert (await rpc("ServerLive")).live
    assert (await rpc("ServerReady")).ready
    assert (await rpc("ModelReady", name="credit", version="r1")).ready
    assert (await rpc("ServerMetadata")).name == "governed-models"
    metadata = await rpc("ModelMetadata", name="credit")
    assert [t.name for t in metadata.inputs] == list(ROW)
    assert list(metadata.outputs[0].shape) == [-1, 2]
    check = {"message": "HealthCheck", "service": "grpc.health.v1.Health"}
    assert (await rpc("Check", **check)).status == 1
    rpc.gateway.why = "draining"
    assert (await rpc("Check", **check)).status == 2
    assert not (await rpc("ServerReady")).ready


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND, "'other'"),
        ({"model_name": "credit", "model_version": "r9"}, grpc.StatusCode.NOT_FOUND, "'r9'"),
        ({"model_name": "credit"}, grpc.StatusCode.INVALID_ARGUMENT, "'income'"),
        (
            {"model_name": "credit", "inputs": typed(), "raw_input_contents": [b""]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "raw_input_contents: expected 12",
        ),
    ],
)
async def test_errors_are_status_codes(rpc: Client, fields: dict[str, Any], code: Any, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc("ModelInfer", **fields)
    assert caught.value.code() == code
    assert words in caught.value.details()


async def test_quota_is_resource_exhausted(rpc: Client) -> None:
    for _ in range(3):
        await rpc("ModelInfer", model_name="credit", inputs=typed())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc("ModelInfer", model_name="credit", inputs=typed())
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("raw", [b"\xff\xff\xffgarbage", b"\x0a\x02\xff\xff"], ids=["garbage", "no UTF-8"])
async def test_bytes_that_are_no_message_are_the_client_s_fault(rpc: Client, raw: bytes) -> None:
    call = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(raw, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_watchers_are_told_of_changes_and_let_go_when_the_server_leaves(rpc: Client) -> None:
    serializer = MESSAGES["HealthCheckRequest"].SerializeToString
    watch = rpc.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=serializer,
        response_deserializer=MESSAGES["HealthCheckResponse"].FromString,
    )
    call = watch(MESSAGES["HealthCheckRequest"](service="credit"), timeout=60)
    assert (await call.read()).status == 1
    rpc.gateway.why = "the server is shutting down"
    assert (await call.read()).status == 2
    rpc.gateway.leaving = True
    assert await call.read() is grpc.aio.EOF
    unknown = watch(MESSAGES["HealthCheckRequest"](service="nobody"), timeout=60)
    assert (await unknown.read()).status == 3


async def test_too_many_streams_are_refused(rpc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_STREAMS", 1)
    watch = rpc.channel.unary_stream("/grpc.health.v1.Health/Watch")
    first = watch(b"", timeout=60)
    assert await first.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(b"", timeout=60).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    first.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service(rpc: Client, version: str) -> None:
    call = rpc.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(timeout=60)
    asked = reflection_pb2.ServerReflectionRequest

    async def ask(**fields: Any) -> Any:
        await call.write(asked(**fields))
        return await call.read()

    names = [one.name for one in (await ask(list_services="")).list_services_response.service]
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} < set(names)
    pool = descriptor_pool.DescriptorPool()
    for name in names:
        (raw,) = (await ask(file_containing_symbol=name)).file_descriptor_response.file_descriptor_proto
        pool.AddSerializedFile(raw)
        assert pool.FindServiceByName(name).methods
    infer = pool.FindMethodByName("inference.GRPCInferenceService.ModelInfer")
    assert infer.input_type.fields_by_name["raw_input_contents"].number == 7
    for missing in ({"file_containing_symbol": "inference.Nothing"}, {"file_by_filename": "x"}, {"host": "h"}):
        assert (await ask(**missing)).error_response.error_code == 5
    await call.write(asked(list_services="*"))
    await call.done_writing()
    assert (await call.read()).list_services_response.service


async def test_messages_share_the_room_of_bodies(rpc: Client) -> None:
    rpc.room.take(rpc.room.limit)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc("ModelInfer", model_name="credit", inputs=typed())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc.gateway.metrics is not None
    assert rpc.gateway.metrics.requests["infer", 503] == rpc.gateway.metrics.count["client_made_errors"] == 1
    rpc.room.give(rpc.room.limit)
    await rpc("ModelInfer", model_name="credit", inputs=typed())
    assert rpc.room.held == 0


async def test_few_messages_may_take_long_and_small_ones_wait_for_none(
    rpc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpcio keeps what came of each: a thousand calls that send 64 MiB slowly would hold 64 GiB."""
    begun = raw_http2.call(raw_http2.INFER, (), bytes(500_000))[:20_000]
    answers = [bytearray() for _ in range(12)]

    async def slow(answer: bytearray) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rpc.port)
        writer.write(begun)
        while raw_http2.status_of(bytes(answer)) is None and (more := await reader.read(65_536)):
            answer += more
        writer.close()

    def ended() -> list[int]:
        return [status for answer in answers if (status := raw_http2.status_of(bytes(answer))) is not None]

    clients = [asyncio.create_task(slow(answer)) for answer in answers]
    await until(lambda: len(ended()) == 12 - receiving.LONG)
    assert set(ended()) == {8}
    for _ in range(3):
        await rpc("ModelInfer", model_name="credit", inputs=typed())
    assert rpc.gateway.metrics is not None
    assert rpc.gateway.metrics.requests["infer", 503] == 12 - receiving.LONG
    monkeypatch.setattr(receiving, "LONGEST_SECONDS", 0.1)
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    assert sorted(ended()) == [4] * receiving.LONG + [8] * (12 - receiving.LONG)
    await rpc("ServerLive")


async def test_a_call_without_a_message_is_the_client_s_fault(rpc: Client) -> None:
    call = rpc.channel.stream_unary(raw_http2.INFER.decode())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(iter(()), timeout=60)
    assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_status_quotes_no_more_than_a_client_takes(rpc: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc("ModelReady", name="模" * 200_000)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(caught.value.details() or "") <= 500


async def test_calls_in_flight_outlive_a_call_that_ends_the_server(rpc: Client) -> None:
    """grpcio's loop ends at a path that is no UTF-8, before anything of ours sees it; what it had accepted goes on."""
    rpc.journal.gate = asyncio.Event()
    calls = [asyncio.create_task(rpc("ModelInfer", model_name="credit", inputs=typed())) for _ in range(3)]
    watch = rpc.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
    assert await watch.read()
    await until(lambda: rpc.journal.frames)
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", rpc.port)
        writer.write(raw_http2.call(b"/\xff"))
        writer.close()
        await asyncio.sleep(0.5)
        gc.collect()
    codes = Counter[str]()
    for _ in range(40):
        codes[await _code(rpc)] += 1
        if codes["OK"]:
            break
        await asyncio.sleep(0.1)
    assert codes["OK"]
    assert set(codes) <= {"OK", "UNAVAILABLE", "CANCELLED"}
    rpc.journal.gate.set()
    answers = await asyncio.gather(*calls)
    assert sorted(answer.parameters["prediction_id"].string_param for answer in answers) == sorted(rpc.journal.ids)
    assert rpc.gateway.metrics is not None
    assert rpc.gateway.metrics.requests == {("infer", 200): 3}
    watch.cancel()


async def _code(rpc: Client) -> str:
    try:
        await rpc("ServerLive")
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"
