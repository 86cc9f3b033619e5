"""GovernanceReport: the bus on which a model's own pods report. The operator makes it empty; each pod patches its own
part."""

from typing import Annotated, Any, Literal

from pydantic import Field

from governed_api.base import OF_THE_MOMENT, Part, RecordedPart, VerdictWord


class ReportPart(Part):
    """What is common to all parts; unknown fields are kept, since a pod may be newer than the operator."""

    model_config = Part.model_config | {"extra": "allow"}

    observed_at: Annotated[str, OF_THE_MOMENT] = ""
    """RFC 3339, when the part was written."""
    revision: str = ""
    """Revision it speaks of."""


class GateResult(ReportPart):
    """One row of the gate table."""

    name: str
    """accuracy, disparity, explanation, rowIndependence, latency …"""
    measured: float | None = None
    """What was found."""
    budget: float | None = None
    """What the manifest allows."""
    verdict: Literal["pass", "fail", "not applicable"]
    """Inside the budget or not."""
    message: str = ""
    """In words."""


class TrainerReport(ReportPart):
    """Written by the trainer Job."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed"]
    """Where it is."""
    message: str = ""
    """Progress, or why it failed."""
    progress: float | None = Field(default=None, ge=0, le=1)
    """Share of all epochs."""
    training_hash: str = ""
    """Hash of the training spec that this answers."""
    artefact: dict[str, Any] | None = None
    """digest, blob, variant."""
    metrics: dict[str, float] = {}
    """Held-out metrics of what ships."""
    gates: list[GateResult] = []
    """Gate table."""


class MetricVerdict(ReportPart):
    """One metric of one comparison."""

    name: str
    """Metric."""
    attribute: str
    """Protected attribute."""
    group: str
    """Compared group."""
    reference: str
    """Reference group."""
    value: float | None = None
    """Estimate."""
    lower: float | None = None
    """Lower end of the interval."""
    upper: float | None = None
    """Upper end of the interval."""
    verdict: VerdictWord
    """Against the bounds."""


class AuditorReport(ReportPart):
    """Written by the auditors of the stable revision; the heads of all verdicts are under revisions."""

    verdict: VerdictWord
    """Overall."""
    summary: str = ""
    """Worst metric with its interval."""
    samples: int = 0
    """Predictions folded."""
    metrics: list[MetricVerdict] = []
    """Details."""
    ledger_index: Annotated[int | None, OF_THE_MOMENT] = None
    """Entry that proves it."""
    dead_letters: Annotated[int, OF_THE_MOMENT] = Field(default=0, ge=0)
    """Of the pod that wrote this: ledger entries that the archive refused for ever."""
    unreadable_frames: Annotated[int, OF_THE_MOMENT] = Field(default=0, ge=0)
    """Of the pod that wrote this: frames of its journal that were damaged before they were shipped."""
    open_contests: Annotated[int, OF_THE_MOMENT] = Field(default=0, ge=0)
    """Contested decisions that no person has decided yet."""
    overdue_contests: Annotated[int, OF_THE_MOMENT] = Field(default=0, ge=0)
    """Of these, past their deadline."""


class RecordedVerdict(RecordedPart):
    """The newest verdict on a revision that is in the ledger, under the report's checkpoint: what the archive says of
    it, not what a pod claims."""

    model: str
    """Whose."""
    revision: str = ""
    """On which."""
    ledger_index: int
    """The entry."""
    verdict: VerdictWord = "Unknown"
    """As the entry has it."""
    samples: int = 0
    """Predictions that it rests on."""
    in_force: str = ""
    """Action that the alarm demanded then; None when a person had acknowledged it; empty: the entry doesn't say."""
    summary: str = ""
    """Worst metric with its interval, the beginning of it."""


class ArchiveReport(ReportPart):
    """Written by the namespace's archive."""

    size: int = 0
    """Entries in the ledger."""
    checkpoint: str = ""
    """Signed note."""
    root_hash: str = ""
    """Base64."""
    message: str = ""
    """What of the log can't be read or isn't what was signed; a backup has it."""
    cosigned: int = 0
    """Entries of the newest checkpoint that enough witnesses cosigned."""
    lagging: str = ""
    """Which witnesses don't cosign, and why."""
    contradiction: str = ""
    """Who has a checkpoint by this log's key that the ledger doesn't go on from; nothing is appended then."""
    unstored: str = ""
    """Why object storage hasn't all of the ledger; an archive over an empty volume would start from what it has."""
    verdicts: list[RecordedVerdict] = []
    """The newest verdict on each revision, at most four of a model, those of the models that were judged last first."""
    verdicts_left_out: int = 0
    """Older verdicts for which the list had no room: each model's newest come before any model's older ones."""


class ServerReport(ReportPart):
    """Written by the server of one serving pod: at once when what it knows changes, figures every few seconds on
    trial."""

    ready: bool = False
    """Serving."""
    verified: bool | None = None
    """Artefact digest matched; absent before that is known, and with a foreign runtime."""
    refused: bool = False
    """What was fetched can't be served under these rules, whatever happens beside: no pod of this revision tries
    again."""
    message: str = ""
    """Why not."""
    requests: int = Field(default=0, ge=0)
    """Answered since the process began."""
    errors: int = Field(default=0, ge=0)
    """Of these, answered with a status of 500 or more: the service's own failures."""
    latency_counts: list[int] = Field(default=[], max_length=256)
    """Requests of the last quarter of an hour per bucket of governed_api.latency, zeros at the end left out."""


class PodVerdict(ReportPart):
    """Written by the auditor of one serving pod: the head of its verdict, over what all pods of the revision
    counted."""

    verdict: VerdictWord = "Unknown"
    """Over all replicas' predictions, as far as this pod has heard of them."""
    in_force: Annotated[str, OF_THE_MOMENT] = ""
    """Action that the alarm demands: with hysteresis, and None when a person has acknowledged it; empty: not told."""
    summary: str = ""
    """Worst metric with its interval."""
    samples: int = 0
    """Predictions folded."""
    ledger_index: int | None = None
    """Entry that proves it, as the pod claims: what decides is what the archive reports of the ledger."""
    dead_letters: int = Field(default=0, ge=0)
    """Ledger entries of this pod that the archive refused for ever; a deadLetter entry stands in the place of each."""
    unreadable_frames: int = Field(default=0, ge=0)
    """Frames of this pod's journal that were damaged before they were shipped; an unreadable entry stands in their
    place."""
    open_contests: int = Field(default=0, ge=0)
    """Contested decisions of the model that no person has decided yet, as the ledger says."""
    overdue_contests: int = Field(default=0, ge=0)
    """Of these, past their deadline."""
    refused: str = ""
    """Why the archive refuses what this pod ships: nothing of it gets into the ledger; empty: it doesn't."""


class RevisionReport(Part):
    """What the pods of one revision say, by pod name: no replica overwrites another, and the operator drops pods that
    are gone."""

    model_config = Part.model_config | {"extra": "allow"}

    server: dict[str, ServerReport] = {}
    """Servers."""
    auditor: dict[str, PodVerdict] = {}
    """Auditors."""


class GovernanceReportStatus(Part):
    """All parts."""

    model_config = Part.model_config | {"extra": "allow"}

    trainer: TrainerReport | None = None
    """Training, compression, gates."""
    auditor: AuditorReport | None = None
    """Bias verdict of the stable revision, in full."""
    archive: ArchiveReport | None = None
    """Ledger."""
    revisions: dict[str, RevisionReport] = {}
    """Servers and auditors of each revision, keyed by revision name and pod: what a canary is judged by."""
