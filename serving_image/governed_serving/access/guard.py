"""Who may ask an HTTP port: callers whom the model's document names, by the roles that routes need; and containers of
the same pod, by the port's token."""

import re
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Scope

from governed_api.callers import CallerRole
from governed_api.route_roles import Roles
from governed_serving.access.credentials import credential
from governed_serving.access.directory import Known
from governed_serving.access.gate import Gate
from governed_serving.access.refusals import AccessRefused, CannotTell, Unknown, answer
from governed_serving.hosting.answers import STRANGER, problem
from governed_serving.pod_token import PodToken

__all__ = ["CALLER", "CallerGuard", "RouteTable"]

CALLER = "governed.caller"
"""In an ASGI scope: who calls (:class:`Known`); absent where nobody was asked."""

OtherCredential = Callable[[str], Awaitable[Known | None]]
"""Whose a credential is that is no API key and no token of an issuer; None: nobody's. Raises AccessRefused."""


class RouteTable:
    """Finds the row of ``roles`` for a request, as Starlette finds the route; stricter where they could differ."""

    def __init__(self, roles: Roles) -> None:
        self._rows = [(re.compile(_pattern(path), re.DOTALL), method, role) for (method, path), role in roles.items()]

    def find(self, method: str, path: str) -> tuple[int, CallerRole | None]:
        """(200, the role; None: nobody is asked), or (404 or 405, None)."""
        wanted, status = "GET" if method == "HEAD" else method, 404
        for pattern, allowed, role in self._rows:
            if pattern.fullmatch(path):
                if allowed == wanted:
                    return 200, role
                status = 405
        return status, None


def _pattern(path: str) -> str:
    parts = re.split(r"(\{[a-z_]+(?::path)?\})", path)
    return "".join(
        (".*" if part.endswith(":path}") else "[^/]+") if part.startswith("{") else re.escape(part) for part in parts
    )


class CallerGuard:
    """For a :class:`~governed_serving.hosting.Door`. ``token``: the port's, which containers of the pod show;
    ``other`` knows credentials that are no API keys."""

    def __init__(
        self, gate: Gate, roles: Roles, token: PodToken | None = None, other: OtherCredential | None = None
    ) -> None:
        self._gate, self._table, self._token, self._other = gate, RouteTable(roles), token, other

    async def refusal(self, scope: Scope) -> Response | None:
        """The answer that turns a request away; None: it may go on, and ``scope`` says whose it is."""
        if self._token is not None and self._token.shown_in(scope["headers"]):
            return None
        status, role = self._table.find(scope["method"], scope["path"])
        if status == 200 and role is None:
            scope[STRANGER] = True
            return None
        try:
            caller = await self._caller(scope)
            if status != 200:
                return problem(status, f"{scope['method']}: expected a route of this port, found another")
            scope[CALLER] = self._gate.allow(caller, role)
        except AccessRefused as refused:
            return answer(refused, scope["path"])
        return None

    async def _caller(self, scope: Scope) -> Known:
        """Raises AccessRefused."""
        peer = scope["client"][0] if scope.get("client") else ""
        try:
            shown = credential(scope["headers"], scope["query_string"])
            return await self._others(shown) or self._gate.known(shown)
        except Unknown as error:
            raise self._gate.turned_away(error, peer) from None

    async def _others(self, shown: str) -> Known | None:
        """Raises AccessRefused."""
        try:
            return await self._other(shown) if self._other is not None else None
        except CannotTell as error:
            self._gate.refused[error.reason] += 1
            raise
