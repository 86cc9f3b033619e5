"""inference.GRPCInferenceService, translated to the data plane, and what gRPC's tools ask of any server: health and
reflection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import Any

from google.protobuf.message import DecodeError

from governed_api.datatypes import DATATYPES
from governed_api.version import __version__
from governed_serving.environment import InvalidSettings
from governed_serving.server.app.fast_path import BodyRoom
from governed_serving.server.app.service import Gateway
from governed_serving.server.errors import InvalidRequest, NotFound, ServerError
from governed_serving.server.messages import InferResponse
from governed_serving.server.promises import HEADER as PROMISE
from governed_serving.server.promises import wants_promise
from governed_serving.server.protocol import binary
from governed_serving.server.protocol.v2_messages import LooseRequest, LooseTensor, RequestedOutput
from governed_serving.server.rpc.messages import MESSAGES, SERVICES

__all__ = ["RpcServer"]

_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CONTENTS = {name: datatype.contents for name, datatype in DATATYPES.items() if datatype.contents}
_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
MAX_CALLS = 1024
"""Calls under way at a time; more are RESOURCE_EXHAUSTED."""
MAX_STREAMS = 64
"""Of which streams (Watch, reflection), which a client may leave open."""
WATCH_SECONDS = 0.5
"""Between looks at what a watcher is told of."""
LONGEST_DETAILS = 500
"""Characters of a status: it travels percent-encoded in metadata, of which clients take 16 KiB."""

Message = Any
"""Of grpc and protobuf, which come without types: messages, contexts, handlers."""


class RpcServer:
    """One gRPC server over ``gateway``. ``max_body`` bounds a message in bytes, ``room`` those of all that are being
    answered, whatever brought them. Raises InvalidSettings without grpcio."""

    def __init__(self, gateway: Gateway, max_body: int, room: BodyRoom) -> None:
        try:
            self._grpc: Message = import_module("grpc")
            aio: Message = import_module("grpc.aio")
        except ImportError as error:
            raise InvalidSettings(
                "GOVERNED_GRPC_PORT: expected grpcio to be installed, found none; install it or unset the port"
            ) from error
        self._gateway, self._room, self._streams = gateway, room, 0
        limits = [
            ("grpc.max_receive_message_length", max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = aio.server(options=limits, maximum_concurrent_rpcs=MAX_CALLS)
        methods = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
        inference = {
            name: self._handler(getattr(self, f"_{_snake(name)}"), f"{name}Request", f"{name}Response")
            for name in methods
        }
        self._server.add_generic_rpc_handlers(
            tuple(self._grpc.method_handlers_generic_handler(*service) for service in self._services(inference))
        )

    def _services(self, inference: dict[str, Message]) -> list[tuple[str, dict[str, Message]]]:
        """(name, methods) of each."""
        check = self._handler(self._check, "HealthCheckRequest", "HealthCheckResponse")
        watch = self._grpc.unary_stream_rpc_method_handler(
            self._watch, None, MESSAGES["HealthCheckResponse"].SerializeToString
        )
        reflect = self._grpc.stream_stream_rpc_method_handler(
            self._reflect, None, MESSAGES["ServerReflectionResponse"].SerializeToString
        )
        services = [("inference.GRPCInferenceService", inference)]
        services.append(("grpc.health.v1.Health", {"Check": check, "Watch": watch}))
        services += [(name, {"ServerReflectionInfo": reflect}) for name in SERVICES if "reflection" in name]
        return services

    async def start(self, host: str, port: int) -> int:
        """The port bound. Raises OSError naming GOVERNED_GRPC_PORT."""
        try:
            bound = int(self._server.add_insecure_port(f"{host}:{port}"))
        except RuntimeError as error:
            raise OSError(
                f"port {port} on {host}: expected it to be free, found it in use; set GOVERNED_GRPC_PORT"
            ) from error
        await self._server.start()
        return bound

    async def stop(self, grace: float) -> None:
        """No new calls; those in flight have ``grace`` seconds."""
        await self._server.stop(grace)

    def _handler(
        self, answer: Callable[[Message, Message], Awaitable[Message]], request: str, response: str
    ) -> Message:
        parse = MESSAGES[request].FromString

        async def handle(raw: bytes, context: Message) -> Message:
            codes, held = self._grpc.StatusCode, 0
            try:
                self._room.take(len(raw))
                held = len(raw)
                return await answer(parse(raw), context)
            except ServerError as error:
                await context.abort(getattr(codes, _CODES.get(error.status, "INTERNAL")), str(error)[:LONGEST_DETAILS])
            except DecodeError:
                await context.abort(codes.INVALID_ARGUMENT, f"expected a {request}, found bytes that are none")
            finally:
                self._room.give(held)

        return self._grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=None,
            response_serializer=MESSAGES[response].SerializeToString,
        )

    async def _server_live(self, _: Message, context: Message) -> Message:  # noqa: ARG002
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Message, context: Message) -> Message:  # noqa: ARG002
        return MESSAGES["ServerReadyResponse"](ready=not self._gateway.not_ready)

    async def _model_ready(self, message: Message, context: Message) -> Message:  # noqa: ARG002
        self._named(message.name, message.version)
        return MESSAGES["ModelReadyResponse"](ready=not self._gateway.not_ready)

    async def _server_metadata(self, _: Message, context: Message) -> Message:  # noqa: ARG002
        return MESSAGES["ServerMetadataResponse"](name="governed-models", version=__version__)

    async def _model_metadata(self, message: Message, context: Message) -> Message:  # noqa: ARG002
        self._named(message.name, message.version)
        metadata = self._gateway.serving().metadata()
        tensors = {
            side: [{k: t[k] for k in ("name", "datatype", "shape")} for t in metadata[side]]
            for side in ("inputs", "outputs")
        }
        return MESSAGES["ModelMetadataResponse"](
            name=metadata["name"], versions=metadata["versions"], platform=metadata["platform"], **tensors
        )

    async def _check(self, message: Message, context: Message) -> Message:  # noqa: ARG002
        status = self._status(message.service)
        if status == _UNKNOWN:
            names = f"{self._gateway.model}, {', '.join(SERVICES)}"
            raise NotFound(f"service {message.service[:80]!r}: expected one of {names}")
        return MESSAGES["HealthCheckResponse"](status=status)

    def _status(self, service: str) -> int:
        if service and service != self._gateway.model and service not in SERVICES:
            return _UNKNOWN
        return _NOT_SERVING if self._gateway.not_ready else _SERVING

    async def _enter_stream(self, context: Message) -> None:
        """Raises what ends the call, where there are too many."""
        if self._streams >= MAX_STREAMS:
            why = f"expected at most {MAX_STREAMS} streams at a time, found more; close some"
            await context.abort(self._grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        self._streams += 1

    async def _watch(self, raw: bytes, context: Message) -> AsyncIterator[Message]:
        """The status, and each change of it, until the client or the server leaves."""
        message = await self._read(raw, "HealthCheckRequest", context)
        await self._enter_stream(context)
        try:
            told = -1
            while True:
                if (status := self._status(message.service)) != told:
                    told = status
                    yield MESSAGES["HealthCheckResponse"](status=status)
                if self._gateway.leaving:
                    return
                await asyncio.sleep(WATCH_SECONDS)
        finally:
            self._streams -= 1

    async def _reflect(self, requests: AsyncIterator[bytes], context: Message) -> AsyncIterator[Message]:
        await self._enter_stream(context)
        try:
            async for raw in requests:
                asked = await self._read(raw, "ServerReflectionRequest", context)
                yield _described(asked)
                if self._gateway.leaving:
                    return
        finally:
            self._streams -= 1

    async def _read(self, raw: bytes, name: str, context: Message) -> Message:
        try:
            return MESSAGES[name].FromString(raw)
        except DecodeError:
            code = self._grpc.StatusCode.INVALID_ARGUMENT
            return await context.abort(code, f"expected a {name}, found bytes that are none")

    def _named(self, model: str, revision: str) -> None:
        self._gateway.named(model)
        service = self._gateway.service
        if revision and service is not None and revision != service.plane.identity.revision:
            raise NotFound(f"model {model!r}, version {revision!r}: expected {service.plane.identity.revision!r}")

    async def _model_infer(self, message: Message, context: Message) -> Message:
        self._named(message.model_name, message.model_version)
        service = self._gateway.serving()
        with service.plane.pipeline.counting("infer"):
            request, _ = service.v2.decode_tensors(*_loose(message))
            request.promise = _promised(context)
            response = await service.plane.infer(request)
        if response.promise:
            context.set_trailing_metadata(((PROMISE.decode(), response.promise),))
        raw = bool(message.raw_input_contents)
        answer = _answer(response, self._gateway.model, service.plane.identity.revision, raw)
        if mitigation := service.plane.signature.mitigation:
            answer.parameters["mitigation"].string_param = mitigation
        return answer


def _promised(context: Message) -> bool:
    """Whether the call's metadata ask for a promise. Raises InvalidRequest."""
    for name, value in context.invocation_metadata() or ():
        if name == PROMISE.decode():
            return wants_promise(value if isinstance(value, bytes) else value.encode())
    return False


