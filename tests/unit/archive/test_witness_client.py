"""The protocol of a witness, byte for byte: what is sent, how much is read, and which answers are taken for what."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from governed_serving.archive.ledger.cosignature import Cosignature, Cosigner
from governed_serving.archive.witness.client import Conflict, Inconsistent, WitnessClient, WitnessProblem
from governed_serving.archive.witness.policy import MOST, WitnessPolicy
from governed_serving.archive.witness.policy import Witness as Configured
from governed_serving.environment import InvalidSettings
from support.witness import Witness, serving

from .test_witness import ORIGIN, Bed, settings

WITNESS = Witness()
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, url: str = "http://127.0.0.1:7/submit", seconds: float = 30.0) -> WitnessClient:
    async def addresses(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async def chunks(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    def streamed(request: httpx.Request) -> httpx.Response:
        answer = handler(request)
        if not answer.is_stream_consumed:
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=chunks(answer.content))

    configured = Configured(Cosigner.parse(WITNESS.vkey), url)
    return WitnessClient(configured, resolve=addresses, transport=httpx.MockTransport(streamed), seconds=seconds)


TEXT = f"{ORIGIN}\n3\n{base64.b64encode(bytes(32)).decode()}\n"
NOTE = f"{TEXT}\n— {ORIGIN} {base64.b64encode(bytes(68)).decode()}\n"
LINE = WITNESS.line(TEXT)


def add(answer: httpx.Response | Handler) -> Cosignature:
    handler = answer if callable(answer) else lambda _request: answer
    return asyncio.run(client(handler).add_checkpoint(2, [b"\x01" * 32], NOTE))


def kept(answer: httpx.Response) -> str:
    return asyncio.run(client(lambda _request: answer).kept(ORIGIN))


def refused(answer: httpx.Response) -> tuple[str, str]:
    with pytest.raises(WitnessProblem) as raised:
        add(answer)
    return raised.value.outcome, str(raised.value)


def test_a_request_is_as_the_specification_says() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, text=LINE) if request.method == "POST" else httpx.Response(404)

    witness = client(answer, "https://w.internal/submit")
    assert asyncio.run(witness.add_checkpoint(2, [b"\x01" * 32, b"\x02" * 32], NOTE)).line == LINE.rstrip("\n")
    assert asyncio.run(witness.kept(ORIGIN)) == ""
    post, get = requests
    hashes = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
    assert post.read().decode() == f"old 2\n{hashes[0]}\n{hashes[1]}\n\n{NOTE}"
    assert (post.method, post.url.path, post.url.host) == ("POST", "/submit/add-checkpoint", "127.0.0.1")
    assert (post.headers["host"], post.headers["accept-encoding"]) == ("w.internal", "identity")
    assert post.headers["content-type"] == "text/plain; charset=utf-8"
    assert post.extensions["sni_hostname"] == "w.internal", "TLS asks for the witness's name, not for the address"
    assert (get.method, get.url.path) == ("GET", f"/submit/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
    assert get.read() == b""


@pytest.mark.parametrize("spare", [0, 1])
def test_an_answer_has_at_most_16_kib(spare: int) -> None:
    padding = "x" * ((16 << 10) - len(LINE.encode()) + spare)
    outcome, message = refused(httpx.Response(200, text=LINE + padding))
    assert outcome == "garbage"
    assert ("more than 16384 bytes" in message) == (spare == 1)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_checkpoint_that_is_kept_has_at_most_64_kib(spare: int) -> None:
    answer = httpx.Response(200, text="x" * ((64 << 10) + spare))
    if not spare:
        assert len(kept(answer)) == 64 << 10
        return
    with pytest.raises(WitnessProblem, match="more than 65536 bytes") as raised:
        kept(answer)
    assert raised.value.outcome == "garbage"


SIZES = {
    "a decimal": ("7\n", "text/x.tlog.size", 7),
    "without a newline": ("7", "text/x.tlog.size", 7),
    "zero": ("0\n", "text/x.tlog.size", 0),
    "a type with parameters": ("7\n", "text/x.tlog.size ; charset=utf-8", 7),
    "another type": ("7\n", "text/plain", None),
    "no type": ("7\n", "", None),
    "two newlines": ("7\n\n", "text/x.tlog.size", None),
    "a sign": ("-7\n", "text/x.tlog.size", None),
    "a leading zero": ("07\n", "text/x.tlog.size", None),
    "blanks": (" 7\n", "text/x.tlog.size", None),
    "digits of another script": ("\u0667\n", "text/x.tlog.size", None),
    "nothing": ("", "text/x.tlog.size", None),
    "far too many digits": ("9" * 40, "text/x.tlog.size", None),
}


@pytest.mark.parametrize("case", SIZES)
def test_a_conflict_names_a_size_or_is_none(case: str) -> None:
    body, kind, size = SIZES[case]
    answer = httpx.Response(409, content=body.encode(), headers={"content-type": kind} if kind else {})
    if size is None:
        assert refused(answer) == ("garbage", f"answered 409 without a tree size: {' '.join(body.split())}")
        return
    with pytest.raises(Conflict) as raised:
        add(answer)
    assert (raised.value.size, raised.value.outcome) == (size, "conflict")
    assert str(raised.value) == f"it has cosigned {size} entries"


def test_a_refused_proof_is_told_apart() -> None:
    with pytest.raises(Inconsistent) as raised:
        add(httpx.Response(422, text="not\nmine"))
    assert raised.value.outcome == "inconsistent"
    assert str(raised.value) == "it refused the consistency proof from 2 entries: not mine"


def test_other_answers_are_told_with_their_status_and_first_words() -> None:
    for status in (403, 404):
        assert refused(httpx.Response(status, text="who?")) == (
            f"status{status}",
            f"status {status}: it doesn't know this log, or not by this key; give it the ledger's vkey",
        )
    assert refused(httpx.Response(500, text="a" * 201)) == ("status500", f"status 500: {'a' * 200}")
    assert refused(httpx.Response(503, content=b"no\xff")) == ("status503", "status 503: no\ufffd")
    assert refused(httpx.Response(204)) == ("status204", "status 204: ")
    with pytest.raises(
        WitnessProblem, match="asked for the checkpoint it keeps: status 403: it doesn't know"
    ) as raised:
        kept(httpx.Response(403))
    assert raised.value.outcome == "status403"


def test_what_isnt_text_is_garbage() -> None:
    outcome, message = refused(httpx.Response(200, content=b"\xff"))
    assert outcome == "garbage"
    assert message.startswith("answered 200 with what is no cosignature of ours: ")
    with pytest.raises(WitnessProblem, match="the checkpoint that it keeps isn't UTF-8") as raised:
        kept(httpx.Response(200, content=b"\xff"))
    assert raised.value.outcome == "garbage"


def test_another_key_under_the_same_name_is_no_cosignature_by_it() -> None:
    other = Witness(WITNESS.name, bytes(range(9, 41)))
    assert refused(httpx.Response(200, text=other.line(TEXT))) == (
        "garbage",
        "answered 200 without a cosignature by its key; check the key given for it",
    )


def test_what_goes_wrong_on_the_way_is_told_in_one_kind_and_bounded() -> None:
    def breaks(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("e" * 300)

    with pytest.raises(WitnessProblem) as raised:
        add(breaks)
    assert (raised.value.outcome, str(raised.value)) == ("unreachable", f"ReadError: {'e' * 200}")


def test_an_answer_that_trickles_in_ends_at_the_deadline() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    with pytest.raises(WitnessProblem) as raised:
        asyncio.run(
            client(lambda _request: httpx.Response(200, content=trickle()), seconds=0.2).add_checkpoint(0, [], NOTE)
        )
    assert (raised.value.outcome, str(raised.value)) == ("timeout", "no answer within 0.2 s")


def test_a_proxy_of_the_environment_isnt_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy would be asked for an address that we have judged, and could lead anywhere."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(Witness()) as witness:
        bed = Bed(tmp_path / "archive", witness)
        bed.append(0, 2)
        assert bed.round() == ""
        bed.close()


def test_pauses_grow_to_five_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        drawn.append((least, most))
        return 1.0

    monkeypatch.setattr("governed_serving.archive.witness.asking.JITTER.uniform", uniform)
    bed = Bed(tmp_path / "archive", Witness(url="http://127.0.0.1:9"))
    bed.append(0, 1)
    [asked] = bed.asking._asked
    pauses = []
    for _ in range(9):
        bed.round(later=301.0)
        pauses.append(asked.again - bed.now)
    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]
    assert set(drawn) == {(0.5, 1.0)}, "several archives don't ask in step"
    bed.close()


def test_a_witness_is_asked_again_when_its_pause_is_over_and_no_sooner(tmp_path: Path) -> None:
    with serving(Witness()) as witness:
        bed = Bed(tmp_path / "archive", witness)
        [asked] = bed.asking._asked
        bed.append(0, 1)
        witness.fault = "error"
        bed.round()
        for moment, answers in ((asked.again - bed.now - 0.01, 1), (0.01, 2)):
            bed.round(later=moment)
            assert witness.asked == answers
        witness.fault = ""
        bed.round(later=asked.again - bed.now)
        assert bed.archive.witnessed.size == 1
        answered = witness.asked
        for moment, more in ((asked.again - bed.now - 0.01, 0), (0.01, 1)):
            bed.round(later=moment)
            assert witness.asked == answered + more, "an unchanged checkpoint is cosigned again within the hour"
        bed.close()


def test_what_is_wrong_is_logged_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with serving(Witness()) as witness:
        bed = Bed(tmp_path / "archive", witness)
        bed.append(0, 1)
        for fault in ("error", "error", "garbage", ""):
            witness.fault = fault
            bed.round()
        bed.close()
    told = [(r.levelname, r.getMessage()) for r in caplog.records if "witness" in r.getMessage()]
    amiss = ("WARNING", "a witness doesn't cosign")
    assert told == [amiss, amiss, ("INFO", "a witness cosigns again")]
    answers = bed.archive.witnessed.standings[0].answers
    assert (answers["cosigned"], answers["status500"], answers["garbage"]) == (1, 2, 1)


async def test_rounds_go_on_until_they_are_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(tmp_path / "archive", Witness(url="http://127.0.0.1:9"))
    rounds, enough = 0, asyncio.Event()

    async def round() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise OSError("the volume is full")
        enough.set()

    monkeypatch.setattr(bed.asking, "round", round)
    bed.asking._period = 0.0
    running = asyncio.create_task(bed.asking.run())
    await asyncio.wait_for(enough.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    bed.close()


def test_who_meant_a_private_address_is_told_how_to_say_so() -> None:
    async def private(_host: str, _port: int) -> list[str]:
        return ["10.0.0.7"]

    configured = Configured(Cosigner.parse(WITNESS.vkey), "https://witness.example")
    with pytest.raises(WitnessProblem) as raised:
        asyncio.run(WitnessClient(configured, resolve=private).kept(ORIGIN))
    assert str(raised.value) == (
        "ValueError: expected a public address behind witness.example, found 10.0.0.7; "
        "name the address itself if that is meant"
    )


def test_a_cosignature_may_be_five_minutes_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governed_serving.archive.witness.asking.time.time", lambda: 1_000_000.0)
    for ahead, told in ((300, ""), (301, "cosigned at a time to come (1000301); check both clocks")):
        with serving(Witness()) as witness:
            witness.clock = 1_000_000 + ahead
            bed = Bed(tmp_path / f"archive-{ahead}", witness)
            bed.append(0, 1)
            assert told in bed.round()
            assert bool(bed.archive.witnessed.note) == (ahead == 300)
            bed.close()


def test_a_note_holds_the_signatures_of_16_witnesses() -> None:
    lines = [f"{Witness(f'w.example/{n}', bytes([n]) * 32).vkey} https://w.example/{n}" for n in range(1, MOST + 2)]
    assert len(settings("\n".join(lines[:16])).witnesses) == 16
    assert WitnessPolicy() == settings("") == WitnessPolicy((), 0)
    with pytest.raises(InvalidSettings, match="expected at most 16 witnesses, found 17"):
        settings("\n".join(lines))
