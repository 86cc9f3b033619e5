"""Retention by itself: what is due at which moment, in which receipts, and what is kept between two looks."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from governed_serving.archive.store import retention as module
from governed_serving.archive.store.retention import Pace, Receipts, Retention, RetentionState, read_state
from governed_serving.crypto import CryptoError
from governed_serving.records import LedgerEntry, canonical, timestamp

from .ledgers import PlainAead

NOW = 1_800_000_000.0


def address(number: int) -> str:
    return f"{number:064x}"


def entry(number: int, age: float = 0, model: str = "m", type: str = "prediction", **fields: Any) -> bytes:
    """Of the blob with this number, ``age`` seconds old."""
    fields = {"blob": address(number), "frame": 0, **fields}
    return canonical(LedgerEntry(type, "default", model, f"id-{number}", timestamp(NOW - age), **fields))


class Failing(PlainAead):
    def open(self, *_: bytes) -> bytes:
        raise CryptoError("another key")


class Bed:
    """``entries`` of the ledger, blobs that are there, receipts and deletions in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[bytes] = []
        self.reads: list[tuple[int, int]] = []
        self.blobs: set[str] = set()
        self.done: list[tuple[object, ...]] = []
        self.said: list[str] = []
        self.retention = self.opened()

    def opened(self, cipher: PlainAead | None = None) -> Retention:
        bed = self

        class Ledger:
            say = bed.said.append

            @property
            def size(self) -> int:
                return len(bed.entries)

            def entries(self, start: int, end: int) -> list[bytes]:
                bed.reads.append((start, end))
                return bed.entries[start:end]

        blobs: Any = SimpleNamespace(size=lambda d: 1 if d in self.blobs else None, expire=self._expire)
        ledger: Any = Ledger()
        return Retention(self.path, cipher or PlainAead(), ledger, blobs, self._note)

    def add(self, *entries: bytes) -> None:
        self.entries += entries
        self.blobs |= {msgspec.json.decode(e, type=LedgerEntry).blob for e in entries} - {""}

    def sweep(self, now: float = NOW, **windows: float) -> int:
        return self.retention.sweep(windows, now)

    def _expire(self, digest: str) -> None:
        self.done.append(("expire", digest))
        self.blobs.discard(digest)

    def _note(self, model: str, type: str, id: str, digest: str, summary: Mapping[str, object]) -> None:
        self.done.append((model, type, id, digest, dict(summary)))


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path / "retention")


def test_what_is_older_than_the_window_goes_by_a_receipt(bed: Bed) -> None:
    bed.add(entry(1, 11), entry(2, 10), entry(3, 9), entry(4, 11, "other"))
    assert bed.retention.deleted == 0
    assert bed.sweep(m=10.0) == 1
    before = timestamp(NOW - 10)
    summary = {
        "reason": "governance.privacy.retention.payloads", "seconds": 10.0, "before": before, "blobs": [address(1)],
    }  # fmt: skip
    assert bed.done == [("m", "deletion", f"retention:{before}", "", summary), ("expire", address(1))]
    assert bed.sweep(NOW + 2, m=10.0) == 2
    assert bed.retention.deleted == 3
    assert bed.blobs == {address(4)}
    assert bed.sweep(NOW + 9, m=10.0) == 0
    assert len(bed.done) == 5


def test_a_receipt_lists_500_blobs_and_each_is_gone_before_the_next(bed: Bed) -> None:
    bed.add(*(entry(number, 20) for number in range(1001)))
    assert bed.sweep(m=10.0) == 1001
    receipts = [d for d in bed.done if d[0] == "m"]
    listed = [r[4]["blobs"] for r in receipts]  # type: ignore[index]
    assert [len(blobs) for blobs in listed] == [500, 500, 1]
    assert [b for blobs in listed for b in blobs] == [address(n) for n in range(1001)]
    assert [bed.done.index(r) for r in receipts] == [0, 501, 1002]


def test_entries_are_read_a_thousand_at_a_time_and_once(bed: Bed) -> None:
    bed.add(*(entry(number, 0) for number in range(2001)))
    assert bed.sweep(m=10.0) == 0
    assert bed.reads == [(0, 1000), (1000, 2000), (2000, 3000)]
    assert bed.sweep(m=10.0) == 0
    assert len(bed.reads) == 3
    bed.add(entry(3000, 20))
    assert bed.sweep(m=10.0) == 1
    assert bed.reads[3:] == [(2001, 3001)]


