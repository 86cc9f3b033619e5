"""The typed v1alpha1 ModelConsumer: who may call which models, as what, and how much.

It holds no secret: a key's SHA-256 tells nothing of 256 random bits, so it may lie in Git, a rotation with overlap is
an edit of a list, and the operator needs no right to read Secrets of users.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from governed_api.base import Part
from governed_api.callers import MOST_KEYS, Caller, CallerKey, CallerLimit, CallerRole
from governed_api.conditions import Condition
from governed_api.names import MAX_MODEL_NAME
from governed_api.quantities import seconds
from governed_api.rules import Rule
from governed_api.token_identity import Oidc, ServiceAccount, TokenIdentity

__all__ = [
    "ALL_MODELS",
    "ApiKey",
    "ConsumerLimit",
    "ConsumerModels",
    "ModelConsumerSpec",
    "ModelConsumerStatus",
    "ModelSelector",
    "Moment",
    "caller_of",
    "instant",
    "moment",
    "moment_rule",
    "token_identities",
    "unusable_keys",
]

ALL_MODELS = "*"
"""In ``models.names``: all of the namespace."""
_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_WINDOW = r"^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|([1-9][0-9]?|[12][0-9][0-9]|3[0-5][0-9]|36[0-6])d)$"
"""A duration of at most 366 days."""
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"

Moment = Annotated[str, Field(pattern=_MOMENT, max_length=40)]
"""RFC 3339, with a zone."""


def moment(text: str) -> datetime:
    """The time that a :data:`Moment` names. Raises ValueError for one that no calendar has."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"{text}: expected a time with a zone, such as 2027-01-31T12:00:00Z")
    return parsed


def moment_rule(field: str) -> Rule:
    """CEL: the calendar has the time in ``field``, where there is one."""
    return Rule(
        f"!has(self.{field}) || timestamp(self.{field}) > timestamp('1970-01-01T00:00:00Z')",
        f"{field} must be a time that the calendar has, with a zone: 2027-01-31T12:00:00Z",
        f".{field}",
    )


class ApiKey(Part):
    """An API key as it is kept: nothing here lets anyone call."""

    id: str = Field(pattern=r"^[a-z2-7]{16}$", max_length=16)
    """The key's name, which is in the key: gmk_ID_SECRET. `governed consumer create` draws one."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", max_length=64)
    """SHA-256 of the key's secret part, hexadecimal."""
    expires: Moment | None = None
    """From then on the key is refused."""

    RULES: ClassVar[tuple[Rule, ...]] = (moment_rule("expires"),)


class ModelSelector(Part):
    """Which models, by their labels."""

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(max_length=16)
    """All of these labels, with these values."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.matchLabels.size() > 0",
            "matchLabels must have a label: all models of the namespace are names: ['*']",
            ".matchLabels",
        ),
    )


class ConsumerModels(Part):
    """Which models of the namespace may be called; none where nothing is said."""

    names: list[Annotated[str, Field(max_length=MAX_MODEL_NAME, pattern=r"^([*]|[a-z]([-a-z0-9]*[a-z0-9])?)$")]] = (
        Field(default=[], max_length=256)
    )
    """GovernedModels by name; '*' alone: all of them, those to come included."""
    selector: ModelSelector | None = None
    """GovernedModels by label, beside those of names."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!self.names.exists(n, n == '{ALL_MODELS}') || (self.names.size() == 1 && !has(self.selector))",
            f"'{ALL_MODELS}' stands for all models: name no other, and no selector, beside it",
            ".names",
        ),
    )


