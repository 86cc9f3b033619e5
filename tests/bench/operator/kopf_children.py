"""The operator with its children watched by kopf instead of by our reflector: the other side of a comparison, never
shipped.

    python tests/bench/operator/kopf_children.py   (many_models.py --with kopf_children starts it)

All else is the operator's own: queue, cache, builders, apply. Each kind has its own ``kopf.on.event`` with the selector
that our reflector uses, on the API server's side (settings.watching.label_selectors). kopf doesn't tell when its first
list is complete, so each kind is listed once more at the start, as the operator does for models.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS)]

import kopf  # noqa: E402
import msgspec  # noqa: E402

from governed_operator import __main__ as program  # noqa: E402
from governed_operator.kube.cluster import ApiError  # noqa: E402
from governed_operator.kube.kinds import WATCHED, Kind  # noqa: E402
from governed_operator.loop import operator_process  # noqa: E402
from governed_operator.watch.cache import head_of  # noqa: E402
from governed_operator.watch.reflector import SELECTOR, Reflector  # noqa: E402

FEEDS: dict[str, "Feed"] = {}
MEASURED = tuple(k for k in WATCHED if not k.capability)
"""The bed has no neighbours' kinds."""


class Feed(Reflector):
    """Listed once by us, then fed by kopf."""

    async def run(self) -> None:
        FEEDS[self.kind.kind] = self
        while not self.synced.is_set():
            try:
                await self._list()
            except ApiError:
                await asyncio.sleep(0.5)  # a kind that was defined a moment ago
        await asyncio.Event().wait()

    @property
    def silent_for(self) -> float:
        """kopf keeps bookmarks to itself: from here, a dead watch looks like a quiet cluster."""
        return 0.0

    def event(self, kind: str | None, decoded: Any) -> None:
        """kopf decodes every event; the cache keeps what it reads as JSON."""
        self.heard = time.monotonic()
        observed = msgspec.json.encode(decoded)
        head = head_of(observed)
        if kind == "DELETED":
            self._woken(self._cache.drop(self.kind.kind, head))
        elif not self._cache.stale(self.kind.kind, head):
            self._woken(self._cache.put(self.kind.kind, observed, head))


@kopf.on.startup()  # type: ignore[untyped-decorator]
async def select(settings: kopf.OperatorSettings, **_: Any) -> None:
    for kind in MEASURED:
        group, _slash, version = kind.api_version.rpartition("/")
        settings.watching.label_selectors[group, version, kind.plural] = SELECTOR


def watch(kind: Kind) -> None:
    group, _slash, version = kind.api_version.rpartition("/")

    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        if feed := FEEDS.get(kind.kind):
            feed.event(event["type"], dict(event["object"]))

    kopf.on.event(group, version, kind.plural, id=kind.plural)(changed)


if __name__ == "__main__":
    operator_process.Reflector = Feed  # type: ignore[misc]
    for owned in MEASURED:
        watch(owned)
    program.main()