@pytest.mark.parametrize(
    ("data", "due"),
    [
        *((entry(1, 20, type=type), True) for type in ("prediction", "explanation", "label", "deadLetter")),
        (entry(1, 20, type="verdict"), False),
        (entry(1, 20, frame=None), False),
        (entry(1, 20, model="other"), False),
    ],
)
def test_only_payloads_of_the_model_are_due(bed: Bed, data: bytes, due: bool) -> None:
    bed.add(data)
    assert bed.sweep(m=10.0) == due
    assert (address(1) in bed.blobs) is not due


def test_what_names_no_blob_or_one_that_is_gone_waits_for_nothing(bed: Bed) -> None:
    bed.add(entry(1, 20, blob=""), entry(2, 20))
    bed.blobs.clear()
    assert bed.sweep(m=10.0) == 0
    assert read_state(bed.path, PlainAead()).waiting == {}


def test_a_chunk_is_as_old_as_its_newest_entry(bed: Bed) -> None:
    for ages in ((20, 5), (5, 20), (20, 5, 7)):
        bed.add(*(entry(sum(ages), age) for age in ages))
    assert bed.sweep(m=10.0) == 0
    assert bed.sweep(NOW + 5, m=10.0) == 0
    assert bed.sweep(NOW + 5.001, m=10.0) == 2, "three of which two are the same"


def test_a_model_that_gets_a_window_late_is_looked_for_from_the_beginning(bed: Bed) -> None:
    bed.add(entry(1, 20), entry(2, 20, "late"))
    assert bed.sweep(m=10.0) == 1
    assert bed.sweep() == 0
    assert bed.sweep(m=10.0, late=10.0) == 1
    assert bed.reads == [(0, 1000), (0, 1000)]
    bed.add(entry(3, 20, "late"), entry(4, 20))
    assert bed.sweep(m=10.0) == 1
    assert bed.reads[2:] == [(2, 1002)]
    assert bed.sweep(late=10.0) == 1, "it has no window now, and had none while it was read"
    assert bed.reads[3:] == [(0, 1000)]


def test_the_state_is_kept_when_it_changed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = module.replace_file
    monkeypatch.setattr(module, "replace_file", lambda path, data: (written.append(data), real(path, data))[1])
    assert bed.sweep() == 0
    assert written == []
    for entries, windows, changed in (
        ((), {"m": 10.0}, True),
        ((), {"m": 10.0}, False),
        ((entry(1, 5),), {"m": 10.0}, True),
        ((), {"m": 10.0}, False),
        ((), {"m": 4.0}, True),
        ((), {"m": 4.0}, False),
        ((), {"m": 4.0, "n": 4.0}, True),
        ((), {"n": 4.0, "m": 4.0}, False),
    ):
        written.clear()
        bed.add(*entries)
        bed.sweep(**windows)
        assert bool(written) == changed, windows
    plain = PlainAead().open(bed.path.read_bytes(), b"governed retention state 1")
    assert msgspec.msgpack.decode(plain, type=RetentionState) == RetentionState(
        ["m", "n"], 1, newest=timestamp(NOW - 5)
    )


def test_the_state_is_gone_on_from(bed: Bed) -> None:
    bed.add(entry(1, 5))
    bed.sweep(m=10.0)
    bed.retention = bed.opened()
    assert bed.sweep(NOW + 6, m=10.0) == 1
    assert bed.reads == [(0, 1000)]
    assert bed.said == []


@pytest.mark.parametrize("how", ["another key", "no msgpack"])
def test_a_state_that_cant_be_read_is_made_anew_and_said(bed: Bed, how: str) -> None:
    bed.add(entry(1, 5))
    bed.sweep(m=10.0)
    if how == "no msgpack":
        bed.path.write_bytes(PlainAead().seal(b"\xc1", b"governed retention state 1"))
    bed.retention = bed.opened(Failing() if how == "another key" else None)
    (said,) = bed.said
    assert said.startswith(f"{bed.path} couldn't be read (")
    assert said.endswith("): it is made anew from the entries")
    assert bed.sweep(NOW + 6, m=10.0) == 1
    assert bed.reads == [(0, 1000), (0, 1000)]


