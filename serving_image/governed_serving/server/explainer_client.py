"""The way to the explainer: the container beside us, over HTTP."""

from urllib.parse import quote

import httpx
import msgspec

from governed_api import routes
from governed_serving.pod_token import PodToken, headers_of
from governed_serving.server.errors import ExplainerAway
from governed_serving.server.explanation import (
    Accepted,
    Explained,
    ExplanationRefused,
    Question,
    Reason,
    Report,
    ReportKind,
)

__all__ = ["ExplainerClient"]

_REASONS: dict[int, Reason] = {
    404: "unknown",
    413: "too-large",
    429: "overloaded",
    502: "misbehaved",
    503: "unavailable",
    504: "out-of-time",
}


REPORTS: dict[ReportKind, str] = {
    "importances": routes.IMPORTANCES,
    "quality": routes.QUALITY,
    "overview": routes.OVERVIEW,
}


class ExplainerClient:
    """Speaks to ``{url}/v2/models/{model}/…``; connections are kept. ``timeout`` in seconds; ``token``: the port's,
    where it asks for one."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None = None,
        token: PodToken | None = None,
    ) -> None:
        self._url, self._model = url, model
        self._timeout = timeout
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=4)
        times = httpx.Timeout(timeout, connect=2.0)
        self._client = httpx.AsyncClient(
            timeout=times, limits=limits, transport=transport, trust_env=False, headers=headers_of(token)
        )

    async def explain(self, question: Question, *, later: bool = False) -> Explained | Accepted:
        kept = f"the prediction {question.id} is journalled, "
        answer = await self._ask(
            "POST", routes.EXPLANATIONS if later else routes.EXPLAIN, msgspec.json.encode(question), kept
        )
        return Accepted(answer.content) if answer.status_code == 202 else Explained(answer.content)

    async def ticket(self, ticket: str) -> Report:
        return await self._read(routes.EXPLANATION, ticket=quote(ticket, safe=""))

    async def report(self, kind: ReportKind) -> Report:
        return await self._read(REPORTS[kind])

    async def _read(self, path: str, **parameters: str) -> Report:
        return Report((await self._ask("GET", path, None, "", **parameters)).content)

    async def _ask(self, method: str, path: str, body: bytes | None, kept: str, **parameters: str) -> httpx.Response:
        url = self._url + path.format(model=self._model, **parameters)
        headers = {"content-type": "application/json", "x-governed-internal": "server"}
        try:
            answer = await self._client.request(method, url, content=body, headers=headers)
        except httpx.ConnectTimeout as error:
            raise ExplainerAway(f"explainer at {url}: expected a connection, found none; {kept}retry later") from error
        except httpx.TimeoutException as error:
            raise ExplanationRefused(
                f"explainer at {url}: expected an answer within {self._timeout:g} s, found none; {kept}lower "
                "maxEvaluations, set budgetMilliseconds, or ask for it as a job",
                "unanswered",
            ) from error
        except httpx.HTTPError as error:
            raise ExplainerAway(
                f"explainer at {url}: expected a connection, found {type(error).__name__}; {kept}retry later"
            ) from error
        if answer.status_code < 300:
            return answer
        raise ExplanationRefused(f"explainer: {_error(answer)}", _reason(answer.status_code))

    async def close(self) -> None:
        await self._client.aclose()


def _reason(status: int) -> Reason:
    return _REASONS.get(status, "failed" if status >= 500 else "invalid")


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"expected JSON with an error, found status {answer.status_code}"
