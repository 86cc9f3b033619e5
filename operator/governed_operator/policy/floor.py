"""What a model lacks of what policies require: a table of rules over the typed, defaulted spec. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from governed_api.consumer import instant
from governed_api.governance import Masking
from governed_api.labels import has_labels
from governed_api.model import GovernedModelSpec
from governed_api.names import CLUSTER_POLICY_KIND, POLICY_KIND
from governed_api.policy import ClusterExemption, Exemption, MetricFloor, PolicySpec, Require, RuleName
from governed_api.quantities import seconds

__all__ = ["RULES", "Floor", "InForce", "Judgement", "Subject", "Unreadable", "judge"]

Rule = Callable[[GovernedModelSpec, Require], str | None]
"""What is wrong, as ``found; wanted; remedy`` in :func:`_fault`'s form; None where the model meets the requirement, or
none is made."""

_ACTIONS = ("Alert", "BlockPromotion", "Rollback")
_HOST = re.compile(r"[^/]*[.:][^/]*/|localhost/")
_SLASH = r"[/\\]|%2f|%5c"
_UP = re.compile(rf"(^|{_SLASH})(\.|%2e){{1,2}}($|{_SLASH})", re.IGNORECASE)
"""A step of a path that leads elsewhere."""
_POLICY = "\0"
"""Stands for the policy's name in a rule's sentence: no field of a manifest can hold it."""


class Subject(NamedTuple):
    """The model that is judged."""

    name: str
    namespace: str | None
    """None where a manifest names none: then every policy may be about it."""
    labels: Mapping[str, str]
    spec: GovernedModelSpec


@dataclass(frozen=True)
class Floor:
    """A policy as it stands in force."""

    name: str
    namespace: str | None
    """None: of a ClusterGovernancePolicy, or of a manifest that names none."""
    spec: PolicySpec
    exemptions: tuple[Exemption, ...]
    cluster: bool

    @property
    def title(self) -> str:
        """As people are told."""
        return f"{CLUSTER_POLICY_KIND if self.cluster else POLICY_KIND} {self.name}"

    def concerns(self, model: Subject) -> bool:
        """Whether it is about a model."""
        if not self.cluster and None not in (self.namespace, model.namespace) and self.namespace != model.namespace:
            return False
        return self.spec.selector is None or has_labels(model.labels, self.spec.selector.match_labels)

    def exemption(self, model: Subject, rule: RuleName) -> Exemption | None:
        """The one that lasts longest of those that name a model and a rule."""
        found = [e for e in self.exemptions if e.rule == rule and _names(e, model)]
        return max(found, key=lambda e: _end(e).timestamp(), default=None)


@dataclass(frozen=True)
class Unreadable:
    """A policy of a model's namespace, or of the cluster, that this version's types don't take."""

    title: str
    """As people are told."""
    fault: str
    labels: Mapping[str, str]
    """Which models it is about: those with all of these."""
    refuses: bool
    """False: it says Audit, so that it would refuse nothing."""

    def concerns(self, model: Subject) -> bool:
        """Whether it may be about a model."""
        return has_labels(model.labels, self.labels)