def _described(asked: Message) -> Message:
    """The answer to one question about our services (grpc.reflection.v1)."""
    answer = MESSAGES["ServerReflectionResponse"](valid_host=asked.host, original_request=asked)
    if asked.WhichOneof("choice") == "list_services":
        for name in SERVICES:
            answer.list_services_response.service.add(name=name)
        return answer
    symbol, files = asked.file_containing_symbol, {file.name: file for file in SERVICES.values()}
    file_found = files.get(asked.file_by_filename)
    if symbol:
        file_found = next((file for file in files.values() if _describes(file, symbol)), None)
    if file_found is None:
        answer.error_response.error_code, answer.error_response.error_message = 5, "no such file, symbol or extension"
    else:
        answer.file_descriptor_response.file_descriptor_proto.append(file_found.SerializeToString())
    return answer


def _describes(file: Message, symbol: str) -> bool:
    """Whether a message, service or method of this full name is in ``file``."""
    names = {descriptor.name for descriptor in (*file.message_type, *file.service)}
    return symbol.startswith(f"{file.package}.") and symbol.removeprefix(f"{file.package}.").split(".")[0] in names


def _loose(message: Message) -> tuple[LooseRequest, memoryview]:
    """As the JSON form, with raw contents as its binary tail. Raises InvalidRequest."""
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(f"raw_input_contents: expected {len(message.inputs)}, one per input, found {len(raw)}")
    tensors = []
    for number, tensor in enumerate(message.inputs):
        made = LooseTensor(tensor.name, tensor.datatype, list(tensor.shape))
        if raw:
            made.parameters = {"binary_data_size": len(raw[number])}
        else:
            made.data = _contents(tensor)
        tensors.append(made)
    outputs = [RequestedOutput(o.name) for o in message.outputs] or None
    return LooseRequest(tensors, message.id, None, outputs), memoryview(b"".join(raw))


def _contents(tensor: Message) -> list[Message]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequest(
            f"input {tensor.name!r}: expected datatype {', '.join(_CONTENTS)}, found {tensor.datatype!r}; others "
            "travel raw"
        )
    values = list(getattr(tensor.contents, field))
    if field != "bytes_contents":
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"input {tensor.name!r}: expected UTF-8, found byte 0x{error.object[error.start]:02x}"
        ) from error


def _answer(response: InferResponse, model: str, revision: str, raw: bool) -> Message:
    out = MESSAGES["ModelInferResponse"](model_name=model, model_version=revision, id=response.client_id or response.id)
    out.parameters["prediction_id"].string_param = response.id
    if response.ledger:
        out.parameters["ledger"].string_param = response.ledger
    for output in response.outputs:
        dtype = output.spec.dtype
        made = out.outputs.add(name=output.spec.name, datatype=dtype, shape=output.shape)
        if raw:
            out.raw_output_contents.append(binary.pack(dtype, output.values))
        else:
            values = [str(v).encode() for v in output.values] if dtype == "BYTES" else output.values
            getattr(made.contents, _CONTENTS[dtype]).extend(values)
    return out


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
