"""What the pods of a revision reported, added up; and which entries of a report speak of pods that are gone. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from governed_api import latency
from governed_api.report import PodVerdict, ReportPart, RevisionReport, ServerReport
from governed_operator.policy.observed import Observed

RevisionsPatch = dict[str, dict[str, dict[str, None]] | None]
"""Revision → role → pod → null, in JSON Merge Patch (RFC 7396): what it names goes."""
SETTLING = 60.0
"""Seconds for which an entry stays though its pod isn't known: the report may be seen before the pod is."""


@dataclass(frozen=True)
class Served:
    """All servers of a revision together."""

    requests: int = 0
    errors: int = 0
    latency_counts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, servers: Iterable[ServerReport]) -> "Served":
        reports = list(servers)
        counts = latency.added(s.latency_counts for s in reports)
        return cls(sum(s.requests for s in reports), sum(s.errors for s in reports), counts)


def _revision(obs: Observed, name: str | None) -> RevisionReport:
    reported = obs.report.revisions.get(name) if obs.report and name else None
    return reported or RevisionReport()


def servers(obs: Observed, revision: str | None) -> list[ServerReport]:
    """Of a revision's pods; empty for None."""
    return list(_revision(obs, revision).server.values())


def served(obs: Observed, revision: str | None) -> Served:
    """Requests, errors and latencies of a revision's pods."""
    return Served.of(servers(obs, revision))


def verdict(obs: Observed, revision: str | None) -> PodVerdict | None:
    """The bias verdict over a revision; None before any pod spoke.

    Every pod judges what all of them counted, as far as it has heard. The newest one is that of the highest place in
    the ledger, however many samples a pod says that it knows; before any has a place, that of the most samples, and
    where two know as much, the worse.
    """
    verdicts = _revision(obs, revision).auditor.values()
    worst = ("Pass", "Unknown", "Fail")
    return max(
        verdicts,
        key=lambda v: (-1 if v.ledger_index is None else v.ledger_index, v.samples, worst.index(v.verdict)),
        default=None,
    )


def unproved(obs: Observed, revision: str | None) -> list[PodVerdict]:
    """What pods of a revision say that isn't in the ledger, or not yet."""
    return [v for v in _revision(obs, revision).auditor.values() if v.ledger_index is None]


def _auditors(obs: Observed) -> Iterator[tuple[str, PodVerdict]]:
    """(pod, what it reports) of every revision."""
    for revision in obs.report.revisions.values() if obs.report else ():
        yield from revision.auditor.items()


def dead_letters(obs: Observed) -> int:
    """Ledger entries that the archive refused for ever, of all pods that there are."""
    return sum(pod.dead_letters for _, pod in _auditors(obs))


def unreadable_frames(obs: Observed) -> int:
    """Frames of journals that were damaged before they were shipped, of all pods that there are."""
    return sum(pod.unreadable_frames for _, pod in _auditors(obs))


def contests(obs: Observed) -> tuple[int, int]:
    """Contested decisions that are open, and of these overdue: each pod tells of the whole model, as the ledger has
    it."""
    return max(((pod.open_contests, pod.overdue_contests) for _, pod in _auditors(obs)), default=(0, 0))


def refused_shipping(obs: Observed) -> tuple[str, str]:
    """(pod, why) of the first pod, by name, whose shipping the archive refuses; ("", "") for none."""
    return min(((name, pod.refused) for name, pod in _auditors(obs) if pod.refused), default=("", ""))


def stale_report_entries(obs: Observed) -> tuple[RevisionsPatch, float | None]:
    """(merge patch for the report's ``revisions`` that removes entries of pods that are gone, seconds until it may
    remove more)."""
    if obs.report is None:
        return {}, None
    pods = {name for kind, name in obs.children if kind == "Pod"}
    patch: RevisionsPatch = {}
    waits: list[float] = []
    for revision, parts in obs.report.revisions.items():
        gone: dict[str, dict[str, None]] = {}
        for role, entries in (("server", parts.server), ("auditor", parts.auditor)):
            ages = {pod: _age(entry, obs.now) for pod, entry in entries.items() if pod not in pods}
            waits += [SETTLING - age for age in ages.values() if age < SETTLING]
            gone[role] = {pod: None for pod, age in ages.items() if age >= SETTLING}
        if sum(map(len, gone.values())) == len(parts.server) + len(parts.auditor):
            patch[revision] = None
        elif any(gone.values()):
            patch[revision] = {role: pods_gone for role, pods_gone in gone.items() if pods_gone}
    return patch, max(1.0, min(waits)) if waits else None


def _age(entry: ReportPart, now: datetime) -> float:
    """Seconds since an entry was written; endless where it doesn't say when."""
    try:
        return (now - datetime.fromisoformat(entry.observed_at)).total_seconds()
    except (ValueError, TypeError):
        return float("inf")
