"""One model and its surroundings at one moment: all that policy and status may look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from governed_api import object_names
from governed_api.json_types import Json
from governed_api.model import GovernedModelStatus
from governed_api.names import ARCHIVE
from governed_api.reasons import Reason
from governed_api.report import ArchiveReport, GovernanceReportStatus
from governed_api.resolved import ResolvedModel
from governed_api.runtime import TRACK_STABLE
from governed_operator.desired.manifest import Subject
from governed_operator.policy.floor import InForce
from governed_operator.watch.cache import Child, ChildKey
from governed_operator.watch.facts import PodFacts, WorkloadFacts


@dataclass(frozen=True)
class Outside:
    """Objects that the manifest names and others own; each None or empty when it isn't asked for."""

    missing_secret: str | None = None
    """What is wrong with the Secret of governance.encryption.keyRef."""
    missing_claim: str | None = None
    """A PersistentVolumeClaim that data or model should come from, and that isn't there."""
    missing_source: str | None = None
    """What is wrong with a Secret of predictor.model.storage."""
    unencrypted_class: str | None = None
    """What is wrong with the StorageClass under encryption.mode storageClass."""


class Refusal(NamedTuple):
    """Why what all models of a namespace share can't be made as it should be."""

    reason: Reason
    message: str
    stalled: bool
    subject: str
    """Kind and name of the object."""


@dataclass(frozen=True)
class Observed:
    """A frozen snapshot."""

    subject: Subject
    generation: int
    status: GovernedModelStatus
    now: datetime
    stored: Mapping[str, Json] = field(default_factory=dict)
    """The status as JSON has it: what a patch is held against."""
    report: GovernanceReportStatus | None = None
    report_error: str | None = None
    archive_report: ArchiveReport | None = None
    """Of its verdicts, this model's alone."""
    children: Mapping[ChildKey, Child] = field(default_factory=dict)
    shared: Mapping[ChildKey, Child] = field(default_factory=dict)
    """Of the namespace's archive."""
    outside: Outside = Outside()
    archive_failure: Refusal | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """All of the model's."""
    policies: InForce = field(default_factory=InForce)

    @property
    def model(self) -> ResolvedModel:
        return self.subject.model

    def workload(self, track: str = TRACK_STABLE) -> WorkloadFacts | None:
        """The Deployment of a track."""
        child = self.children.get(("Deployment", object_names.deployment(self.subject.name, track)))
        return child.facts if child and not child.deleting and isinstance(child.facts, WorkloadFacts) else None

    @property
    def archive(self) -> WorkloadFacts | None:
        child = self.shared.get(("StatefulSet", ARCHIVE))
        return child.facts if child and isinstance(child.facts, WorkloadFacts) else None

    def pods(self, component: str, track: str | None = None) -> list[PodFacts]:
        """Pods of a component, those that are going away left out."""
        pods = [c.facts for c in self.children.values() if isinstance(c.facts, PodFacts) and not c.deleting]
        return [p for p in pods if p.component == component and track in (None, p.track)]
