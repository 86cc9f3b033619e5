"""What the archive refuses for ever holds nothing up: a dead letter takes its place, and bounds at the doors leave none
to refuse."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from governed_api.governance import Bias
from governed_api.roles import Role, bearer_token
from governed_serving.archive.client import AppendAnswer, ArchiveClient
from governed_serving.archive.errors import Refused, Unreachable
from governed_serving.archive.tokens import model_token
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.auditor.service.app import Dependencies, application
from governed_serving.auditor.service.entries import dead_letter, entries_of
from governed_serving.auditor.service.errors import Unusable
from governed_serving.auditor.service.label_door import LabelDoor
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.reviews import MAX_BY, MAX_REASON, acknowledgement
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.workers.report import ReportWorker
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.journal import Chunk, Journal, JournalReader, open_chunk
from governed_serving.records import ENTRY_BYTES, ENTRY_TYPES, EventRecord, Frame, LedgerEntry, canonical
from governed_serving.report.writer import ReportWriter

from ..archive.test_app import KEK, ROOT, Bed
from .records import SPEC

BIAS = Bias.model_validate(SPEC["spec"]["governance"]["bias"])
STREAM = "server-pod"
TIME = 1_767_225_600.0


def event(id: str, type: Any = "label", **summary: Any) -> EventRecord:
    return EventRecord(type, id, "credit", "r1", TIME, b"{}", summary)


def many(count: int = 1000) -> list[EventRecord]:
    return [event(f"request-{n}") for n in range(count)]


def journalled(spool: Path, keyset: Keyset, records: list[EventRecord]) -> None:
    with Journal(spool, STREAM, SegmentCipher(keyset), "PageCache", segment_bytes=1 << 15) as journal:
        for record in records:
            journal.append_blocking(record)


def shipper(spool: Path, client: Any, keyset: Keyset, told: list[tuple[str, int]] | None = None) -> Shipper:
    def shipped(record: Frame, index: int) -> None:
        if told is not None and isinstance(record, EventRecord):
            told.append((record.id, index))

    return Shipper(spool, client, SegmentCipher(keyset), "default", shipped)


def everything(one: Shipper) -> None:
    while one.step():
        continue


def entries(client: ArchiveClient) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in client.entries(0, 100_000)]


POISON = {
    "too large": event("request-500", words="x" * 300_000),
    "larger than a request": event("request-500", words="x" * (17 << 20)),
    "of a newer writer's type": event("request-500", "surprise"),
    "a type without end": event("request-500", "s" * 100_000),
    "an id without end": event("i" * 300_000),
    "control characters": event("request\n\x00\x7f500" * 30, words="x" * 300_000),
    "not ASCII": event("要求" * 200_000),
}


@pytest.mark.parametrize("kind", sorted(POISON))
def test_a_poisoned_entry_among_a_thousand_becomes_a_dead_letter(
    tmp_path: Path, keyset: Keyset, bed: Bed, kind: str
) -> None:
    records = many()
    records.insert(500, POISON[kind])
    journalled(tmp_path, keyset, records)
    client, told = bed.client(), list[tuple[str, int]]()
    one = shipper(tmp_path, client, keyset, told)
    everything(one)
    found = entries(client)
    assert [e["id"] for e in found if e["type"] == "label"] == [f"request-{n}" for n in range(1000)]
    assert [n for n, e in enumerate(found) if e["type"] == "deadLetter"] == [500], "in the place of what was refused"
    assert (one.dead_letters, one.entries) == (1, 1001)
    assert told == [(e["id"], n) for n, e in enumerate(found) if n != 500], "its record isn't in the ledger"
    summary = found[500]["summary"]
    assert (summary["sequence"], summary["refused"]) == (500, POISON[kind].type[:128])
    assert summary["why"].startswith(("400", "413"))
    assert summary["stream"].startswith(STREAM + ".")
    frames = dict(open_chunk(client.get_blob(found[500]["blob"]), SegmentCipher(keyset)))
    assert frames[found[500]["frame"]] == POISON[kind], "its content is kept"
    assert len(json.dumps(found[500])) < 4000
    client.checkpoint()  # signs one
    assert verify(DirectorySource(bed.root, KEK)).size == 1001


def test_only_poison_from_first_to_last(tmp_path: Path, keyset: Keyset, bed: Bed) -> None:
    journalled(tmp_path, keyset, [event(f"request-{n}", "surprise") for n in range(70)])
    client = bed.client()
    one = shipper(tmp_path, client, keyset)
    everything(one)
    found = entries(client)
    assert [(e["type"], e["id"], e["summary"]["sequence"]) for e in found] == [
        ("deadLetter", f"request-{n}", n) for n in range(70)
    ]
    assert one.dead_letters == shipper_again(tmp_path, client, keyset).dead_letters == 70, "counted over a restart"


def shipper_again(spool: Path, client: ArchiveClient, keyset: Keyset) -> Shipper:
    """A restarted process's."""
    one = shipper(spool, client, keyset)
    everything(one)
    return one


