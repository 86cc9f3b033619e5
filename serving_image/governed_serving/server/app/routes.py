"""FastAPI: Open Inference Protocol V2, KServe V1, health, metrics, OpenAI routes, and the OpenAPI page over all of
them."""

from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException

from governed_api import routes
from governed_api.callers import CallerRole
from governed_api.version import __version__
from governed_serving.access.directory import Known
from governed_serving.access.guard import CALLER
from governed_serving.hosting.answers import JSON, STRANGER, error_body
from governed_serving.hosting.documented import documented
from governed_serving.server.app import openapi
from governed_serving.server.app.fast_path import body_header
from governed_serving.server.app.json_route import JsonRoute
from governed_serving.server.app.service import Gateway, HttpReply, HttpService, explained, failure, named
from governed_serving.server.errors import InvalidRequest, NotFound, ServerError, Unavailable
from governed_serving.server.explanation import Explainer, ReportKind
from governed_serving.server.messages import Completed, Stream
from governed_serving.server.promises import HEADER as PROMISE
from governed_serving.server.receipts import check_own

__all__ = ["application"]


def application(gateway: Gateway) -> FastAPI:
    """The cold routes of ``gateway``; an error has the form of its route's protocol."""
    app = documented(
        f"Governed model {gateway.model}",
        __version__,
        "Open Inference Protocol V2, KServe V1 and explanations, under the quotas, masking and audit of the model's "
        "spec.",
        {"4XX": {"model": openapi.Problem}, "5XX": {"model": openapi.Problem}},
    )
    _errors(app)
    _health(app, gateway)
    _metadata(app, gateway)
    _inference(app, gateway)
    _v1(app, gateway)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ServerError)
    async def known(request: Request, error: ServerError) -> Response:
        return _response(failure(error, request.url.path))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        text = f"{request.method} {request.url.path}: {error.detail}; GET /openapi.json lists what there is"
        body = error_body(text, error.status_code, request.url.path)
        return Response(body, error.status_code, error.headers, JSON)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        why = InvalidRequest("; ".join(str(e["msg"]) for e in error.errors()))
        return _response(failure(why, request.url.path))


def _response(reply: HttpReply) -> Response:
    headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, reply.status, headers)


def _caller(request: Request) -> Known | None:
    """Who sent it, where that is asked."""
    caller: Known | None = request.scope.get(CALLER)
    return caller


def _health(app: FastAPI, gateway: Gateway) -> None:
    async def live() -> dict[str, bool]:
        return {"live": True}

    async def ready(request: Request) -> Response:
        if why := gateway.not_ready:
            told = "not ready" if request.scope.get(STRANGER) else f"model {gateway.model!r}: {why}"
            return JSONResponse({"error": told, "ready": False}, 503)
        return JSONResponse({"ready": True})

    for path in (routes.LIVE_PATH, routes.V2_LIVE):
        app.get(path, tags=["health"])(live)
    for path in (routes.READY_PATH, routes.V2_READY, routes.PING):
        app.get(path, tags=["health"], response_model=None)(ready)

    @app.get(routes.METRICS_PATH, tags=["health"])
    async def metrics() -> Response:
        parts = [gateway.service.plane.metrics.text()] if gateway.service else []
        parts += [read() for read in gateway.extra_metrics]
        return Response(b"".join(parts), media_type="text/plain; version=0.0.4; charset=utf-8")


def _versioned(gateway: Gateway, model: str, revision: str | None) -> HttpService:
    gateway.named(model)
    service = gateway.serving()
    mine = service.plane.identity.revision
    if revision is not None and revision != mine:
        raise NotFound(
            f"model {model!r}, version {revision!r}: expected {mine!r}, the one served here; correct the URL"
        )
    return service


