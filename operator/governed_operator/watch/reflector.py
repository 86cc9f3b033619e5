"""Keeps the cache of one kind in step with the API server: list, watch, list again when the thread is lost."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from governed_api.names import FIELD_MANAGER
from governed_operator.kube.cluster import ApiError, Cluster, WatchTimes
from governed_operator.kube.kinds import Kind, Object
from governed_operator.watch.cache import Head, Headed, ModelKey, head_of

logger = logging.getLogger("governed_operator.watch.reflector")

SELECTOR = f"app.kubernetes.io/managed-by={FIELD_MANAGER}"
SILENCE = 150.0
"""Seconds without any event before a watch is given up; the API server sends a bookmark every minute."""
TIMES = WatchTimes(290, SILENCE)


class Event(msgspec.Struct):
    """A watch event, as far as it is read before anybody knows that it is news."""

    type: str
    object: Headed


_headed = msgspec.json.Decoder(Event).decode


def _event(line: bytes) -> Event:
    try:
        return _headed(line)
    except msgspec.DecodeError as error:
        raise ApiError(0, "Unreadable", f"expected a watch event, found {line[:100]!r}: {error}") from error


class _Carried(msgspec.Struct):
    object: msgspec.Raw


_carried = msgspec.json.Decoder(_Carried).decode


NOT_ALLOWED_PAUSE = 30.0
"""Seconds before what may not be read is asked for again."""
NOT_THERE = (403, 404)
"""What is answered where a kind may not be read, or has no CRD."""


class Sink(Protocol):
    """What keeps the objects that are heard of; each call gives the keys to wake."""

    def stale(self, kind: str, head: Head) -> bool:
        """Whether this state, or a later one, is known already."""

    def put(self, kind: str, observed: bytes, head: Head | None = None) -> ModelKey | None:
        """Remember one."""

    def drop(self, kind: str, head: Head) -> ModelKey | None:
        """Forget one."""

    def keep_only(self, kind: str, seen: set[tuple[ModelKey, str]], namespace: str | None = None) -> list[ModelKey]:
        """After a complete list: forget what it doesn't have."""


class Reflector:
    """One kind's list and watch, in one namespace or everywhere.

    An operator of named namespaces goes on without one that it may not read (its Role isn't there yet, or went with the
    namespace): what is known of it stays as it is, the others are looked after, and it is asked again.
    """

    def __init__(
        self,
        kind: Kind,
        cluster: Cluster,
        cache: Sink,
        wake: Callable[[ModelKey], None],
        broke: Callable[[], None],
        namespace: str | None = None,
        *,
        selector: str = SELECTOR,
        refused: Callable[[ApiError], None] | None = None,
    ) -> None:
        """``refused``: told where the kind may not be read, or isn't there; the others' work begins without it all the
        same, so whatever leans on it must then be held."""
        self.kind, self.namespace = kind, namespace
        self.synced = asyncio.Event()
        self.heard = time.monotonic()
        self._cluster = cluster
        self._cache = cache
        self._selector = selector
        self._wake = wake
        self._broke = broke
        self._refused = refused

    async def run(self) -> None:
        """Never returns; breaks are retried with back-off."""
        version, failures = "", 0
        while True:
            try:
                if not version:
                    version = await self._list()
                watching = self._cluster.watch(self.kind, self._selector, version, TIMES, namespace=self.namespace)
                async for line in watching:
                    version = self._take(line)
                    failures = 0
            except ApiError as error:
                failures += 1
                if error.status == 410 or failures > 3 or self._may_be_refused(error):
                    version = ""
                self._broke()
                if error.status != 410:
                    logger.warning("watch of %s broke: %s", self.what, error)
                await asyncio.sleep(self._pause(error, failures))

    def _pause(self, error: ApiError, failures: int) -> float:
        refused = self._may_be_refused(error)
        if not refused and (self.namespace is None or error.status != 403):
            return min(30.0, 0.2 * 2.0**failures)
        if refused and self._refused is not None:
            self._refused(error)
        self.heard = time.monotonic()
        self.synced.set()
        return NOT_ALLOWED_PAUSE

    def _may_be_refused(self, error: ApiError) -> bool:
        return self._refused is not None and error.status in NOT_THERE

    @property
    def what(self) -> str:
        """The kind, and where."""
        return self.kind.plural + (f" in namespace {self.namespace}" if self.namespace else "")

    async def _list(self) -> str:
        seen: set[tuple[ModelKey, str]] = set()
        version = ""
        async for items, version in self._cluster.pages(self.kind, self._selector, namespace=self.namespace):  # noqa: B007
            for item in items:
                head = head_of(item)
                self._woken(self._cache.put(self.kind.kind, item, head))
                seen.add((head.model, head.name))
            self.heard = time.monotonic()
        for key in self._cache.keep_only(self.kind.kind, seen, self.namespace):
            self._wake(key)
        self.synced.set()
        return version

    def _take(self, line: bytes) -> str:
        """Fold one event in; the version to go on from."""
        self.heard = time.monotonic()
        event = _event(line)
        head = event.object.metadata
        if event.type == "ERROR":
            status: Object = msgspec.json.decode(line)["object"]
            raise ApiError(status.get("code", 0), status.get("reason", ""), status.get("message", ""))
        if event.type == "DELETED":
            self._woken(self._cache.drop(self.kind.kind, head))
        elif event.type != "BOOKMARK" and not self._cache.stale(self.kind.kind, head):
            self._woken(self._cache.put(self.kind.kind, bytes(_carried(line).object), head))
        return head.resource_version

    def _woken(self, key: ModelKey | None) -> None:
        if key is not None:
            self._wake(key)

    @property
    def silent_for(self) -> float:
        """Seconds since anything was heard."""
        return time.monotonic() - self.heard