def test_what_a_refused_request_said_is_forgotten_in_time_as_well(tmp_path: Path, keyset: Keyset, bed: Bed) -> None:
    """A chunk of dead letters alone holds payloads, too."""
    journalled(tmp_path, keyset, [event("request-0", "surprise")])
    client = bed.client()
    everything(shipper(tmp_path, client, keyset))
    (letter,) = entries(client)
    assert client.has_blob(letter["blob"])
    assert bed.archive.retention.sweep({"credit": 60.0}, TIME + 59) == 0
    assert bed.archive.retention.sweep({"credit": 60.0}, TIME + 61) == 1
    assert not client.has_blob(letter["blob"])
    client.checkpoint()
    assert verify(DirectorySource(bed.root, KEK)).size == 2, "the letter and the receipt"


class Killed(Exception):
    """The process ended here."""


class Mortal:
    """A client whose process ends before or after its n-th append arrives."""

    def __init__(self, client: ArchiveClient, call: int, after: bool) -> None:
        self._client, self._call, self._after = client, call, after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def append_batch(self, stream: str, first: int, batch: list[bytes]) -> AppendAnswer:
        self.calls += 1
        if self.calls == self._call and not self._after:
            raise Killed
        answer = self._client.append_batch(stream, first, batch)
        if self.calls == self._call and self._after:
            raise Killed
        return answer


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 16))
def test_a_kill_at_any_append_leaves_each_entry_once(
    tmp_path: Path, keyset: Keyset, bed: Bed, call: int, after: bool
) -> None:
    records = many(20)
    for place in (3, 4, 15):
        records.insert(place, event(f"poison-{place}", "surprise"))
    journalled(tmp_path, keyset, records)
    client = bed.client()
    try:
        everything(shipper(tmp_path, Mortal(client, call, after), keyset))
    except Killed:
        assert shipper_again(tmp_path, client, keyset).dead_letters == 3
    found = entries(client)
    assert [e["id"] for e in found] == [r.id for r in records]
    assert [n for n, e in enumerate(found) if e["type"] == "deadLetter"] == [3, 4, 15]


