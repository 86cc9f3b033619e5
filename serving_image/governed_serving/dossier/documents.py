"""What a page is made of, decoded once at the edge: the report, the artefact's documents, ledger summaries, one
explanation.

All of it may be older or newer than this code: absent fields have defaults, unknown ones are passed over. What isn't of
the right shape is no evidence: it is left out, and the dossier's notes say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from governed_api.base import Part, RecordedPart
from governed_api.evidence import Evaluation, GateTable, TrainingDocument, TrainingReport
from governed_api.json_types import Scalar
from governed_api.verdict import BiasVerdict

__all__ = [
    "CardFeature",
    "CardLineage",
    "Documents",
    "DriftAlarm",
    "DriftSummary",
    "ExplanationBody",
    "KeyEvent",
    "KeySummary",
    "ModelCard",
    "Report",
    "ServerCounters",
    "ShownAttribution",
    "ShownExplanation",
    "ShownGroup",
    "ShownInteraction",
    "ShownRequest",
    "read_documents",
    "read_part",
    "read_report",
]

P = TypeVar("P", bound=Part)


class CardFeature(RecordedPart):
    """An input as model.json describes it."""

    name: str
    type: str = ""
    dtype: str = ""
    categories: list[str] = []
    min: float | None = None
    max: float | None = None
    mean: float | None = None


class CardLineage(RecordedPart):
    """Where the model comes from."""

    dataset: str = ""
    training: str = ""
    code: str = ""
    versions: dict[str, str] = {}


class ModelCard(RecordedPart):
    """model.json, as far as a page tells of it."""

    task: str = ""
    label: str = ""
    classes: list[str | int] = []
    favorable: str | None = None
    threshold: float | None = None
    features: list[CardFeature] = []
    variant: str = ""
    bands: dict[str, list[float]] = {}
    """Attribute or stratum of numbers → inner borders of its bands; empty: each value is a group."""
    lineage: CardLineage | None = None


class ServerCounters(RecordedPart):
    """The server's part of an old report."""

    masking: dict[str, int | float] | None = None
    """Entity → times masked."""


@dataclass(frozen=True)
class Report:
    """The GovernanceReport's status; None: nobody has written that part."""

    trainer: TrainingReport | None = None
    auditor: BiasVerdict | None = None
    server: ServerCounters | None = None


@dataclass(frozen=True)
class Documents:
    """The artefact's JSON files; None: it has none of that name."""

    model: ModelCard | None = None
    training: TrainingDocument | None = None
    evaluation: Evaluation | None = None
    gates: GateTable | None = None


class DriftSummary(RecordedPart):
    """Of the ledger's importanceDrift entry."""

    player: str = ""
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class DriftAlarm:
    """Which feature's weight in the decisions has moved, told by a ledger entry."""

    index: int
    time: str
    summary: DriftSummary


class KeySummary(RecordedPart):
    """Of the ledger's key entry."""

    purpose: str = ""
    action: str = ""


@dataclass(frozen=True)
class KeyEvent:
    """A key that was made, rotated or destroyed, told by a ledger entry."""

    index: int
    time: str
    purpose: str
    action: str
    digest: str


class ShownAttribution(msgspec.Struct, frozen=True):
    """What a feature, a group of them, or a part of a text adds to the base value."""

    feature: str | None = None
    group: str | None = None
    value: Any = None
    attribution: float | None = None
    interval: tuple[float | None, float | None] | None = None

    @property
    def size(self) -> float:
        """The attribution; 0 where it isn't told."""
        return self.attribution or 0.0


class ShownInteraction(msgspec.Struct, frozen=True):
    """What each of two players has of their interaction."""

    between: list[str] = []
    interaction: float | None = None
    interval: tuple[float | None, float | None] | None = None


class ShownGroup(msgspec.Struct, frozen=True):
    """What the members of a group of a hierarchy have together."""

    group: str = ""
    within: str = ""
    attribution: float | None = None
    interval: tuple[float | None, float | None] | None = None


class ShownChange(msgspec.Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """Another value of a feature."""

    feature: str = ""
    before: Scalar = None
    after: Scalar = None


class ShownCounterfactual(msgspec.Struct, frozen=True):
    """Changes that would have led to another outcome."""

    changes: list[ShownChange] = []


class ShownExplanation(msgspec.Struct, frozen=True):
    """An item of an answer's ``explanations``."""

    method: str = ""
    exact: bool = False
    target: Any = None
    base_value: float | None = None
    prediction: Any = None
    additivity_residual: float | None = None
    evaluations: int | None = None
    seed: int | None = None
    attributions: list[ShownAttribution] = []
    groups: list[ShownGroup] = []
    interactions: list[ShownInteraction] = []
    interactions_left_out: int = 0
    counterfactuals: list[ShownCounterfactual] = []


class ExplanationBody(msgspec.Struct, frozen=True):
    """A journalled explanation."""

    explanations: list[ShownExplanation] = []


Shown = Scalar | list[Scalar]


class ShownRequest(msgspec.Struct, frozen=True):
    """A request as it was served (masked), and its answer: columns by name; of a large tensor datatype, shape and
    digest."""

    id: str = ""
    revision: str = ""
    artefact: str = ""
    features: dict[str, list[Shown] | dict[str, Shown]] = {}
    outputs: dict[str, list[Shown] | dict[str, Shown]] = {}


def read_part(kind: type[P], value: object, what: str, notes: list[str]) -> P | None:
    """``value`` as ``kind``; None for nothing (or an empty mapping), and for what can't be read, of which ``notes``
    tell."""
    if not value:
        return None
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        notes.append(f"Not shown: {what} ({where}: {first['msg']}).")
        return None


def read_report(report: Mapping[str, object], notes: list[str]) -> Report:
    """A GovernanceReport, or its status alone."""
    status = report.get("status", report)
    if not isinstance(status, Mapping):
        status = {}
    return Report(
        read_part(TrainingReport, status.get("trainer"), "the trainer's part of the report", notes),
        read_part(BiasVerdict, status.get("auditor"), "the auditor's part of the report", notes),
        read_part(ServerCounters, status.get("server"), "the server's part of the report", notes),
    )


def read_documents(files: Mapping[str, object], notes: list[str]) -> Documents:
    """An artefact's JSON files by name, decoded."""
    return Documents(
        read_part(ModelCard, files.get("model.json"), "model.json", notes),
        read_part(TrainingDocument, files.get("training.json"), "training.json", notes),
        read_part(Evaluation, files.get("evaluation.json"), "evaluation.json", notes),
        read_part(GateTable, files.get("gates.json"), "gates.json", notes),
    )
