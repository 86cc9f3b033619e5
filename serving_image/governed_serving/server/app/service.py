"""Bodies to bodies: what the routes of one model answer, whatever carries them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

from governed_api import routes
from governed_api.runtime import PREDICTION_ID_HEADER
from governed_serving.access.directory import Known
from governed_serving.access.gate import Gate
from governed_serving.access.refusals import AccessRefused, body_of
from governed_serving.hosting.answers import error_body
from governed_serving.hosting.door import unexpected
from governed_serving.hosting.logs import log
from governed_serving.server.app.json_route import JsonRoute
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.errors import Headers, NotFound, ServerError, Unavailable
from governed_serving.server.explanation import Accepted, Explained, Report
from governed_serving.server.messages import ExplainRequest, InferResponse
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.promises import HEADER as PROMISE
from governed_serving.server.protocol.embeddings import EmbeddingsCodec
from governed_serving.server.protocol.mlflow import MlflowCodec
from governed_serving.server.protocol.v1 import V1Codec
from governed_serving.server.protocol.v2 import OutputEncoding, V2Codec
from governed_serving.server.receipts import Receipts
from governed_serving.server.rows import Rows

__all__ = ["Gateway", "HttpReply", "HttpService", "explained", "failure", "named", "turned_away"]

_JSON = (b"content-type", b"application/json")
_OCTETS = (b"content-type", b"application/octet-stream")
_PREDICTION_ID = PREDICTION_ID_HEADER.encode()


@dataclass(slots=True, frozen=True)
class HttpReply:
    """An HTTP answer but its transport."""

    status: int
    body: bytes
    headers: Headers = (_JSON,)


def _header_value(text: str) -> bytes:
    """A client's id as a header: nothing in it may end the line (RFC 9110, 5.5)."""
    raw = text.encode("ascii", "replace")
    return raw if text.isprintable() else bytes(c if 32 <= c < 127 else 63 for c in raw)


def failure(error: ServerError, path: str = "") -> HttpReply:
    """The error body of ``path``'s protocol (V2's without one), and Retry-After where waiting helps."""
    headers: Headers = (_JSON, *error.headers)
    if error.retry_after is not None:
        headers = (*headers, (b"retry-after", str(error.retry_after).encode()))
    return HttpReply(error.status, error_body(str(error), error.status, path), headers)


def turned_away(refused: AccessRefused) -> HttpReply:
    """V2's error body for who may not call."""
    return HttpReply(refused.status, body_of(refused), (_JSON, *refused.headers))


def explained(answer: Explained | Accepted | Report, names: Headers = ()) -> HttpReply:
    """What the explainer answered, over HTTP; ``names`` as :func:`named` makes them."""
    return HttpReply(answer.status, answer.document, (_JSON, *names))


def named(prediction: str, client_id: str = "") -> Headers:
    """Headers that name an answer: by our id, and by the client's where it has one."""
    ours = prediction.encode()
    return (_PREDICTION_ID, ours), (b"x-request-id", _header_value(client_id) if client_id else ours)


@dataclass
class Gateway:
    """What the routes reach: nothing while the model loads, then its service; ``why`` it isn't ready, "" when it is."""

    model: str
    why: str = "the model is being loaded and verified"
    leaving: bool = False
    """It sends new clients elsewhere, by not being ready, and still answers those that come until its ports are
    closed."""
    stalled: str = ""
    """Why each request would be refused although the model is there: it isn't ready then, and answers what comes all
    the same."""
    service: "HttpService | None" = None
    chat: JsonRoute | None = None
    rows: Rows | None = None
    """Of the internal lane."""
    metrics: ServerMetrics | None = None
    receipts: Receipts | None = None
    gate: Gate | None = None
    """Who may call; None: anyone."""
    extra_metrics: list[Callable[[], bytes]] = field(default_factory=list)

    @property
    def not_ready(self) -> str:
        """What a readiness probe is told; "" when it is ready."""
        return self.why or self.stalled

    def refusal(self) -> str:
        """Why requests are refused; "" when they aren't."""
        return "" if self.leaving else self.why

    def serving(self) -> "HttpService":
        """Raises Unavailable."""
        if self.chat is not None:
            raise NotFound(
                f"model {self.model!r}: expected the V2 or V1 protocol, found a runtime that speaks OpenAI's; "
                f"POST {routes.CHAT_COMPLETIONS}"
            )
        if self.service is None:
            raise self._not_ready()
        return self.service

    def computing(self) -> Rows:
        """What the internal lane asks. Raises Unavailable."""
        if self.rows is None:
            raise self._not_ready()
        return self.rows

    def _not_ready(self) -> Unavailable:
        return Unavailable(f"model {self.model!r} is not ready: {self.why}; retry in a moment")

    def named(self, model: str) -> None:
        """Raises NotFound for another name."""
        if model != self.model:
            raise NotFound(f"model {model!r}: expected {self.model!r}, the one served here; correct the URL")