class ConsumerLimit(Part):
    """At most so many requests, or tokens, in a window."""

    requests: int | None = Field(default=None, ge=1, le=1_000_000_000_000)
    """Requests."""
    tokens: int | None = Field(default=None, ge=1, le=1_000_000_000_000)
    """Tokens, counted as quota.tokens counts them."""
    window: Annotated[str, Field(pattern=_WINDOW, max_length=16)] = "1m"
    """Sliding window, at most 366d."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.requests) != has(self.tokens)", "a limit is of requests or of tokens: set one of them"),
    )


class ModelConsumerSpec(Part):
    """Who calls, what they may, and how much."""

    api_keys: list[ApiKey] = Field(default=[], max_length=MOST_KEYS, json_schema_extra={"x-list-map-key": "id"})
    """Keys that are accepted. Rotation: add the new one, and remove the old one when nobody uses it any more."""
    oidc: Oidc | None = None
    """Whose tokens are accepted, beside keys or without any."""
    service_account: ServiceAccount | None = None
    """Whose pods' tokens are accepted, beside keys or without any."""
    models: ConsumerModels = ConsumerModels()
    """Which models of the namespace may be called; none where nothing is said."""
    roles: list[CallerRole] = Field(default=[CallerRole.CALL], min_length=1, max_length=16)
    """What the consumer may do: call, explain, label, review, acknowledge, audit, scrape."""
    limits: list[ConsumerLimit] = Field(default=[], max_length=8)
    """Of each model that is called; beyond: 429 with Retry-After."""
    max_concurrent: int | None = Field(default=None, ge=1, le=100_000)
    """Requests in flight at a time in one replica; beyond: 429."""
    attributes: dict[str, Annotated[str, Field(max_length=256, pattern=_PRINTABLE)]] = Field(default={}, max_length=16)
    """Audit attributes (governance.bias.protectedAttributes) that follow from who calls, whatever a request says."""
    cost_centre: str | None = Field(default=None, min_length=1, max_length=63, pattern=_PRINTABLE)
    """Who pays; for people and reports."""
    expires: Moment | None = None
    """From then on every key and token is refused."""
    suspend: bool = False
    """True: every key and token is refused for now."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        moment_rule("expires"),
        Rule(
            r"self.attributes.all(k, k.size() <= 128 && k.matches(r'^[^\x00-\x1f\x7f-\x9f]+$'))",
            "attributes must have names of 1 to 128 printable characters",
            ".attributes",
        ),
    )


class ModelConsumerStatus(Part):
    """What is."""

    model_config = Part.model_config | {"extra": "ignore"}

    observed_generation: int | None = None
    """Generation that this status speaks of."""
    conditions: list[Condition] = Field(default=[], json_schema_extra={"x-list-map-key": "type"})
    """metav1.Conditions."""
    keys: int | None = None
    """Keys that are accepted now."""
    models: int | None = None
    """Models that may be called."""


def instant(text: str | None) -> datetime | None:
    """When something expires. What no calendar has, an older CRD let in: it has expired."""
    try:
        return moment(text) if text is not None else None
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)


def unusable_keys(spec: object) -> Iterator[str]:
    """What no CEL rule can say of a valid spec: keys of an issuer that are none. In the API server's form."""
    try:
        ModelConsumerSpec.model_validate(spec)
    except ValidationError as error:
        for one in error.errors():
            where = ".".join(["spec", *map(str, one["loc"])])
            yield f"{where}: Invalid value: {one['msg'].removeprefix('Value error, ')}"


def token_identities(spec: ModelConsumerSpec) -> list[TokenIdentity]:
    """What makes a token this consumer's."""
    made = [TokenIdentity.of_oidc(spec.oidc)] if spec.oidc else []
    return [*made, TokenIdentity.of_service_account(spec.service_account)] if spec.service_account else made


def caller_of(name: str, spec: ModelConsumerSpec, taken: Collection[str] = ()) -> Caller | None:
    """What a document of callers says of a consumer. ``taken``: ids of keys and of tokens' identities that are
    another's. None where nothing is left to know it by."""
    keys = [
        CallerKey(id=key.id, sha256=key.sha256, expires=instant(key.expires))
        for key in spec.api_keys
        if key.id not in taken
    ]
    tokens = [identity.token for identity in token_identities(spec) if identity.id not in taken]
    if not keys and not tokens:
        return None
    return Caller(
        name=name,
        keys=keys,
        tokens=tokens,
        roles=sorted(set(spec.roles)),
        limits=[_limit(limit) for limit in spec.limits],
        max_concurrent=spec.max_concurrent,
        attributes=spec.attributes,
        expires=instant(spec.expires),
        suspended=spec.suspend,
    )


def _limit(limit: ConsumerLimit) -> CallerLimit:
    window = seconds(limit.window)
    if limit.requests is not None:
        return CallerLimit(unit="requests", limit=limit.requests, window_seconds=window)
    return CallerLimit(unit="tokens", limit=limit.tokens or 1, window_seconds=window)
