"""Which role a caller needs for each route of a model's ports, where spec.access.authentication is Required.

A route that isn't here can't be reached; a test compares these tables with what the processes answer.
"""

from collections.abc import Mapping

from governed_api import routes
from governed_api.callers import CallerRole

__all__ = ["AUDITOR_ROLES", "EXPLAINER_ROLES", "RPC_ROLES", "SERVER_ROLES", "Roles"]

Roles = Mapping[tuple[str, str], CallerRole | None]
"""(Method, path as apps register it) → the role; None: nobody is asked who they are."""

_CALL, _EXPLAIN, _AUDIT = CallerRole.CALL, CallerRole.EXPLAIN, CallerRole.AUDIT


def _common(reader: CallerRole) -> dict[tuple[str, str], CallerRole | None]:
    """Of every process; ``reader`` may see the page of its interface."""
    page = ("/openapi.json", "/docs", "/docs/oauth2-redirect", f"{routes.ASSETS}/{{path:path}}")
    probes = {("GET", routes.LIVE_PATH): None, ("GET", routes.READY_PATH): None}
    return {**probes, ("GET", routes.METRICS_PATH): CallerRole.SCRAPE, **{("GET", path): reader for path in page}}


def _each(role: CallerRole | None, method: str, *paths: str) -> dict[tuple[str, str], CallerRole | None]:
    return {(method, path): role for path in paths}


SERVER_ROLES: Roles = {
    **_common(_CALL),
    **_each(None, "GET", routes.V2_LIVE, routes.V2_READY, routes.PING),
    **_each(
        _CALL, "GET", routes.ROOT, routes.V2, routes.V2_MODELS, routes.MODEL, routes.VERSION, routes.MODEL_READY,
        routes.VERSION_READY, routes.V1_MODELS, routes.V1_MODEL, routes.RECEIPT,
    ),
    **_each(
        _CALL, "POST", routes.INFER, routes.VERSION_INFER, routes.V1_PREDICT, routes.INVOCATIONS,
        routes.COMPLETIONS, routes.CHAT_COMPLETIONS, routes.EMBEDDINGS,
    ),
    **_each(_EXPLAIN, "POST", routes.EXPLAIN, routes.VERSION_EXPLAIN, routes.EXPLANATIONS, routes.V1_EXPLAIN),
    **_each(_EXPLAIN, "GET", routes.EXPLANATION, routes.IMPORTANCES, routes.QUALITY, routes.OVERVIEW),
}  # fmt: skip

EXPLAINER_ROLES: Roles = {
    **_common(_EXPLAIN),
    **_each(_EXPLAIN, "POST", routes.EXPLAIN, routes.EXPLANATIONS),
    **_each(_EXPLAIN, "GET", routes.EXPLANATION, routes.IMPORTANCES, routes.QUALITY, routes.OVERVIEW),
}

AUDITOR_ROLES: Roles = {
    **_common(_AUDIT),
    **_each(_AUDIT, "GET", routes.VERDICT, routes.GROUPS, routes.FINDINGS),
    **_each(CallerRole.LABEL, "POST", routes.LABELS),
    **_each(CallerRole.ACKNOWLEDGE, "POST", routes.ACKNOWLEDGEMENTS),
    **_each(CallerRole.REVIEW, "POST", routes.REVIEWS, routes.DECISION),
    **_each(CallerRole.REVIEW, "GET", routes.REVIEWS, routes.REVIEW),
}

RPC_ROLES: Mapping[str, CallerRole | None] = {
    **{f"/inference.GRPCInferenceService/{name}": None for name in ("ServerLive", "ServerReady")},
    **{
        f"/inference.GRPCInferenceService/{name}": _CALL
        for name in ("ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
    },
    **{f"/grpc.health.v1.Health/{name}": None for name in ("Check", "Watch")},
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _CALL,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _CALL,
}
"""Full name of each method → the role. Of health, nobody is told of a service by name but who may call."""