class TensorMetadata(TypedDict):
    """$metadata_tensor."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """$metadata_model_response."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, object]


class HttpService:
    """The answers of one loaded model."""

    def __init__(self, plane: DataPlane, v2: V2Codec) -> None:
        self.plane = plane
        self.v2 = v2
        self.v1 = V1Codec(plane.signature)
        self.mlflow = MlflowCodec(self.v1)
        self.vectors = EmbeddingsCodec(plane.signature, plane.identity.model)
        self._limits, self._own_limits = plane.admission.limits, plane.pipeline.limits
        self._counted = plane.metrics.counted
        self._check_wait = plane.pipeline.check_wait

    def submit_infer(
        self,
        body: bytes,
        header: int | None,
        done: Callable[[HttpReply], None],
        request_id: str = "",
        *,
        promise: bool = False,
        caller: Known | None = None,
    ) -> None:
        """V2 infer; ``done`` is called once, perhaps before this returns. Never raises.

        ``header`` is Inference-Header-Content-Length, ``request_id`` X-Request-Id, ``promise`` X-Governed-Promise,
        ``caller`` who calls, where that is asked.
        """
        try:
            self._check_wait()  # before it costs anything
            request, form = self.v2.decode(body, header)
            request.request_id, request.promise, request.caller = request_id, promise, caller
            self.plane.submit(request, lambda answer: done(self._infer_reply(answer, form, request_id, caller)))
        except ServerError as error:
            self._counted("infer", error.status, client_made=error.client_made)
            done(failure(error))
        except Exception as error:  # a bug of ours must not leave the client without an answer
            done(self._unexpected(error))

    def _infer_reply(
        self, answer: InferResponse | ServerError, form: OutputEncoding, request_id: str, caller: Known | None
    ) -> HttpReply:
        if isinstance(answer, ServerError):
            self._counted("infer", answer.status, client_made=answer.client_made)
            return failure(answer)
        try:
            encoded = self.v2.encode(answer, form)
        except Exception as error:  # as above, and the other requests of the batch go on
            return self._unexpected(error)
        self._counted("infer", 200)
        limits = self._limits() if caller is None else self._own_limits(caller)
        names = (*named(answer.id, request_id or answer.client_id), *limits)
        if answer.promise:
            names = (*names, (PROMISE, answer.promise.encode()))
        if not encoded.header:
            return HttpReply(200, encoded.body, (_JSON, *names))
        length = (b"inference-header-content-length", str(encoded.header).encode())
        return HttpReply(200, encoded.body, (_OCTETS, *names, length))

    def _unexpected(self, error: Exception) -> HttpReply:
        log("error", "a request failed unexpectedly", exception=error)
        self._counted("infer", 500)
        return failure(ServerError(unexpected(error)))

    async def infer(
        self,
        body: bytes,
        header: int | None,
        request_id: str = "",
        *,
        promise: bool = False,
        caller: Known | None = None,
    ) -> HttpReply:
        """:meth:`submit_infer` awaited."""
        future: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()

        def done(reply: HttpReply) -> None:
            if not future.done():
                future.set_result(reply)

        self.submit_infer(body, header, done, request_id, promise=promise, caller=caller)
        return await future

    async def explain(
        self,
        body: bytes,
        header: int | None,
        request_id: str = "",
        *,
        later: bool = False,
        caller: Known | None = None,
    ) -> HttpReply:
        """V2 explain; ``later``: a ticket now, the explanation under its id. Raises ServerError."""

        def decode() -> ExplainRequest:
            request, _ = self.v2.decode(body, header)
            request.request_id, request.caller = request_id, caller
            return ExplainRequest(request, request.parameters, later)

        return await self._explain(decode)

    async def predict_v1(
        self, body: bytes, request_id: str = "", *, promise: bool = False, caller: Known | None = None
    ) -> HttpReply:
        """V1 :predict. Raises ServerError."""
        return await self._predict(self.v1, body, request_id, promise=promise, caller=caller)

    async def invocations(
        self, body: bytes, request_id: str = "", *, promise: bool = False, caller: Known | None = None
    ) -> HttpReply:
        """MLflow's /invocations. Raises ServerError."""
        return await self._predict(self.mlflow, body, request_id, promise=promise, caller=caller)

    async def _predict(
        self, codec: V1Codec | MlflowCodec, body: bytes, request_id: str, *, promise: bool, caller: Known | None
    ) -> HttpReply:
        with self.plane.pipeline.counting("predict"):
            request = codec.decode(body)
            request.request_id, request.promise, request.caller = request_id, promise, caller
            response = await self.plane.infer(request)
        names = (*named(response.id, request_id or response.client_id), *self._own_limits(caller))
        if response.promise:
            names = (*names, (PROMISE, response.promise.encode()))
        return HttpReply(200, codec.encode(response), (_JSON, *names))

    async def embeddings(
        self, body: bytes, request_id: str = "", *, promise: bool = False, caller: Known | None = None
    ) -> HttpReply:
        """OpenAI's embeddings. Raises ServerError."""
        with self.plane.pipeline.counting("embeddings"):
            wanted = self.vectors.decode(body)
            request = wanted.request
            request.request_id, request.promise, request.caller = request_id, promise, caller
            response = await self.plane.infer(request)
        names = (*named(response.id, request_id), *self._own_limits(caller))
        if response.promise:
            names = (*names, (PROMISE, response.promise.encode()))
        return HttpReply(200, self.vectors.encode(response, wanted), (_JSON, *names))

    async def explain_v1(self, body: bytes, request_id: str = "", *, caller: Known | None = None) -> HttpReply:
        """V1 :explain. Raises ServerError."""

        def decode() -> ExplainRequest:
            request = self.v1.decode(body)
            request.request_id, request.caller = request_id, caller
            return ExplainRequest(request, request.parameters)

        return await self._explain(decode)

    async def _explain(self, decode: Callable[[], ExplainRequest]) -> HttpReply:
        with self.plane.pipeline.counting("explain") as counted:
            asked = decode()
            answer = await self.plane.explain(asked)
            counted.status = answer.status
        names = named(asked.infer.id, asked.infer.request_id or asked.infer.client_id)
        return explained(answer, (*names, *self._own_limits(asked.infer.caller)))

    def metadata(self) -> ModelMetadata:
        """$metadata_model_response."""
        signature, identity = self.plane.signature, self.plane.identity
        parameters: dict[str, object] = {"artefact": identity.artefact, "classes": list(signature.classes)}
        if signature.mitigation:
            parameters["mitigation"] = signature.mitigation
        if signature.coverage is not None:
            parameters["coverage"] = signature.coverage
        return {
            "name": identity.model,
            "versions": [identity.revision] if identity.revision else [],
            "platform": "onnx_onnxruntime_v1",
            "inputs": [{"name": s.name, "datatype": s.dtype, "shape": signature.shape_of(s)} for s in signature.inputs],
            "outputs": [
                {"name": s.name, "datatype": s.dtype, "shape": signature.shape_of(s)} for s in signature.outputs
            ],
            "parameters": parameters,
        }
