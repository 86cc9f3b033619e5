"""What a caller who may not call is told: status, OpenAI's word, header fields, one line that says what to do."""

import json

import pytest

from governed_api.callers import CallerRole
from governed_serving.access.refusals import (
    REASONS,
    AccessRefused,
    CannotTell,
    KeysAway,
    NotAllowed,
    Reason,
    TooManyFailures,
    Unknown,
    answer,
    body_of,
)

REALM = 'Bearer realm="governed-models"'
INVALID = {"www-authenticate": f'{REALM}, error="invalid_token"'}
REFUSALS: dict[str, tuple[AccessRefused, int, str, dict[str, str], str]] = {
    "nothing shown": (Unknown("missing"), 401, "invalid_api_key", {"www-authenticate": REALM}, "found none"),
    "no key": (Unknown("malformed"), 401, "invalid_api_key", INVALID, "another form"),
    "two keys": (Unknown("several"), 401, "invalid_api_key", INVALID, "send one"),
    "a key in the query": (Unknown("query"), 401, "invalid_api_key", INVALID, "have it revoked"),
    "a key of nobody": (Unknown("unknown"), 401, "invalid_api_key", INVALID, "valid here"),
    "an old key": (Unknown("expired"), 401, "invalid_api_key", INVALID, "has expired"),
    "of one suspended": (Unknown("suspended"), 401, "invalid_api_key", INVALID, "is suspended"),
    "an early token": (Unknown("early"), 401, "invalid_api_key", INVALID, "clock"),
    "a token for others": (Unknown("audience"), 401, "invalid_api_key", INVALID, "another audience"),
    "a token of several": (Unknown("ambiguous"), 401, "invalid_api_key", INVALID, "several name"),
    "no keys of an issuer": (KeysAway(), 503, "service_unavailable", {"retry-after": "5"}, "fresh keys"),
    "nobody can tell": (CannotTell(), 503, "service_unavailable", {"retry-after": "5"}, "retry later"),
    "another role": (
        NotAllowed(CallerRole.AUDIT), 403, "insufficient_permissions",
        {"www-authenticate": f'{REALM}, error="insufficient_scope"'}, "with role audit",
    ),
    "too often": (TooManyFailures(7), 429, "rate_limit_exceeded", {"retry-after": "7"}, "retry in 7 s"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_it_is_in_the_protocol_s_form(name: str) -> None:
    refused, status, code, headers, words = REFUSALS[name]
    told = answer(refused, "/v1/chat/completions")
    assert (told.status_code, refused.code) == (status, code)
    assert {k: v for k, v in told.headers.items() if k in ("www-authenticate", "retry-after")} == headers
    assert json.loads(bytes(told.body))["error"]["code"] == code
    assert words in json.loads(bytes(told.body))["error"]["message"]
    assert words in json.loads(body_of(refused, "/v2/models/m/infer"))["error"]
    assert str(refused).startswith("access: expected ")
    assert "\n" not in str(refused)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_can_be_told(reason: Reason) -> None:
    classes = [CannotTell(), KeysAway(), NotAllowed(CallerRole.CALL), TooManyFailures(1)]
    refused = next((other for other in classes if other.reason == reason), None) or Unknown(reason)
    assert str(refused).startswith("access: expected ")
    assert refused.reason == reason


def test_who_asks_for_a_key_is_told_whom_to_ask() -> None:
    assert str(Unknown("missing")).endswith("found none; ask whoever runs the service for one")
