"""Keys of persons: one each, held in memory for their time and no longer, a new one for who comes again."""

import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from governed_serving.crypto import (
    DirectoryStore,
    Kek,
    KeyMissing,
    Keyring,
    Subjects,
    Tampered,
    canonical,
    purposes_of,
)
from governed_serving.crypto.subjects import _aad, _event_aad, _number
from governed_serving.records import EventRecord, PredictionFrame, SubjectFrame
from support.waiting import eventually


class Later:
    """Calls that are due at a time; ``pass_`` lets time go by."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, call))

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        ready = [call for at, call in self.due if at <= self.now]
        self.due = [(at, call) for at, call in self.due if at > self.now]
        for call in ready:
            call()


class Site:
    def __init__(self, folder: Path) -> None:
        self.kek, self.store, self.later = Kek(os.urandom(32)), DirectoryStore(folder), Later()
        self.subjects = self.holder()

    def holder(self, **more: int) -> Subjects:
        return Subjects(self.kek, self.store, clock=lambda: self.later.now, later=self.later, **more)

    def seal(self, who: str, id: str = "a") -> SubjectFrame:
        return self.subjects.seal(frame(id), self.subjects.digest(who))

    def destroy(self, purpose: str) -> None:
        Keyring(self.kek, self.store).destroy(purpose)


def frame(id: str = "a") -> PredictionFrame:
    return PredictionFrame("credit", "r1", "sha256:0", [id], b"\0" * 8, b"\1\0\0\0", {}, {}, ["c"])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_destroyed_key_leaves_memory_though_nobody_asks_for_it(site: Site) -> None:
    record = site.seal("north")
    assert site.subjects.opened(record) == frame()
    keysets = [weakref.ref(held.keyset) for held in site.subjects._held.values() if held.keyset is not None]
    assert len(keysets) == 2, "by the person, and by the record's key"
    site.destroy(record.key)
    site.later.pass_(29.9)
    assert all(keyset() is not None for keyset in keysets)
    site.later.pass_(0.1)
    gc.collect()
    assert all(keyset() is None for keyset in keysets)
    assert site.later.due == [], "nothing is left to wait for"


def test_each_key_has_its_own_time(site: Site) -> None:
    first = site.seal("north")
    site.later.pass_(20.0)
    second = site.seal("south")
    for record in (first, second):
        site.destroy(record.key)
    site.later.pass_(10.0)
    assert set(site.subjects._held) == {second.subject}
    assert len(site.later.due) == 1, "one call waits, however many keys there are"
    site.later.pass_(20.0)
    assert not site.subjects._held


def test_use_makes_a_keys_time_no_longer(site: Site) -> None:
    record = site.seal("north")
    for _ in range(6):
        site.later.pass_(4.9)
        site.seal("north")
    site.destroy(record.key)
    site.later.pass_(0.6)
    assert site.seal("north").key == record.key.removesuffix("-1") + "-2"


def test_a_timer_lets_go_of_keys_in_a_process(site: Site) -> None:
    """The real one, which isn't told what time it is."""
    subjects = Subjects(site.kek, site.store, seconds=0.05)
    subjects.seal(frame(), subjects.digest("north"))
    eventually(lambda: len(subjects._held), lambda held: held == 0, within=60)


def test_the_least_lately_used_key_makes_room(site: Site) -> None:
    site.subjects = site.holder(capacity=2)
    north, south = site.seal("north").subject, site.seal("south").subject
    site.seal("north")
    east = site.seal("east").subject
    assert set(site.subjects._held) == {north, east}
    assert south not in site.subjects._held


def test_a_person_is_known_by_a_keyed_digest(site: Site, tmp_path: Path) -> None:
    digest = site.subjects.digest("north")
    assert len(digest) == 32
    assert digest == site.holder().digest("north") != site.subjects.digest("south")
    assert digest != Site(tmp_path / "other").subjects.digest("north"), "without the key nobody can try names"


FORMS = {
    "7": [7, 7.0, "7", "7.0", "7.000", " 7 ", "\t7\n", "\u200b7\u2060", "\ufeff7", "\u30007"],
    "-7": [-7, -7.0, "-7.0"],
    "0": [0, 0.0, -0.0, "0.0", "-0.0"],
    "7.5": [7.5, "7.5"],
    "007": ["007"],
    "7.": ["7."],
    ".0": [".0"],
    "7.01": ["7.01"],
    "\u00e9": ["e\u0301", "\u00e9", "\u00a0\u00e9\u2003"],
    "a b": ["a b", " a b "],
    "A": ["A"],
    "True": [True],
    "": ["", " ", "\u200b", float("nan")],
    "inf": [float("inf")],
    "9" * 40: ["9" * 40, "9" * 40 + ".0"],
    "9" * 41 + ".0": ["9" * 41 + ".0"],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_person_has_one_form(form: str) -> None:
    assert [canonical(who) for who in FORMS[form]] == [form] * len(FORMS[form])
    assert canonical(form) == form


@pytest.mark.parametrize("blank", [*map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680))])
def test_blanks_of_every_kind_are_none_of_a_person(blank: str) -> None:
    assert canonical(f"{blank}x{blank}y{blank}") == f"x{blank}y"


