"""What the archive counts, in Prometheus' text format. Labels are routes, methods and statuses: never models' ids or
requests'."""

import time
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from governed_serving.archive.mirror.copying import Copying
from governed_serving.archive.service import Archive

__all__ = ["ArchiveMetrics"]


class ArchiveMetrics:
    """Own registry, so that several archives may live in one process."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, namespace: str):
        self._registry = CollectorRegistry()
        common = {"namespace": namespace, "component": "archive"}
        names = list(common)
        self._requests = Counter(
            "governed_archive_requests_total",
            "Requests answered.",
            [*names, "method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "governed_archive_request_seconds",
            "Time to the answer.",
            [*names, "method", "route"],
            registry=self._registry,
        )
        self._entries = Gauge(
            "governed_archive_ledger_entries", "Entries in the ledger.", names, registry=self._registry
        )
        self._waiting = Gauge(
            "governed_archive_appends_waiting", "Batches in the append queue.", names, registry=self._registry
        )
        self._groups = Gauge(
            "governed_archive_commit_groups", "Groups written since the start.", names, registry=self._registry
        )
        self._group_seconds = Gauge(
            "governed_archive_commit_seconds",
            "Time spent writing groups since the start.",
            names,
            registry=self._registry,
        )
        self._deleted = Gauge(
            "governed_archive_deleted_blobs", "Payload blobs deleted under retention since the start.", names,
            registry=self._registry,
        )  # fmt: skip
        self._rebuilt = Gauge(
            "governed_archive_rebuilt_files", "Derived files that were damaged and made anew since the start.", names,
            registry=self._registry,
        )  # fmt: skip
        self._faults = Gauge(
            "governed_archive_ledger_faults", "Places of the log that can't be read or aren't what was signed.", names,
            registry=self._registry,
        )  # fmt: skip
        self._away = Gauge(
            "governed_archive_objects_away", "1: the object storage of the blobs doesn't answer.", names,
            registry=self._registry,
        )  # fmt: skip
        self._unstored = Gauge(
            "governed_archive_objects_unstored_entries", "Entries of the ledger that object storage hasn't yet.",
            names, registry=self._registry,
        )  # fmt: skip
        self._unstored_seconds = Gauge(
            "governed_archive_objects_unstored_seconds",
            "How long it has been so that object storage hasn't all of the ledger.", names, registry=self._registry,
        )  # fmt: skip
        self._common = common
        self._of_witnesses(names)
        self._of_tokens(names)
        self._of_retention(names)

    def _of_witnesses(self, names: list[str]) -> None:
        self._answers = Gauge(
            "governed_archive_witness_answers", "Answers of a witness since the start, by outcome.",
            [*names, "witness", "outcome"], registry=self._registry,
        )  # fmt: skip
        self._lag = Gauge(
            "governed_archive_witness_lag_entries", "Entries that a witness hasn't cosigned.", [*names, "witness"],
            registry=self._registry,
        )  # fmt: skip
        self._cosigned = Gauge(
            "governed_archive_cosigned_entries", "Entries of the newest checkpoint that enough witnesses cosigned.",
            names, registry=self._registry,
        )  # fmt: skip
        self._contradicted = Gauge(
            "governed_archive_ledger_contradicted", "1: a witness has a checkpoint that the ledger doesn't go on from.",
            names, registry=self._registry,
        )  # fmt: skip

    def _of_retention(self, names: list[str]) -> None:
        self._behind = Gauge(
            "governed_archive_retention_behind_seconds", "How far the clock went ahead of the time that passed; "
            "payloads are deleted as if it were so much earlier.", names, registry=self._registry,
        )  # fmt: skip

    def _of_tokens(self, names: list[str]) -> None:
        self._refused = Counter(
            "governed_archive_refused_total", "Requests that a token doesn't allow, or whose entries can't be taken.",
            [*names, "role", "act", "reason"], registry=self._registry,
        )  # fmt: skip
        self._older = Gauge(
            "governed_archive_older_tokens", "Requests with a token of the older form (no role) since the start.",
            names, registry=self._registry,
        )  # fmt: skip
        self._older_until = Gauge(
            "governed_archive_older_tokens_until_seconds", "When tokens of the older form stop being taken, Unix time.",
            names, registry=self._registry,
        )  # fmt: skip

    def timed(
        self, route: str, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """``handler``, counted under its route pattern."""

        async def counted(request: Request) -> Response:
            began, status = time.perf_counter(), 500
            try:
                answer = await handler(request)
                status = answer.status_code
                return answer
            except Exception as error:
                status = getattr(error, "status", getattr(error, "status_code", status))
                raise
            finally:
                labels = {**self._common, "method": request.method, "route": route}
                self._requests.labels(**labels, status=str(status)).inc()
                self._seconds.labels(**labels).observe(time.perf_counter() - began)

        return counted

    def refused(self, role: str, act: str, reason: str) -> None:
        """``role``: of the token, "" where it isn't known."""
        self._refused.labels(**self._common, role=role, act=act, reason=reason).inc()

    def tell_older_tokens(self, taken: int, until: float) -> None:
        """How many requests came with one, and until when they are taken (seconds since the epoch)."""
        self._older.labels(**self._common).set(taken)
        self._older_until.labels(**self._common).set(until)

    def render(self, archive: Archive, copying: Copying | None = None) -> bytes:
        """The current values as text."""
        self._unstored.labels(**self._common).set(copying.behind if copying else 0)
        self._unstored_seconds.labels(**self._common).set(copying.seconds if copying else 0)
        self._entries.labels(**self._common).set(archive.ledger.size)
        self._waiting.labels(**self._common).set(archive.appender.waiting)
        self._groups.labels(**self._common).set(archive.appender.groups)
        self._group_seconds.labels(**self._common).set(archive.appender.group_seconds)
        self._deleted.labels(**self._common).set(archive.retention.deleted)
        self._behind.labels(**self._common).set(archive.pace.behind)
        self._rebuilt.labels(**self._common).set(archive.ledger.rebuilt)
        self._faults.labels(**self._common).set(len(archive.ledger.faults))
        self._away.labels(**self._common).set(bool(archive.blobs.away))
        self._render_witnesses(archive)
        return generate_latest(self._registry)

    def _render_witnesses(self, archive: Archive) -> None:
        witnessed = archive.witnessed
        self._cosigned.labels(**self._common).set(witnessed.size)
        self._contradicted.labels(**self._common).set(bool(witnessed.contradiction))
        for standing in witnessed.standings:
            labels = {**self._common, "witness": standing.cosigner.name}
            self._lag.labels(**labels).set(max(0, archive.ledger.size - standing.size))
            for outcome, count in list(standing.answers.items()):
                self._answers.labels(**labels, outcome=outcome).set(count)
