"""Addresses that we call because somebody named them: in one form, and only where they may lead (SSRF: OWASP API7).

What lies behind a name must be a public address, unless the name itself can only have been given on purpose: an
address, or a host of the cluster or the machine. A connection is made to the address that was judged.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = [
    "LONGEST_URL",
    "Resolve",
    "Target",
    "Url",
    "address_of",
    "at_address",
    "is_internal",
    "is_public",
    "parsed",
    "resolved",
    "target",
]

LONGEST_URL = 2048
_PORTS = {"http": 80, "https": 443}
_INTERNAL = ("localhost", ".localhost", ".svc", ".cluster.local", ".internal", ".local")
"""Ends of names that only exist where the operator of the cluster, or of the machine, made them."""

_TRANSLATING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is given out of IPv6's addresses (IANA): a NAT64 of one's own, site-local and others lie beside it."""
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host and port. Raises OSError."""


class Url(NamedTuple):
    """A URL in one form; ``path`` unquoted."""

    scheme: str
    host: str
    port: int
    path: str


class Target(NamedTuple):
    """Where a request goes: ``url`` with the judged address in it, the Host header, the name that TLS asks for."""

    url: str
    host: str
    server_name: str


def parsed(text: str) -> Url:
    """In one form. Raises ValueError, saying what was expected, for what has more than one reading."""
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
    return Url(split.scheme, host, split.port or _PORTS[split.scheme], "/".join(segments))


def is_internal(host: str) -> bool:
    """A host that can only be named on purpose: an address, one label, or a name of the cluster or machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_INTERNAL)
    return True


async def resolved(host: str, port: int) -> list[str]:
    """By the machine's resolver."""
    resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in resolved]


async def target(text: str, resolve: Resolve = resolved, *, remedy: str) -> Target:
    """Where a request to ``text`` goes. Raises ValueError for an address that isn't public though its name is
    (``remedy``: what to do then), OSError."""
    url = parsed(text)
    addresses = await resolve(url.host, url.port)
    if not is_internal(url.host) and (private := [address for address in addresses if not is_public(address)]):
        raise ValueError(f"expected a public address behind {url.host}, found {private[0]}; {remedy}")
    if not addresses:
        raise ValueError(f"expected an address of {url.host}, found none")
    return Target(at_address(text, addresses[0], url.port), urlsplit(text).netloc, url.host)


def at_address(url: str, address: str, port: int) -> str:
    """``url`` with an address that was judged in its name's place."""
    literal = f"[{address}]" if ":" in address else address
    return urlsplit(url)._replace(netloc=f"{literal}:{port}").geturl()


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """As it is called: without a zone, an IPv4 address that an IPv6 one stands for as that. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or _translated(address) or address
    return address


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Of a NAT64 (RFC 6052), and of the form that RFC 4291 deprecates, ``::`` and ``::1`` aside."""
    if any(address in network for network in _TRANSLATING) and int(address) > 1:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_public(address: str) -> bool:
    """Whether anybody on the internet may be called there: not this machine, a private network or many at once."""
    called = address_of(address)
    assigned = called.version == 4 or called in _UNICAST
    return assigned and called.is_global and not called.is_multicast and called not in _DOCUMENTATION
