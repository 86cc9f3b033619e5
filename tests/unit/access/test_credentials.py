"""Where a credential may stand, and how often a wrong one is answered."""

import pytest

from governed_api.callers import CallerRole
from governed_api.route_roles import SERVER_ROLES
from governed_serving.access.credentials import credential
from governed_serving.access.directory import Known
from governed_serving.access.failures import ADDRESSES, MOST, WINDOW, Failures
from governed_serving.access.guard import CALLER, CallerGuard
from governed_serving.access.refusals import REASONS, CannotTell, NotAllowed, TooManyFailures, Unknown
from unit.access.people import caller, gate_of, key

A = key("a")
Headers = list[tuple[bytes, bytes]]
BEARER = (b"authorization", f"Bearer {A}".encode())


@pytest.mark.parametrize(
    "header",
    [
        BEARER,
        (b"authorization", f"bearer   {A} ".encode()),
        (b"x-api-key", A.encode()),
        (b"api-key", A.encode()),
    ],
)
def test_one_header_shows_it(header: tuple[bytes, bytes]) -> None:
    assert credential([(b"host", b"x"), header], b"page=2&model=gm") == A


@pytest.mark.parametrize(
    ("headers", "query", "reason"),
    [
        ([], b"", "missing"),
        ([(b"authorization", b"")], b"", "malformed"),
        ([(b"authorization", b"Bearer ")], b"", "missing"),
        ([(b"x-api-key", b" ")], b"", "missing"),
        ([(b"authorization", b"Basic dTpw")], b"", "malformed"),
        ([(b"authorization", A.encode())], b"", "malformed"),
        ([(b"authorization", "Bearer ключ".encode())], b"", "malformed"),
        ([(b"authorization", b"Bearer " + b"a" * (1 << 20))], b"", "malformed"),
        ([BEARER, BEARER], b"", "several"),
        ([BEARER, (b"x-api-key", A.encode())], b"", "several"),
        ([BEARER, (b"api-key", b"")], b"", "several"),
        ([BEARER], b"api_key=x", "query"),
        ([], f"key={A}".encode(), "query"),
        ([], b"a=1&API-KEY=x", "query"),
        ([], b"access_token=x", "query"),
    ],
)
def test_anything_else_is_refused(headers: Headers, query: bytes, reason: str) -> None:
    with pytest.raises(Unknown) as error:
        credential(headers, query)
    assert error.value.reason == reason
    assert A[10:] not in str(error.value)


def test_a_flood_of_wrong_credentials_is_put_off_and_the_right_one_is_not() -> None:
    gate = gate_of(caller("x", A))
    wrong = [(b"x-api-key", key("b").encode())]
    for _ in range(MOST):
        with pytest.raises(Unknown):
            gate.admit(wrong, "192.0.2.1", CallerRole.CALL)
    with pytest.raises(TooManyFailures) as error:
        gate.admit(wrong, "192.0.2.1", CallerRole.CALL)
    assert 0 < (error.value.retry_after or 0) <= WINDOW
    assert gate.admit([BEARER], "192.0.2.1", CallerRole.CALL).name == "x"
    with pytest.raises(Unknown):
        gate.admit(wrong, "192.0.2.2", CallerRole.CALL)
    assert gate.refused == {"unknown": MOST + 1, "throttled": 1}


def test_failures_are_forgotten_with_time_and_remembered_within_bounds() -> None:
    failures = Failures()
    assert [failures.failed("2001:db8:0:1::1", 0.0) for _ in range(MOST)] == [0] * MOST
    assert failures.failed("2001:db8:0:1:ffff::2", 1.0) == WINDOW - 1, "one network"
    assert failures.failed("2001:db8:0:2::1", 1.0) == 0
    assert failures.failed("2001:db8:0:1::1", WINDOW) == 0
    for number in range(2 * ADDRESSES):
        failures.failed(f"10.0.{number // 256}.{number % 256}", 2.0)
    assert len(failures._seen) == ADDRESSES