def _metadata(app: FastAPI, gateway: Gateway) -> None:
    @app.get(routes.ROOT, include_in_schema=False)
    async def root() -> dict[str, str]:
        return {"name": "governed-models", "model": gateway.model, "openapi": "/openapi.json", "docs": "/docs"}

    @app.get(routes.V2_MODELS, tags=["metadata"])
    async def listed() -> dict[str, list[str]]:
        return {"models": [gateway.model]}

    @app.get(routes.V2, tags=["metadata"])
    async def server() -> dict[str, Any]:
        return {"name": "governed-models", "version": app.version, "extensions": ["binary_tensor_data", "explain"]}

    @app.get(routes.MODEL, tags=["metadata"])
    @app.get(routes.VERSION, tags=["metadata"])
    async def metadata(model: str, revision: str | None = None) -> dict[str, Any]:
        return {**_versioned(gateway, model, revision).metadata()}

    @app.get(routes.MODEL_READY, tags=["health"], response_model=None)
    @app.get(routes.VERSION_READY, tags=["health"], response_model=None)
    async def ready(model: str, revision: str | None = None) -> Response:
        gateway.named(model)
        if why := gateway.not_ready:
            return JSONResponse({"error": f"model {model!r}: {why}", "name": model, "ready": False}, 503)
        if gateway.chat is None or revision is not None:  # a runtime with another protocol is ready as well
            _versioned(gateway, model, revision)
        return JSONResponse({"name": model, "ready": True})

    @app.get(routes.V1_MODELS, tags=["v1"])
    async def models() -> dict[str, Any]:
        listed = [{"id": gateway.model, "object": "model", "owned_by": "governed-models"}]
        return {"models": [gateway.model], "object": "list", "data": listed}

    @app.get(routes.V1_MODEL, tags=["v1"])
    async def model_v1(model: str) -> dict[str, Any]:
        gateway.named(model)
        return {"name": model, "ready": not gateway.not_ready}


def _chat(gateway: Gateway, model: str) -> JsonRoute | None:
    """The way to a runtime that speaks OpenAI's protocol, if that is what is served. Raises NotFound, Unavailable."""
    gateway.named(model)
    if why := gateway.refusal():
        raise Unavailable(f"model {gateway.model!r} is not ready: {why}; retry in a moment")
    return gateway.chat


def _explainer(gateway: Gateway, model: str) -> Explainer:
    """Of whatever is served. Raises NotFound, Unavailable."""
    chat = _chat(gateway, model)
    return _versioned(gateway, model, None).plane.pipeline.explaining() if chat is None else chat.explaining()


async def _explained(gateway: Gateway, request: Request, model: str, revision: str | None, *, later: bool) -> Response:
    asked = body_header(request.scope["headers"]).without_promise()
    if (chat := _chat(gateway, model)) is not None:
        caller = _caller(request)
        answer = await chat.explain(await request.body(), asked.request_id, later=later, caller=caller)
        return _response(explained(answer.answer, (*named(answer.id, asked.request_id), *chat.limits(caller))))
    service = _versioned(gateway, model, revision)
    return _response(
        await service.explain(
            await request.body(), asked.header, asked.request_id, later=later, caller=_caller(request)
        )
    )


def _inference(app: FastAPI, gateway: Gateway) -> None:
    infer_docs, explain_docs = openapi.infer_operation(), openapi.explain_operation()

    @app.post(routes.INFER, tags=["inference"], openapi_extra=infer_docs)
    @app.post(routes.VERSION_INFER, tags=["inference"], openapi_extra=infer_docs)
    async def infer(request: Request, model: str, revision: str | None = None) -> Response:
        """Predict. The unversioned path is answered before FastAPI, by the same function."""
        service = _versioned(gateway, model, revision)
        asked = body_header(request.scope["headers"])
        return _response(
            await service.infer(
                await request.body(), asked.header, asked.request_id, promise=asked.promise, caller=_caller(request)
            )
        )

    @app.post(routes.EXPLAIN, tags=["inference"], openapi_extra=explain_docs)
    @app.post(routes.VERSION_EXPLAIN, tags=["inference"], openapi_extra=explain_docs)
    async def explain(request: Request, model: str, revision: str | None = None) -> Response:
        """Predict, journal, and explain the prediction. Before an OpenAI runtime: a completion request, with
        ``explain`` beside."""
        return await _explained(gateway, request, model, revision, later=False)

    @app.post(routes.EXPLANATIONS, tags=["inference"], openapi_extra=explain_docs, status_code=202)
    async def explain_later(request: Request, model: str) -> Response:
        """Predict, journal, and have the prediction explained in the background."""
        return await _explained(gateway, request, model, None, later=True)

    @app.get(routes.EXPLANATION, tags=["inference"])
    async def explanation(model: str, ticket: str) -> Response:
        """An explanation that was asked for earlier."""
        return _response(explained(await _explainer(gateway, model).ticket(ticket)))

    @app.get(routes.RECEIPT, tags=["inference"], response_model=None)
    async def receipt(request: Request, model: str, id: str) -> Response:
        """That the answer with this X-Prediction-Id is in the ledger: a C2SP tlog-proof, for ``governed verify``."""
        gateway.named(model)
        if gateway.receipts is None:
            raise NotFound(f"model {model!r}: expected an archive beside this server, found none: it has no ledger")
        proof = await gateway.receipts.receipt(id)
        caller = _caller(request)
        if gateway.gate is not None and caller is not None and CallerRole.AUDIT not in caller.roles:
            check_own(proof, id, gateway.gate.pseudonym(caller))
        return PlainTextResponse(proof)

    async def over_time(request: Request, model: str) -> Response:
        """The explainer's own: global importances and quality of the explanations given; the model as a whole."""
        kind = cast(ReportKind, request.url.path.rpartition("/")[2])
        return _response(explained(await _explainer(gateway, model).report(kind)))

    for path in (routes.IMPORTANCES, routes.QUALITY, routes.OVERVIEW):
        app.get(path, tags=["inference"], operation_id=path.rpartition("/")[2])(over_time)


