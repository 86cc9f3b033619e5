"""The typed v1alpha1 GovernancePolicy and ClusterGovernancePolicy: the floor, what every GovernedModel must meet.

A requirement can be asked of what a GovernedModel's spec can say, and of nothing else: who reads a policy knows that
each of its lines is held.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat

from governed_api.base import Part
from governed_api.consumer import Moment, moment_rule
from governed_api.governance import BiasAction, BiasMetric, Entity, NameEntity
from governed_api.names import MAX_MODEL_NAME
from governed_api.quantities import Duration
from governed_api.rules import Rule

__all__ = [
    "BiasFloor",
    "ClusterExemption",
    "ClusterGovernancePolicySpec",
    "Exemption",
    "GovernancePolicySpec",
    "ImagesFloor",
    "MaskingFloor",
    "MetricFloor",
    "PolicySpec",
    "Require",
    "RuleName",
    "SourcesFloor",
]

RuleName = Literal[
    "authentication",
    "masking",
    "masking.direction",
    "masking.entities",
    "masking.names",
    "masking.threshold",
    "masking.allFields",
    "masking.failurePolicy",
    "encryption.mode",
    "encryption.keyRef",
    "encryption.rotation",
    "audit.failurePolicy",
    "audit.durability",
    "retention.atLeast",
    "retention.atMost",
    "images.byDigest",
    "images.registries",
    "sources.schemes",
    "sources.prefixes",
    "sources.dataDigest",
    "quota",
    "bias",
    "bias.metrics",
    "bias.protectedAttributes",
    "bias.action",
    "bias.minSamples",
    "explainer",
]
"""Rules by the field of ``require`` that asks for them."""

_PREFIX = r"^[a-z0-9]+:[^\s?#]*/$"
_REGISTRY = r"^[A-Za-z0-9]([A-Za-z0-9.:_/-]*[A-Za-z0-9])?$"


class MaskingFloor(Part):
    """Masking must be on, and do at least this."""

    direction: Literal["Request", "Response", "Both"] | None = None
    """What must be masked: at least this. A model's own direction, where absent, counts as what it comes to."""
    entities: list[Entity] = Field(default=[], max_length=32)
    """What must be looked for; a model that names no entities looks for all of them."""
    names: list[NameEntity] = Field(default=[], max_length=4)
    """Names that a model of names must find."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """A model's own threshold must not be above it: the higher, the less is masked."""
    all_fields: bool = False
    """True: masking must not be limited to some fields."""
    failure_policy: Literal["Closed"] | None = None
    """Closed: a request whose masking errs must be refused."""


class DurationBounds(Part):
    """Bounds of a duration."""

    at_least: Duration | None = None
    """Not less."""
    at_most: Duration | None = None
    """Not more; a duration that is absent, which is without end, is more."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.atLeast) || has(self.atMost)", "atLeast or atMost must be set"),
    )


class AtMost(Part):
    """A bound of a duration."""

    at_most: Duration
    """Not more; a duration that is absent, which is without end, is more."""


class EncryptionFloor(Part):
    """Of governance.encryption."""

    mode: Literal["envelope", "storageClass"] | None = None
    """storageClass: the volumes' StorageClass must declare encryption as well; envelope: every model meets it."""
    key_ref: Literal["Required"] | None = None
    """Required: the key-encryption key must be one that the manifest names, not one that is made."""
    rotation: AtMost | None = None
    """Keys must be replaced at least so often."""


class AuditFloor(Part):
    """Of governance.audit."""

    failure_policy: Literal["Closed"] | None = None
    """Closed: what can't be recorded must be refused."""
    durability: Literal["Fsync"] | None = None
    """Fsync: an answer must mean that its record is on disk."""


class ImagesFloor(Part):
    """Of a foreign runtime's image; models that are served in process bring none."""

    by_digest: bool = False
    """True: images must be named by digest (@sha256:…)."""
    registries: list[Annotated[str, Field(max_length=253, pattern=_REGISTRY)]] = Field(default=[], max_length=32)
    """Where images may come from: registry.example, or registry.example/team; an image without a registry is
    docker.io's. Empty: anywhere."""


class SourcesFloor(Part):
    """Where models, training data and background rows may come from."""

    schemes: list[Literal["file", "pvc", "https", "http", "s3", "gs", "az", "hf", "oci"]] = Field(
        default=[], max_length=9
    )
    """Schemes of URIs; empty: all."""
    prefixes: list[Annotated[str, Field(max_length=512, pattern=_PREFIX)]] = Field(default=[], max_length=64)
    """What a URI must begin with, one of these, such as s3://models-approved/ or oci://registry.example/team/; empty:
    anything. Then storage.endpoint, which leads elsewhere, must be absent or among endpoints."""
    endpoints: list[Annotated[str, Field(max_length=512)]] = Field(default=[], max_length=32)
    """What predictor.model.storage.endpoint may be, where prefixes are given."""
    data_digest: Literal["Required"] | None = None
    """Required: training data at a URI must be pinned by digest. A model at storageUri always is."""


