"""Webhooks: where an explanation may be posted to, judged before it is computed, and how it is posted.

An explanation holds personal data, and a request names the URL: it must lie under a prefix of the spec once both are
in one form, and the address behind its name must be a public one, unless the prefix itself names an address or a host
of the cluster or the machine (SSRF: OWASP API7:2023). The connection is made to the address that was judged.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import httpx

from governed_serving.blackbox.errors import NotExplainable

__all__ = ["LONGEST_URL", "Poster", "allowed"]

LONGEST_URL = 2048
POST_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443}
_INTERNAL = ("localhost", ".localhost", ".svc", ".cluster.local", ".internal", ".local")
"""Ends of names that only exist where the operator of the cluster, or of the machine, made them."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host and port. Raises OSError."""


class _Url(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str


def _parts(text: str) -> _Url:
    """In one form. Raises ValueError for what has more than one reading."""
    if len(text) > LONGEST_URL:
        raise ValueError(f"at most {LONGEST_URL} characters")
    if not (text.isascii() and text.isprintable()) or " " in text or "\\" in text:
        raise ValueError("printable ASCII characters without spaces and backslashes")
    split = urlsplit(text)
    if split.scheme not in _PORTS or not split.hostname or "@" in split.netloc or split.fragment:
        raise ValueError("http(s)://host/path without user and fragment")
    segments = [unquote(segment) for segment in split.path.split("/")]
    if any(s in (".", "..") or "/" in s or "\\" in s or "%" in s or not s.isprintable() for s in segments):
        raise ValueError("a path without '.' and '..', and without escaped slashes or percent signs")
    host = split.hostname.lower().removesuffix(".")
    return _Url(split.scheme, host, split.port or _PORTS[split.scheme], "/".join(segments))


def _under(url: _Url, prefix: str) -> bool:
    try:
        parts = _parts(prefix)
    except ValueError:
        return False
    return url[:3] == parts[:3] and url.path.startswith(parts.path.rstrip("/") + "/")


def allowed(webhook: str | None, prefixes: Sequence[str]) -> str:
    """The webhook if it lies under an allowed prefix, "" for none. Raises :class:`NotExplainable`."""
    if not webhook:
        return ""
    try:
        url = _parts(webhook)
    except ValueError as error:
        raise NotExplainable(f"parameters.webhook: expected {error}, found {webhook[:80]!r}") from None
    if not any(_under(url, prefix) for prefix in prefixes):
        listed = ", ".join(prefixes) or "none"
        raise NotExplainable(
            f"parameters.webhook: expected a URL under one of the allowed prefixes ({listed}), found {webhook[:200]!r}"
        )
    return webhook


def _internal(host: str) -> bool:
    """A host that a prefix can only name on purpose: an address, one label, or a name of the cluster or machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_INTERNAL)
    return True


async def _resolved(host: str, port: int) -> list[str]:
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


class Poster:
    """Posts explanations to URLs that :func:`allowed` let through."""

    def __init__(self, *, resolve: Resolve = _resolved, transport: httpx.AsyncBaseTransport | None = None) -> None:
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
        url = _parts(text)
        addresses = await self._resolve(url.host, url.port)
        if not _internal(url.host) and (private := [address for address in addresses if not _public(address)]):
            return f"expected a public address behind {url.host}, found {private[0]}; list the address as a prefix"
        if not addresses:
            return f"expected an address of {url.host}, found none"
        literal = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        split = urlsplit(text)
        target = split._replace(netloc=f"{literal}:{url.port}").geturl()
        headers = {"content-type": "application/json", "host": split.netloc}
        extensions = {"sni_hostname": url.host}
        async with httpx.AsyncClient(timeout=POST_SECONDS, trust_env=False, transport=self._transport) as client:
            answer = await client.post(target, content=body, headers=headers, extensions=extensions)
        return "" if answer.status_code < 300 else f"expected it to be taken, found status {answer.status_code}"


def _public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.is_global and not parsed.is_multicast
