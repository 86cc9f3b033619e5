"""Webhooks: where an explanation may be posted to, judged before it is computed, and how it is posted.

An explanation holds personal data, and a request names the URL: it must lie under a prefix of the spec once both are
in one form, and the address behind its name must be a public one, unless the prefix itself names an address or a host
of the cluster or the machine (SSRF: OWASP API7:2023). The connection is made to the address that was judged.
"""

import asyncio
from collections.abc import Sequence

import httpx

from governed_serving.blackbox.errors import NotExplainable
from governed_serving.outbound import LONGEST_URL, Resolve, Url, parsed, resolved, target

__all__ = ["LONGEST_URL", "Poster", "allowed"]

POST_SECONDS = 10.0


def _under(url: Url, prefix: str) -> bool:
    try:
        parts = parsed(prefix)
    except ValueError:
        return False
    return url[:3] == parts[:3] and url.path.startswith(parts.path.rstrip("/") + "/")


def allowed(webhook: str | None, prefixes: Sequence[str]) -> str:
    """The webhook if it lies under an allowed prefix, "" for none. Raises :class:`NotExplainable`."""
    if not webhook:
        return ""
    try:
        url = parsed(webhook)
    except ValueError as error:
        raise NotExplainable(f"parameters.webhook: expected {error}, found {webhook[:80]!r}") from None
    if not any(_under(url, prefix) for prefix in prefixes):
        listed = ", ".join(prefixes) or "none"
        raise NotExplainable(
            f"parameters.webhook: expected a URL under one of the allowed prefixes ({listed}), found {webhook[:200]!r}"
        )
    return webhook


class Poster:
    """Posts explanations to URLs that :func:`allowed` let through."""

    def __init__(self, *, resolve: Resolve = resolved, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._resolve, self._transport = resolve, transport

    async def __call__(self, url: str, body: bytes) -> str:
        """Why it was not delivered, "" when it was. Redirects aren't followed: they would lead anywhere."""
        try:
            async with asyncio.timeout(POST_SECONDS):
                return await self._post(url, body)
        except TimeoutError:
            return f"expected an answer within {POST_SECONDS:g} s, found none"
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {str(error)[:200]}"

    async def _post(self, text: str, body: bytes) -> str:
        try:
            where = await target(text, self._resolve, remedy="list the address as a prefix")
        except ValueError as error:
            return str(error)
        headers = {"content-type": "application/json", "host": where.host}
        extensions = {"sni_hostname": where.server_name}
        async with httpx.AsyncClient(timeout=POST_SECONDS, trust_env=False, transport=self._transport) as client:
            answer = await client.post(where.url, content=body, headers=headers, extensions=extensions)
        return "" if answer.status_code < 300 else f"expected it to be taken, found status {answer.status_code}"