# -- receipts ----------------------------------------------------------------------------------------------------------


def told(number: int, age: float = 0, **fields: Any) -> LedgerEntry:
    return msgspec.json.decode(entry(number, age, **fields), type=LedgerEntry)


def receipt(*numbers: int, before: str | None, model: str = "m", type: str = "deletion") -> LedgerEntry:
    summary: dict[str, object] = {"blobs": [address(n) for n in numbers]}
    if before is not None:
        summary["before"] = before
    return LedgerEntry(type, "default", model, "retention", timestamp(NOW), summary=summary)


def test_a_receipt_explains_what_it_lists_and_nothing_else() -> None:
    known = Receipts()
    lost = f"its blob {address(1)} is missing, and no deletion receipt covers it"
    assert known.problem(told(1, 20)) == lost
    known.add(receipt(1, before=timestamp(NOW), type="verdict"))
    assert known.problem(told(1, 20)) == lost
    known.add(receipt(2, 1, before=timestamp(NOW - 10)))
    assert known.problem(told(1, 20)) is known.problem(told(1, 10.001)) is known.problem(told(2, 20)) is None
    early = f"its blob {address(1)} was deleted too early: the receipt is for payloads before {timestamp(NOW - 10)}"
    assert known.problem(told(1, 10)) == known.problem(told(1, 9)) == early
    assert known.problem(told(1, 9, type="verdict")) is None, "another record of the same chunk"
    assert known.problem(told(1, 20, model="other")) == lost
    assert known.problem(told(1, 20, frame=None)) == lost
    assert known.problem(told(3, 20)) == lost.replace(address(1), address(3))
    known.add(receipt(4, before=None))
    assert "deleted too early: the receipt is for payloads before " in str(known.problem(told(4, 20)))
    assert list(Receipts.addresses(receipt(1, 2, before=None))) == [address(1), address(2)]
    assert list(Receipts.addresses(receipt(1, before=None, type="verdict"))) == []
    assert list(Receipts.addresses(told(1, type="deletion"))) == []


# -- a clock that jumps ------------------------------------------------------------------------------------------------

DAY = 86_400.0


