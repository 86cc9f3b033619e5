"""Builders of what policy and status look at."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from governed_api.model import GovernedModel, GovernedModelStatus
from governed_api.names import ARCHIVE
from governed_api.report import ArchiveReport, GovernanceReportStatus, RecordedVerdict
from governed_api.resolved import ResolvedModel
from governed_operator.desired.manifest import Subject
from governed_operator.policy.observed import Observed
from governed_operator.watch.cache import Child, ChildKey
from governed_operator.watch.facts import JobFacts, PodFacts, PodProblem, WorkloadFacts

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
TRAINED = {
    "lifecycle": {"training": {"data": {"inline": "x,y\n0,no\n1,yes\n", "label": "y", "features": [{"name": "x"}]}}}
}
IMPORTED = {"predictor": {"model": {"storageUri": "pvc://models/m.onnx", "digest": DIGEST}}}
BIAS = {
    "protectedAttributes": [{"name": "x"}],
    "favorableOutcome": {"label": "yes"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
}


def resolved(spec: dict[str, Any]) -> ResolvedModel:
    metadata = {"name": "m", "namespace": "ns"}
    document = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": metadata, "spec": spec}
    return ResolvedModel.of(GovernedModel.model_validate(document))


def child(kind: str, name: str, facts: Any = None, component: str = "") -> tuple[ChildKey, Child]:
    return (kind, name), Child(kind, name, f"uid-{name}", 1, b"", facts, False, component, "")


def workload(revision: str = "", track: str = "stable", **changes: Any) -> WorkloadFacts:
    return replace_facts(WorkloadFacts(True, 1, 1, 1, 1, track, revision, None), changes)


def replace_facts(facts: Any, changes: dict[str, Any]) -> Any:
    return facts._replace(**changes)


def pod(
    problem: PodProblem | None = None, component: str = "predictor", track: str = "stable", **ready: bool
) -> PodFacts:
    containers = ready or {"server": True, "auditor": True}
    return PodFacts(component, track, "", problem, tuple(sorted(containers.items())))


def archive_ready() -> dict[ChildKey, Child]:
    return dict([child("StatefulSet", ARCHIVE, workload())])


def observed(spec: dict[str, Any] | None = None, *children: tuple[ChildKey, Child], **changes: Any) -> Observed:
    base = Observed(
        subject=Subject(resolved(spec or IMPORTED), uid="u"),
        generation=1,
        status=GovernedModelStatus(),
        now=NOW,
        children=dict([child("Secret", "m-kek"), *children]),
        shared=archive_ready(),
    )
    if (told := changes.get("report")) and "archive_report" not in changes:
        changes["archive_report"] = ArchiveReport(verdicts=recorded(told))
    return replace(base, **changes)


def recorded(told: GovernanceReportStatus) -> list[RecordedVerdict]:
    """What an archive reports whose ledger has all that honest pods name an entry for."""
    return [
        RecordedVerdict(
            model="m",
            revision=revision,
            ledger_index=said.ledger_index,
            verdict=said.verdict,
            samples=said.samples,
            in_force=said.in_force,
            summary=said.summary,
        )
        for revision, parts in told.revisions.items()
        for said in parts.auditor.values()
        if said.ledger_index is not None
    ]


def report(**parts: Any) -> GovernanceReportStatus:
    return GovernanceReportStatus.model_validate(parts)


def trained_report(model: ResolvedModel, digest: str = DIGEST) -> GovernanceReportStatus:
    trainer = {"phase": "Succeeded", "trainingHash": model.training_hash(), "artefact": {"digest": digest}}
    return report(trainer=trainer)


__all__ = [
    "BIAS", "DIGEST", "IMPORTED", "NOW", "TRAINED", "JobFacts", "PodProblem", "archive_ready", "child", "observed",
    "pod", "recorded", "report", "resolved", "trained_report", "workload",
]  # fmt: skip
