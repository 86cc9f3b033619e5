"""The way to the explainer: the answered, masked request goes to the container beside us."""

from dataclasses import dataclass
from typing import Any, Literal

import httpx

from governed_serving.server.errors import ExplainerAway, ServerError
from governed_serving.server.messages import InferResponse
from governed_serving.server.protocol.v2 import V2Codec

__all__ = ["ExplainerClient", "ExplainerProxy", "ExplanationRefused", "Proxied", "Verb"]

Verb = Literal["explain", "explanations"]


class ExplanationRefused(ServerError):
    """What the explainer itself answered, with its status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Proxied:
    """The explainer's own answer: 200, or 202 for one that is being computed."""

    status: int
    body: bytes


class ExplainerClient:
    """Speaks to ``{url}/v2/models/{model}/…``; connections are kept."""

    def __init__(
        self, url: str, model: str, *, timeout: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = f"{url}/v2/models/{model}"
        self._timeout = timeout
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=4)
        times = httpx.Timeout(timeout, connect=2.0)
        self._client = httpx.AsyncClient(timeout=times, limits=limits, transport=transport, trust_env=False)

    async def submit(self, body: bytes, request_id: str, verb: Verb) -> Proxied:
        """Explain the answered request ``request_id``, whose V2 ``body`` is masked; verb explanations answers at once and computes
        later. Raises ExplainerAway, ExplanationRefused."""
        return await self._ask("POST", verb, body, f"the prediction {request_id} is journalled, ")

    async def read(self, path: str) -> Proxied:
        """GET below the model. Raises ExplainerAway, ExplanationRefused."""
        return await self._ask("GET", path, None, "")

    async def _ask(self, method: str, path: str, body: bytes | None, kept: str) -> Proxied:
        url = f"{self._url}/{path}"
        headers = {"content-type": "application/json", "x-governed-internal": "server"}
        try:
            answer = await self._client.request(method, url, content=body, headers=headers)
        except httpx.ConnectTimeout as error:
            raise ExplainerAway(f"explainer at {url}: expected a connection, found none; {kept}retry later") from error
        except httpx.TimeoutException as error:
            raise ExplainerAway(
                f"explainer at {url}: expected an answer within {self._timeout:g} s, found none; {kept}lower max_evaluations or set budget_ms"
            ) from error
        except httpx.HTTPError as error:
            raise ExplainerAway(
                f"explainer at {url}: expected a connection, found {type(error).__name__}; {kept}retry later"
            ) from error
        if answer.status_code < 300:
            return Proxied(answer.status_code, answer.content)
        raise ExplanationRefused(f"explainer: {_error(answer)}", answer.status_code)

    async def close(self) -> None:
        """Drop connections."""
        await self._client.aclose()


class ExplainerProxy(ExplainerClient):
    """For predictions in V2's own form."""

    def __init__(
        self, url: str, model: str, codec: V2Codec, *, timeout: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        super().__init__(url, model, timeout=timeout, transport=transport)
        self._codec = codec

    async def explain(self, response: InferResponse, options: dict[str, Any], verb: Verb = "explain") -> Proxied:
        """Explain the answered ``response``. Raises as :meth:`submit`."""
        return await self.submit(self._codec.encode_request(response, options), response.id, verb)


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"expected JSON with an error, found status {answer.status_code}"
