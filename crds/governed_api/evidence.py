"""What a training leaves as evidence: data-set manifest, audit of the labels, gate table, evaluation on held-out rows.

The trainer writes it into artefact, ledger and report; the page and the terminal read it back. Names are those of the
JSON.
"""

from pydantic import ConfigDict, Field

from governed_api.base import RecordedPart
from governed_api.report import GateResult, TrainerReport

__all__ = [
    "AdjustedDifference",
    "AttributeAudit",
    "AuditedGroup",
    "ColumnSummary",
    "DataAudit",
    "DatasetManifest",
    "Disparity",
    "ErrorDifferences",
    "ErrorRates",
    "ErrorTable",
    "Evaluation",
    "FittedThresholds",
    "GateTable",
    "GroupRule",
    "Importance",
    "LabelColumn",
    "Mitigation",
    "ShippedArtefact",
    "StratumAudit",
    "StratumDisparity",
    "TrainingDocument",
    "TrainingReport",
    "Unmitigated",
    "Weight",
]


class AuditedGroup(RecordedPart):
    """Rows of a group, and how many of them had the favourable outcome."""

    group: str
    rows: int
    favorable: int
    rate: float | None = None
    """favorable / rows."""


class Disparity(RecordedPart):
    """A group against the reference, with intervals of one look at closed data."""

    group: str
    reference: str = ""
    spd: float
    """Statistical parity difference."""
    dir: float | None = None
    """Disparate impact ratio; None: not defined."""
    spd_interval: list[float | None] = []
    dir_interval: list[float | None] = []


class StratumDisparity(Disparity):
    """The same within one value of a stratum."""

    stratum: str | int | float
    favorable: int | None = None
    rows: int | None = None
    reference_favorable: int | None = None
    reference_rows: int | None = None


class AdjustedDifference(RecordedPart):
    """A group's statistical parity difference in all, and adjusted for a stratum."""

    group: str
    spd: float
    adjusted_spd: float | None = None
    reverses: bool = False
    """Simpson's paradox: adjusted, the difference has the other sign."""
    confounded: bool = False
    """Adjusting is shown to take half of the difference or more; its sign stays."""
    shown: bool = False
    """Both differences are shown to be on their sides of 0; a reversal that isn't may be chance."""
    adjusted_interval: list[float | None] = [None, None]
    """Of the adjusted difference, at all looks; of an audit that says no change, for one look."""
    spd_interval: list[float | None] = [None, None]
    """Of the difference in all, at all looks."""
    change: float | None = None
    """spd - adjusted_spd: what goes with the strata."""
    change_interval: list[float | None] = [None, None]
    """Of the change, at all looks. All three intervals hold together."""


class StratumAudit(RecordedPart):
    """An attribute's disparities within the values of one stratum."""

    by_stratum: list[StratumDisparity] = []
    adjusted: list[AdjustedDifference] = []
    simpson: bool = False
    """Of any group."""


class ErrorRates(RecordedPart):
    """One group's error rates; None: no row of the kind."""

    group: str
    rows: int
    accuracy: float | None = None
    selection_rate: float | None = None
    base_rate: float | None = None
    tpr: float | None = None
    fpr: float | None = None
    ppv: float | None = None


class ErrorDifferences(RecordedPart):
    """One group's error rates against the reference's."""

    group: str
    reference: str = ""
    equal_opportunity: float | None = None
    average_odds: float | None = None
    equalized_odds: float | None = None
    predictive_parity: float | None = None


class ErrorTable(RecordedPart):
    """Error rates by group."""

    groups: list[ErrorRates] = []
    disparities: list[ErrorDifferences] = []


class AttributeAudit(RecordedPart):
    """One protected attribute: rates by group, disparities, Pearson's χ², and the same within strata."""

    groups: list[AuditedGroup] = []
    disparities: list[Disparity] = []
    chi_square: float | None = None
    p_value: float | None = None
    strata: dict[str, StratumAudit] = {}
    errors: ErrorTable = ErrorTable()
    """Of predictions: labels have none."""


DataAudit = dict[str, AttributeAudit]
"""Protected attribute → audit."""


class ColumnSummary(RecordedPart):
    """One column of the data."""

    name: str
    type: str = ""
    missing: int = 0
    distinct: int | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None


class LabelColumn(RecordedPart):
    """What is learnt; no classes: a regression."""

    name: str = ""
    classes: list[str | int] = []


class DatasetManifest(RecordedPart):
    """The data set: digests, origin, schema, and the personal data that a scan found."""

    digest: str = ""
    source_digest: str = ""
    source: str = ""
    licence: str | None = None
    consent_basis: str | None = None
    rows: int = 0
    columns: list[ColumnSummary] = Field(default=[], alias="schema")
    label: LabelColumn | str = ""
    personal_data: dict[str, dict[str, int]] | None = None
    """Column → entity → findings; None: not scanned."""
    masked: list[str] = []
    """Columns masked before training."""
    audit: DataAudit = {}
    """Of the labels; in the ledger's entry and the report."""


class Importance(RecordedPart):
    """Permutation importance of a feature."""

    feature: str
    value: float


class Weight(RecordedPart):
    """Reweighing: the weight of a group's rows with a label (1: favourable)."""

    group: str
    label: int
    weight: float


class Mitigation(RecordedPart):
    """What could be done about a disparity, measured on held-out rows that nothing of it was fitted on; none of it is
    in force."""

    model_config = RecordedPart.model_config | ConfigDict(alias_generator=None)  # these names were never camelCase

    threshold: float
    thresholds: dict[str, float]
    accuracy_before: float
    accuracy_after: float
    largest_difference_before: float
    largest_difference_after: float
    fitted_rows: int | None = None
    """Rows that the thresholds were fitted on; null: on those they were measured on, by an earlier trainer."""
    measured_rows: int | None = None
    """Other rows, that they were measured on."""
    weights: list[Weight] = []


