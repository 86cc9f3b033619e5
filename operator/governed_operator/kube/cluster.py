"""The API server, through the kubernetes client's asyncio side: its configuration, TLS and tokens, and plain JSON over
kept connections.

Its own requests (typed models, the environment's proxies and netrc looked up for each) would cost more CPU than
everything else that the operator does: 1.2 ms each where ours take .1.
"""

import os
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import yaml
from kubernetes.aio import client, config

from governed_api.names import FIELD_MANAGER
from governed_api.reasons import Reason
from governed_operator.kube.connection import Connections, Origin, header_lines
from governed_operator.kube.kinds import Kind, Object

T = TypeVar("T")
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
METADATA_ALONE = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
HEAD_ALONE = METADATA_ALONE.replace("List;", ";")
"""Of one object, and of what a watch tells."""
PAGE = 500
"""Objects of one answer to a list."""
SECONDS = 30.0
"""For an answer, the whole of it."""
TOKEN_SECONDS = 10.0
"""Between two looks at the token."""
LONGEST_LINE = 2**21
"""Bytes of one watch event; etcd takes no object above 1.5 MiB."""


class ApiError(Exception):
    """The API server refused, or can't be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str, subject: str = "") -> None:
        super().__init__(f"{message or reason} ({status})")
        self.status = status
        self.reason = reason
        self.message = message
        self.subject = subject
        """Kind and name of the object that the request was about, where known: a webhook's denial doesn't name it."""

    @property
    def namespace_ends(self) -> bool:
        """Nothing can be made in a namespace that is being deleted: no error of ours."""
        return self.status == 403 and "because it is being terminated" in self.message


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str
    namespace: str = ""


class _Item(msgspec.Struct):
    metadata: _Metadata


class _List(msgspec.Struct):
    items: list[_Item] | None = None
    """null where there is none: a list of metadata alone has no empty array."""


class _PageMetadata(msgspec.Struct, rename={"resource_version": "resourceVersion", "rest": "continue"}):
    resource_version: str
    rest: str = ""


class _Page(msgspec.Struct):
    metadata: _PageMetadata
    items: list[msgspec.Raw] | None = None


_page = msgspec.json.Decoder(_Page).decode
_listed = msgspec.json.Decoder(_List).decode


_UNUSABLE = (config.ConfigException, OSError, ValueError, TypeError, yaml.YAMLError)
"""What the library raises for a kubeconfig; TypeError: it holds no mapping."""


@dataclass(frozen=True)
class WatchTimes:
    """Seconds: how long the API server keeps a watch open (``lasts``), how long it may say nothing (``silence``), and
    between two looks at what came (``rest``): events come in crowds."""

    lasts: int
    silence: float
    rest: float = 0.2


class NoCluster(Exception):
    """Neither a pod's service account nor a kubeconfig that can be used; the message says what to do."""


async def find_cluster() -> None:
    """Take over the address and credentials of the pod's service account, else of the user's kubeconfig; nothing is
    asked of the cluster yet. Raises NoCluster."""
    try:
        config.load_incluster_config()
    except config.ConfigException as in_cluster:
        # named explicitly: the library reads KUBECONFIG when it is imported
        file = os.environ.get("KUBECONFIG") or None
        try:
            await config.load_kube_config(config_file=file)
        except _UNUSABLE as error:
            raise NoCluster(
                f"no cluster: not in a pod ({in_cluster}), and {file or '~/.kube/config'} can't be used: "
                f"{' '.join(str(error).split())}; set KUBECONFIG to a file with a current context"
            ) from error


