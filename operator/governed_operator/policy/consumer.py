"""How it stands with a ModelConsumer. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from governed_api import conditions as c
from governed_api.conditions import State, set_condition
from governed_api.consumer import ALL_MODELS, ModelConsumerSpec, ModelConsumerStatus, instant
from governed_api.reasons import Reason
from governed_operator.watch.consumers import Consumer, selects

__all__ = ["ObservedConsumer", "consumer_status"]

MOST_NAMED = 5
"""Names that a message lists."""


@dataclass(frozen=True)
class ObservedConsumer:
    """A consumer and its surroundings at one moment."""

    consumer: Consumer
    namespace: str
    now: datetime
    status: ModelConsumerStatus
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name → labels of the namespace's models."""
    holders: Mapping[str, str] = field(default_factory=dict)
    """Id of each of its keys and tokens' identities → consumer that it is of."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Issuer of its tokens → why there are no keys of it."""
    left_out_of: tuple[str, ...] = ()
    """Models whose document has no room for it."""


def consumer_status(obs: ObservedConsumer) -> tuple[ModelConsumerStatus, float | None]:
    """The whole status, and the seconds until time alone changes it."""
    spec, consumer = obs.consumer.spec, obs.consumer
    selected = sorted(name for name, labels in obs.models.items() if selects(consumer, name, labels))
    if spec is None:
        state: State = ("False", Reason.SPEC_NOT_READABLE, _spec_not_readable(consumer.fault))
        states, accepted, again_in = {c.KEY_READY: state, c.MODELS_FOUND: _unknown(consumer.fault)}, 0, None
    else:
        accepted, again_in = len(_accepted(obs, spec)), _next_expiry(obs, spec)
        states = {c.KEY_READY: _key_ready(obs, spec, accepted), c.MODELS_FOUND: _models_found(obs, spec, selected)}
    conditions = obs.status.conditions
    for kind, (truth, reason, message) in states.items():
        told = (truth, reason, message[:1000])
        conditions = set_condition(conditions, kind, told, generation=consumer.generation, now=obs.now)
    status = ModelConsumerStatus(
        observed_generation=consumer.generation, conditions=conditions, keys=accepted, models=len(selected)
    )
    return status, again_in


def _spec_not_readable(fault: str) -> str:
    return f"{fault}: nobody gets in by it; correct that field, or run the operator version that wrote it"


def _unknown(fault: str) -> State:
    return "Unknown", Reason.SPEC_NOT_READABLE, fault


def _past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now


def _accepted(obs: ObservedConsumer, spec: ModelConsumerSpec) -> list[str]:
    """Ids of the keys that let somebody in now."""
    if spec.suspend or _past(instant(spec.expires), obs.now):
        return []
    own = [key for key in spec.api_keys if obs.holders.get(key.id) == obs.consumer.name]
    return [key.id for key in own if not _past(instant(key.expires), obs.now)]


def _next_expiry(obs: ObservedConsumer, spec: ModelConsumerSpec) -> float | None:
    moments = [instant(text) for text in (spec.expires, *(key.expires for key in spec.api_keys))]
    ahead = [(m - obs.now).total_seconds() for m in moments if m is not None and m > obs.now]
    return min(ahead, default=None)


def _key_ready(obs: ObservedConsumer, spec: ModelConsumerSpec, accepted: int) -> State:
    if spec.suspend:
        message = "spec.suspend is true: every key and token is refused; set it to false"
        return "False", Reason.CONSUMER_SUSPENDED, message
    if _past(instant(spec.expires), obs.now):
        message = f"every key and token is refused since {spec.expires}; set spec.expires anew"
        return "False", Reason.CONSUMER_EXPIRED, message
    if not spec.api_keys and not obs.consumer.tokens:
        message = "spec.apiKeys is empty: nobody can show a key; governed consumer rotate adds one, or set spec.oidc"
        return "False", Reason.NO_KEYS, message
    taken = {k.id: h for k in spec.api_keys if (h := obs.holders.get(k.id, "")) != obs.consumer.name}
    if taken:
        listed = ", ".join(f"{key} of ModelConsumer {holder}" for key, holder in list(taken.items())[:MOST_NAMED])
        message = f"expected keys of its own, found {listed}, which is older; take it from this list, and draw another"
        return "False", Reason.KEY_ID_TAKEN, message
    if others := sorted({h for t in obs.consumer.tokens if (h := obs.holders.get(t.id, "")) != obs.consumer.name}):
        message = f"expected tokens of its own, found ModelConsumer {others[0]} with the same issuer, audience and "
        return "False", Reason.TOKEN_TAKEN, f"{message}subject or claim, which is older; change one of the two"
    if obs.faults:
        issuer, why = next(iter(obs.faults.items()))
        message = f"keys of {issuer} can't be had: {why}; until they can, its tokens are refused (503)"
        return "False", Reason.ISSUER_KEYS_MISSING, message
    if not accepted and not obs.consumer.tokens:
        return "False", Reason.KEYS_EXPIRED, "every key has expired; governed consumer rotate adds one"
    if obs.left_out_of:
        models = ", ".join(obs.left_out_of[:MOST_NAMED])
        message = f"there are older consumers for all the room that the callers of {models} have; name fewer models"
        return "False", Reason.TOO_MANY_CALLERS, f"{message}, or remove consumers that nobody needs"
    issuers = " and ".join(identity.source.named for identity in obs.consumer.tokens)
    tokens = f"tokens of {issuers} are accepted" if issuers else ""
    keys = f"{accepted} of {len(spec.api_keys)} keys are accepted" if spec.api_keys or not tokens else ""
    return "True", Reason.KEYS_ACCEPTED, "; ".join(filter(None, (keys, tokens)))


def _models_found(obs: ObservedConsumer, spec: ModelConsumerSpec, selected: list[str]) -> State:
    absent = [name for name in spec.models.names if name != ALL_MODELS and name not in obs.models]
    if absent:
        listed = ", ".join(absent[:MOST_NAMED]) + (" …" if len(absent) > MOST_NAMED else "")
        message = f"there is no GovernedModel {listed} in namespace {obs.namespace}; correct spec.models.names"
        return "False", Reason.MODEL_NOT_FOUND, f"{message}, or apply the model"
    if not selected:
        none = f"spec.models selects none of the models in namespace {obs.namespace}"
        what = none if spec.models.names or spec.models.selector else "spec.models is empty"
        return "False", Reason.NO_MODELS, f"{what}: nothing may be called"
    return "True", Reason.FOUND, f"{len(selected)} models"
