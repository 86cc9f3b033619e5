"""HTTP to where a manifest, or a server's redirect, leads: judged before each connection, credentials kept to the host
they were given for, statuses told apart by whether another try may help.

A name in a manifest was written on purpose, so it may lead into a private network (never to link-local addresses,
where clouds keep credentials); a redirect comes from a server, so it must lead to a public address by https, or stay on
the host that the manifest named (SSRF: OWASP API7).
"""

import functools
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx

from governed_api.json_types import Json
from governed_api.pauses import retry_after
from governed_serving.decoding import decode_json
from governed_serving.outbound import address_of, at_address, is_internal, is_public
from governed_serving.sources.errors import Changed, Refused, Unavailable
from governed_serving.sources.source import Part

__all__ = ["Resolve", "Web", "part_of"]

CONNECT, READ = 10.0, 60.0
REDIRECTS = 5
LONGEST_URL = 8192
"""Signed addresses of object storage are long."""
MAX_DOCUMENT, DOCUMENT_SECONDS = 16 << 20, 120.0
_ELSEWHERE = "it isn't the host that was named: let that one serve the file itself"
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REMEDIES = {
    401: "expected credentials that it takes: name them in storage.secretRef",
    403: "the credentials of storage.secretRef, or none, give no right to it",
    404: "there is nothing under this address, or nothing that these credentials may see",
}

Resolve = Callable[[str, int], list[str]]
"""Addresses of a host and port. Raises OSError."""
Authorise = Callable[[str], Mapping[str, str]]
"""Headers that show who asks, for a URL."""


class Origin(NamedTuple):
    """Scheme, host and port: what credentials are good for (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Raises Refused for what is no web address that may be called."""
        split = urlsplit(url)
        try:
            port = split.port or {"https": 443, "http": 80}.get(split.scheme, 0)
        except ValueError:
            port = 0
        host = (split.hostname or "").lower().removesuffix(".")
        plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
        if not plain or len(url) > LONGEST_URL or not host or not port or "@" in split.netloc:
            raise Refused(f"{_bare(url)!r}: expected an address https://HOST/PATH without user and password")
        if split.scheme == "http" and not is_internal(host):
            raise Refused(f"{url[:200]}: expected https; http is for names of the cluster and of this machine")
        return cls(split.scheme, host, port)


def resolve(host: str, port: int) -> list[str]:
    """By the machine's resolver."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Web:
    """``ca``: certificates to trust as well. ``trusted``: addresses that the manifest names, whose hosts may be
    private."""

    def __init__(self, *trusted: str, ca: Path | None = None, resolve: Resolve = resolve) -> None:
        self._trusted = {Origin.of(url).host for url in trusted}
        self._resolve = resolve
        self._context = _context(ca)
        self._clients: dict[str, httpx.Client] = {}

    def close(self) -> None:
        """Give connections back."""
        for client in self._clients.values():
            client.close()

    @contextmanager
    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        authorise: Authorise | None = None,
        *,
        statuses: tuple[int, ...] = (),
    ) -> Iterator[httpx.Response]:
        """The final answer, its body not read yet. ``authorise`` is asked for the first origin alone. Raises Refused,
        Changed and Unavailable for statuses other than 200, 206 and ``statuses``."""
        first, asked = Origin.of(url), url
        for _ in range(REDIRECTS + 1):
            origin = Origin.of(url)
            own = authorise(url) if authorise is not None and origin == first else {}
            answer = self._send(url, origin, {"accept-encoding": "identity", **headers, **own})
            try:
                if not answer.is_redirect:
                    if answer.status_code not in statuses:
                        _judge(answer, asked)
                    yield answer
                    return
                url = _next(url, answer.headers.get("location", ""))
            finally:
                answer.close()
        raise Refused(
            f"{shown(asked)}: expected a file, found more than {REDIRECTS} redirects, the last to {shown(url)}"
        )

    def document(
        self, url: str, headers: Mapping[str, str], authorise: Authorise | None = None
    ) -> tuple[bytes, httpx.Headers]:
        """A small answer: (bytes, headers)."""
        with self.get(url, headers, authorise) as answer:
            return body_of(answer, url), answer.headers

    def json(
        self, url: str, headers: Mapping[str, str], authorise: Authorise | None = None
    ) -> tuple[Json, httpx.Headers]:
        """A small JSON answer: (value, headers)."""
        data, answer = self.document(url, headers, authorise)
        return json_of(data, url), answer

    def _send(self, url: str, origin: Origin, headers: Mapping[str, str]) -> httpx.Response:
        proxy = _proxy(origin)
        addresses = self._judged_name(url, origin) if proxy else self._judged(url, origin)
        client, failure = self._client(proxy), ""
        for address in addresses or [""]:
            target, extensions = _pinned(url, origin, address)
            request = client.build_request(
                "GET", target, headers={**headers, "host": urlsplit(url).netloc}, extensions=extensions
            )
            try:
                return client.send(request, stream=True)
            except (
                httpx.ConnectError,
                httpx.ConnectTimeout,
            ) as error:  # the next address may be reached: a cluster without IPv6, say
                if "certificate" in str(error).lower():
                    raise Refused(f"{shown(url)}: {error}; name its authority in storage.caSecretRef") from error
                failure = failure or str(error)
            except httpx.TransportError as error:
                raise Unavailable(f"{shown(url)}: {str(error) or type(error).__name__}") from error
        raise Unavailable(f"{shown(url)}: {failure or 'no connection'}")

    def _client(self, proxy: str) -> httpx.Client:
        if proxy not in self._clients:
            timeout = httpx.Timeout(READ, connect=CONNECT)
            self._clients[proxy] = httpx.Client(
                verify=self._context, trust_env=False, timeout=timeout, proxy=proxy or None
            )
        return self._clients[proxy]

    def _judged_name(self, url: str, origin: Origin) -> list[str]:
        """What is known before a proxy: it looks names up itself. Nothing to pin to."""
        if origin.host in self._trusted:
            return []
        try:
            private = not is_public(origin.host)
        except ValueError:
            private = is_internal(origin.host)
        if private:
            raise Refused(f"{shown(url)}: expected a public host, found {origin.host}; {_ELSEWHERE}")
        return []

    def _judged(self, url: str, origin: Origin) -> list[str]:
        try:
            addresses = self._resolve(origin.host, origin.port)
        except OSError as error:
            raise Unavailable(f"{shown(url)}: expected an address of {origin.host}, found none ({error})") from error
        named = origin.host in self._trusted
        for address in addresses:
            if is_public(address) or (named and not _forbidden(address)):
                continue
            raise Refused(
                f"{shown(url)}: expected a public address of {origin.host}, found {address}"
                + ("" if named else f"; {_ELSEWHERE}")
            )
        return addresses


def _pinned(url: str, origin: Origin, address: str) -> tuple[str, dict[str, str]]:
    """(URL, extensions) of a request to the address that was judged, whatever the name says a moment later; without
    one, to the name."""
    if not address:
        return url, {}
    return at_address(url, address, origin.port), {"sni_hostname": origin.host}


@functools.cache
def _context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context


def _forbidden(address: str) -> bool:
    """Also for a host that was named: link-local (metadata of clouds), multicast, none at all."""
    called = address_of(address)
    reserved = called.is_reserved and not called.is_loopback  # ::1 is both
    return called.is_link_local or called.is_multicast or called.is_unspecified or reserved


def _proxy(origin: Origin) -> str:
    """That of the environment (HTTPS_PROXY, NO_PROXY …), "" for none."""
    if urllib.request.proxy_bypass(f"{origin.host}:{origin.port}") or urllib.request.proxy_bypass(origin.host):
        return ""
    return urllib.request.getproxies().get(origin.scheme, "")


def _next(url: str, location: str) -> str:
    target = urljoin(url, location).partition("#")[0]
    was, now = urlsplit(url).scheme, urlsplit(target).scheme
    if not location or now not in ("https", was):
        raise Refused(f"{shown(url)}: expected a redirect to an https address, found {location[:200]!r}")
    return target


def _bare(url: str) -> str:
    """What is told of an address that may hold a password: neither that nor its query."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}"[:200]