@pytest.mark.parametrize(
    ("addresses", "alike"),
    [
        (("2001:db8::1", "2001:db8::2:3:4:5"), True),
        (("2001:db8::1", "2001:db8:0:0:ffff::"), True),
        (("fe80::1", "fe80::a:b:c:d"), True),
        (("::ffff:192.0.2.1", "192.0.2.1"), True),
        (("::ffff:192.0.2.1", "::ffff:192.0.2.2"), False),
        (("2001:db8::1", "2001:db8:0:1::1"), False),
        (("192.0.2.1", "192.0.2.2"), False),
        (("", "unix:"), False),
    ],
)
def test_whose_an_address_is_however_it_is_written(addresses: tuple[str, str], alike: bool) -> None:
    failures, (first, other) = Failures(), addresses
    for _ in range(MOST):
        failures.failed(first, 0.0)
    assert bool(failures.failed(other, 0.0)) is alike


EXPOSITION = """\
# HELP governed_access_allowed_total Calls of known callers, by the role they needed.
# TYPE governed_access_allowed_total counter
governed_access_allowed_total{LABELS,role="ROLE"} N
# HELP governed_access_refused_total Calls turned away, by reason.
# TYPE governed_access_refused_total counter
governed_access_refused_total{LABELS,reason="REASON"} N
# HELP governed_access_bad_documents_total Documents of callers that could not be used.
# TYPE governed_access_bad_documents_total counter
governed_access_bad_documents_total{LABELS} 3.0
# HELP governed_access_watch_failures_total Times that the API server didn't tell of changes.
# TYPE governed_access_watch_failures_total counter
governed_access_watch_failures_total{LABELS} 4.0
# HELP governed_access_callers Callers in the document that is used.
# TYPE governed_access_callers gauge
governed_access_callers{LABELS} 2.0
# HELP governed_access_sequence Sequence of the document that is used; -1: none.
# TYPE governed_access_sequence gauge
governed_access_sequence{LABELS} 1.0
""".replace("LABELS", 'component="server",name="credit",namespace="team-a"')


def test_metrics_tell_of_reasons_and_roles_and_of_nobody() -> None:
    gate = gate_of(caller("zaphod", A), caller("trillian", key("b")))
    gate.bad_documents, gate.watch_failures = 3, 4
    gate.admit([BEARER], "192.0.2.1", CallerRole.CALL)
    for _ in range(2):
        with pytest.raises(NotAllowed):
            gate.admit([BEARER], "192.0.2.1", CallerRole.AUDIT)
        with pytest.raises(Unknown):
            gate.admit([], "192.0.2.1", CallerRole.CALL)
    allowed, refused = {CallerRole.CALL: 1.0}, {"missing": 2.0, "role": 2.0}
    wanted: list[str] = []
    for line in EXPOSITION.splitlines():
        if "ROLE" in line:
            rows = [(role, allowed.get(role, 0.0)) for role in CallerRole]
            wanted += [line.replace("ROLE", role).replace("N", str(n)) for role, n in rows]
        elif "REASON" in line:
            counts = [(reason, refused.get(reason, 0.0)) for reason in REASONS]
            wanted += [line.replace('"REASON"', f'"{reason}"').replace("} N", f"}} {n}") for reason, n in counts]
        else:
            wanted.append(line)
    assert gate.text().decode().splitlines() == wanted
    gate.directory = None
    text = gate.text().decode().splitlines()
    assert [
        line.rpartition(" ")[2] for line in text if line.startswith(("governed_access_c", "governed_access_s"))
    ] == [
        "0.0",
        "-1.0",
    ]


async def test_who_can_not_be_told_now_is_counted_and_no_wrong_credential() -> None:
    async def away(_: str) -> Known | None:
        raise CannotTell

    async def nobody(_: str) -> Known | None:
        return None

    gate = gate_of(caller("x", A))
    headers = [(b"authorization", b"Bearer eyJ")]
    for _ in range(MOST + 1):
        scope = {"method": "GET", "path": "/v2/models/credit", "query_string": b"", "headers": headers, "client": None}
        refusal = await CallerGuard(gate, SERVER_ROLES, other=away).refusal(scope)
        assert refusal is not None
        assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "5")
    assert gate.refused == {"unavailable": MOST + 1}
    scope["headers"] = [BEARER]
    assert await CallerGuard(gate, SERVER_ROLES, other=nobody).refusal(scope) is None
    assert scope[CALLER] == gate.known(A)
