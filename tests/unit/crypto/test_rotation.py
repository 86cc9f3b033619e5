"""Keys that are due get a successor once, and whoever writes goes on under it without a restart."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from governed_serving.crypto import DirectoryStore, Kek, KeyMissing, Keyring, KeyWatch, SegmentCipher, rotate_due
from governed_serving.crypto.errors import CryptoError, KeyDestroyed, KeysetChanged
from governed_serving.crypto.keyring import KeyEvent
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import EventRecord

BORN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "keysets")


def ring(store: DirectoryStore, days: float = 0) -> Keyring:
    return Keyring(Kek(bytes(32)), store, clock=lambda: BORN + timedelta(days=days))


def test_keys_are_rotated_when_due_and_only_those_that_encrypt(store: DirectoryStore) -> None:
    first = ring(store)
    for purpose in ("journal", "artefact", "data", "masking-tokens", "masking-digests"):
        first.keyset(purpose)
    sealed = first.keyset("journal").seal(b"old")
    later = ring(store, 91)
    assert rotate_due(later, 90 * DAY, now=BORN + timedelta(days=90, microseconds=-1)) == []
    events = rotate_due(later, 90 * DAY, now=BORN + timedelta(days=90))
    assert sorted((e.purpose, e.action) for e in events) == [
        ("artefact", "rotated"),
        ("data", "rotated"),
        ("journal", "rotated"),
    ]
    assert rotate_due(later, 90 * DAY, now=BORN + timedelta(days=92)) == []
    assert rotate_due(later, 1e18, now=BORN + timedelta(days=92)) == [], "longer than a date can be reckoned with"
    assert len([k for k in later.inventory() if k.purpose == "journal"]) == 2
    assert later.keyset("journal").open(sealed) == b"old"


def test_of_two_that_rotate_at_once_one_wins_and_both_go_on(store: DirectoryStore) -> None:
    ring(store).keyset("journal")
    now = BORN + timedelta(days=91)
    rings = [ring(store, 91) for _ in range(6)]
    for one in rings:
        one.keyset("journal")
    start = threading.Barrier(len(rings))
    made: list[object] = []

    def rotate(one: Keyring) -> None:
        start.wait()
        made.extend(rotate_due(one, 90 * DAY, now=now))

    threads = [threading.Thread(target=rotate, args=(one,)) for one in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    for one in rings:
        one.keyset("journal").refresh()
    assert len({one.keyset("journal").primary_key_id for one in rings}) == 1


def test_a_key_that_another_made_since_the_look_counts(store: DirectoryStore) -> None:
    """Between seeing that a key is old and adding one, another process may have added its own."""
    first, second = ring(store), ring(store)
    old = first.keyset("journal").primary_key_id
    made = first.rotate("journal", old)
    with pytest.raises(KeysetChanged, match="rotated by another process"):
        second.rotate("journal", old)
    second.keyset("journal").refresh()
    assert [second.keyset("journal").primary_key_id] == made.keys


@pytest.mark.parametrize("error", [KeysetChanged, KeyDestroyed, KeyMissing])
def test_a_keyset_that_another_changed_keeps_none_of_the_rest_from_rotating(
    store: DirectoryStore, error: type[CryptoError]
) -> None:
    class Raced(Keyring):
        def rotate(self, purpose: str, primary: int | None = None) -> KeyEvent:
            if purpose == "artefact":
                raise error("meanwhile")
            return super().rotate(purpose, primary)

    keyring = Raced(Kek(bytes(32)), store, clock=lambda: BORN)
    for purpose in ("artefact", "data", "journal"):
        keyring.keyset(purpose)
    events = rotate_due(keyring, 90 * DAY, now=BORN + timedelta(days=91))
    assert [e.purpose for e in events] == ["data", "journal"]


@pytest.mark.parametrize(
    ("period", "pause"),
    [(0.0, 0.2), (1.0, 0.2), (2.0, 0.2), (2.1, 0.21), (30.0, 3.0), (2999.0, 299.9), (3000.0, 300.0), (1e9, 300.0)],
)
def test_a_watch_looks_ten_times_a_period_within_bounds(store: DirectoryStore, period: float, pause: float) -> None:
    assert KeyWatch(ring(store).keyset("journal"), period, pytest.fail, pytest.fail).pause == pytest.approx(pause)


def test_a_watch_ends_when_told_and_keeps_no_process_alive(store: DirectoryStore) -> None:
    before = set(threading.enumerate())
    watch = KeyWatch(ring(store).keyset("journal"), 1.0, pytest.fail, pytest.fail)
    watch.start()
    (thread,) = [t for t in threading.enumerate() if t not in before and t.name == "keys"]
    assert thread.daemon
    watch.stop()
    thread.join(60)
    assert not thread.is_alive()


def event(number: int) -> EventRecord:
    return EventRecord("label", f"e-{number}", "credit", "r1", 1.0, b"{}")


def test_a_running_journal_takes_the_new_key_with_its_next_record(store: DirectoryStore, tmp_path: Path) -> None:
    keyset = ring(store).keyset("journal")
    old = keyset.primary_key_id
    told: list[int] = []
    with Journal(tmp_path / "spool", "server-a", SegmentCipher(keyset), "PageCache") as journal:

        def new(key: int) -> None:
            told.append(key)
            journal.roll()

        watch = KeyWatch(keyset, 90 * DAY, new, pytest.fail)
        journal.append_blocking(event(0))
        watch.look()
        journal.append_blocking(event(1))
        elsewhere = ring(store, 91)
        elsewhere.rotate("journal")
        watch.look()
        journal.append_blocking(event(2))
    assert told == [keyset.primary_key_id] != [old]
    assert len(list((tmp_path / "spool" / "journal" / "server-a").glob("*.seg"))) == 2
    reader = JournalReader(tmp_path / "spool", "server-a", SegmentCipher(elsewhere.keyset("journal")))
    assert [frame.id for _, frame in reader.read() if isinstance(frame, EventRecord)] == ["e-0", "e-1", "e-2"]
    elsewhere.destroy_key("journal", old)
    shredded = JournalReader(tmp_path / "spool", "server-a", SegmentCipher(ring(store).keyset("journal")))
    with pytest.raises(KeyMissing):
        list(shredded.read())


def test_sealing_goes_on_while_keys_change(store: DirectoryStore) -> None:
    """A writer in the middle of sealing must never meet half of a keyset."""
    keyset = ring(store).keyset("journal")
    stop, sealed, failed = threading.Event(), list[bytes](), list[Exception]()

    def work() -> None:
        while not stop.is_set():
            try:
                sealed.append(keyset.seal(b"x"))
                assert keyset.open(sealed[-1]) == b"x"
            except Exception as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    rotating = ring(store, 91)
    for _ in range(8):
        rotating.rotate("journal")
        keyset.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    reader = ring(store).keyset("journal")
    assert all(reader.open(one) == b"x" for one in sealed[:: max(1, len(sealed) // 200)])


def test_trouble_is_told_and_the_watch_goes_on(store: DirectoryStore) -> None:
    keyset = ring(store).keyset("journal")
    troubles: list[Exception] = []
    told, taken = threading.Event(), threading.Event()

    def rotate() -> None:
        if not troubles:
            raise OSError("away")

    def trouble(error: Exception) -> None:
        troubles.append(error)
        ring(store, 91).rotate("journal")
        told.set()

    watch = KeyWatch(keyset, 1.0, lambda _: taken.set(), trouble, rotate)
    watch.start()
    assert told.wait(60)
    assert taken.wait(60)
    watch.stop()
    assert len(troubles) == 1
