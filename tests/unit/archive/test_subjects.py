"""What is held about a person can be found, given out and made unreadable, and no proof notices: served, journalled,
shipped and verified by the product's own parts."""

import asyncio
import io
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from governed_api.resolved import ResolvedModel
from governed_api.validation import validate
from governed_serving.archive.__main__ import main
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.errors import ArchiveError, Refused, Unreachable
from governed_serving.archive.restore import Request, erased_list, restore
from governed_serving.archive.service import Archive
from governed_serving.archive.store.named import NamedFiles, Prepared
from governed_serving.archive.subjects import Person
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.auditor.service.decisions import Decisions
from governed_serving.auditor.service.entries import entries_of
from governed_serving.auditor.service.errors import NotFound, Unavailable
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver
from governed_serving.auditor.service.reviews import Reviewing, contest
from governed_serving.auditor.service.state import Subject
from governed_serving.crypto import (
    CryptoError,
    KeyDestroyed,
    Keyring,
    SegmentCipher,
    Subjects,
    Tampered,
    canonical,
    store,
    subjects,
)
from governed_serving.journal import Journal, JournalReader, open_chunk
from governed_serving.journal.chunk import pack_chunk
from governed_serving.records import Erasure, EventRecord, LedgerEntry, PredictionFrame, SubjectFrame
from governed_serving.server import batch
from governed_serving.server.composition import http_service
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.errors import InvalidRequest, JournalUnavailable
from unit.server.planes import plane
from unit.server.test_dataplane import request

from ..auditor.test_dead_letters import BIAS, everything, shipper
from .ledgers import leaf
from .test_app import KEK, MODEL_KEK, Bed

FIELD = "region"
"""Whom a request is about, in these tests: the model's other inputs are numbers."""


class Site:
    """A model's server and shipper over an archive; ``ask`` serves and ships."""

    def __init__(self, bed: Bed, spool: Path) -> None:
        self.bed, self.spool, self.client = bed, spool, bed.client()
        self.keyset = Keyring(MODEL_KEK, self.client.keysets()).keyset("journal")
        self.now = 0.0
        self.subjects = self.holder()
        self.journal = Journal(spool, "server-pod", SegmentCipher(self.keyset), "PageCache")
        self.shipper = shipper(spool, self.client, self.keyset)

    def holder(self, **more: Any) -> Subjects:
        return Subjects(MODEL_KEK, self.client.keysets(), clock=lambda: self.now, later=lambda *_: None, **more)

    def plane(self, subjects: Subjects | None = None) -> DataPlane:
        unsealed = plane(journal=self.journal)
        return DataPlane(unsealed.pipeline, unsealed.predictor, about=(FIELD, subjects or self.subjects))

    def ask(self, *who: str, rows: int = 1) -> None:
        async def all_at_once() -> None:
            data = self.plane()
            await asyncio.gather(*(data.infer(request(rows, **{FIELD: [one] * rows})) for one in who))

        asyncio.run(all_at_once())
        everything(self.shipper)

    def person(self, who: str) -> Person:
        return Person(self.client, MODEL_KEK, who)

    def records(self, subjects: Subjects | None) -> list[Any]:
        reader = JournalReader(self.spool, "server-pod", SegmentCipher(self.keyset, subjects))
        return [frame.record() for frame in reader.frames()]

    def close(self) -> None:
        self.journal.close()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """Whose clock is that of those who write to it."""
    with closing(Bed(tmp_path / "archive", time.time)) as made:
        yield made