class Passing:
    """Time that really passes."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_a_clock_that_jumps_ahead_deletes_a_day_more_each_hour(bed: Bed) -> None:
    bed.add(*(entry(number, DAY * (1 - number)) for number in range(2, 6)), entry(1, 5))
    pace = Pace(passing := Passing())
    assert bed.retention.sweep({"m": DAY}, NOW, pace) == 0
    passing.seconds += 10
    jumped = NOW + 365 * DAY
    assert bed.retention.sweep({"m": DAY}, jumped, pace) == 0, "all of it would be due"
    assert pace.behind == pytest.approx(365 * DAY - 240 + 5)  # the newest entry's time is where it began
    assert "a day further each hour" in pace.problem()
    passing.seconds += 3600
    assert bed.retention.sweep({"m": DAY}, jumped, pace) == 1
    passing.seconds += 3600
    assert bed.retention.sweep({"m": DAY}, jumped, pace) == 1
    passing.seconds += 60
    assert bed.retention.sweep({"m": DAY}, NOW + 7270, pace) == 0, "the clock is right again"
    assert (pace.behind, pace.problem()) == (0.0, "")


def test_a_restart_doesn_t_let_a_jump_through(bed: Bed) -> None:
    bed.add(entry(1, 5))
    pace = Pace(passing := Passing())
    bed.retention.sweep({"m": DAY}, NOW, pace)
    bed.retention = bed.opened()
    assert bed.retention.sweep({"m": DAY}, NOW + 9 * DAY, Pace(passing)) == 0
    bed.path.unlink()
    bed.retention = bed.opened()
    assert bed.retention.sweep({"m": DAY}, NOW + 9 * DAY, Pace(passing)) == 0, "nor does a lost state"


def test_after_an_outage_it_catches_up(bed: Bed) -> None:
    bed.add(entry(1, 5))
    bed.retention.sweep({"m": DAY}, NOW, Pace(passing := Passing()))
    bed.retention, pace = bed.opened(), Pace(passing)
    assert bed.retention.sweep({"m": DAY}, NOW + 2 * DAY, pace) == 0
    passing.seconds += 2 * 3600 + 600
    assert bed.retention.sweep({"m": DAY}, NOW + 2 * DAY + 7800, pace) == 1


def test_between_two_looks_too_it_is_known_how_far_a_clock_ran_ahead() -> None:
    pace = Pace(passing := Passing())
    pace.moment(NOW, NOW)
    passing.seconds += 100
    assert pace.lag(NOW + 10 * DAY) == pytest.approx(10 * DAY - 24 * 100), "asked first after it had jumped"
    passing.seconds += 3600
    assert pace.lag(NOW + 10 * DAY + 3600) == pytest.approx(10 * DAY + 3600 - 24 * 3700)
    passing.seconds += 20 * 3600
    assert pace.lag(NOW + 10 * DAY + 21 * 3600) == 0, "the moment may have caught up"


def test_a_clock_that_jumps_once_it_was_asked_stays_ahead_until_it_is_set() -> None:
    pace, began = Pace(passing := Passing()), NOW - passing()
    assert pace.lag(NOW) == 0
    for hours in (1, 1000):
        passing.seconds += hours * 3600
        assert pace.lag(began + passing() + DAY) == DAY
    assert (pace.lag(began + passing()), pace.lag(NOW)) == (0, 0)


def test_a_quiet_archive_is_not_behind_after_a_restart(bed: Bed) -> None:
    bed.add(entry(1, 5))
    pace = Pace(passing := Passing())
    for hour in range(50):
        passing.seconds = 1000 + hour * 1800.0
        bed.retention.sweep({"m": 90 * DAY}, NOW + hour * 1800.0, pace)
    bed.retention, pace = bed.opened(), Pace(passing)
    bed.retention.sweep({"m": 90 * DAY}, NOW + 50 * 1800.0, pace)
    assert pace.behind <= 3600 + 1800


def test_a_model_that_gets_a_window_doesn_t_forget_the_moment(bed: Bed) -> None:
    bed.add(entry(1, 5), entry(2, 5, "other"))
    pace = Pace(Passing())
    bed.retention.sweep({"m": DAY}, NOW, pace)
    assert bed.retention.sweep({"m": DAY, "other": DAY}, NOW + 9 * DAY, pace) == 0


def test_a_dead_letter_that_claims_the_far_future_goes_in_time(bed: Bed) -> None:
    """Its clock was ten years ahead: therefore it was refused."""
    future = -3650 * DAY
    letter = entry(1, future, type="deadLetter")
    came = LedgerEntry("received", "default", "m", "s", timestamp(NOW), summary={"newest": timestamp(NOW - future)})
    bed.add(canonical(came), letter, entry(2, -30, type="deadLetter"))
    assert bed.sweep(NOW + 9, m=10.0) == 0
    assert bed.sweep(NOW + 11, m=10.0) == 1
    assert bed.blobs == {address(2)}, "that one's clock was within the bound"


def test_a_dead_letter_that_nothing_came_before_is_as_old_as_it_says(bed: Bed) -> None:
    bed.add(entry(1, 20, type="deadLetter"), entry(2, 0, type="deadLetter"))
    assert bed.sweep(NOW + 1, m=10.0) == 1
    assert bed.blobs == {address(2)}


def test_a_letter_of_the_far_future_was_not_deleted_too_early() -> None:
    letter = msgspec.json.decode(entry(1, -3650 * DAY, type="deadLetter"), type=LedgerEntry)
    summary = {"before": timestamp(NOW), "blobs": [address(1)]}
    receipts = Receipts()
    receipts.add(LedgerEntry("deletion", "default", "m", "", timestamp(NOW + 10), summary=summary))
    assert receipts.problem(letter) is None
    soon = msgspec.json.decode(entry(1, -5, type="deadLetter"), type=LedgerEntry)
    assert "deleted too early" in str(receipts.problem(soon))
    answer = msgspec.json.decode(entry(1, -3650 * DAY), type=LedgerEntry)
    assert "deleted too early" in str(receipts.problem(answer)), "whose time was checked as it came"
