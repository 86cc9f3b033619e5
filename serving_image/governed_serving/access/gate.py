"""The one check of a credential, whatever port it came to: who calls, and whether a role is theirs."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from governed_api.callers import CallerRole, caller_pseudonym
from governed_serving.access.credentials import credential
from governed_serving.access.directory import Directory, Known
from governed_serving.access.failures import Failures
from governed_serving.access.refusals import REASONS, AccessRefused, KeysAway, NotAllowed, TooManyFailures, Unknown

__all__ = ["Gate"]

_LABELS = ("namespace", "name", "component")


class Gate(Collector):
    """Knows the callers of one model. Without a :class:`Directory` (none has come yet) it knows nobody. ``secret``:
    the model's key of callers; ``clock``: seconds since the epoch."""

    def __init__(
        self, namespace: str, model: str, component: str, secret: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.namespace, self.model, self.clock, self._secret = namespace, model, clock, secret
        self.directory: Directory | None = None
        self.bad_documents = 0
        """Documents that were there and could not be used: the last good one goes on."""
        self.watch_failures = 0
        """Times that the API server didn't tell of changes."""
        self._labels = (namespace, model, component)
        self._failures = Failures()
        self.refused: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def pseudonym(self, caller: Known) -> str:
        """How records call them."""
        return caller_pseudonym(self._secret, caller.name)

    def known(self, text: str) -> Known:
        """Whose credential ``text`` is. Raises Unknown, KeysAway."""
        if self.directory is None:
            raise Unknown("unknown")
        try:
            return self.directory.find(text, self.clock())
        except KeysAway as error:
            self.refused[error.reason] += 1
            raise

    def admit(self, headers: Iterable[tuple[bytes, bytes]], peer: str, role: CallerRole | None) -> Known:
        """Who sends a request with ``headers`` from the address ``peer``; ``role`` None: any will do. Counts. Raises
        AccessRefused."""
        try:
            return self.allow(self.known(credential(headers)), role)
        except Unknown as error:
            raise self.turned_away(error, peer) from None

    def allow(self, caller: Known, role: CallerRole | None) -> Known:
        """``caller``, who may. Raises NotAllowed."""
        if role is not None:
            if role not in caller.roles:
                self.refused["role"] += 1
                raise NotAllowed(role)
            self.allowed[role] += 1
        return caller

    def turned_away(self, error: Unknown, peer: str) -> AccessRefused:
        """What is told to the address ``peer``, which showed nothing that counts."""
        if wait := self._failures.failed(peer, time.monotonic()):
            self.refused["throttled"] += 1
            return TooManyFailures(wait)
        self.refused[error.reason] += 1
        return error

    def text(self) -> bytes:
        """Prometheus text exposition; no label tells of a person."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        allowed = CounterMetricFamily(
            "governed_access_allowed", "Calls of known callers, by the role they needed.", labels=[*_LABELS, "role"]
        )
        for role in CallerRole:
            allowed.add_metric([*self._labels, role], self.allowed[role])
        yield allowed
        refused = CounterMetricFamily(
            "governed_access_refused", "Calls turned away, by reason.", labels=[*_LABELS, "reason"]
        )
        for reason in REASONS:
            refused.add_metric([*self._labels, reason], self.refused[reason])
        yield refused
        for name, text, count in (
            ("bad_documents", "Documents of callers that could not be used.", self.bad_documents),
            ("watch_failures", "Times that the API server didn't tell of changes.", self.watch_failures),
        ):
            counter = CounterMetricFamily(f"governed_access_{name}", text, labels=_LABELS)
            counter.add_metric(self._labels, count)
            yield counter
        directory = self.directory
        for name, text, value in (
            ("callers", "Callers in the document that is used.", directory.callers if directory else 0),
            ("sequence", "Sequence of the document that is used; -1: none.", directory.sequence if directory else -1),
        ):
            gauge = GaugeMetricFamily(f"governed_access_{name}", text, labels=_LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge
