"""Keys that issuers publish, from a real issuer over https: found, rotated while tokens are shown, kept while it is
away, and nothing taken that isn't a JWK set of the very host."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from governed_api.callers import TokenIssuer
from governed_api.token_identity import IssuerSource
from governed_operator.watch import https, issuer_keys
from governed_operator.watch.https import NotFetched, fetched
from governed_operator.watch.issuer_keys import KEPT, Found, IssuerKeys, published
from governed_serving.access.directory import Directory
from governed_serving.access.refusals import KeysAway, Unknown
from support.consumer_manifests import consumer
from support.oidc_issuer import Issuer, issuing

from .test_local_consumers import Run


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    with issuing(tmp_path / "ca") as made:
        yield made


def source(issuer: Issuer, **more: str) -> IssuerSource:
    return IssuerSource(issuer=issuer.url, audience="tickets", certificate_authority=issuer.authority, **more)


async def test_keys_are_found_by_discovery_and_by_their_place(issuer: Issuer) -> None:
    for one in (source(issuer), source(issuer, jwks_url=issuer.url + "/keys")):
        found = await published(one)
        assert found.issuer == issuer.url
        assert [key["kid"] for key in json.loads(found.jwks)["keys"]] == [issuer.keys[0].kid]
    assert [path.rpartition("/")[2] for path in issuer.asked] == ["openid-configuration", "keys", "keys"]


def answers(body: bytes = b"", status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


ODD: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], str]] = {
    "a redirect": (answers(status=302, Location="https://localhost/keys"), "a redirect (HTTP 302)"),
    "not there": (answers(status=404), "answered HTTP 404"),
    "its own fault": (answers(b'{"keys": []}', status=500), "answered HTTP 500"),
    "huge": (answers(b" " * (https.LARGEST + 1)), "more than 262144 bytes"),
    "endless": (drips, "didn't answer within"),
    "no JSON": (answers(b"<html>"), "expected a JWK set as JSON"),
    "no keys": (answers(b'{"keys": []}'), "found none"),
    "secrets": (answers(b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'), "found none"),
    "a name twice": (answers(b'{"keys": [], "keys": []}'), "stands twice"),
    "no HTTP": (lambda handler: handler.wfile.write(b"hello\r\n\r\n"), "that is no HTTP"),
}


@pytest.mark.parametrize("name", ODD)
async def test_what_is_no_set_of_keys_is_told(name: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer.answer, message = ODD[name]
    monkeypatch.setattr(https, "SECONDS", 1.0 if name == "endless" else 10.0)
    began = time.monotonic()
    with pytest.raises(NotFetched) as error:
        await published(source(issuer, jwks_url=issuer.url + "/keys"))
    assert message in str(error.value)
    assert time.monotonic() - began < 30
    assert len(issuer.asked) == 1, "no redirect is followed"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": "https://localhost/keys"}, "found another"),
        ({"jwks_uri": "https://localhost/keys"}, "found another"),
        ({"issuer": None}, "found another"),
        ({"jwks_uri": "http://localhost/keys"}, "jwks_uri with https"),
        ({"jwks_uri": ["https://localhost/keys"]}, "jwks_uri with https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri with https"),
        ({"jwks_uri": "https://[::1"}, "an address that is none"),
        ({"jwks_uri": "https://localhost:99999/"}, "an address that is none"),
        ({"jwks_uri": "https://local host/\r\nx: y"}, "jwks_uri with https"),
    ],
)
async def test_a_discovery_document_speaks_for_its_issuer_alone(
    document: dict[str, Any], message: str, issuer: Issuer
) -> None:
    said = {"issuer": issuer.url, **document} if document != {"jwks_uri": "https://localhost/keys"} else document
    issuer.answer = answers(json.dumps(said).encode())
    with pytest.raises(NotFetched) as error:
        await published(source(issuer))
    assert message in str(error.value)


def test_a_certificate_must_be_the_hosts_and_of_an_authority_that_counts(issuer: Issuer) -> None:
    url = issuer.url + "/keys"
    assert json.loads(fetched(url, issuer.authority))["keys"]
    for address, authority in ((url, ""), (url.replace("localhost", "127.0.0.1"), issuer.authority)):
        with pytest.raises(NotFetched, match="certificate that doesn't count"):
            fetched(address, authority)
    with pytest.raises(NotFetched, match="expected certificates as PEM"):
        fetched(url, "none")
    with pytest.raises(NotFetched, match="can't be reached"):
        fetched("https://localhost:1/keys", issuer.authority)
    assert len(issuer.asked) == 1


# what is known of them, by the clock


class World:
    """Fetches are counted, and answered with ``found`` or refused with ``why``."""

    def __init__(self, *wanted: IssuerSource) -> None:
        self.now, self.fetches, self.told = 1_800_000_000.0, 0, list[str]()
        self.why, self.jwks, self.wanted = "", "{1}", [*wanted]
        self.bug: Exception | None = None
        self.keys = IssuerKeys(
            self.fetch, lambda: self.wanted, lambda one: self.told.append(one.issuer), clock=lambda: self.now
        )

    async def fetch(self, one: IssuerSource) -> Found:
        self.fetches += 1
        if self.bug is not None:
            raise self.bug
        if self.why:
            raise NotFetched(self.why)
        return Found(one.issuer, self.jwks)

    async def passes(self, seconds: float, step: float = 1.0) -> None:
        limit = asyncio.Semaphore(4)
        for _ in range(int(seconds / step)):
            await asyncio.gather(*(self.keys._look(one, limit) for one in self.keys._due()))
            self.now += step


A = IssuerSource(issuer="https://a.example", audience="x")


def test_what_is_asked_twice_a_second_is_made_once_and_of_each_source_alone() -> None:
    """A place is a copy of its source: what the source remembers of itself must not go along."""
    other = A.model_copy(update={"audience": "y"})
    assert A.place is A.place
    assert (A.place, A.place.audience) == (other.place, "")
    assert len({A.id, other.id, A.place.id}) == 3
    assert A.place.id == IssuerSource(issuer="https://a.example", audience="").id


async def test_a_place_is_asked_once_a_minute_whoever_names_it() -> None:
    others = [A.model_copy(update={"audience": f"x{n}"}) for n in range(50)]
    world = World(A, *others)
    await world.passes(600)
    assert 9 <= world.fetches <= 12
    assert world.told == ["https://a.example"]
    assert world.keys.issuer(others[3]).jwks == "{1}"
    assert world.keys.issuer(others[3]).audience == "x3"


async def test_a_key_that_is_published_counts_within_a_minute() -> None:
    world = World(A)
    await world.passes(10)
    world.jwks = "{2}"
    await world.passes(67)
    assert world.keys.issuer(A).jwks == "{2}"
    assert len(world.told) == 2


async def test_the_last_good_keys_serve_for_a_day_and_an_issuer_that_is_away_is_asked_less_and_less() -> None:
    world = World(A)
    await world.passes(10)
    until = world.keys.issuer(A).until
    assert until is not None
    world.why = "a.example can't be reached"
    before = world.fetches
    await world.passes(600)
    assert 10 <= world.fetches - before <= 18
    assert (world.keys.issuer(A).jwks, world.keys.issuer(A).until) == ("{1}", until)
    assert world.keys.fault(A) == ""
    await world.passes(KEPT, step=30)
    assert world.keys.fault(A) == "a.example can't be reached"
    assert until.timestamp() < world.now
    world.why = ""
    await world.passes(70)
    assert world.keys.fault(A) == ""


async def test_a_fetch_that_is_cancelled_is_begun_again() -> None:
    """Who follows consumers may end at any time, and another goes on with the same keys."""
    world, begun = World(A), asyncio.Event()

    async def hangs(_: IssuerSource) -> Found:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.keys._fetch, fetch = hangs, world.keys._fetch
    following = asyncio.create_task(world.keys.run())
    await begun.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    world.keys._fetch = fetch
    await world.passes(2)
    assert (world.fetches, world.keys.issuer(A).jwks) == (1, "{1}")


async def test_what_nobody_expected_of_a_fetch_is_told_and_tried_again() -> None:
    world = World(A)
    world.bug = UnicodeError("label too long")
    await world.passes(5)
    assert world.keys.fault(A) == "UnicodeError: label too long"
    world.bug = None
    await world.passes(70)
    assert world.keys.fault(A) == ""


async def test_documents_stay_as_they_are_for_half_a_day() -> None:
    world = World(A)
    await world.passes(KEPT, step=30)
    assert len(world.told) == 2
    assert world.keys.issuer(A).until.timestamp() > world.now + KEPT / 2 - 120  # type: ignore[union-attr]


async def test_one_that_never_answered_has_no_keys_but_an_earlier_processs() -> None:
    world = World(A)
    world.why = "a.example is no name that can be resolved"
    assert world.keys.fault(A) == "its keys are being fetched"
    await world.passes(5)
    assert world.keys.issuer(A).jwks == ""
    earlier = TokenIssuer(id=A.id, issuer=A.issuer, audience="x", jwks="{0}")
    assert world.keys.issuer(A, earlier) == earlier
    assert world.keys.fault(A) == world.why


async def test_what_nobody_names_any_more_is_asked_no_more_and_places_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issuer_keys, "MOST", 3)
    world = World(*(IssuerSource(issuer=f"https://{n}.example", audience="x") for n in range(5)))
    await world.passes(2)
    assert world.fetches == 3
    assert world.keys.fault(world.wanted[4])
    world.wanted = world.wanted[4:]
    await world.passes(2)
    assert world.fetches == 4
    assert len(world.keys._states) == 1


# a local run


async def test_a_local_run_follows_an_issuer_that_rotates_its_keys(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "EVERY", 0.2)
    monkeypatch.setattr(issuer_keys, "TICK", 0.02)
    run = Run(tmp_path)
    said = {"issuer": issuer.url, "audience": "tickets", "subject": "app", "certificateAuthority": issuer.authority}
    named = consumer("app", apiKeys=[], models={"names": ["m"]}, oidc=said)
    (run.workdir.consumers / "app.yaml").write_text(yaml.safe_dump(named))
    run.begin()

    def known(text: str) -> str:
        document = run.document.model_dump_json(by_alias=True, exclude_defaults=True).encode()
        with contextlib.suppress(Unknown, KeysAway):
            return Directory(document, run.document.namespace, "m").find(text, time.time()).name
        return ""

    first = issuer.token()
    assert known(first) == ""
    await run.comes(lambda: known(first) == "app")
    issuer.rotate(keep=True)
    second = issuer.token()
    await run.comes(lambda: known(second) == known(first) == "app")
    issuer.rotate()
    await run.comes(lambda: known(issuer.token()) == "app")
    assert known(first) == known(second) == "", "their key is published no more"
    issuer.answer = answers(status=500)
    await asyncio.sleep(0.5)
    assert known(issuer.token()) == "app", "the last good keys go on"