@pytest.fixture
def site(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with closing(Site(bed, tmp_path_factory.mktemp("spool"))) as site:
        yield site


def regions(site: Site, who: str) -> list[Any]:
    return [one["features"][FIELD] for one in site.person(who).content()]


def test_a_person_is_found_given_out_and_erased(site: Site) -> None:
    site.ask("north", "south", "north", "east")
    north = site.person("north")
    assert (len(north.held()), len(north.keys())) == (2, 1)
    shown = list(north.content())
    assert [one["features"][FIELD] for one in shown] == [["north"], ["north"]]
    assert {"id", "time", "ledgerIndex", "outputs", "revision"} <= shown[0].keys()
    kept = site.client.checkpoint()
    receipt = north.erase("officer", "she asked for it", 0.0)
    assert receipt.predictions == 2
    assert regions(site, "north") == []
    assert regions(site, "south") == [["south"]], "others are as they were"
    assert len(site.person("north").held()) == 2, "that there was something stays in the ledger"
    source = DirectorySource(site.bed.root, KEK)
    site.client.checkpoint()
    assert verify(source, earlier=(kept,)).blobs > 0
    assert inspect_folder(site.bed.root, KEK, Asked(earlier=(kept,))).findings.wrong == []


def test_the_ledger_says_what_was_erased_and_not_who(site: Site) -> None:
    site.ask("north", "north", "south")
    site.person("north").erase("officer", "article 17", 0.0)
    (entry,) = [one.fields() for one in site.client.find(type="erasure")]
    assert entry["summary"]["predictions"] == 2
    assert entry["id"] == entry["summary"]["subject"] == site.subjects.digest("north")
    everything_said = b"".join(site.client.entries(0, 1000))
    assert not any(word in everything_said for word in (b"north", b"south", b"officer", b"article 17"))
    purpose = entry["summary"]["purpose"]
    receipt = json.loads((site.bed.root / "keysets" / "credit" / f"{purpose}.destroyed.json").read_text())
    assert (receipt["by"], receipt["reason"]) == ("officer", "article 17")


def test_who_has_the_journals_key_alone_reads_nothing_about_anyone(site: Site) -> None:
    site.ask("north", "south")
    sealed = site.records(None)
    assert {type(record) for record in sealed} == {SubjectFrame}
    assert not any(b"north" in record.sealed or b"south" in record.sealed for record in sealed)
    assert b"north" not in msgspec.msgpack.encode(sealed)
    assert {type(record) for record in site.records(site.subjects)} == {PredictionFrame}


def test_a_journal_that_was_not_shipped_is_unreadable_as_well(site: Site) -> None:
    site.ask("north", "south")
    site.person("north").erase("officer", "asked", 0.0)
    kinds = [type(record) for record in site.records(site.holder())]
    assert sorted(kind.__name__ for kind in kinds) == ["PredictionFrame", "SubjectFrame"]


def test_a_process_forgets_a_destroyed_key_in_time(site: Site) -> None:
    site.ask("north")
    assert [type(record) for record in site.records(site.subjects)] == [PredictionFrame]
    site.person("north").erase("officer", "asked", 0.0)
    site.now += 31.0
    assert [type(record) for record in site.records(site.subjects)] == [SubjectFrame]


def test_who_comes_again_has_a_new_key(site: Site) -> None:
    site.ask("north")
    site.person("north").erase("officer", "asked", 0.0)
    with pytest.raises(ArchiveError, match="erased before"):
        site.person("north").erase("officer", "asked", 0.0)
    site.now += 31.0
    site.ask("north", "north")
    assert regions(site, "north") == [["north"], ["north"]]
    assert site.person("north").erase("officer", "again", 0.0).predictions == 3
    assert regions(site, "north") == []
    with pytest.raises(KeyDestroyed):
        site.client.keysets().get(f"subject-{site.subjects.digest('north')}-2")


def test_requests_that_name_nobody_are_recorded_as_ever(site: Site) -> None:
    site.ask("north", rows=3)
    with pytest.raises(InvalidRequest, match="rows about one person"):
        asyncio.run(site.plane().infer(request(2, **{FIELD: ["north", "south"]})))


async def test_of_requests_together_only_the_one_about_several_fails(site: Site) -> None:
    data = site.plane()
    answers = await asyncio.gather(
        data.infer(request(2, **{FIELD: ["north", "south"]})), data.infer(request(2, **{FIELD: ["east"] * 2})),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(answers[0], InvalidRequest)
    assert not isinstance(answers[1], BaseException)
    assert len(site.records(None)) == 1


async def test_a_new_person_is_not_answered_without_the_archive_a_known_one_is(site: Site) -> None:
    data = site.plane()
    await data.infer(request(**{FIELD: ["north"]}))

    def away(*_: object) -> bytes:
        raise Unreachable("the archive doesn't answer")

    site.subjects._store.get = away  # type: ignore[method-assign]
    assert (await data.infer(request(**{FIELD: ["north"]}))).ledger == "pending"
    with pytest.raises(JournalUnavailable, match="expected the key of the person"):
        await data.infer(request(**{FIELD: ["south"]}))
    assert len(site.records(None)) == 2, "what isn't answered isn't recorded"


def test_memory_holds_no_more_keys_than_its_capacity(site: Site) -> None:
    few = site.holder(capacity=3)
    for number in range(10):
        few.opened(few.seal(_frame(str(number)), few.digest(str(number))))
        assert len(few._held) <= 3


def _frame(id: str) -> PredictionFrame:
    return PredictionFrame("credit", "r1", "sha256:0", [id], b"\0" * 8, b"\1\0\0\0", {}, {})


def test_a_record_opens_under_its_own_ids_and_key_alone(site: Site) -> None:
    one, other = (site.subjects.seal(_frame(id), site.subjects.digest("north")) for id in ("a", "b"))
    with pytest.raises(Tampered):
        site.subjects.opened(msgspec.structs.replace(one, ids=["b"]))
    with pytest.raises(Tampered):
        site.subjects.opened(msgspec.structs.replace(one, sealed=other.sealed))
    south = site.subjects.seal(_frame("a"), site.subjects.digest("south"))
    with pytest.raises(Exception, match=r"sealed under key|authenticate"):
        site.subjects.opened(msgspec.structs.replace(one, key=south.key))


def test_shipping_again_after_an_erasure_says_the_same(site: Site) -> None:
    """A shipper that was killed makes its entries anew: the archive would refuse others under the same numbers."""

    def made() -> list[bytes]:
        reader = JournalReader(site.spool, "server-pod", SegmentCipher(site.keyset))
        return [entry for entry, _ in entries_of(pack_chunk(list(reader.frames())), "default")]

    site.ask("north", "south")
    before = made()
    assert all(b'"subject"' in entry for entry in before)
    site.person("north").erase("officer", "asked", 0.0)
    assert made() == before


def test_what_was_deleted_under_retention_is_left_out_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ask("north")
    person = site.person("north")
    statuses = iter([410, 403])
    asked: list[tuple[str, int | None]] = []

    def refused(digest: str, *, entry: int | None = None) -> bytes:
        asked.append((digest, entry))
        raise Refused(next(statuses), "refused")

    monkeypatch.setattr(person._client, "get_blob", refused)
    assert list(person.content()) == []
    with pytest.raises(Refused, match="refused"):
        list(person.content())
    (held,) = person.held()
    assert asked == [(held.entry.blob, held.index)] * 2


def test_what_is_told_of_a_person_names_its_entry(site: Site) -> None:
    site.ask("south", "north")
    person = site.person("north")
    (held,), (told,) = person.held(), list(person.content())
    assert (told["ledgerIndex"], told["time"], told["id"]) == (held.index, held.entry.time, held.entry.id)


def test_readers_of_the_ledger_say_that_a_person_is_erased(site: Site) -> None:
    site.ask("north")
    (held,) = site.person("north").held()
    source = DirectorySource(site.bed.root, KEK)
    assert opened_record(source, MODEL_KEK, held.entry)["features"][FIELD] == ["north"]
    site.person("north").erase("officer", "asked", 0.0)
    with pytest.raises(ArchiveError, match="is erased"):
        opened_record(source, MODEL_KEK, held.entry)
    resolver = CrossReplicaLabelResolver(
        site.client, SegmentCipher(site.keyset, site.holder()), Fold(BIAS, "r1"), lambda _: None
    )
    entry = msgspec.json.decode(bytes(site.client.entries(held.index, held.index + 1)[0]), type=LedgerEntry)
    identity, frames = resolver._chunk({"blob": entry.blob, "ledgerIndex": held.index})
    assert (bool(identity), type(frames[entry.frame or 0])) == (True, SubjectFrame)


# -- what is said about a person's decisions --------------------------------------------------------------------------

WORDS = {"by": "Ada Lovelace", "reason": "my income was read wrong"}
RULING = {"by": "board", "outcome": "Changed", "reason": "Ada was right"}
AUDITED = Subject("credit", "r1", "pod")


def contested(site: Site, id: str) -> None:
    body = msgspec.json.encode({"id": id, **WORDS})
    reviewing = Reviewing(AUDITED, site.client, None, 86_400, site.subjects)
    event, _ = contest(reviewing, body, site.bed.archive._clock())
    site.journal.append_blocking(event)
    everything(site.shipper)


def decided(site: Site, id: str) -> dict[str, object]:
    desk = Decisions(site.client, SegmentCipher(site.keyset, site.holder()), "default", AUDITED, 86_400, site.holder())
    return desk.decide(id, msgspec.json.encode(RULING), site.bed.archive._clock())


def test_a_contest_is_sealed_found_given_out_and_erased_with_its_person(site: Site) -> None:
    site.ask("north", "south")
    north = site.person("north")
    (held,) = north.held()
    contested(site, held.entry.id)
    decided(site, held.entry.id)
    assert [one.entry.type for one in north.said()] == ["prediction", "acknowledgement", "review"]
    given = list(north.content())
    assert [one.get("type", "prediction") for one in given] == ["prediction", "acknowledgement", "review"]
    assert given[1]["body"] == {"id": held.entry.id, **WORDS}
    assert given[2]["body"] == RULING
    kept = site.client.checkpoint()
    assert north.erase("officer", "asked", 0.0).predictions == 1
    assert list(site.person("north").content()) == []
    source = DirectorySource(site.bed.root, KEK)
    for one in north.said():
        with pytest.raises(ArchiveError, match="is erased"):
            opened_record(source, MODEL_KEK, one.entry)
    site.client.checkpoint()
    assert inspect_folder(site.bed.root, KEK, Asked(earlier=(kept,))).findings.wrong == []


def test_nothing_that_is_left_says_what_the_person_said(site: Site) -> None:
    site.ask("north")
    (held,) = site.person("north").held()
    contested(site, held.entry.id)
    decided(site, held.entry.id)
    site.person("north").erase("officer", "asked", 0.0)
    cipher = SegmentCipher(site.keyset, site.holder())
    left = [frame for one in site.person("north").said()
            for _, frame in open_chunk(site.client.get_blob(one.entry.blob), cipher)]  # fmt: skip
    left += [frame.record() for frame in JournalReader(site.spool, "server-pod", cipher).frames()]
    assert len(left) >= 5
    for word in (b"Ada", b"income", b"board"):
        assert word not in msgspec.msgpack.encode(left)
        assert word not in b"".join(site.client.entries(0, 100))


def test_a_contest_about_who_is_erased_has_nothing_to_review_one_that_is_open_can_be_closed(site: Site) -> None:
    site.ask("north")
    (held,) = site.person("north").held()
    contested(site, held.entry.id)
    site.person("north").erase("officer", "asked", 0.0)
    site.now += 31.0
    with pytest.raises(NotFound, match="is erased: there is nothing left to review"):
        contested(site, held.entry.id)
    assert decided(site, held.entry.id)["outcome"] == "Changed"


def test_a_decision_about_a_person_is_still_one(site: Site) -> None:
    site.ask("north")
    (held,) = site.person("north").held()
    contested(site, held.entry.id)
    assert decided(site, held.entry.id) == decided(site, held.entry.id)
    assert len(site.client.find(type="review")) == 1


def test_a_sealed_contest_opens_under_its_own_id_and_key_alone(site: Site) -> None:
    site.ask("north", "south")
    event = EventRecord("acknowledgement", "a", "credit", "r1", 0.0, b"{}", {"kind": "review"})
    north, south = (site.subjects.digest(who) for who in ("north", "south"))
    sealed, other = site.subjects.seal_event(event, north), site.subjects.seal_event(event, south)
    assert sealed is not None
    assert other is not None
    assert site.subjects.opened(sealed) == msgspec.structs.replace(event, summary={"kind": "review", "subject": north})
    for changed in ({"id": "b"}, {"type": "review"}, {"body": other.body}, {"summary": other.summary}):
        with pytest.raises(CryptoError):
            site.subjects.opened(msgspec.structs.replace(sealed, **changed))


def test_without_the_models_keys_nothing_is_said_about_a_person(site: Site) -> None:
    site.ask("north")
    (held,) = site.person("north").held()
    with pytest.raises(Unavailable, match="can't be sealed"):
        contest(Reviewing(AUDITED, site.client, None, 1), msgspec.json.encode({"id": held.entry.id, **WORDS}), 0.0)


# -- one person, however written --------------------------------------------------------------------------------------

SAME = [
    ("Zo\u00eb", "Zoe\u0308"), ("north", " north\u00a0"), ("north", "\tnorth\n"), ("north", "\ufeffnorth"),
    ("\u3000north", "north\u200b"), ("7", "7.0"), ("7.00", "7"), ("-7", "-7.0"), ("\u1e9b\u0323", "\u1e9b\u0323 "),
    ("\uac00", "\u1100\u1161"),
]  # fmt: skip
OTHERS = [("007", "7"), ("7.5", "7"), ("north", "North"), ("1e3", "1000"), ("7-0", "7.0"), ("a b", "ab"), ("+7", "7")]


@pytest.mark.parametrize(("recorded", "asked"), [*SAME, *((b, a) for a, b in SAME)])
def test_a_person_has_one_form(site: Site, recorded: str, asked: str) -> None:
    site.ask(recorded, "someone else")
    assert regions(site, asked) == [[recorded]]
    assert site.person(asked).erase("officer", "asked", 0.0).predictions == 1
    assert regions(site, recorded) == regions(site, asked) == []
    assert regions(site, "someone else") == [["someone else"]]


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_others_stay_others(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("number", [7, 7.0, "7", "7.0", np.float32(7).item(), np.int64(7).item(), "7.000"])
def test_a_number_is_the_same_in_every_datatype(number: object) -> None:
    assert canonical(number) == "7"


@pytest.mark.parametrize("nobody", ["", " ", "\u200b\ufeff", float("nan")])
def test_blanks_are_nobody(nobody: object) -> None:
    assert canonical(nobody) == ""


def test_a_number_of_many_digits_is_no_work() -> None:
    assert canonical("9" * 100_000 + ".0") == "9" * 100_000 + ".0"
    assert canonical(1e300) == str(int(1e300))


@pytest.mark.parametrize("former", ["Zoe\u0308", " north", "7.0", "Zo\u00eb"])
def test_what_an_older_version_recorded_is_found(site: Site, former: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(subjects, "canonical", str)
        older.setattr(batch, "canonical", str)
        site.ask(former, "someone else")
    asked = site.person(former if former.startswith(" ") else canonical(former))
    assert len(asked.held()) == len(asked.keys()) == 1
    asked.erase("officer", "asked", 0.0)
    assert regions(site, former) == []


def test_rows_of_one_person_may_write_it_differently(site: Site) -> None:
    asyncio.run(site.plane().infer(request(3, **{FIELD: ["north", " north", "north "]})))
    everything(site.shipper)
    assert len(site.person("north").held()) == 1


# -- backups ----------------------------------------------------------------------------------------------------------


def taken(bed: Bed) -> bytes:
    with closing(Snapshot(bed.archive)) as snapshot:
        return b"".join(snapshot.chunks())


def opened(folder: Path, purpose: str) -> bool:
    return (folder / "keysets" / "credit" / f"{purpose}.keyset.json").exists()


def test_an_older_backup_brings_no_erased_key_back(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    site.ask("north", "south")
    backup = taken(site.bed)
    (purpose,) = site.person("north").keys()
    (other,) = site.person("south").keys()
    site.person("north").erase("officer", "asked", 0.0)
    note = site.client.checkpoint()
    newer = DirectorySource(site.bed.root, KEK)
    there = tmp_path_factory.mktemp("there")
    asked = Request(there, KEK, told={"report": note}, after=[newer], accept_loss=True)
    assert restore(io.BytesIO(backup), asked).erased == 1
    assert (opened(there, purpose), opened(there, other)) == (False, True)
    assert inspect_folder(there, KEK, Asked()).findings.wrong == []


def _older(site: Site) -> tuple[bytes, dict[str, str], str, str]:
    """A backup from before somebody was erased; the checkpoint since; the keys of who was erased, and of another."""
    site.ask("north", "south")
    backup = taken(site.bed)
    (purpose,), (other,) = site.person("north").keys(), site.person("south").keys()
    site.person("north").erase("officer", "asked", 0.0)
    return backup, {"MOVED/anchor": site.client.checkpoint()}, purpose, other


def _said(there: Path) -> dict[str, Any]:
    with closing(Archive(there, KEK, "default")) as archive:
        (loss,) = archive.ledger.find("governed-archive", type="loss")
        return dict(msgspec.json.decode(loss.entry)["summary"])


def test_nobody_who_was_erased_comes_back_unsaid(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    backup, told, purpose, other = _older(site)
    there = tmp_path_factory.mktemp("there")
    with pytest.raises(ArchiveError, match=r"MOVED/anchor signed \d+ entries, the backup has"):
        restore(io.BytesIO(backup), Request(there, KEK, told=told))
    with pytest.raises(ArchiveError, match=r"has 2 keys of persons.*--after.*--erased FILE.*--accept-return"):
        restore(io.BytesIO(backup), Request(there, KEK, told=told, accept_loss=True))
    assert [p.name for p in there.iterdir() if p.name != ".lock"] == []
    done = restore(io.BytesIO(backup), Request(there, KEK, told=told, accept_loss=True, accept_return=True))
    assert (done.erased, opened(there, purpose), opened(there, other)) == (0, True, True)
    assert {"personsKeys": 2, "erasedAgain": 0}.items() <= _said(there).items()


def test_who_is_listed_is_erased_again(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    backup, told, purpose, other = _older(site)
    there = tmp_path_factory.mktemp("there")
    erased = frozenset({site.subjects.digest("north")})
    done = restore(io.BytesIO(backup), Request(there, KEK, told=told, accept_loss=True, erased=erased))
    assert (done.erased, opened(there, purpose), opened(there, other)) == (1, False, True)
    assert {"personsKeys": 1, "erasedAgain": 1}.items() <= _said(there).items()
    assert inspect_folder(there, KEK, Asked()).findings.wrong == []


def test_a_copy_that_ends_before_the_checkpoint_is_not_enough(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.ask("north", "south")
    backup = taken(site.bed)
    site.ask("east")
    between = tmp_path_factory.mktemp("between") / "copy"
    site.client.checkpoint()
    shutil.copytree(site.bed.root, between)
    site.person("north").erase("officer", "asked", 0.0)
    told = {"report": site.client.checkpoint()}
    there = tmp_path_factory.mktemp("there")
    asked = Request(there, KEK, told=told, after=[DirectorySource(between, KEK)], accept_loss=True)
    with pytest.raises(ArchiveError, match="keys of persons"):
        restore(io.BytesIO(backup), asked)


def test_a_backup_without_persons_asks_for_nothing_more(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> None:
    bed.client().append("s", [leaf("a")])
    backup = taken(bed)
    bed.client().append("s", [leaf("b")])
    told = {"report": bed.client().checkpoint()}
    there = tmp_path_factory.mktemp("there")
    restore(io.BytesIO(backup), Request(there, KEK, told=told, accept_loss=True))
    assert not _said(there).keys() & {"personsKeys", "erasedAgain"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no line"), (b"\n \n", "no line"), (b"north\n", "b'north'"), (b"0" * 33, "b'000"), (b"A" * 32, "b'AAA"),
        (b"\xff\n", "xff"), (b"0" * 32 + b"\nx\n", "b'x'"), (b"\x1b[2J" + b"0" * 32, "x1b"),
    ],
)  # fmt: skip
def test_a_list_of_erased_that_is_none_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(ArchiveError, match="expected the digests") as refused:
        erased_list(tmp_path / "list")
    assert told in str(refused.value)


def test_the_list_is_what_erasing_printed(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{'a' * 32}: erased; 2 predictions can't be opened\n\n{'b' * 32}\n")
    assert erased_list(tmp_path / "list") == {"a" * 32, "b" * 32}


def test_a_copy_of_another_log_erases_nobody(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    site.ask("north")
    backup = taken(site.bed)
    with closing(Bed(tmp_path_factory.mktemp("other"))) as other:
        other.client().append(
            "s",
            [
                b'{"id":"x","model":"credit","namespace":"default","time":"2026-01-01T00:00:00.000Z","type":"label","v":1}'
            ],
        )
        other.client().checkpoint()
        source, there = DirectorySource(other.root, KEK), tmp_path_factory.mktemp("there")
        with pytest.raises(Exception, match=r"sign|key|root|tail"):
            restore(io.BytesIO(backup), Request(there, KEK, after=[source]))
    assert [p.name for p in there.iterdir() if p.name != ".lock"] == []


def test_an_erasure_that_a_kill_interrupted_is_done_by_a_restore(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.ask("north")
    (purpose,) = site.person("north").keys()
    site.bed.archive._note_erasure("credit", purpose, Erasure(predictions=1), "0" * 64)
    there = tmp_path_factory.mktemp("there")
    assert restore(io.BytesIO(taken(site.bed)), Request(there, KEK)).erased == 1
    assert not opened(there, purpose)


class Killed(BaseException):
    """As if the process had ended here."""


def _die(*_: object, **__: object) -> None:
    raise Killed


def _dying(act: Any) -> Any:
    """``act`` is done, and nothing behind it."""

    def dying(*arguments: Any, **named: Any) -> None:
        act(*arguments, **named)
        raise Killed

    return dying


def _at_the_end(patch: pytest.MonkeyPatch) -> None:
    prepare = NamedFiles.prepare

    def prepared(*arguments: Any) -> Prepared:
        done = prepare(*arguments)
        patch.setattr(Prepared, "discard", _die)
        return done

    patch.setattr(NamedFiles, "prepare", prepared)


KILLS: dict[str, Any] = {
    "before anything is said": lambda p: p.setattr(Archive, "_note_erasure", _die),
    "before the key is said to go": lambda p: p.setattr(Archive, "_note_erasure", _dying(Archive._note_erasure)),
    "before the key goes": lambda p: p.setattr(Archive, "_note_key", _dying(Archive._note_key)),
    "behind the receipt": lambda p: p.setattr(store, "replace_file", _dying(store.replace_file)),
    "behind the renaming": lambda p: p.setattr(store, "_overwrite", _die),
    "behind the overwriting": lambda p: p.setattr(store, "_overwrite", _dying(store._overwrite)),
    "before the folder is written": lambda p: p.setattr(store, "fsync_folder", _die),
    "at the very end": _at_the_end,
}


def _interrupted(site: Site, kill: str) -> str:
    """The purpose whose destruction a kill cut."""
    (purpose,) = site.person("north").keys()
    receipt = msgspec.json.encode(Erasure(predictions=1, by="officer", reason="asked"))
    with pytest.MonkeyPatch.context() as patch:
        KILLS[kill](patch)
        with pytest.raises(Killed):
            site.bed.archive.destroy_keyset("credit", purpose, receipt)
    site.bed.archive.ledger.checkpoint()
    return purpose


def _left(site: Site) -> list[str]:
    return [p.name for p in (site.bed.root / "keysets" / "credit").iterdir() if p.name.startswith(".sub")]


@pytest.mark.parametrize("kill", KILLS)
def test_an_interrupted_erasure_is_called_that_and_not_tampering(site: Site, kill: str) -> None:
    site.ask("north", "south")
    purpose = _interrupted(site, kill)
    site.bed.archive.close()
    found = inspect_folder(site.bed.root, KEK, Asked()).findings
    assert found.wrong == []
    said = [str(one) for one in found.unchecked]
    if kill == "before anything is said":
        assert [one for one in said if "was begun" in one] == said != []
    else:
        (one,) = said
        assert f"keysets/credit/{purpose}.keyset.json: interrupted erasure: run it again" in one
    site.bed.archive = Archive(site.bed.root, KEK, "default")
    done = [] if kill == "before anything is said" else [f"keyset {purpose}.destroyed.json of credit"]
    assert site.bed.archive.finished == done
    site.bed.archive.ledger.checkpoint()
    found = inspect_folder(site.bed.root, KEK, Asked()).findings
    assert (found.wrong, found.unchecked, _left(site)) == ([], [], [])
    assert opened(site.bed.root, purpose) == (kill == "before anything is said")


@pytest.mark.parametrize("kill", KILLS)
def test_an_interrupted_erasure_is_run_again(site: Site, kill: str) -> None:
    """Against the same process: an error cut it, not a kill."""
    site.ask("north", "south")
    purpose = _interrupted(site, kill)
    if opened(site.bed.root, purpose):
        site.person("north").erase("officer", "again", 0.0)
    else:
        site.bed.archive._settle_keysets()
    assert regions(site, "north") == []
    assert regions(site, "south") == [["south"]]
    site.client.checkpoint()
    found = inspect_folder(site.bed.root, KEK, Asked()).findings
    assert (found.wrong, found.unchecked, _left(site)) == ([], [], [])
    assert not opened(site.bed.root, purpose)


def test_a_key_that_is_put_back_is_no_interrupted_erasure(site: Site) -> None:
    site.ask("north")
    (purpose,) = site.person("north").keys()
    path = site.bed.root / "keysets" / "credit" / f"{purpose}.keyset.json"
    kept = path.read_bytes()
    site.person("north").erase("officer", "asked", 0.0)
    path.write_bytes(kept)
    site.client.checkpoint()
    wrong = [str(one) for one in inspect_folder(site.bed.root, KEK, Asked()).findings.wrong]
    assert len(wrong) == 1
    assert "it was put back" in wrong[0]


def test_a_receipt_that_says_nothing_erases_nobody(site: Site) -> None:
    site.ask("north")
    (purpose,) = site.person("north").keys()
    with pytest.raises(Refused, match="receipt of an erasure"):
        site.client.keysets().destroy(purpose, b"nothing")
    assert site.person("north").keys() == [purpose]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(site: Site, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "kek").write_bytes(bytes([7]) * 32)
    (folder / "kek").chmod(0o600)
    (folder / "token").write_text("unused")
    monkeypatch.setattr("governed_serving.archive.client.ArchiveClient", lambda *_, **__: site.bed.client())
    keys = ["--model", "credit", "--key-file", str(folder / "kek"), "--token-file", str(folder / "token")]

    def run(act: str, who: str, *more: str) -> int:
        return main(["subject", act, "http://archive", f"--who={who}", *keys, *more])

    return run


def test_the_command_finds_exports_and_erases(site: Site, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.ask("north", "south")
    person = site.person("north")
    (held,) = person.held()
    where = f"{person.subject}: 1 predictions in the ledger ({held.index})"
    assert command("find", "north") == 0
    assert capsys.readouterr().out == f"{where}; can be opened\n"
    assert command("export", "north") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["features"][FIELD] == ["north"]
    assert command("erase", "north", "--by", "officer") == 1
    assert "needs --by and --reason" in capsys.readouterr().err
    assert command("erase", "north", "--by", "officer", "--reason", "asked") == 0
    said = "erased; 1 predictions can't be opened by anyone any more, the ledger says so"
    assert capsys.readouterr().out == f"{person.subject}: {said}\n"
    assert command("find", "north") == 0
    assert capsys.readouterr().out == f"{where}; nothing can be opened\n"
    assert command("export", "north") == 0
    assert capsys.readouterr().out == ""
    assert command("erase", "nobody", "--by", "o", "--reason", "r") == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"north\n", ""), (b"north", ""), (b" north\r\n", ""), (b"", "found nothing"), (b"\n", "found nothing"),
        (b"north\nsouth\n", "expected one line"), (b"north\n\n", "expected one line"),
        (b"x" * 5000, "at most 4096 bytes"),
        (b"\xff\n", "expected Unicode"), (b"north\rsouth\n", "expected one line"),
        (b"north\xe2\x80\xa8south\n", "expected one line"),
    ],
)  # fmt: skip
def test_the_person_comes_from_standard_input(
    site: Site,
    command: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: bytes,
    told: str,
) -> None:
    site.ask("north")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert command("find", "-") == bool(told)
    said = capsys.readouterr()
    assert told in said.err
    assert told or "1 predictions in the ledger" in said.out
    assert "north" not in said.err


def _manifest(spec: dict[str, Any]) -> dict[str, Any]:
    named = {"governance": {"privacy": {"subject": "customer"}}, **spec}
    return {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "m"},
            "spec": named}  # fmt: skip


IMPORTED = {"predictor": {"model": {"storageUri": "file:x", "digest": "sha256:" + "0" * 64}}}


def _trained(*features: str) -> dict[str, Any]:
    data = {"generator": {"name": "credit"}, "label": "y", "features": [{"name": name} for name in features]}
    return {"lifecycle": {"training": {"data": data}}}


def _runtime(protocol: str) -> dict[str, Any]:
    return {
        "predictor": {"model": {"modelFormat": {"name": "runtime"}, "runtime": {"image": "x", "protocol": protocol}}}
    }


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (IMPORTED, ""),
        (_trained("age", "customer"), ""),
        (_runtime("v2"), ""),
        (_trained("age"), "must be a feature of lifecycle.training.data.features"),
        (_runtime("openai"), "a conversation names no person"),
        ({**IMPORTED, "explainer": {}}, "explanations hold the row"),
    ],
)
def test_where_it_does_not_fit_it_is_refused(spec: dict[str, Any], told: str) -> None:
    messages = validate(_manifest(spec))
    assert any(told in message for message in messages) if told else messages == [], messages


def test_a_model_without_that_input_does_not_serve() -> None:
    unsealed = plane(journal=object())
    resolved = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": _manifest(IMPORTED)["spec"]})
    with pytest.raises(ValueError, match=r"expected an input of the model \(income, .*found customer"):
        http_service(unsealed.pipeline, resolved, unsealed.predictor, None)


def test_a_model_that_names_no_subject_says_so(bed: Bed) -> None:
    client = bed.client()
    with pytest.raises(ArchiveError, match="knows no persons"):
        Person(client, MODEL_KEK, "north")