class Unmitigated(RecordedPart):
    """What the same training gives without mitigation."""

    metrics: dict[str, float] = {}
    largest_disparity: dict[str, float] = {}


class ConformalCoverage(RecordedPart):
    """How many held-out rows' sets or intervals hold the truth."""

    group: str
    rows: int
    covered: int
    coverage: float | None = None
    """covered / rows."""
    lower: float
    """Of its exact interval (Clopper and Pearson); all intervals of an evaluation hold together with 95 %."""
    upper: float
    size: float | None = None
    """Mean number of classes in the set, or mean width of the interval."""
    calibration_rows: int
    """That its threshold comes from."""
    threshold: float
    """Least probability in the set (0: all classes), or half the interval's width (FP32's largest: all numbers)."""
    own: bool
    """The threshold comes from the group's own rows."""


class ConformalEvaluation(RecordedPart):
    """Sets or intervals with a promised coverage, on rows that neither fitting nor calibration saw."""

    coverage: float
    """Promised."""
    method: str
    """LAC, or absoluteResidual."""
    output: str
    """Name of the model's output."""
    group_conditional: bool = False
    min_group_rows: int = 0
    overall: ConformalCoverage
    groups: dict[str, list[ConformalCoverage]] = {}
    """Protected attribute → groups."""


class MitigationStep(RecordedPart):
    """One network of the reductions approach: |rate of a group - rate of all|, of the group where it is largest."""

    training: float
    validation: float
    accuracy: float
    """On validation rows."""


class GroupRule(RecordedPart):
    """When a group is favoured: with chance ignored · chance + (1 - ignored) · (upperShare · [score > upper] +
    lowerShare · [score > lower])."""

    group: str
    """ATTRIBUTE=GROUP, of several attributes joined by " & "."""
    rows: int
    """That it was fitted on."""
    favorable: int
    """Of these, with a favourable label."""
    ignored: float = 0.0
    """With this chance the score isn't looked at, and who is favoured is drawn with ``chance``."""
    chance: float = 0.0
    upper: float
    """Above 1: nobody's score reaches it."""
    upper_share: float
    lower: float
    """Below 0: everybody's score is above it."""
    lower_share: float
    selection_rate: float
    """Expected on the rows that it was fitted on."""
    true_positive_rate: float | None = None
    false_positive_rate: float | None = None


class FittedThresholds(RecordedPart):
    """Randomised thresholds by group. Who is in none of ``groups`` has the model's own threshold."""

    objective: str
    attributes: list[str]
    subject: str = ""
    """Input that the draw depends on; "": on all of the row."""
    key: str = ""
    """SHA-256 of the sealed key of the draws."""
    rows: int
    """That they were fitted on; they neither fitted the network nor judge it."""
    accuracy: float
    """Expected on these rows."""
    groups: list[GroupRule] = []
    held_out_accuracy: float | None = None
    """Expected on held-out rows: over all draws, where the metrics have one."""
    held_out_drawn: int = 0
    """Held-out rows whose decision is drawn."""
    held_out_base: int = 0
    """Held-out rows with the model's own threshold: of groups without thresholds, and missing values."""


class AppliedMitigation(RecordedPart):
    """Mitigation that the model was trained with; what the same training gives without it is under unmitigated."""

    method: str
    constraint: str = ""
    max_disparity: float | None = None
    steps: list[MitigationStep] = []
    """Of reductions; the first is the unmitigated network."""
    shipped: int = 0
    """Which of the steps ships."""
    reached: bool | None = None
    """Of reductions: whether what ships is within maxDisparity on training and validation rows."""
    effect: bool = True
    """False: what ships is what the same training gives without it, and no answer names it."""
    largest_weight: float | None = None
    """Of reweighing: of a training row, where their mean is 1."""
    left_out: list[str] = []
    """Of reductions: ATTRIBUTE=GROUP with too few training rows for a constraint, values that are missing included. Of
    thresholds: those with too few for thresholds of their own."""
    thresholds: FittedThresholds | None = None
    """Of method thresholds."""


class Evaluation(RecordedPart):
    """evaluation.json: what the model is worth on held-out rows."""

    rows: dict[str, int] = {}
    """Part of the split → rows."""
    metrics: dict[str, float] = {}
    groups: DataAudit = {}
    """Of predictions on held-out rows."""
    offers: dict[str, Mitigation] = {}
    importances: list[Importance] = []
    data: DataAudit = {}
    """Of the labels of all rows."""
    unmitigated: Unmitigated | None = None
    mitigation: AppliedMitigation | None = None
    """None: none was applied."""
    conformal: ConformalEvaluation | None = None
    """None: no sets or intervals were asked for."""


class TrainingDocument(RecordedPart):
    """training.json: the curve by epoch, and the data set."""

    curve: list[dict[str, float]] = []
    dataset: DatasetManifest | None = None


class GateTable(RecordedPart):
    """gates.json, and the summary of the ledger's gates entry."""

    gates: list[GateResult] = []


class ShippedArtefact(RecordedPart):
    """The artefact that a training made."""

    digest: str = ""
    blob: str = ""
    variant: str = ""


class TrainingReport(TrainerReport):
    """The trainer's part of the report, in full."""

    artefact: ShippedArtefact | None = None  # type: ignore[assignment]  # the contract's is open, this is what the trainer writes
    data: DatasetManifest | None = None
    data_audit: DataAudit = {}