class MetricFloor(Part):
    """A bias metric that must be there, with bounds that are no looser."""

    name: BiasMetric
    """Of the metric."""
    threshold_lower: FiniteFloat | None = None
    """The model's thresholdLower, less its margin, must not be below."""
    threshold_upper: FiniteFloat | None = None
    """The model's thresholdUpper, with its margin, must not be above."""


class BiasFloor(Part):
    """A bias audit must be there, and judge at least this."""

    # no map of the API server's: applied twice, bias: {} would be taken away with the empty list that is its default
    metrics: list[MetricFloor] = Field(default=[], max_length=16)
    """Metrics with bounds."""
    protected_attributes: list[Annotated[str, Field(min_length=1, max_length=63)]] = Field(default=[], max_length=8)
    """Attributes whose groups must be compared."""
    action: BiasAction | None = None
    """What a failed verdict must do, at least; Rollback does more than BlockPromotion, and that more than Alert."""
    min_samples: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """The model's minSamples must not be above: below it there is no verdict."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.metrics) || self.metrics.all(m, self.metrics.exists_one(n, n.name == m.name))",
            "metrics must differ in name: say both bounds of one in one entry",
            ".metrics",
        ),
    )


class Require(Part):
    """What a GovernedModel must meet; what isn't named isn't asked."""

    authentication: Literal["Required"] | None = None
    """Required: access.authentication must be."""
    masking: MaskingFloor | None = None
    """governance.privacy.masking must be there."""
    encryption: EncryptionFloor | None = None
    """Of governance.encryption."""
    audit: AuditFloor | None = None
    """Of governance.audit."""
    retention: DurationBounds | None = None
    """Of governance.privacy.retention.payloads; absent there: payloads are kept for ever."""
    images: ImagesFloor | None = None
    """Of predictor.model.runtime.image."""
    sources: SourcesFloor | None = None
    """Of every URI that a model names."""
    quota: Literal["Required"] | None = None
    """Required: quota.requests or quota.tokens must have a limit."""
    bias: BiasFloor | None = None
    """governance.bias must be there."""
    explainer: Literal["Required"] | None = None
    """Required: explainer must be there."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.authentication), has(self.masking), has(self.encryption), has(self.audit), has(self.retention), "
            "has(self.images), has(self.sources), has(self.quota), has(self.bias), has(self.explainer)].exists(x, x)",
            "require must ask for something: a policy without a requirement is met by every model",
        ),
    )


class PolicySelector(Part):
    """Which models, by their labels. Who may label a model may take it out: without a selector nobody can."""

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(max_length=16)
    """All of these labels, with these values."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.matchLabels.size() > 0",
            "matchLabels must have a label: leave selector out for all models",
            ".matchLabels",
        ),
    )


class Exemption(Part):
    """A rule that a model need not meet for a while. One that has expired exempts from nothing."""

    model: str = Field(max_length=MAX_MODEL_NAME, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    """GovernedModel by name."""
    rule: RuleName
    """Rule by the field of require that asks for it."""
    owner: str = Field(min_length=1, max_length=253, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
    """Who answers for it."""
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
    """Why."""
    expires: Moment
    """From then on the rule holds again."""

    RULES: ClassVar[tuple[Rule, ...]] = (moment_rule("expires"),)


class ClusterExemption(Exemption):
    """A rule that a model of a namespace need not meet for a while. One that has expired exempts from nothing."""

    namespace: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """The model's."""


class PolicySpec(Part):
    """What both kinds of policy say."""

    enforcement: Literal["Audit", "Deny"]
    """Deny: a model that doesn't meet the policy is refused; Audit: it is only said."""
    require: Require
    """What models must meet."""
    selector: PolicySelector | None = None
    """Which models; absent: all."""


class GovernancePolicySpec(PolicySpec):
    """What the models of a namespace must meet."""

    exemptions: list[Exemption] = Field(default=[], max_length=256)
    """Who need not meet what, until when."""


class ClusterGovernancePolicySpec(PolicySpec):
    """What the models of all namespaces must meet."""

    exemptions: list[ClusterExemption] = Field(default=[], max_length=256)
    """Who need not meet what, until when."""