@pytest.mark.parametrize(
    "trouble",
    [
        *(Refused(status, "not now") for status in (401, 403, 404, 405, 408, 409, 410, 412, 429, 500, 503, 507)),
        Unreachable("no answer"),
        OSError("disk"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_and_never_a_dead_letter(
    tmp_path: Path, keyset: Keyset, bed: Bed, trouble: Exception
) -> None:
    journalled(tmp_path, keyset, many(5))
    client = bed.client()
    broken = Mortal(client, -1, False)
    broken.append_batch = raising(trouble)  # type: ignore[method-assign]
    one = shipper(tmp_path, broken, keyset)
    with pytest.raises(type(trouble)):
        one.step()
    assert one.dead_letters == 0
    assert shipper_again(tmp_path, client, keyset).dead_letters == 0
    assert [e["type"] for e in entries(client)] == ["label"] * 5


def raising(error: Exception) -> Any:
    def append(*_: Any) -> AppendAnswer:
        raise error

    return append


def test_an_archive_that_refuses_dead_letters_too_holds_the_stream_and_marks_nothing(
    tmp_path: Path, keyset: Keyset, bed: Bed
) -> None:
    """An older one, or a proxy that answers everything with 400: the entries aren't at fault."""
    journalled(tmp_path, keyset, many(5))
    client = bed.client()
    broken = Mortal(client, -1, False)
    broken.append_batch = raising(Refused(400, "Bad Request"))  # type: ignore[method-assign]
    one = shipper(tmp_path, broken, keyset)
    for _ in range(2):
        with pytest.raises(Refused, match="Bad Request"):
            one.step()
    assert one.dead_letters == 0
    assert shipper_again(tmp_path, client, keyset).dead_letters == 0
    assert [e["type"] for e in entries(client)] == ["label"] * 5


@pytest.mark.parametrize("on_trial", [False, True])
def test_the_operator_is_told_how_many_also_without_bias_rules(tmp_path: Path, keyset: Keyset, on_trial: bool) -> None:
    path, count = tmp_path / "report.json", 0
    with Journal(tmp_path, "auditor-pod", SegmentCipher(keyset), "PageCache") as journal:
        state = AuditState(Subject("credit", "r1", "pod", on_trial), journal, None)
        report = ReportWorker(state, ReportWriter(f"file://{path}"), lambda: count)
        assert (report.run_once(), path.exists()) == (0, False)
        count = 2
        assert (report.run_once(), report.run_once()) == (1, 0)
    status = json.loads(path.read_bytes())["status"]
    assert status["revisions"]["r1"]["auditor"]["pod"]["deadLetters"] == 2
    assert "auditor" not in status, "there is no verdict to tell of"


# -- one contract of sizes, from both sides ----------------------------------------------------------------------------


def largest(type: str) -> LedgerEntry:
    """Exactly as long as an entry may be, its id as long as one may be, in characters of four bytes."""
    entry = LedgerEntry(
        type, "default", "credit", "\U0001f600" * 128, "2026-01-01T00:00:00.000Z", "r" * 128, "0" * 64, 1 << 62, 1 << 30,  # noqa: E501
        "1" * 64, {"words": ""},
    )  # fmt: skip
    return msgspec.structs.replace(entry, summary={"words": "x" * (ENTRY_BYTES - len(canonical(entry)))})


@pytest.mark.parametrize("type", sorted(ENTRY_TYPES))
def test_the_largest_legal_entry_of_every_type_is_taken_and_one_byte_more_is_not(bed: Bed, type: str) -> None:
    entry = largest(type)
    client = bed.client()
    assert client.append_batch("s", 0, [canonical(entry)] * 8).size == 8
    longer = msgspec.structs.replace(entry, summary={"words": entry.summary["words"] + "x"})
    with pytest.raises(Refused, match="at most"):
        client.append_batch("s", 8, [canonical(longer)])
    assert len(client.find(id=entry.id)) == 8


def test_many_large_entries_fit_into_requests(tmp_path: Path, keyset: Keyset, bed: Bed) -> None:
    """Together they are larger than a request may be."""
    journalled(tmp_path, keyset, [event(f"request-{n}", words="x" * (ENTRY_BYTES - 1000)) for n in range(300)])
    client = bed.client()
    one = shipper(tmp_path, client, keyset)
    everything(one)
    assert (bed.archive.ledger.size, one.dead_letters) == (300, 0)


@pytest.mark.parametrize("why", ["", "w" * 5000, "\ud800\x00 lone", "\u202e\n" * 900, "理" * 900])
def test_a_dead_letter_is_acceptable_whatever_it_is_for(bed: Bed, why: str) -> None:
    refused = canonical(
        LedgerEntry("t" * 5000, "default", "credit", "i\n" * 5000, "2026-01-01T00:00:00.000Z", "\x7f" * 900, "0" * 64)
    )
    letter = dead_letter(refused, why, "s" * 500, 1 << 53)
    assert letter == dead_letter(refused, why, "s" * 500, 1 << 53)
    assert len(letter) < 3 << 10
    assert bed.client().append_batch("s", 0, [letter]).size == 1


def chunk_of(spool: Path, keyset: Keyset, record: EventRecord) -> Chunk:
    journalled(spool, keyset, [record])
    chunk = JournalReader(spool, STREAM, SegmentCipher(keyset)).chunk(0)
    assert chunk is not None
    return chunk


def alarmed() -> Any:
    """An auditor whose alarm is on."""
    fold = SimpleNamespace(alarm=SimpleNamespace(active=True))
    verdict = SimpleNamespace(id="v" * 36)
    return SimpleNamespace(tail=SimpleNamespace(fold=fold), verdict=verdict, subject=Subject("credit", "r1"))


@pytest.mark.parametrize(
    ("by", "reason", "fault"),
    [
        ("Ada", "r" * (MAX_REASON + 1), "reason: expected 1 to 4096 characters, found 4097"),
        ("a" * (MAX_BY + 1), "because", "by: expected 1 to 256 characters, found 257"),
        ("Ada", "nul \x00", "reason: expected text without control characters, found U\\+0000"),
        ("Ada\nLovelace", "because", "by: expected text without control characters, found U\\+000A"),
        ("Ada", "\x1b[2J", "U\\+001B"),
        (" ", "because", "by: expected 1 to 256"),
    ],
)
def test_texts_of_people_are_bounded_at_the_door(by: str, reason: str, fault: str) -> None:
    with pytest.raises(Unusable, match=fault):
        acknowledgement(alarmed(), json.dumps({"by": by, "reason": reason}).encode(), TIME)


def test_the_longest_acknowledgement_is_taken_at_both_ends(tmp_path: Path, keyset: Keyset, bed: Bed) -> None:
    text = ("می‌خواهم 👩‍⚖️\n\t" * 500)[:MAX_REASON].strip()  # with joiners, which are no control characters
    body = json.dumps({"by": "\U0001f600" * MAX_BY, "reason": text}).encode()
    chunk = chunk_of(tmp_path, keyset, acknowledgement(alarmed(), body, TIME))
    entry = next(entry for entry, _ in entries_of(chunk, "default"))
    assert bed.client().append_batch("s", 0, [entry]).size == 1


@pytest.mark.parametrize("id", ["i" * 129, "a\nb", "\x00"])
async def test_a_label_whose_id_no_request_can_have_is_refused_at_the_door(id: str) -> None:
    fold: Any = SimpleNamespace(bias=BIAS, classes={})
    state: Any = SimpleNamespace(tail=SimpleNamespace(fold=fold), subject=None, admit_labels=LabelDoor(fold).admit)
    journal: Any = SimpleNamespace(append=None)
    app = application(Dependencies(state, journal, AuditorMetrics("default", "credit"), str, dict, lambda: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://auditor") as client:
        answer = await client.post("/v1/labels", json={"labels": [{"id": id, "label": 1}]})
    assert answer.status_code == 400
    assert "labels: id: expected" in answer.text


class Proxy(httpx.BaseTransport):
    """Before the archive: takes no body beyond ``limit`` bytes, as nginx does."""

    def __init__(self, behind: httpx.BaseTransport, limit: int) -> None:
        self.behind, self.limit = behind, limit

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if len(request.read()) > self.limit:
            return httpx.Response(413, text="Request Entity Too Large", request=request)
        return self.behind.handle_request(request)


@pytest.mark.parametrize("limit", [40_000, 3_000])
def test_a_chunk_that_is_too_large_for_a_proxy_goes_in_shorter_ones(
    tmp_path: Path, keyset: Keyset, bed: Bed, limit: int
) -> None:
    with Journal(tmp_path, STREAM, SegmentCipher(keyset), "PageCache") as journal:
        for n in range(400):
            journal.append_blocking(event(f"request-{n}", words="x" * 400))
    token = model_token(ROOT, "default", "credit")
    client = ArchiveClient("http://a", token, "credit", transport=Proxy(bed.transport, limit), patience=0.0)
    client.append_batch = bed.client().append_batch  # type: ignore[method-assign]  # of blobs alone
    one = shipper(tmp_path, client, keyset)
    everything(one)
    found = entries(bed.client())
    assert [e["id"] for e in found] == [f"request-{n}" for n in range(400)]
    assert (one.dead_letters, one.refused) == (0, "")
    assert one.blobs > 400 * 400 // limit
    bed.client().checkpoint()
    assert verify(DirectorySource(bed.root, KEK)).size == 400


def test_a_blob_that_is_refused_holds_its_stream_alone_and_says_why_until_it_is_taken(
    tmp_path: Path, keyset: Keyset, bed: Bed
) -> None:
    journalled(tmp_path, keyset, [event("request-0")])
    with Journal(tmp_path, "server-other", SegmentCipher(keyset), "PageCache") as journal:
        journal.append_blocking(event("request-1"))
    client, put = bed.client(), bed.client().put_blob
    refused = set[bytes]()

    def put_blob(data: bytes) -> str:
        if not refused or data in refused:
            refused.add(data)
            raise Refused(415, "an older archive: not one of our sealed formats")
        return put(data)

    client.put_blob = put_blob  # type: ignore[method-assign]
    one = shipper(tmp_path, client, keyset)
    with pytest.raises(Refused):
        one.step()
    assert len(entries(client)) == 1, "the other stream went on"
    assert (
        one.refused
        == shipper(tmp_path, client, keyset).refused
        == "415 an older archive: not one of our sealed formats"
    )
    client.put_blob = put  # type: ignore[method-assign]
    again = shipper(tmp_path, client, keyset)
    everything(again)
    assert (again.refused, sorted(e["id"] for e in entries(client))) == ("", ["request-0", "request-1"])


def test_a_token_that_was_replaced_is_read_anew(bed: Bed) -> None:
    """The Secret was; the process runs on."""
    now = ["0" * 64]
    client = ArchiveClient("http://a", lambda: now[0], "credit", transport=bed.transport, patience=0.0)
    with pytest.raises(Refused, match="not that of the model"):
        client.next_seq("s")
    now[0] = model_token(ROOT, "default", "credit")
    assert client.next_seq("s") == 0
    assert client.put_blob(b"GMSEAL1\n" + b"data")


def test_what_the_archive_refuses_is_reported_and_taken_back() -> None:
    told, why = list[Any](), ["403 the token is that of other"]
    journal: Any = SimpleNamespace()
    state = AuditState(Subject("credit", "r1", "pod", False), journal, None)
    writer: Any = SimpleNamespace(update_all=told.append)
    worker = ReportWorker(state, writer, refused=lambda: why[0])
    assert worker.run_once() == 0, "what was told before a restart is still there"
    why[0] = ""
    assert worker.run_once() == 1
    why[0] = "415 " + "x" * 10_000
    assert worker.run_once() == 1
    heads = [next(iter(parts.values())).plain()["refused"] for parts in told]
    assert heads == ["", ("415 " + "x" * 10_000)[:400]]


def test_a_verdict_that_comes_too_late_is_a_dead_letter_and_the_rest_ships_on(
    tmp_path: Path, keyset: Keyset, bed: Bed
) -> None:
    """By the token of the auditor's own role: what is refused is the entry, so nothing stands for ever."""
    now, hours = 1_767_225_600.0, 5 * 3600.0
    late = EventRecord("verdict", "verdict-1", "credit", "r1", now - hours, b"{}", {"verdict": "Pass"})
    ahead = EventRecord("verdict", "verdict-2", "credit", "r1", now + hours, b"{}", {"verdict": "Pass"})
    label = EventRecord("label", "request-1", "credit", "r1", now - hours, b"{}")
    journalled(tmp_path, keyset, [label, late, ahead, label])
    token = bearer_token(ROOT, "default", "credit", Role.AUDITOR)
    client = ArchiveClient("http://archive", token, "credit", transport=bed.transport, patience=0.0)
    one = Shipper(tmp_path, client, SegmentCipher(keyset), "default", on_refused=(refused := list[Frame]()).append)
    everything(one)
    types = [f.fields()["type"] for f in client.find(model="credit", limit=20)]
    assert sorted(t for t in types if t != "received") == ["deadLetter", "deadLetter", "label", "label"]
    assert (one.dead_letters, one.refused) == (2, "")
    whys = [f.fields()["summary"]["why"] for f in client.find(type="deadLetter")]
    assert [w[:4] for w in whys] == ["422 ", "422 "]
    assert ("behind" in whys[0], "ahead" in whys[1]) == (True, True)
    assert [record.id for record in refused] == ["verdict-1", "verdict-2"]  # type: ignore[union-attr]


def test_a_token_of_another_role_ships_nothing_and_buries_nothing(tmp_path: Path, keyset: Keyset, bed: Bed) -> None:
    """It says nothing of the entries: once the container has its own token they arrive."""
    journalled(tmp_path, keyset, many()[:3])
    now = [bearer_token(ROOT, "default", "credit", Role.SERVER)]
    client = ArchiveClient("http://archive", lambda: now[0], "credit", transport=bed.transport, patience=0.0)
    one = shipper(tmp_path, client, keyset)
    with pytest.raises(Refused, match="which may not"):
        one.step()
    assert one.dead_letters == 0
    assert "403" in one.refused
    now[0] = bearer_token(ROOT, "default", "credit", Role.AUDITOR)
    everything(one)
    assert (one.dead_letters, one.entries, one.refused) == (0, 3, "")
