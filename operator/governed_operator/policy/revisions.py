"""What the pods of a revision reported, added up; and which entries of a report speak of pods that are gone. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from governed_api import latency
from governed_api.report import PodVerdict, RecordedVerdict, ReportPart, RevisionReport, ServerReport
from governed_operator.policy.observed import Observed

RevisionsPatch = dict[str, dict[str, dict[str, None]] | None]
"""Revision → role → pod → null, in JSON Merge Patch (RFC 7396): what it names goes."""
WORST = ("Pass", "Unknown", "Fail")
"""Verdicts, the worst last."""
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


def refusal(obs: Observed, revision: str | None) -> str:
    """Why a pod that is there refuses for good what it was brought; empty: none does."""
    entries = sorted(_revision(obs, revision).server.items())
    return next(
        (s.message or "refused" for pod, s in entries if s.refused and not s.ready and ("Pod", pod) in obs.children), ""
    )


def served(obs: Observed, revision: str | None) -> Served:
    """Requests, errors and latencies of a revision's pods."""
    return Served.of(servers(obs, revision))


def verdict(obs: Observed, revision: str | None) -> PodVerdict | None:
    """The bias verdict over a revision; None before any pod spoke.

    What the archive says is the newest in the ledger decides, whatever index or count a pod claims: every pod of the
    model may write its report. Before the archive says of any, what pods claim (:func:`unproved`), without an index;
    of two, that of the most samples, and where they know as much, the worse.
    """
    claims = _revision(obs, revision).auditor.values()
    recorded = _recorded(obs, revision)
    if recorded is None:
        newest = max(claims, key=lambda v: (v.samples, WORST.index(v.verdict)), default=None)
        return newest.model_copy(update={"ledger_index": None}) if newest else None
    return PodVerdict(
        verdict=recorded.verdict,
        in_force=recorded.in_force,
        samples=recorded.samples,
        summary=recorded.summary,
        ledger_index=recorded.ledger_index,
    )


def unproved(obs: Observed, revision: str | None) -> list[PodVerdict]:
    """What pods of a revision say that the archive doesn't say is in the ledger, or not yet; what an older entry than
    the newest may have said is over."""
    recorded = _recorded(obs, revision)
    return [
        claim
        for claim in _revision(obs, revision).auditor.values()
        if recorded is None
        or claim.ledger_index is None
        or (claim.ledger_index >= recorded.ledger_index and not _agrees(claim, recorded))
    ]


def _recorded(obs: Observed, revision: str | None) -> RecordedVerdict | None:
    """The newest verdict over a revision in the ledger, as the archive reports it."""
    told = obs.archive_report.verdicts if obs.archive_report else []
    own = [v for v in told if (v.model, v.revision) == (obs.subject.name, revision)]
    return max(own, key=lambda v: v.ledger_index, default=None)


def _agrees(claim: PodVerdict, recorded: RecordedVerdict) -> bool:
    """Whether a pod speaks of that entry, and says what it says."""
    said = (claim.ledger_index, claim.verdict, claim.in_force)
    return said == (recorded.ledger_index, recorded.verdict, recorded.in_force)


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


def contests(obs: Observed) -> tuple[int, int] | None:
    """Contested decisions that are open, and of these overdue: each pod tells of the whole model, as the ledger has
    it. None before any pod spoke."""
    return max(((pod.open_contests, pod.overdue_contests) for _, pod in _auditors(obs)), default=None)


def refused_shipping(obs: Observed) -> tuple[str, str] | None:
    """(pod, why) of the first pod, by name, whose shipping the archive refuses."""
    return min(((name, pod.refused) for name, pod in _auditors(obs) if pod.refused), default=None)


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
