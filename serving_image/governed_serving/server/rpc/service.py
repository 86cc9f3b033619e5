"""inference.GRPCInferenceService and grpc.health.v1.Health (Check), translated to the data plane."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from google.protobuf.message import DecodeError

from governed_api.datatypes import DATATYPES
from governed_api.version import __version__
from governed_serving.environment import InvalidSettings
from governed_serving.server.app.service import Gateway
from governed_serving.server.errors import InvalidRequest, NotFound, ServerError
from governed_serving.server.messages import InferResponse
from governed_serving.server.protocol import binary
from governed_serving.server.protocol.v2_messages import LooseRequest, LooseTensor, RequestedOutput
from governed_serving.server.rpc.messages import MESSAGES

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
_SERVING, _NOT_SERVING = 1, 2
LONGEST_DETAILS = 500
"""Characters of a status: it travels percent-encoded in metadata, of which clients take 16 KiB."""


class RpcServer:
    """One gRPC server over ``gateway``. ``max_body`` bounds a message in bytes. Raises InvalidSettings without grpcio."""

    def __init__(self, gateway: Gateway, max_body: int) -> None:
        try:
            self._grpc: Any = import_module("grpc")
            aio: Any = import_module("grpc.aio")
        except ImportError as error:
            raise InvalidSettings(
                "GOVERNED_GRPC_PORT: expected grpcio to be installed, found none; install it or unset the port"
            ) from error
        self._gateway = gateway
        limits = [
            ("grpc.max_receive_message_length", max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = aio.server(options=limits)
        methods = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
        inference = {
            name: self._handler(getattr(self, f"_{_snake(name)}"), f"{name}Request", f"{name}Response")
            for name in methods
        }
        health = {"Check": self._handler(self._check, "HealthCheckRequest", "HealthCheckResponse")}
        generic = self._grpc.method_handlers_generic_handler
        self._server.add_generic_rpc_handlers(
            (generic("inference.GRPCInferenceService", inference), generic("grpc.health.v1.Health", health))
        )

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

    def _handler(self, answer: Callable[[Any], Awaitable[Any]], request: str, response: str) -> Any:
        parse = MESSAGES[request].FromString

        async def handle(raw: bytes, context: Any) -> Any:
            codes = self._grpc.StatusCode
            try:
                return await answer(parse(raw))
            except ServerError as error:
                await context.abort(getattr(codes, _CODES.get(error.status, "INTERNAL")), str(error)[:LONGEST_DETAILS])
            except DecodeError:
                await context.abort(codes.INVALID_ARGUMENT, f"expected a {request}, found bytes that are none")

        return self._grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=None,
            response_serializer=MESSAGES[response].SerializeToString,
        )

    async def _server_live(self, _: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=not self._gateway.not_ready)

    async def _model_ready(self, message: Any) -> Any:
        self._named(message.name, message.version)
        return MESSAGES["ModelReadyResponse"](ready=not self._gateway.not_ready)

    async def _server_metadata(self, _: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](name="governed-models", version=__version__)

    async def _model_metadata(self, message: Any) -> Any:
        self._named(message.name, message.version)
        found = self._gateway.serving().metadata()
        tensors = {
            side: [{k: t[k] for k in ("name", "datatype", "shape")} for t in found[side]]
            for side in ("inputs", "outputs")
        }
        return MESSAGES["ModelMetadataResponse"](
            name=found["name"], versions=found["versions"], platform=found["platform"], **tensors
        )

    async def _check(self, message: Any) -> Any:
        known = ("", self._gateway.model, "inference.GRPCInferenceService")
        if message.service not in known:
            raise NotFound(f"service {message.service!r}: expected one of {', '.join(known[1:])}")
        return MESSAGES["HealthCheckResponse"](status=_NOT_SERVING if self._gateway.not_ready else _SERVING)

    def _named(self, model: str, revision: str) -> None:
        self._gateway.named(model)
        service = self._gateway.service
        if revision and service is not None and revision != service.plane.identity.revision:
            raise NotFound(f"model {model!r}, version {revision!r}: expected {service.plane.identity.revision!r}")

    async def _model_infer(self, message: Any) -> Any:
        self._named(message.model_name, message.model_version)
        service = self._gateway.serving()
        with service.plane.pipeline.counting("infer"):
            request, _ = service.v2.decode_tensors(*_loose(message))
            response = await service.plane.infer(request)
        return _answer(response, self._gateway.model, service.plane.identity.revision, bool(message.raw_input_contents))


def _loose(message: Any) -> tuple[LooseRequest, memoryview]:
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


def _contents(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequest(
            f"input {tensor.name!r}: expected datatype {', '.join(_CONTENTS)}, found {tensor.datatype!r}; others travel raw"
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


def _answer(response: InferResponse, model: str, revision: str, raw: bool) -> Any:
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
