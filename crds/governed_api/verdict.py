"""The bias verdict in full, as the auditor serves, reports and records it and as people's views read it back.

:class:`BiasVerdict` is an :class:`~governed_api.report.AuditorReport`, so that what the operator decides by can't drift
from what the auditor says. Ledgers are older than code: fields that a past auditor didn't write get a default, those of
a newer one are kept.
"""

from typing import Annotated

from governed_api.base import OF_THE_MOMENT, RecordedPart, VerdictWord, wire
from governed_api.conditions import Truth
from governed_api.governance import FavorableOutcome
from governed_api.report import AuditorReport, MetricVerdict

__all__ = [
    "LEFT_OUT_OF_REPORT",
    "WITHIN_THRESHOLDS",
    "AlarmState",
    "AttributeFigures",
    "BiasVerdict",
    "CalibrationBin",
    "CalibrationCurve",
    "CoverageFinding",
    "GroupRate",
    "Intersections",
    "LabelCorrections",
    "LabelledShare",
    "MetricFinding",
    "RecordedPart",
    "SetCoverage",
    "Slice",
    "Slices",
    "StratifiedDifference",
    "VerdictWord",
    "wire",
]

LEFT_OUT_OF_REPORT = ("id", "strata", "groups", "intersections", "replicas")
"""Of a verdict, what the auditor leaves out of the report: /v1/verdict and the ledger have them."""

WITHIN_THRESHOLDS: dict[VerdictWord, Truth] = {"Pass": "True", "Fail": "False", "Unknown": "Unknown"}
"""Verdict → status of the condition BiasWithinThresholds."""


class Bounds(RecordedPart):
    """Ends of an interval; None: unbounded."""

    lower: float | None = None
    upper: float | None = None


class MetricFinding(MetricVerdict):
    """One metric of one comparison, with what it rests on."""

    threshold_lower: float | None = None
    """Least value that the manifest allows."""
    threshold_upper: float | None = None
    """Largest value that the manifest allows."""
    margin: float | None = None
    """By how much wider bounds may be met as well; absent: none is declared."""
    within_margin: bool = False
    """It passes within the bounds widened by the margin: that it lies within the bounds alone isn't shown."""
    samples: int = 0
    """Rows behind it."""
    message: str = ""
    """Why the verdict is what it is."""
    log_evidence: float | None = None
    """Natural logarithm of the e-value against the bounds."""
    fixed_sample: Bounds | None = None
    """Interval for a single look, where there is one."""
    discovered: bool = False
    """Beyond its bounds with the false discovery rate controlled (e-BH)."""
    judged: bool = True
    """False: the group is too small to be judged; its line is shown and keeps no verdict back."""
    excluded: list[str] = []
    """Groups without support that a figure over all groups leaves out."""
    rows_to_decide: int | None = None
    """About how many more rows decide an Unknown, rates and shares staying as they are; null: that can't be told."""
    window_to_decide: int | None = None
    """About how large a sliding window would decide an Unknown that this one is too small for."""
    asymptotic: bool = False
    """The interval holds for many rows: of scores without a range known beforehand. All others hold at any number."""
    worst_case: Bounds | None = None
    """Where the value lies whatever labels the rows without one have; absent: no label is missing, or the metric is
    none of rates from labels."""
    resolution: Bounds | None = None
    """Of scoreDistributionDistance, whose value is the lower end: where that of the very rows lies. More than
    2,048 different scores of a group are counted by floats of 8 bits of mantissa. Absent: the value is exact."""


class GroupRate(RecordedPart):
    """One group's rows and how many had the favourable outcome."""

    group: str
    rows: int
    favorable: int
    rate: float | None = None
    """favorable / rows."""
    impact_ratio: float | None = None
    """Against the most selected group (NYC Local Law 144); only of intersections."""


class LabelledShare(RecordedPart):
    """How many of a group's rows with one outcome have a label."""

    group: str
    outcome: str
    """favorable or unfavorable."""
    rows: int
    labelled: int
    share: float | None = None
    """labelled / rows."""


class LabelCorrections(RecordedPart):
    """Labels that were corrected since the revision began. Values count the corrected ones; Pass and Fail need that the
    first ones show the same."""

    corrected: int = 0
    """Rows whose label was replaced, counted each time."""
    labelled: int = 0
    """Rows that have a label."""
    withheld: int = 0
    """Metrics that are Unknown since the first labels show otherwise."""