class Cluster:
    """One API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._known_headers: dict[tuple[str, str], str] = {}
        self._headers_until = 0.0
        configuration = api.configuration
        host = configuration.host.rstrip("/")
        self._connections = Connections(
            Origin(
                host,
                api.rest_client.ssl_context,
                configuration.tls_server_name or None,
                configuration.proxy or _proxy(host),
                configuration.proxy_headers or {},
            )
        )

    @classmethod
    async def connect(cls) -> "Cluster":
        """With the pod's service account, otherwise the user's kubeconfig. Raises NoCluster."""
        await find_cluster()
        return cls(client.ApiClient(client.Configuration.get_default_copy()))

    @property
    def api(self) -> client.ApiClient:
        return self._api

    async def close(self) -> None:
        self._connections.close()
        await self._api.close()

    async def _headers(self, media: str, accept: str) -> str:
        """As lines. The token is looked up again every few seconds, not for every request: it is renewed minutes before
        it ends."""
        now = time.monotonic()
        if now >= self._headers_until:
            self._known_headers.clear()
            self._headers_until = now + TOKEN_SECONDS
        lines = self._known_headers.get((media, accept))
        if lines is None:
            settings = await self._api.configuration.auth_settings()
            headers = {s["key"]: s["value"] for s in settings.values() if s["value"]}
            lines = self._known_headers[media, accept] = header_lines(
                headers | {"Content-Type": media, "Accept": accept}
            )
        return lines

    async def request(
        self, method: str, path: str, body: Object | None = None, *, media: str = "application/json", **query: str
    ) -> Object:
        """The answer's JSON. Raises ApiError."""
        return _json(await self.raw(method, path, body, media=media, **query))

    async def raw(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        media: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> bytes:
        """The answer, undecoded. Raises ApiError."""
        target = f"{path}?{_encoded(tuple(query.items()))}" if query else path
        return await self._exchanged(method, target, None if body is None else msgspec.json.encode(body), media, accept)

    async def _exchanged(
        self, method: str, target: str, body: bytes | None, media: str, accept: str = "application/json"
    ) -> bytes:
        """The whole body of an answer that is no refusal."""
        headers = await self._headers(media, accept)
        try:
            status, data = await self._connections.request(method, target, headers, body, SECONDS)
        except OSError as error:
            raise _unreachable(method, target, error) from error
        if status >= 400:
            raise _refused(status, _json(data))
        return data

    async def versions(self, kind: Kind, namespace: str | None = None) -> dict[tuple[str, str], int]:
        """(namespace, name) → resourceVersion of all objects of a kind, or of one namespace's, as the API server's own
        cache has them; no more is read."""
        path = f"{kind.path(namespace)}?resourceVersion=0"
        data = await self._exchanged("GET", path, None, "application/json", METADATA_ALONE)
        items = _read(_listed, data, kind).items or ()
        return {(m.namespace, m.name): int(m.resource_version) for m in (i.metadata for i in items)}

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """None when there is no such object."""
        try:
            with about(kind, name):
                return await self.request("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def head(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """An object without its content; None when there is none."""
        try:
            with about(kind, name):
                return _json(await self.raw("GET", kind.path(namespace, name), accept=HEAD_ALONE))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def apply(self, kind: Kind, manifest: Object, *, force: bool = True) -> bytes:
        """Server-side apply with our one field manager. With ``force`` conflicts are ours to win: of our objects we
        only name fields that we own. Without, an object of this name that another has made raises ApiError (409,
        Conflict)."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        with about(kind, metadata["name"]):
            return await self.raw(
                "PATCH", path, manifest, media=APPLY, fieldManager=FIELD_MANAGER, force="true" if force else "false"
            )

    async def create(self, kind: Kind, manifest: Object) -> bytes | None:
        """None when it is there already."""
        metadata = manifest["metadata"]
        try:
            with about(kind, metadata["name"]):
                return await self.raw(
                    "POST", kind.path(metadata.get("namespace")), manifest, accept=_accepted(kind),
                    fieldManager=FIELD_MANAGER,
                )  # fmt: skip
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    async def delete(self, kind: Kind, namespace: str | None, name: str, uid: str) -> None:
        """Delete exactly the object that was seen; its dependents go in the background."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            with about(kind, name):
                await self.request("DELETE", kind.path(namespace, name), body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def patch_status(self, kind: Kind, namespace: str, name: str, status: Object) -> bytes:
        """The answer, undecoded."""
        path = kind.path(namespace, name, "status")
        with about(kind, name):
            return await self.raw("PATCH", path, {"status": status}, media=MERGE, fieldManager=FIELD_MANAGER)

    async def pages(
        self, kind: Kind, selector: str, limit: int = PAGE, namespace: str | None = None
    ) -> AsyncIterator[tuple[list[bytes], str]]:
        """(objects, resourceVersion) page by page; objects undecoded."""
        query: dict[str, Any] = {"limit": str(limit)} | ({"labelSelector": selector} if selector else {})
        while True:
            answer = await self.raw("GET", kind.path(namespace), accept=_accepted(kind, METADATA_ALONE), **query)
            page = _read(_page, answer, kind)
            yield [bytes(item) for item in page.items or ()], page.metadata.resource_version
            if not page.metadata.rest:
                return
            query["continue"] = page.metadata.rest

    async def watch(
        self,
        kind: Kind,
        selector: str,
        version: str,
        times: WatchTimes,
        *,
        namespace: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Watch events with bookmarks, undecoded. Raises ApiError when it breaks."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(times.lasts)
        if selector:
            query["labelSelector"] = selector
        path = f"{kind.path(namespace)}?{urlencode(query)}"
        headers = await self._headers("application/json", _accepted(kind))
        try:
            async with self._connections.stream("GET", path, headers, times.silence, times.rest) as (status, pieces):
                if status >= 400:
                    raise _refused(status, _json(b"".join([p async for p in pieces])))
                async for line in _lines(pieces):
                    yield line
        except OSError as error:
            raise _unreachable("watch", kind.plural, error) from error


def _accepted(kind: Kind, alone: str = HEAD_ALONE) -> str:
    """In which form a kind is asked for."""
    return alone if kind.metadata_only else "application/json"


def _read(decode: Callable[[bytes], T], data: bytes, kind: Kind) -> T:
    """A list. Raises ApiError where the answer is none: a watch goes on after that, and would end with any other
    error."""
    try:
        return decode(data)
    except msgspec.DecodeError as error:
        raise ApiError(0, "Unreadable", f"expected a list of {kind.plural}, found {data[:100]!r}: {error}") from error


@contextmanager
def about(kind: Kind, name: str) -> Iterator[None]:
    """A refusal within it names the object."""
    try:
        yield
    except ApiError as error:
        error.subject = error.subject or f"{kind.kind} {name}"
        raise


@lru_cache(maxsize=64)
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    return urlencode(query)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Raises ConnectionError when the last one lacks its end, or one is longer than any object."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > LONGEST_LINE:
            raise ConnectionError(f"expected a watch event of at most {LONGEST_LINE} bytes")
    if rest:
        raise ConnectionResetError("ended within an event")


def _proxy(host: str) -> str | None:
    """What the environment names for this host, asked once."""
    parts = urlsplit(host)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _json(data: bytes) -> Object:
    try:
        status = msgspec.json.decode(data)
    except ValueError:
        status = None
    return status if isinstance(status, dict) else {"message": data.decode(errors="replace")[:300]}


def _refused(status: int, body: Object) -> ApiError:
    """A Status; anything may stand in one that a webhook wrote, null included."""
    return ApiError(status, *(str(body.get(part) or "") for part in ("reason", "message")))


def _unreachable(method: str, path: str, error: Exception) -> ApiError:
    """No answer in time is another matter than no connection: a webhook that hangs on one object does that for ever."""
    reason = Reason.TIMEOUT if isinstance(error, TimeoutError) else Reason.UNREACHABLE
    return ApiError(0, reason, f"{method} {path}: {str(error) or type(error).__name__}")
