"""ModelConsumers for tests: a valid one to start from, and invalid ones with the message each must get."""

from typing import Any, NamedTuple

Manifest = dict[str, Any]

KEY = {"id": "abcdefghijklmnop", "sha256": "0" * 64}
OTHER = {"id": "bbcdefghijklmnop", "sha256": "1" * 64}


OIDC = {
    "issuer": "https://idp.example/realms/staff",
    "audience": "governed-models",
    "subject": "app",
    "jwks": '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
}
"""Its key: of RFC 8037, A.2."""


ACCOUNT = {"name": "scorer", "namespace": "batch", "audience": "governed-models"}


def without(field: str) -> Manifest:
    """OIDC but for a field."""
    return {name: value for name, value in OIDC.items() if name != field}


def consumer(name: str = "mobile-app", **spec: Any) -> Manifest:
    """With one key, for one model; ``spec`` says otherwise."""
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "ModelConsumer",
        "metadata": {"name": name},
        "spec": {"apiKeys": [KEY], "models": {"names": ["loans"]}, **spec},
    }


def full() -> Manifest:
    """Every field."""
    return consumer(
        apiKeys=[KEY | {"expires": "2027-01-31T12:00:00.5+02:00"}, OTHER],
        oidc=OIDC,
        serviceAccount=ACCOUNT,
        models={"names": ["loans", "chat"], "selector": {"matchLabels": {"team": "risk"}}},
        roles=["call", "explain", "label", "review", "acknowledge", "audit", "scrape"],
        limits=[{"requests": 100}, {"tokens": 1_000_000, "window": "30d"}],
        maxConcurrent=8,
        attributes={"sex": "female", "é 中": "ü"},
        costCentre="CC-7/é",
        expires="2030-01-01T00:00:00Z",
        suspend=False,
    )


class InvalidConsumer(NamedTuple):
    """``spec`` replaces fields of the valid one; ``expected`` is in the API server's answer."""

    name: str
    spec: Manifest
    expected: str

    def manifest(self) -> Manifest:
        return consumer(**self.spec)