class StratifiedDifference(RecordedPart):
    """Statistical parity difference of a group in all, adjusted for a stratum, and within each of its values."""

    attribute: str
    group: str
    reference: str
    by: str
    difference: float | None = None
    adjusted: float | None = None
    strata: dict[str, float | None] = {}
    reverses: bool = False
    """Simpson's paradox: adjusted, the difference has the other sign."""
    confounded: bool = False
    """Adjusting is shown to take half of the difference or more; its sign stays."""
    shown: bool = False
    """Both differences are shown to be on their sides of 0; a reversal that isn't may be chance."""
    adjusted_lower: float | None = None
    """Lower end of the adjusted difference's interval, at all looks; where there is no change, for one look."""
    adjusted_upper: float | None = None
    """Upper end of the same."""
    difference_lower: float | None = None
    """Lower end of the interval of the difference in all, at all looks."""
    difference_upper: float | None = None
    """Upper end of the same."""
    change: float | None = None
    """difference - adjusted: what goes with the strata. Absent: the verdict is of an auditor before this field."""
    change_lower: float | None = None
    """Lower end of the change's interval, at all looks. All three intervals hold together."""
    change_upper: float | None = None
    """Upper end of the same."""


class CalibrationBin(RecordedPart):
    """Labelled rows whose predicted probability lies in one bin."""

    low: float
    """Of the bin."""
    high: float
    rows: int
    score: float | None = None
    """Mean probability that was predicted."""
    rate: float | None = None
    """Share that the favourable outcome was true of."""
    lower: float | None = None
    """Lower end of the rate's band: all bins, groups and attributes together, at all looks."""
    upper: float | None = None
    """Upper end of the same."""


class CalibrationCurve(RecordedPart):
    """A group's calibration; bins with fewer than 10 labelled rows are left out."""

    group: str
    bins: list[CalibrationBin] = []


class Slice(RecordedPart):
    """Values of several attributes together, one protected at least, that fare otherwise than all others beside
    them."""

    measure: str = "selectionRate"
    """What differs: selectionRate, truePositiveRate, falsePositiveRate or accuracy."""
    values: dict[str, str]
    """Protected attribute → value."""
    within: dict[str, str] = {}
    """Stratum → value, which those that it is compared with have as well."""
    rows: int
    """Of the measure."""
    rate: float | None = None
    """The measure's."""
    difference: float | None = None
    """rate - that of all other rows."""
    lower: float | None = None
    """Lower end of the difference's interval, at all looks."""
    upper: float | None = None
    """Upper end of the same."""
    log_evidence: float | None = None
    """Natural logarithm of the e-value against a difference within the bounds."""


class Slices(RecordedPart):
    """Subgroup discovery. At any look, the expected share of false ones among those found is at most 1 -
    confidenceLevel; where there is nothing to find, so is the chance that any is ever found."""

    looked_at: int = 0
    left_out: int = 0
    """Smaller slices, beyond the most that are looked at."""
    found: list[Slice] = []


class ChiSquare(RecordedPart):
    """Pearson's test of independence, for one look."""

    statistic: float | None = None
    p_value: float | None = None


class AttributeFigures(RecordedPart):
    """What is said of a protected attribute as a whole."""

    spread: dict[str, float | None] = {}
    """fairlearn's figures over all groups."""
    impact_ratios: dict[str, float | None] = {}
    """Group → ratio to the most selected group."""
    excluded: list[str] = []
    """Groups too small for impact ratios."""
    chi_square: ChiSquare = ChiSquare()


class Intersections(RecordedPart):
    """Groups of all protected attributes together."""

    groups: list[GroupRate] = []
    suppressed: int = 0
    """Groups too small to be shown."""


class CoverageFinding(RecordedPart):
    """How many labelled rows' prediction sets or intervals hold the truth."""

    group: str
    rows: int = 0
    """With a label and a set."""
    covered: int = 0
    coverage: float | None = None
    """covered / rows."""
    lower: float | None = None
    """Lower end of its interval: all rows, groups and attributes together, at all looks."""
    upper: float | None = None
    """Upper end of the same."""
    verdict: VerdictWord = "Unknown"
    """Pass: shown to be as often as promised; Fail: shown to be less often than least. Unknown for long between."""
    least: float | None = None
    """What the luck of so few calibration rows may leave of the promise, were the rows served like them. null: it isn't
    known, or nothing is promised of this group; Fail is then below the promise."""


