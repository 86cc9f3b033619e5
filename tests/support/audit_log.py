"""The API server's audit log as evidence: who wrote what, and that a converged system writes nothing."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

# Heartbeats of the cluster itself; a Lease is also how an operator stays leader.
HEARTBEATS = frozenset({"leases"})

# POSTed, yet nothing is stored: questions put to the API server.
QUESTIONS = frozenset({"tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews",
                       "selfsubjectreviews", "localsubjectaccessreviews", "serviceaccounts/token"})  # fmt: skip


READS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True)
class Request:
    """One request as the API server audited it."""

    time: datetime
    user: str
    agent: str
    verb: str
    group: str  # of the API; empty for the core
    resource: str  # with subresource, as in "governedmodels/status"
    namespace: str
    name: str
    code: int


@dataclass(frozen=True)
class AuditLog:
    """Reads a bed's audit log. `lines` yields its JSON lines from a byte offset on."""

    lines: Callable[[int], Iterable[str]]
    size: Callable[[], int]

    def mark(self) -> int:
        """A place in the log, for `writes(since=…)`."""
        return self.size()

    def writes(self, since: int = 0, *, user: str | None = None, ignore: frozenset[str] = HEARTBEATS) -> list[Request]:
        """Writes after a mark, by one user or by all, without heartbeats unless `ignore` is empty. Dry runs don't
        count."""
        return [
            request
            for request in self._requests(since, ("ResponseComplete",))
            if request.verb not in READS
            and request.resource not in QUESTIONS
            and (user is None or request.user == user)
            and request.resource.partition("/")[0] not in ignore
        ]

    def requests(self, user: str, since: int = 0) -> list[Request]:
        """All that a user asked of the API server's resources; a watch counts from when it is answered."""
        return [r for r in self._requests(since, ("ResponseStarted", "ResponseComplete")) if r.user == user]

    def _requests(self, since: int, stages: tuple[str, ...]) -> Iterator[Request]:
        for line in self.lines(since):
            event = json.loads(line)
            target = event.get("objectRef")
            if event["stage"] in stages and target and "dryRun=" not in event["requestURI"]:
                yield _request(event, target)

    def writes_per_user(self, since: int = 0, *, ignore: frozenset[str] = HEARTBEATS) -> Counter[str]:
        return Counter(write.user for write in self.writes(since, ignore=ignore))


def whole_lines(lines: Iterable[str], mark: int) -> Iterator[str]:
    """What was written after a mark of a log that is being written: neither the rest of a line that was half there at
    the mark, nor one that is half there now. ``lines``, with their ends, begin one byte before the mark."""
    rest = iter(lines)
    if mark:
        next(rest, "")
    yield from (line for line in rest if line.endswith("\n"))


def _request(event: dict, target: dict) -> Request:  # type: ignore[type-arg]
    resource = target["resource"] + (f"/{target['subresource']}" if target.get("subresource") else "")
    return Request(
        time=datetime.fromisoformat(event["requestReceivedTimestamp"]).astimezone(UTC),
        user=event["user"].get("username", ""),
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        group=target.get("apiGroup", ""),
        resource=resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
    )