INVALID_CONSUMERS = (
    InvalidConsumer(
        "key twice", {"apiKeys": [KEY, KEY]}, 'spec.apiKeys[1]: Duplicate value: {"id":"abcdefghijklmnop"}'
    ),
    InvalidConsumer(
        "key in clear", {"apiKeys": [KEY | {"sha256": "gmk_secret"}]}, "spec.apiKeys[0].sha256 in body should match"
    ),
    InvalidConsumer(
        "upper-case digest", {"apiKeys": [KEY | {"sha256": "A" * 64}]}, "spec.apiKeys[0].sha256 in body should match"
    ),
    InvalidConsumer("short id", {"apiKeys": [KEY | {"id": "abc"}]}, "spec.apiKeys[0].id in body should match"),
    InvalidConsumer("key without digest", {"apiKeys": [{"id": KEY["id"]}]}, "spec.apiKeys[0].sha256: Required value"),
    InvalidConsumer(
        "secret beside the digest", {"apiKeys": [KEY | {"secret": "s"}]}, 'unknown field "spec.apiKeys[0].secret"'
    ),
    InvalidConsumer("oidc without an audience", {"oidc": without("audience")}, "spec.oidc.audience: Required value"),
    InvalidConsumer("oidc over http", {"oidc": OIDC | {"issuer": "http://idp"}}, "spec.oidc.issuer in body should"),
    InvalidConsumer("oidc with a query", {"oidc": OIDC | {"issuer": "https://i?x"}}, "spec.oidc.issuer in body should"),
    InvalidConsumer("oidc of nobody", {"oidc": without("subject")}, "oidc needs one of subject and claim"),
    InvalidConsumer(
        "oidc of two", {"oidc": OIDC | {"claim": {"name": "a", "value": "b"}}}, "oidc needs one of subject and claim"
    ),
    InvalidConsumer("oidc with keys twice", {"oidc": OIDC | {"publicKeys": "x"}}, "oidc takes one of jwks"),
    InvalidConsumer(
        "keys and a place of keys",
        {"oidc": OIDC | {"jwksURL": "https://i/k"}},
        "oidc takes one of jwks, publicKeys and",
    ),
    InvalidConsumer(
        "keys over http", {"oidc": without("jwks") | {"jwksURL": "http://i/k"}}, "spec.oidc.jwksURL in body"
    ),
    InvalidConsumer(
        "an authority for nothing",
        {"oidc": OIDC | {"certificateAuthority": "x"}},
        "certificateAuthority is for keys that",
    ),
    InvalidConsumer(
        "a service account with the API server's audience",
        {"serviceAccount": ACCOUNT | {"audience": "https://kubernetes.default.svc"}},
        "audience must not be the API server's",
    ),
    InvalidConsumer(
        "a service account without an audience",
        {"serviceAccount": {"name": "a", "namespace": "b"}},
        "spec.serviceAccount.audience: Required value",
    ),
    InvalidConsumer("a subject in Cyrillic", {"oidc": OIDC | {"subject": "арр"}}, "spec.oidc.subject in body should"),
    InvalidConsumer(
        "a claim that is judged anyway",
        {"oidc": without("subject") | {"claim": {"name": "aud", "value": "x"}}},
        "a claim must be one that says who calls",
    ),
    InvalidConsumer(
        "keys that are no text", {"oidc": OIDC | {"jwks": 5}}, "spec.oidc.jwks in body must be of type string"
    ),
    InvalidConsumer("no zone", {"expires": "2027-01-31T12:00:00"}, "spec.expires in body should match"),
    InvalidConsumer("a day", {"expires": "2027-01-31"}, "spec.expires in body should match"),
    InvalidConsumer(
        "31 February",
        {"expires": "2027-02-31T12:00:00Z"},
        "evaluating rule: expires must be a time that the calendar has",
    ),
    InvalidConsumer(
        "key of no day",
        {"apiKeys": [KEY | {"expires": "2027-13-01T12:00:00Z"}]},
        "evaluating rule: expires must be a time that the calendar has",
    ),
    InvalidConsumer("no role", {"roles": []}, "spec.roles in body should have at least 1 items"),
    InvalidConsumer("unknown role", {"roles": ["admin"]}, 'spec.roles[0]: Unsupported value: "admin"'),
    InvalidConsumer("all and one", {"models": {"names": ["*", "loans"]}}, "'*' stands for all models"),
    InvalidConsumer(
        "all and some",
        {"models": {"names": ["*"], "selector": {"matchLabels": {"a": "b"}}}},
        "'*' stands for all models",
    ),
    InvalidConsumer("empty selector", {"models": {"selector": {"matchLabels": {}}}}, "matchLabels must have a label"),
    InvalidConsumer(
        "no name of a model", {"models": {"names": ["Loans"]}}, "spec.models.names[0] in body should match"
    ),
    InvalidConsumer("limit of both", {"limits": [{"requests": 1, "tokens": 1}]}, "a limit is of requests or of tokens"),
    InvalidConsumer("limit of nothing", {"limits": [{"window": "1m"}]}, "a limit is of requests or of tokens"),
    InvalidConsumer(
        "a window of two years",
        {"limits": [{"requests": 1, "window": "730d"}]},
        "spec.limits[0].window in body should match",
    ),
    InvalidConsumer(
        "none at a time", {"maxConcurrent": 0}, "spec.maxConcurrent in body should be greater than or equal to 1"
    ),
    InvalidConsumer("control character", {"attributes": {"sex": "f\nm"}}, "spec.attributes.sex in body should match"),
    InvalidConsumer(
        "control character in a name",
        {"attributes": {"se\tx": "f"}},
        "attributes must have names of 1 to 128 printable characters",
    ),
    InvalidConsumer(
        "nameless attribute", {"attributes": {"": "f"}}, "attributes must have names of 1 to 128 printable characters"
    ),
    InvalidConsumer("long attribute", {"attributes": {"sex": "f" * 257}}, "spec.attributes.sex: Too long"),
    InvalidConsumer(
        "seventeen keys",
        {"apiKeys": [{"id": "a" * 15 + c, "sha256": "0" * 64} for c in "abcdefghijklmnopq"]},
        "spec.apiKeys: Too many: 17",
    ),
    InvalidConsumer(
        "control character in the cost centre", {"costCentre": "a\nb"}, "spec.costCentre in body should match"
    ),
)