def _v1(app: FastAPI, gateway: Gateway) -> None:
    docs = openapi.v1_operation()

    @app.post(routes.V1_PREDICT, tags=["v1"], openapi_extra=docs)
    async def predict(request: Request, model: str) -> Response:
        """KServe's V1 protocol."""
        service = _versioned(gateway, model, None)
        asked = body_header(request.scope["headers"])
        body, caller = await request.body(), _caller(request)
        return _response(await service.predict_v1(body, asked.request_id, promise=asked.promise, caller=caller))

    @app.post(routes.INVOCATIONS, tags=["mlflow"], openapi_extra=openapi.any_json())
    async def invocations(request: Request) -> Response:
        """MLflow's scoring protocol: ``dataframe_split``, ``dataframe_records``, ``instances`` or ``inputs``."""
        service = _versioned(gateway, gateway.model, None)
        asked = body_header(request.scope["headers"])
        body, caller = await request.body(), _caller(request)
        return _response(await service.invocations(body, asked.request_id, promise=asked.promise, caller=caller))

    @app.post(routes.V1_EXPLAIN, tags=["v1"], openapi_extra=docs)
    async def explain(request: Request, model: str) -> Response:
        """KServe's V1 protocol; the answer is the V2 explanation."""
        service = _versioned(gateway, model, None)
        asked = body_header(request.scope["headers"]).without_promise()
        return _response(await service.explain_v1(await request.body(), asked.request_id, caller=_caller(request)))

    @app.post(routes.EMBEDDINGS, tags=["openai"], openapi_extra=openapi.any_json())
    async def embeddings(request: Request) -> Response:
        """Vectors of texts, in OpenAI's form."""
        service = _versioned(gateway, gateway.model, None)
        asked = body_header(request.scope["headers"])
        return _response(
            await service.embeddings(
                await request.body(), asked.request_id, promise=asked.promise, caller=_caller(request)
            )
        )

    @app.post(routes.CHAT_COMPLETIONS, tags=["openai"], openapi_extra=openapi.any_json())
    @app.post(routes.COMPLETIONS, tags=["openai"], openapi_extra=openapi.any_json())
    async def chat(request: Request) -> Response:
        """The foreign runtime's completions, governed; streams are passed through."""
        chat = _chat(gateway, gateway.model)
        if chat is None:
            raise NotFound(
                f"{request.url.path}: expected predictor.model.runtime with protocol openai, found another kind "
                "of model"
            )
        asked = body_header(request.scope["headers"])
        body, caller = await request.body(), _caller(request)
        answer = await chat.answer(request.url.path, body, asked.request_id, promise=asked.promise, caller=caller)
        fields = (*named(answer.id, asked.request_id), *chat.limits(caller))
        if isinstance(answer, Completed) and answer.promise:
            fields = (*fields, (PROMISE, answer.promise.encode()))
        if answer.aigc:
            fields = (*fields, (b"x-governed-aigc", answer.aigc.encode()))
        headers = {name.decode(): value.decode() for name, value in fields}
        if isinstance(answer, Stream):
            headers["cache-control"] = "no-cache"
            return StreamingResponse(answer.pieces, media_type="text/event-stream", headers=headers)
        return Response(answer.body, media_type="application/json", headers=headers)