@dataclass(frozen=True)
class InForce:
    """All that is known of the policies of a model's namespace and of the cluster."""

    floors: tuple[Floor, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    unread: str = ""
    """Why there may be others; empty: there are none."""


class Judgement(NamedTuple):
    """A requirement that a model doesn't meet."""

    policy: str
    rule: RuleName
    kind: Literal["Deny", "Audit", "Exempt"]
    """Exempt: it need not, for the time being."""
    text: str
    again: datetime | None = None
    """When an exemption ends."""


def judge(model: Subject, floors: Iterable[Floor], now: datetime) -> list[Judgement]:
    """Requirements of ``floors`` that a model doesn't meet, in the order of the table. ``now`` ends exemptions."""
    concerning = [floor for floor in floors if floor.concerns(model)]
    return [j for floor in concerning for rule in RULES if (j := _judged(model, floor, rule, now)) is not None]


def _judged(model: Subject, floor: Floor, rule: RuleName, now: datetime) -> Judgement | None:
    fault = RULES[rule](model.spec, floor.spec.require)
    if fault is None:
        return None
    text = f"{fault.replace(_POLICY, floor.title)} (rule {rule})"
    exemption = floor.exemption(model, rule)
    if exemption is None:
        return Judgement(floor.title, rule, floor.spec.enforcement, text)
    if (end := _end(exemption)) > now:
        about = f"exempt until {exemption.expires}, for which {exemption.owner} answers: {exemption.reason}"
        return Judgement(floor.title, rule, "Exempt", f"{text}; {about}", end)
    about = f"the exemption, for which {exemption.owner} answers, expired {exemption.expires}"
    return Judgement(floor.title, rule, floor.spec.enforcement, f"{text}; {about}")


def _names(exemption: Exemption, model: Subject) -> bool:
    within = not isinstance(exemption, ClusterExemption) or exemption.namespace == (model.namespace or "default")
    return exemption.model == model.name and within


def _end(exemption: Exemption) -> datetime:
    end = instant(exemption.expires)
    assert end is not None
    return end


def _fault(field: str, found: object, wanted: str, remedy: str) -> str:
    is_found = "is absent" if found is None else f"is {_shown(found)}"
    return f"spec.{field} {is_found}; {_POLICY} requires {wanted}; {remedy}"


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(str(v) for v in value) or "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _authentication(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.authentication is None or spec.authenticates:
        return None
    found = spec.access.authentication if spec.access else None
    return _fault("access.authentication", found, "Required", "set it to Required")


MASKING = "governance.privacy.masking"


def _masking(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.masking is None or spec.governance.privacy.masking is not None:
        return None
    return _fault(MASKING, None, "masking", "add masking: {}, or more")


def _direction(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.masking.direction if require.masking else None
    masking = spec.governance.privacy.masking
    if wanted is None or masking is None:  # without masking rule masking says so
        return None
    lacks_requests = wanted in ("Request", "Both") and not masking.masks_requests()
    lacks_answers = wanted in ("Response", "Both") and not masking.masks_answers(spec.generates)
    if not lacks_requests and not lacks_answers:
        return None
    return _fault(f"{MASKING}.direction", masking.direction, wanted, f"set it to {wanted} or Both")


def _entities(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.masking.entities if require.masking else []
    masking = spec.governance.privacy.masking
    if masking is None or not masking.entities:
        return None
    return _lacking(f"{MASKING}.entities", masking.entities, wanted)


def _names_masked(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.masking.names if require.masking else []
    masking = spec.governance.privacy.masking
    if masking is None or not wanted:
        return None
    if masking.names is None:
        return _fault(f"{MASKING}.names", None, ", ".join(wanted), f"set names.entities to {_shown(wanted)}")
    return _lacking(f"{MASKING}.names.entities", masking.names.entities, wanted)


def _lacking(field: str, found: Sequence[str], wanted: Sequence[str]) -> str | None:
    missing = [name for name in wanted if name not in found]
    return _fault(field, found, ", ".join(wanted), f"add {_shown(missing)}") if missing else None


def _threshold(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.masking.threshold if require.masking else None
    masking = spec.governance.privacy.masking
    if wanted is None or masking is None or masking.threshold <= wanted:
        return None
    return _fault(f"{MASKING}.threshold", masking.threshold, f"at most {wanted}", f"set it to {wanted} or less")


def _all_fields(spec: GovernedModelSpec, require: Require) -> str | None:
    masking = spec.governance.privacy.masking
    if require.masking is None or not require.masking.all_fields or masking is None or not masking.fields:
        return None
    return _fault(f"{MASKING}.fields", masking.fields, "that all fields are masked", "take fields out")


def _masking_failure(spec: GovernedModelSpec, require: Require) -> str | None:
    masking: Masking | None = spec.governance.privacy.masking
    if require.masking is None or require.masking.failure_policy is None or masking is None:
        return None
    return _closed(f"{MASKING}.failurePolicy", masking.failure_policy)


def _closed(field: str, found: str) -> str | None:
    return None if found == "Closed" else _fault(field, found, "Closed", "set it to Closed")


ENCRYPTION = "governance.encryption"


def _mode(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.encryption.mode if require.encryption else None
    found = spec.governance.encryption.mode
    if wanted != "storageClass" or found == wanted:  # storageClass is envelope on top of it
        return None
    return _fault(f"{ENCRYPTION}.mode", found, wanted, "set it to storageClass, with storageClassName")


def _key_ref(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.encryption.key_ref if require.encryption else None
    if wanted is None or spec.governance.encryption.key_ref is not None:
        return None
    return _fault(f"{ENCRYPTION}.keyRef", None, "a key of your own", "set keyRef.secretName to a Secret with the key")


def _rotation(spec: GovernedModelSpec, require: Require) -> str | None:
    wanted = require.encryption.rotation if require.encryption else None
    return _at_most(f"{ENCRYPTION}.rotation", spec.governance.encryption.rotation, wanted.at_most if wanted else None)


def _at_most(field: str, found: str | None, bound: str | None) -> str | None:
    if bound is None or (found is not None and seconds(found) <= seconds(bound)):
        return None
    return _fault(field, found, f"at most {bound}", f"set it to {bound} or less")


def _audit_failure(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.audit is None or require.audit.failure_policy is None:
        return None
    return _closed("governance.audit.failurePolicy", spec.governance.audit.failure_policy)


def _durability(spec: GovernedModelSpec, require: Require) -> str | None:
    found = spec.governance.audit.durability
    if require.audit is None or require.audit.durability in (None, found):
        return None
    return _fault("governance.audit.durability", found, "Fsync", "set it to Fsync")


PAYLOADS = "governance.privacy.retention.payloads"


def _kept(spec: GovernedModelSpec, require: Require) -> str | None:
    bound, found = require.retention.at_least if require.retention else None, spec.governance.privacy.retention.payloads
    if bound is None or found is None or seconds(found) >= seconds(bound):
        return None
    return _fault(PAYLOADS, found, f"at least {bound}", f"set it to {bound} or more")


def _deleted(spec: GovernedModelSpec, require: Require) -> str | None:
    bound = require.retention.at_most if require.retention else None
    return _at_most(PAYLOADS, spec.governance.privacy.retention.payloads, bound)


IMAGE = "predictor.model.runtime.image"


def _by_digest(spec: GovernedModelSpec, require: Require) -> str | None:
    runtime = spec.predictor.model.runtime
    if require.images is None or not require.images.by_digest or runtime is None:
        return None
    if re.search(r"[^@]@sha256:[0-9a-f]{64}\Z", runtime.image):
        return None
    return _fault(IMAGE, runtime.image, "an image by digest", "name it as IMAGE@sha256:…")


def _registries(spec: GovernedModelSpec, require: Require) -> str | None:
    runtime, allowed = spec.predictor.model.runtime, require.images.registries if require.images else []
    if runtime is None or not allowed:
        return None
    image = runtime.image if _HOST.match(runtime.image) else f"docker.io/{runtime.image}"
    if any(image.startswith(f"{registry}/") for registry in allowed) and not _UP.search(image):
        return None
    return _fault(IMAGE, runtime.image, f"an image of {_shown(allowed)}", "take it from there")


def _uris(spec: GovernedModelSpec) -> Iterator[tuple[str, str]]:
    """Field → URI, of all that a model names."""
    training, explainer = spec.lifecycle.training, spec.explainer
    named = (
        ("predictor.model.storageUri", spec.predictor.model.storage_uri),
        ("lifecycle.training.data.uri", training.data.uri if training else None),
        ("explainer.background.uri", explainer.background.uri if explainer and explainer.background else None),
    )
    return ((field, uri) for field, uri in named if uri)


def _schemes(spec: GovernedModelSpec, require: Require) -> str | None:
    allowed = require.sources.schemes if require.sources else []
    for field, uri in _uris(spec):
        if allowed and uri.partition(":")[0] not in allowed:
            return _fault(field, uri, f"a URI of {_shown(allowed)}", "bring the files there")
    return None


def _prefixes(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.sources is None or not require.sources.prefixes:
        return None
    allowed = require.sources.prefixes
    for field, uri in _uris(spec):
        if not uri.startswith(tuple(allowed)) or _UP.search(uri.partition(":")[2].lstrip("/")):
            return _fault(field, uri, f"a URI below {_shown(allowed)}", "bring the files there")
    storage = spec.predictor.model.storage
    if storage is None or storage.endpoint is None or storage.endpoint in require.sources.endpoints:
        return None
    wanted = _shown(require.sources.endpoints) if require.sources.endpoints else "none"
    return _fault("predictor.model.storage.endpoint", storage.endpoint, wanted, "take it out, or name one of these")


def _data_digest(spec: GovernedModelSpec, require: Require) -> str | None:
    training = spec.lifecycle.training
    if require.sources is None or require.sources.data_digest is None or training is None or training.data.uri is None:
        return None
    if training.data.digest is not None:
        return None
    return _fault("lifecycle.training.data.digest", None, "a digest", "set it to what governed pin prints of the file")


def _quota(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.quota is None or spec.quota.requests or spec.quota.tokens:
        return None
    return _fault("quota.requests", None, "a limit", "set a limit in quota.requests or quota.tokens")


def _bias(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.bias is None or spec.governance.bias is not None:
        return None
    return _fault("governance.bias", None, "a bias audit", "add protectedAttributes, favorableOutcome and metrics")


def _metrics(spec: GovernedModelSpec, require: Require) -> str | None:
    bias = spec.governance.bias
    if require.bias is None or bias is None:
        return None
    found = {metric.name: metric for metric in bias.metrics}
    for wanted in require.bias.metrics:
        metric = found.get(wanted.name)
        if metric is None:
            return _fault("governance.bias.metrics", list(found), wanted.name, f"add {wanted.name} with its bounds")
        place, margin = f"governance.bias.metrics[{wanted.name}]", metric.margin or 0.0
        lower, upper = metric.threshold_lower, metric.threshold_upper
        if _below(None if lower is None else lower - margin, wanted):
            least = f"at least {wanted.threshold_lower}, margin taken off"
            return _fault(f"{place}.thresholdLower", lower, least, "raise it, or lower margin")
        if _above(None if upper is None else upper + margin, wanted):
            most = f"at most {wanted.threshold_upper}, margin added"
            return _fault(f"{place}.thresholdUpper", upper, most, "lower it, or lower margin")
    return None


def _below(lower: float | None, wanted: MetricFloor) -> bool:
    return wanted.threshold_lower is not None and (lower is None or lower < wanted.threshold_lower)


def _above(upper: float | None, wanted: MetricFloor) -> bool:
    return wanted.threshold_upper is not None and (upper is None or upper > wanted.threshold_upper)


def _attributes(spec: GovernedModelSpec, require: Require) -> str | None:
    bias = spec.governance.bias
    if require.bias is None or bias is None:
        return None
    found = [attribute.name for attribute in bias.protected_attributes]
    return _lacking("governance.bias.protectedAttributes", found, require.bias.protected_attributes)


def _action(spec: GovernedModelSpec, require: Require) -> str | None:
    bias, wanted = spec.governance.bias, require.bias.action if require.bias else None
    if bias is None or wanted is None or _ACTIONS.index(bias.action) >= _ACTIONS.index(wanted):
        return None
    return _fault("governance.bias.action", bias.action, f"at least {wanted}", f"set it to {wanted}")


def _min_samples(spec: GovernedModelSpec, require: Require) -> str | None:
    bias, wanted = spec.governance.bias, require.bias.min_samples if require.bias else None
    if bias is None or wanted is None or bias.min_samples <= wanted:
        return None
    return _fault("governance.bias.minSamples", bias.min_samples, f"at most {wanted}", f"set it to {wanted} or less")


def _explainer(spec: GovernedModelSpec, require: Require) -> str | None:
    if require.explainer is None or spec.explainer is not None:
        return None
    return _fault("explainer", None, "an explainer", "add explainer: {}")


RULES: Mapping[RuleName, Rule] = {
    "authentication": _authentication,
    "masking": _masking,
    "masking.direction": _direction,
    "masking.entities": _entities,
    "masking.names": _names_masked,
    "masking.threshold": _threshold,
    "masking.allFields": _all_fields,
    "masking.failurePolicy": _masking_failure,
    "encryption.mode": _mode,
    "encryption.keyRef": _key_ref,
    "encryption.rotation": _rotation,
    "audit.failurePolicy": _audit_failure,
    "audit.durability": _durability,
    "retention.atLeast": _kept,
    "retention.atMost": _deleted,
    "images.byDigest": _by_digest,
    "images.registries": _registries,
    "sources.schemes": _schemes,
    "sources.prefixes": _prefixes,
    "sources.dataDigest": _data_digest,
    "quota": _quota,
    "bias": _bias,
    "bias.metrics": _metrics,
    "bias.protectedAttributes": _attributes,
    "bias.action": _action,
    "bias.minSamples": _min_samples,
    "explainer": _explainer,
}
"""Name → whether a model meets it."""
