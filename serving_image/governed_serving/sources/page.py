"""One file behind an http(s) address."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from governed_serving.sources.errors import Refused
from governed_serving.sources.names import safe
from governed_serving.sources.source import Access, Keys, Listed, Part
from governed_serving.sources.web import Web, part_of

__all__ = ["Page", "basic", "bearer", "ranged"]


class Page:
    """``access.keys``: token, or username and password."""

    single = True

    def __init__(self, uri: str, access: Access, web: Web | None = None) -> None:
        self._url, self._keys = uri, access.keys
        self._web = web or Web(uri, ca=access.ca)

    def files(self, wanted: Callable[[str], bool]) -> list[Listed]:
        """The file that the path names; its size is told by the answer that brings it."""
        name = safe(unquote(urlsplit(self._url).path).rstrip("/").rpartition("/")[2])
        if not wanted(name):
            raise Refused(f"{self._url}: is the file {name}, and storage.files names others")
        return [Listed(name, None)]

    @contextmanager
    def read(self, file: Listed, offset: int, version: str) -> Iterator[Part]:  # noqa: ARG002 - there is one
        with self._web.get(self._url, ranged(offset, version), self._authorise) as answer:
            yield part_of(answer, offset, version)

    def close(self) -> None:
        self._web.close()

    def _authorise(self, _: str) -> Mapping[str, str]:
        return bearer(self._keys.get("token")) or basic(self._keys)


def ranged(offset: int, version: str) -> dict[str, str]:
    """Headers that ask for the rest of what was begun. If-Range (RFC 9110, 13.1.5): another file is sent whole."""
    if not offset:
        return {}
    return {"range": f"bytes={offset}-", **({"if-range": version} if version else {})}


def bearer(token: str) -> dict[str, str]:
    """RFC 6750; nothing for no token."""
    return {"authorization": f"Bearer {token}"} if token else {}


def basic(keys: Keys) -> dict[str, str]:
    """RFC 7617; nothing where the Secret has no username."""
    user = keys.get("username")
    if not user:
        return {}
    pair = f"{user}:{keys.get('password')}".encode()
    return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