class SetCoverage(RecordedPart):
    """What was promised of the model's prediction sets or intervals, and what labelled rows that were served show; it
    decides nothing."""

    promised: float
    overall: CoverageFinding
    groups: dict[str, list[CoverageFinding]] = {}
    """Attribute → its groups with support."""


class AlarmState(RecordedPart):
    """What a failed verdict demands, and who has taken it over."""

    action: str = ""
    active: bool = False
    in_force: str = ""
    """Action to be taken now; None (as a word): none."""
    acknowledged_by: str = ""
    reason: str = ""


class CountedWindow(RecordedPart):
    """The window of predictions that a verdict looks at."""

    type: str = ""
    rows: int = 0
    """In the window."""
    folded: int = 0
    """Ever."""
    false_verdict_chance: float | None = None
    """Chance, at most, of any false Pass or Fail in all looks together."""
    within_rows: int | None = None
    """So long that holds for a sliding window: while this many predictions pass, from any moment on. null: for ever."""
    average_rows_to_false_verdict: int | None = None
    """Predictions, on average at least, until a sliding window's first false Pass or Fail. null: see the chance."""


class RecordedOutcome(FavorableOutcome):
    """The favourable outcome as it was when the verdict was made."""

    model_config = FavorableOutcome.model_config | {"extra": "allow"}


class BiasVerdict(AuditorReport):
    """Verdict with everything that it rests on but the counts."""

    metrics: list[MetricFinding] = []  # type: ignore[assignment]  # narrower than the report's, and never changed in place
    labelled: int = 0
    """Rows whose label is known."""
    labels: dict[str, list[LabelledShare]] = {}
    """Attribute → labelled rows of each group and outcome; empty: no metric of the manifest needs labels."""
    corrections: LabelCorrections = LabelCorrections()
    """Absent: no label was corrected."""
    favorable_outcome: RecordedOutcome | None = None
    """None: the auditor is older than this field, or has judged nothing yet."""
    confidence_level: float | None = None
    """Overall."""
    missing: dict[str, int] = {}
    """Attribute → rows in which it isn't known."""
    references: dict[str, str] = {}
    """Attribute → whom its groups are compared with: as named in the manifest, else chosen once."""
    bands: dict[str, list[float]] = {}
    """Attribute or stratum → inner borders of the bands that its numbers are grouped in."""
    pooled: dict[str, int] = {}
    """Attribute → rare values that are counted together as "(other)"."""
    calibration: dict[str, list[CalibrationCurve]] = {}
    """Attribute → the curves of its groups, at most 8; empty: no metric is about probabilities, or no labels have
    come."""
    slices: Slices = Slices()
    """Of two or three protected attributes together: what is found is shown, and decides nothing."""
    coverage: SetCoverage | None = None
    """Absent: the model promises none."""
    outside_range: dict[str, int] = {}
    """scores, labels → how many lay outside favorableOutcome.range and count as the nearer end."""
    groups: dict[str, list[GroupRate]] = {}
    """Attribute → its groups."""
    strata: list[StratifiedDifference] = []
    attributes: dict[str, AttributeFigures] = {}
    intersections: Intersections = Intersections()
    alarm: Annotated[AlarmState, OF_THE_MOMENT] = AlarmState()
    alarms: Annotated[list[str], OF_THE_MOMENT] = []
    """Subjects of the alarms beside the verdict: drift, proxies, flips, explanations."""
    id: str = ""
    """Of its ledger entry; empty: not recorded."""
    window: CountedWindow = CountedWindow()
    evidence: str = ""
    """SHA-256 of the counts."""
    time: str = ""
    """RFC 3339."""
    replicas: dict[str, str] = {}
    """Other replica → SHA-256 of the state whose counts were added."""

    def changed(self, **fields: object) -> "BiasVerdict":
        """The same with other fields, by their names in Python."""
        return self.model_copy(update=fields)

    def without(self, *fields: str) -> "BiasVerdict":
        """The same as if ``fields`` had never been set."""
        kept = {name: getattr(self, name) for name in self.model_fields_set - set(fields)}
        return type(self).model_construct(**kept)