@pytest.mark.parametrize("code", [*range(0x2000, 0x200C), 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF])
def test_nor_is_what_takes_no_place(code: int) -> None:
    assert canonical(f"{chr(code)}x{chr(code)}") == "x"
    assert canonical("\u0008x\u0021") == "\u0008x\u0021", "other characters are"


def event(id: str = "e1", **more: object) -> EventRecord:
    return msgspec.structs.replace(EventRecord("label", id, "credit", "r1", 0.0, b"words", {"kind": "review"}), **more)


def test_an_event_about_a_person_is_sealed_under_their_newest_key(site: Site) -> None:
    subject = site.subjects.digest("north")
    assert site.subjects.seal_event(event(), subject) is None, "none is made for it"
    for number in range(1, 12):
        site.seal("north")
        if number < 11:
            site.destroy(f"subject-{subject}-{number}")
            site.later.pass_(30.0)
    sealed = site.subjects.seal_event(event(), subject)
    assert sealed is not None
    assert sealed.summary == {"kind": "review", "subject": subject, "key": f"subject-{subject}-11"}
    assert b"words" not in sealed.body
    opened = site.subjects.opened(sealed)
    assert opened == event(summary={"kind": "review", "subject": subject})
    assert site.subjects.opened(event()) == event(), "one about nobody is as it was"
    for change in ({"id": "e2"}, {"model": "other"}, {"type": "acknowledgement"}, {"body": b"x" * 60}):
        with pytest.raises(Tampered):
            site.subjects.opened(msgspec.structs.replace(sealed, **change))
    site.destroy(f"subject-{subject}-11")
    site.later.pass_(30.0)
    assert site.subjects.opened(sealed) is sealed
    assert site.subjects.seal_event(event(), subject) is None


def test_no_index_is_made_for_who_only_asks(site: Site, tmp_path: Path) -> None:
    with pytest.raises(KeyMissing):
        site.subjects.digest("north", create=False)
    assert not list(tmp_path.iterdir())


def test_purposes_are_those_of_one_person() -> None:
    one, other = "a" * 32, "a" * 31 + "b"
    purposes = [f"subject-{one}-1", f"subject-{one}-12", f"subject-{other}-1", "subject-index", "journal"]
    assert purposes_of(one, purposes) == purposes[:2]
    assert purposes_of("a" * 31, purposes) == []


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"ids": ["b"]}, {"ids": ["a", "b"]}, {"sealed": b""}, {"sealed": b"x" * 60}]
)
def test_a_record_is_bound_to_its_model_and_ids(site: Site, change: dict[str, object]) -> None:
    record = site.seal("north")
    with pytest.raises(Tampered):
        site.subjects.opened(msgspec.structs.replace(record, **change))


def test_a_record_whose_key_is_gone_stays_sealed(site: Site) -> None:
    record = site.seal("north")
    site.destroy(record.key)
    site.later.pass_(30.0)
    assert site.subjects.opened(record) is record
    unknown = msgspec.structs.replace(record, key=f"subject-{'0' * 32}-1")
    assert site.subjects.opened(unknown) is unknown


def test_what_records_are_bound_to_is_written_in_one_form() -> None:
    """Associated data of what is sealed for years: another form would open none of it."""
    event = EventRecord("label", "r-1", "loans", "rev", 1.0, b"{}")
    decoded = [msgspec.msgpack.decode(one) for one in (_aad("loans", "s-1", ["r-1"]), _event_aad(event, "s-1"))]
    assert decoded == [
        ["governed subject 1", "loans", "s-1", ["r-1"]],
        ["governed subject event 1", "label", "loans", "s-1", "r-1"],
    ]


@pytest.mark.parametrize("kept", [*map(chr, range(33, 127)), "\u0008", "\u000e", "\u001b", "\u0084", "\u0086", "\u009f",
                                  "\u00a1", "\u167f", "\u1681", "\u1fff", "\u200c", "\u2027", "\u202a", "\u202e",
                                  "\u2030", "\u205e", "\u2061", "\u2fff", "\u3001", "\ufefe", "\uff00"])  # fmt: skip
def test_nothing_else_is_taken_from_a_person(kept: str) -> None:
    assert canonical(f"{kept}y{kept}") == f"{kept}y{kept}"


@pytest.mark.parametrize(
    ("purpose", "number"),
    [
        ("s-abc-7", 7),
        ("s-abc-999999999", 999_999_999),
        ("s-abc-1000000000", 0),
        ("s-abc-x", 0),
        ("s-abc-", 0),
        ("s", 0),
    ],
)
def test_a_key_has_the_number_at_the_end_of_its_purpose(purpose: str, number: int) -> None:
    assert _number(purpose) == number