def shown(url: str) -> str:
    """Without its query, where signatures and tokens stand."""
    return url.partition("?")[0][:300]


def _judge(answer: httpx.Response, url: str) -> None:
    status = answer.status_code
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Refused(f"{shown(url)}: expected the file as it is, found content-encoding "
                          f"{answer.headers['content-encoding']!r}, which nobody asked for")  # fmt: skip
        return
    word = f"{status} {answer.reason_phrase}".strip()
    if status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        raise Changed(f"{shown(url)}: it is another file than a moment ago ({word})")
    if status in _PASSING:
        raise Unavailable(f"{shown(url)}: {word}", retry_after(answer.headers.get("retry-after", "")))
    raise Refused(f"{shown(url)}: {word}; {_REMEDIES.get(status, 'expected 200 OK')}")


def body_of(answer: httpx.Response, url: str) -> bytes:
    """A small body. Raises Refused for a large one, Unavailable for one that is cut off."""
    out, began = bytearray(), time.monotonic()
    try:
        for chunk in answer.iter_raw():
            out += chunk
            if time.monotonic() - began > DOCUMENT_SECONDS:
                raise Unavailable(
                    f"{shown(url)}: expected a document within {DOCUMENT_SECONDS:g} s, found a part of it"
                )
            if len(out) > MAX_DOCUMENT:
                raise Refused(f"{shown(url)}: expected a document of at most {MAX_DOCUMENT >> 20} MiB, found more")
    except httpx.TransportError as error:
        raise Unavailable(f"{shown(url)}: {error}") from error
    return bytes(out)


def json_of(data: bytes, url: str) -> Json:
    """Raises Refused."""
    try:
        parsed: Json = decode_json(data)
    except ValueError as error:
        raise Refused(f"{shown(url)}: expected JSON, found {json.dumps(data[:60].decode(errors='replace'))}") from error
    return parsed


def part_of(answer: httpx.Response, asked: int, version: str) -> Part:
    """What an answer to a request from byte ``asked`` on brings. Raises Refused, Changed, and Unavailable as it is
    read."""
    etag = answer.headers.get("etag", "")
    validator = "" if etag.startswith("W/") else etag or answer.headers.get("last-modified", "")
    if asked and version and validator != version:
        raise Changed(f"it is another file than a moment ago (ETag {validator[:80] or 'none'}, was {version[:80]})")
    length = answer.headers.get("content-length", "")
    size = int(length) if length.isascii() and length.isdecimal() else None
    offset = 0
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        unit, _, rest = answer.headers.get("content-range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = span.partition("-")[0]
        if unit != "bytes" or first != str(asked):
            raise Refused(f"expected bytes from {asked} on, found content-range {rest[:60]!r}")
        offset, size = asked, int(total) if total.isascii() and total.isdecimal() else None
    return Part(offset, size, validator, _chunks(answer))


def _chunks(answer: httpx.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw()  # as they come: in chunks of a size, those before a cut would be lost
    except httpx.TransportError as error:
        raise Unavailable(f"cut off: {str(error) or type(error).__name__}") from error
