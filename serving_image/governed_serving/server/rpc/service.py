"""inference.GRPCInferenceService, translated to the data plane, and what gRPC's tools ask of any server: health and
reflection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from google.protobuf.message import DecodeError

from governed_api.callers import CallerRole
from governed_api.datatypes import DATATYPES
from governed_api.route_roles import RPC_ROLES
from governed_api.version import __version__
from governed_serving.access.credentials import credential
from governed_serving.access.directory import Known
from governed_serving.access.refusals import AccessRefused, Unknown
from governed_serving.environment import InvalidSettings
from governed_serving.hosting.http_head import HEAD_LIMIT
from governed_serving.hosting.logs import log
from governed_serving.hosting.supervision import kept_running
from governed_serving.server.app.fast_path import BodyRoom
from governed_serving.server.app.service import Gateway
from governed_serving.server.errors import InvalidRequest, NoRoom, NotFound, Overloaded, ServerError
from governed_serving.server.messages import InferResponse
from governed_serving.server.promises import HEADER as PROMISE
from governed_serving.server.promises import wants_promise
from governed_serving.server.protocol import binary
from governed_serving.server.protocol.v2_messages import LooseRequest, LooseTensor, RequestedOutput
from governed_serving.server.rpc.messages import MESSAGES, SERVICES
from governed_serving.server.rpc.receiving import WINDOW_OPTIONS, Receiving

__all__ = ["RpcServer"]

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CONTENTS = {name: datatype.contents for name, datatype in DATATYPES.items() if datatype.contents}
_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
INFERENCE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
MAX_CALLS = 1024
"""Calls under way at a time; more are RESOURCE_EXHAUSTED."""
MAX_STREAMS = 64
"""Of which streams (Watch, reflection), which a client may leave open."""
KEEP_SECONDS = 0.1
"""Between looks at whether the server still runs."""
WATCH_SECONDS = 0.5
"""Between looks at what a watcher is told of."""
LONGEST_DETAILS = 500
"""Characters of a status: it travels percent-encoded in metadata, of which clients take 16 KiB."""

Message = Any
"""Of grpc and protobuf, which come without types: messages, contexts, handlers."""


def _quotes_no_metadata(record: logging.LogRecord) -> bool:
    """grpcio logs a value of metadata that is no UTF-8 whole, with a traceback, each time that it is read: any stranger
    could fill the log, and a key with a slip in it would stand there."""
    return not str(record.msg).startswith("Invalid encoding on")


def _ends_no_server(record: logging.LogRecord) -> bool:
    """grpcio's loop ends at a call whose path is no UTF-8; that is told once, where the server is started anew."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, UnicodeDecodeError) and "coroutine without __name__" in record.getMessage())


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
        self._receiving = Receiving(self._refuse)
        self._caller: ContextVar[Known | None] = ContextVar("caller", default=None)
        limits = [
            ("grpc.max_receive_message_length", max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            *WINDOW_OPTIONS,
            ("grpc.max_metadata_size", HEAD_LIMIT),  # else, from 8 KiB on, a call with a long token is lost at random
            ("grpc.absolute_max_metadata_size", HEAD_LIMIT),
        ]
        logging.getLogger("grpc._cython.cygrpc").addFilter(_quotes_no_metadata)
        logging.getLogger("asyncio").addFilter(_ends_no_server)
        guard = type("CallerInterceptor", (aio.ServerInterceptor,), {"intercept_service": self._guarded})
        guards = [guard()] if gateway.gate is not None else []
        methods = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
        inference = {
            name: self._handler(getattr(self, f"_{_snake(name)}"), f"{name}Request", f"{name}Response")
            for name in methods
        }
        inference["ModelInfer"] = self._handler(
            self._model_infer, "ModelInferRequest", "ModelInferResponse", first=self._check_wait
        )
        handlers = tuple(self._grpc.method_handlers_generic_handler(*service) for service in self._services(inference))

        def made() -> Message:
            server = aio.server(options=limits, maximum_concurrent_rpcs=MAX_CALLS, interceptors=guards)
            server.add_generic_rpc_handlers(handlers)
            return server

        self._made = made
        self._keeper: asyncio.Task[None] | None = None
        self._server = made()

    def _services(self, inference: dict[str, Message]) -> list[tuple[str, dict[str, Message]]]:
        """(name, methods) of each."""
        check = self._handler(self._check, "HealthCheckRequest", "HealthCheckResponse")
        watch = self._grpc.unary_stream_rpc_method_handler(
            self._watch, None, MESSAGES["HealthCheckResponse"].SerializeToString
        )
        reflect = self._grpc.stream_stream_rpc_method_handler(
            self._reflect, None, MESSAGES["ServerReflectionResponse"].SerializeToString
        )
        services = [(INFERENCE, inference), (HEALTH, {"Check": check, "Watch": watch})]
        services += [(name, {"ServerReflectionInfo": reflect}) for name in SERVICES if "reflection" in name]
        return services

    async def start(self, host: str, port: int) -> int:
        """The port bound. Raises OSError naming GOVERNED_GRPC_PORT."""
        bound = await self._bind(host, port)
        self._keeper = asyncio.create_task(kept_running("the gRPC server", lambda: self._keep(host, bound)))
        return bound

    async def _bind(self, host: str, port: int) -> int:
        try:
            bound = int(self._server.add_insecure_port(f"{host}:{port}"))
        except RuntimeError as error:
            raise OSError(
                f"port {port} on {host}: expected it to be free, found it in use; set GOVERNED_GRPC_PORT"
            ) from error
        await self._server.start()
        return bound

    async def _keep(self, host: str, port: int) -> None:
        """Starts the server anew where it has ended by itself: one call whose path is no UTF-8 ends grpcio's."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if self._server._server.is_running():
                continue
            log("warning", "the gRPC server was ended by a call that is none; it is started anew", port=port)
            self._server = self._made()
            try:
                await self._bind(host, port)
            except OSError as error:
                log("error", "the gRPC server can't be started anew yet, retrying", why=str(error))

    async def stop(self, grace: float) -> None:
        """No new calls; those in flight have ``grace`` seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
        await self._server.stop(grace)

    def _handler(
        self,
        answer: Callable[[Message, Message], Awaitable[Message]],
        request: str,
        response: str,
        *,
        first: Callable[[], None] = lambda: None,
    ) -> Message:
        """``first`` is called before a message is parsed; what it raises ends the call."""
        parse = MESSAGES[request].FromString

        async def handle(_: AsyncIterator[bytes], context: Message) -> Message:
            codes, held = self._grpc.StatusCode, 0
            raw = await self._receiving.message(context)
            try:
                self._take(len(raw))
                held = len(raw)
                first()
                return await answer(parse(raw), context)
            except NoRoom as error:
                await context.abort(codes.RESOURCE_EXHAUSTED, str(error))
            except ServerError as error:
                await context.abort(getattr(codes, _CODES.get(error.status, "INTERNAL")), str(error)[:LONGEST_DETAILS])
            except DecodeError:
                await context.abort(codes.INVALID_ARGUMENT, f"expected a {request}, found bytes that are none")
            finally:
                self._room.give(held)

        # of a stream: a unary call's handler is only called once all of its message is in memory
        return self._grpc.stream_unary_rpc_method_handler(
            handle,
            request_deserializer=None,
            response_serializer=MESSAGES[response].SerializeToString,
        )

    def _take(self, size: int) -> None:
        """Raises NoRoom, counted."""
        try:
            self._room.take(size)
        except NoRoom as error:
            self._count(error)
            raise

    def _check_wait(self) -> None:
        """Raises Overloaded, counted."""
        if (service := self._gateway.service) is None:
            return
        try:
            service.plane.pipeline.check_wait()
        except Overloaded as error:
            self._count(error)
            raise

    def _count(self, error: ServerError) -> None:
        if (metrics := self._gateway.metrics) is not None:
            metrics.counted("infer", error.status, client_made=error.client_made)

    async def _refuse(self, context: Message, error: ServerError) -> None:
        """A call whose message is still coming."""
        self._count(error)
        code = "RESOURCE_EXHAUSTED" if isinstance(error, NoRoom) else _CODES[error.status]
        try:
            await context.abort(getattr(self._grpc.StatusCode, code), str(error))
        except Exception:  # grpcio raises here what it ends the call with, or what had ended it before
            return

    async def _guarded(self, behind: Callable[[Message], Awaitable[Message]], details: Message) -> Message:
        """Where callers must say who they are: what handles a call, or turns it away before a byte of its message is
        read."""
        role = RPC_ROLES.get(details.method)
        if role is None:
            return await behind(details)
        try:
            self._know(details.invocation_metadata, role)
        except AccessRefused as refused:
            return self._turning_away(refused)
        return await behind(details)

    def _turning_away(self, refused: AccessRefused) -> Message:
        """A handler of any call."""

        async def turn_away(_: Message, context: Message) -> None:
            await self._end(refused, context)

        return self._grpc.stream_stream_rpc_method_handler(turn_away)

    def _know(self, metadata: Message, role: CallerRole) -> None:
        """Who calls. Raises AccessRefused."""
        gate = self._gateway.gate
        assert gate is not None
        headers = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in metadata]
        self._caller.set(gate.allow(gate.known(credential(headers)), role))

    async def _end(self, refused: AccessRefused, context: Message) -> None:
        gate = self._gateway.gate
        if gate is not None and isinstance(refused, Unknown):
            refused = gate.turned_away(refused, _address(context.peer()))
        await context.abort(getattr(self._grpc.StatusCode, _CODES[refused.status]), str(refused))

    async def _admit(self, context: Message, role: CallerRole) -> None:
        """Where that is asked, know who calls. Raises what ends the call."""
        if self._gateway.gate is None:
            return
        try:
            self._know(context.invocation_metadata() or (), role)
        except AccessRefused as refused:
            await self._end(refused, context)

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

    async def _check(self, message: Message, context: Message) -> Message:
        if message.service:
            await self._admit(context, CallerRole.CALL)
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
        if message.service:
            await self._admit(context, CallerRole.CALL)
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
            request.promise, request.caller = _promised(context), self._caller.get()
            response = await service.plane.infer(request)
        if response.promise:
            context.set_trailing_metadata(((PROMISE.decode(), response.promise),))
        raw = bool(message.raw_input_contents)
        answer = _answer(response, self._gateway.model, service.plane.identity.revision, raw)
        if mitigation := service.plane.signature.mitigation:
            answer.parameters["mitigation"].string_param = mitigation
        return answer


def _address(peer: str) -> str:
    """Of ``ipv4:192.0.2.1:5000``, ``ipv6:%5B2001:db8::1%5D:5000``."""
    return peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")


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
