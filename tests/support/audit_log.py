"""The API server's audit log as evidence: who wrote what, and that a converged system writes nothing."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

# Heartbeats of the cluster itself; a Lease is also how an operator stays leader.
HEARTBEATS = frozenset({"leases"})

# POSTed, yet nothing is stored: questions put to the API server.
QUESTIONS = frozenset({"tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews",
                       "selfsubjectreviews", "localsubjectaccessreviews", "serviceaccounts/token"})  # fmt: skip


@dataclass(frozen=True)
class Write:
    """One write request as the API server audited it."""

    time: datetime
    user: str
    agent: str
    verb: str
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

    def writes(self, since: int = 0, *, user: str | None = None, ignore: frozenset[str] = HEARTBEATS) -> list[Write]:
        """Writes after a mark, by one user or by all, without heartbeats unless `ignore` is empty. Dry runs don't count."""
        found = []
        for line in self.lines(since):
            event = json.loads(line)
            target = event.get("objectRef")
            if event["stage"] != "ResponseComplete" or not target or "dryRun=" in event["requestURI"]:
                continue
            write = _write(event, target)
            if write.resource in QUESTIONS:
                continue
            if (user is None or write.user == user) and write.resource.partition("/")[0] not in ignore:
                found.append(write)
        return found

    def writes_per_user(self, since: int = 0, *, ignore: frozenset[str] = HEARTBEATS) -> Counter[str]:
        return Counter(write.user for write in self.writes(since, ignore=ignore))


def _write(event: dict, target: dict) -> Write:  # type: ignore[type-arg]
    resource = target["resource"] + (f"/{target['subresource']}" if target.get("subresource") else "")
    return Write(
        time=datetime.fromisoformat(event["requestReceivedTimestamp"]).astimezone(UTC),
        user=event["user"].get("username", ""),
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        resource=resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
    )
