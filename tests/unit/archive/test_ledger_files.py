"""The ledger's files one by one: what is written in which order, what each says, and what is made of one that doesn't
fit."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.exceptions import InvalidTag

from governed_api.names import ARCHIVE
from governed_serving.archive.errors import LedgerDamaged, Refused
from governed_serving.archive.ledger import entrylog, idindex, tiles
from governed_serving.archive.ledger import ledger as module
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Ledger, Snapshot
from governed_serving.archive.ledger.note import Signer, open_checkpoint, sign_checkpoint

from .ledgers import SIGNER, PlainAead, batch, leaf, opened
from .test_merkle import naive_root

REMEDY = "restore the archive from a backup, or serve it with --accept-loss, which an entry will say for ever"


def typed(first: int, *types: str, model: str = "credit", stream: str = "s") -> Batch:
    return Batch(model, stream, first, [leaf(f"{stream}/{i}", t, model) for i, t in enumerate(types, first)])


def killed(ledger: Ledger) -> None:
    ledger._log.close()


class CountingAead(PlainAead):
    """Counts what it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    def open(self, data: bytes, aad: bytes) -> bytes:
        self.opened += 1
        return super().open(data, aad)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were put in place, synced or swept, in order."""
    done: list[str] = []

    def noted(owner: object, name: str, told: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def step(*args: object, **kwargs: object) -> object:
            answer = real(*args, **kwargs)
            done.append(told(*args))
            return answer

        monkeypatch.setattr(owner, name, step)

    noted(module, "replace_file", lambda path, *_: path.name)
    noted(tiles, "fsync_file", lambda path: f"tile {path.name}")
    noted(idindex.IdIndex, "_store", lambda *_: "run")
    noted(idindex.IdIndex, "sweep", lambda *_: "sweep")
    noted(entrylog.EntryLog, "append", lambda *_: "entries")
    noted(entrylog.EntryLog, "roll", lambda *_: "roll")
    return done


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_new_ledger_is_made_wherever_it_is_to_lie(tmp_path: Path) -> None:
    root = tmp_path / "some" / "where"
    ledger = opened(root)
    assert (ledger.size, ledger.rebuilt, list(ledger.said)) == (0, 0, [])
    assert ledger.vkey == str(SIGNER.verifier)
    assert (root / "vkey").read_text() == f"{SIGNER.verifier}\n"
    key = PlainAead().open((root / "index-key").read_bytes(), b"governed ledger index key 1")
    assert len(key) == 32
    assert not (root / "checkpoint").exists()
    assert ledger.append(Batch("credit", "s", 0, [])) == module.Appended(0, (), 0)
    ledger.append(batch(0, 2))
    assert ledger.append(Batch("credit", "s", 0, [])) == module.Appended(2, (), 2)


def test_a_checkpoint_is_on_disk_before_anyone_sees_it(tmp_path: Path, steps: list[str]) -> None:
    root, kept = tmp_path / "ledger", tmp_path / "kept"
    ledger = Ledger(root, PlainAead(), SIGNER, keep=kept)
    ledger.append(batch(0, 300))
    steps.clear()
    note = ledger.checkpoint()
    assert steps == ["edge", "checkpoint", "kept"]
    assert (root / "checkpoint").read_text() == kept.read_text() == note
    signed = open_checkpoint(note, SIGNER.verifier)
    assert (signed.size, signed.root) == (300, naive_root(batch(0, 300).entries))
    size, edge = msgspec.msgpack.decode((root / "edge").read_bytes())
    assert (size, [len(e) for e in edge]) == (300, [44 * 32, 32])
    steps.clear()
    assert ledger.checkpoint() == note
    assert steps == [], "nothing has come since"
    ledger.append(batch(300, 1))
    assert open_checkpoint(ledger.checkpoint(), SIGNER.verifier).size == 301
    assert steps == ["entries", "edge", "checkpoint", "kept"]


def test_a_checkpoint_that_couldnt_be_kept_is_signed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger", PlainAead(), SIGNER, keep=tmp_path / "kept")
    ledger.append(batch(0, 1))
    real = module.replace_file

    def full(path: Path, data: bytes) -> None:
        if path.name == "kept":
            raise OSError(28, "No space left on device")
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(module, "replace_file", full)
        with pytest.raises(OSError, match="No space"):
            ledger.checkpoint()
    assert ledger.checkpoint() == (tmp_path / "kept").read_text()


def test_a_rotated_key_signs_at_once_and_the_older_ones_after_it(tmp_path: Path, steps: list[str]) -> None:
    ledger, fresh = opened(tmp_path), Signer(SIGNER.name, bytes([7]) * 32)
    ledger.append(batch(0, 1))
    old = ledger.checkpoint()
    steps.clear()
    ledger.sign_with(fresh, (SIGNER,))
    assert steps == ["vkey", "edge", "checkpoint"]
    assert (tmp_path / "vkey").read_text() == f"{fresh.verifier}\n"
    note = (tmp_path / "checkpoint").read_text()
    assert note == ledger.checkpoint() == sign_checkpoint(fresh, 1, ledger.root_hash(), older=(SIGNER,))
    assert ledger.vkey == str(fresh.verifier)
    (tmp_path / "checkpoint").write_text(old)
    killed(ledger)
    assert Ledger(tmp_path, PlainAead(), fresh, (SIGNER,)).size == 1, "what an older key signed is known as well"


def test_a_snapshot_leans_on_nothing_that_isnt_durable(tmp_path: Path, steps: list[str]) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 600))
    steps.clear()
    ledger.close()
    assert steps == ["edge", "checkpoint", "tile 000", "tile 001", "run", "state", "sweep"]
    state = msgspec.msgpack.decode(
        PlainAead().open((tmp_path / "state").read_bytes(), b"governed ledger state 1"), type=Snapshot
    )
    assert (state.size, state.streams) == (600, [("credit", "server-0", [(0, 0, 600)])])
    assert state.runs == [path.name for path in (tmp_path / "index").iterdir()]
    assert state.runs == [f"{0:020d}-{599:020d}-600.run"], "a prediction is found by its id alone"
    assert [len(e) // 32 for e in state.edge] == [88, 2]


def test_a_full_segment_ends_with_a_checkpoint_and_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    monkeypatch.setattr(entrylog, "_SEGMENT_ENTRIES", 100)
    ledger = opened(tmp_path)
    ledger.append(batch(0, 99))
    steps.clear()
    ledger.append(batch(99, 1))
    assert steps == ["entries", "edge", "checkpoint", "roll", "run", "state", "sweep"]
    ledger.append(batch(100, 50))
    for first in range(150, 160):
        ledger.append(batch(first, 1))
    killed(ledger)
    cipher = CountingAead()
    again = opened(tmp_path, cipher)
    assert again.root_hash() == naive_root(batch(0, 160).entries)
    # the key of the index, each frame behind the snapshot as the tail is looked through and again as it is taken in,
    # the snapshot
    assert cipher.opened == 1 + 2 * 11 + 1


def test_a_group_is_numbered_and_answered_in_its_order(tmp_path: Path, steps: list[str]) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 2, "a"))
    steps.clear()
    answers = ledger.append_group([batch(0, 3, "a"), batch(5, 1, "b"), batch(1, 2, "c"), batch(0, 2, "d")])
    assert steps == ["entries"]
    a, b, c, d = answers
    assert a == module.Appended(0, ((0, 3),), 7)
    assert isinstance(b, Refused)
    assert (c, d) == (module.Appended(3, ((3, 2),), 7), module.Appended(5, ((5, 2),), 7))
    steps.clear()
    assert ledger.append_group([batch(0, 3, "a"), batch(1, 1, "c")]) == [
        module.Appended(0, ((0, 3),), 7), module.Appended(3, ((3, 1),), 7),
    ]  # fmt: skip
    assert steps == [], "nothing is new"
    with pytest.raises(ValueError, match="a group must hold each stream once"):
        ledger.append_group([batch(3, 1, "a"), batch(4, 1, "a")])
    assert ledger.size == 7
    assert ledger.entries(0, 99) == [
        *batch(0, 3, "a").entries, *batch(1, 2, "c").entries, *batch(0, 2, "d").entries,
    ]  # fmt: skip
    assert ledger.entries(6, 99) == batch(1, 1, "d").entries
    assert ledger.entries(3, 5) == batch(1, 2, "c").entries


def test_a_number_before_the_stream_began_is_refused_and_holds_nobody_up(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(1, 2, "a"))
    refused, other = ledger.append_group([batch(0, 4, "a"), batch(0, 1, "b")])
    assert isinstance(refused, Refused)
    assert (refused.status, refused.details) == (409, {"expected": 3})
    assert str(refused) == "stream a: expected seq 3, found 0: entry 0 isn't in the ledger"
    assert other == module.Appended(2, ((2, 1),), 3)


def test_a_repeat_is_compared_entry_by_entry(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 5))
    for place in range(5):
        entries = batch(0, 7).entries
        entries[place] = leaf("forged")
        with pytest.raises(Refused, match=f"entry {place} of stream server-0 .* as index {place}") as refused:
            ledger.append(Batch("credit", "server-0", 0, entries))
        assert refused.value.status == 409
    assert ledger.append(batch(4, 2)).ranges == ((4, 2),)
    with pytest.raises(Refused, match="expected seq 6, found 7"):
        ledger.append(batch(7, 1))
    assert ledger.append(batch(6, 1)).size == 7
    assert ledger.next_seq("credit", "server-0") == 7
    assert ledger.next_seq("credit", "nobody") is None


@pytest.mark.parametrize(("first", "taken"), [(0, True), (1, True), (2, False)])
def test_a_stream_begins_at_0_or_1(tmp_path: Path, first: int, taken: bool) -> None:
    ledger = opened(tmp_path)
    if taken:
        assert ledger.append(batch(first, 1)).size == 1
    else:
        with pytest.raises(Refused, match="is new and must begin at 0 or 1, found 2") as refused:
            ledger.append(batch(first, 1))
        assert (refused.value.status, refused.value.details) == (409, {"expected": 0})


# -- a loss ------------------------------------------------------------------------------------------------------------


def gap(ledger: Ledger, first: int, stream: str, model: str = "credit") -> bool:
    """Whether a batch may begin there."""
    try:
        ledger.append(typed(first, "prediction", model=model, stream=stream))
    except Refused:
        return False
    return True


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_loss_each_stream_may_leave_one_gap(tmp_path: Path, before: int, restarted: bool) -> None:
    ledger = opened(tmp_path)
    for seq in range(before):
        ledger.append(typed(seq, "prediction", stream="old"))
    assert not gap(ledger, 9, "new")
    ledger.append(typed(0, "loss", model=ARCHIVE))
    if restarted:
        ledger.close()
        ledger = opened(tmp_path)
    assert not gap(ledger, 2, "s", ARCHIVE), "the stream of the loss itself has lost nothing"
    assert gap(ledger, before + 4, "old")
    assert not gap(ledger, before + 6, "old")
    assert gap(ledger, before + 5, "old")
    assert gap(ledger, 7, "new")
    assert not gap(ledger, 9, "new")


def test_what_else_says_loss_or_is_the_archives_is_none(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(typed(0, "loss", model="credit"))
    assert not gap(ledger, 7, "new")
    ledger.append(typed(0, "key", model=ARCHIVE))
    assert not gap(ledger, 7, "new")
    ledger.append(typed(1, "key", "loss", model=ARCHIVE))
    assert gap(ledger, 7, "new")


# -- finding -----------------------------------------------------------------------------------------------------------


def indices(ledger: Ledger, *args: str, **kwargs: int) -> list[int]:
    return [one.index for one in ledger.find(*args, **kwargs)]


def test_entries_are_found_by_id_by_type_by_both_and_by_model(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(typed(0, "prediction", "verdict", "prediction", "verdict"))
    ledger.append(typed(0, "verdict", "prediction", model="other"))
    for _ in range(2):
        assert indices(ledger, "credit") == [0, 1, 2, 3]
        assert indices(ledger, "credit", "", "prediction") == [0, 2]
        assert indices(ledger, "credit", "", "verdict") == [1, 3]
        assert indices(ledger, "credit", "s/1") == [1]
        assert indices(ledger, "credit", "s/1", "verdict") == [1]
        assert indices(ledger, "credit", "s/1", "prediction") == []
        assert indices(ledger, "other", "s/1") == [5]
        assert indices(ledger, "other", "", "verdict") == [4]
        assert indices(ledger, "nobody") == indices(ledger, "nobody", "s/1") == []
        (one,) = ledger.find("other", "s/1")
        assert one == module.FoundEntry(5, leaf("s/1", "prediction", "other"))
        ledger._snapshot()  # once from memory, once from the disk


def test_a_hash_that_two_ids_share_mixes_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idindex.IdIndex, "hash", lambda *_: 7)
    test_entries_are_found_by_id_by_type_by_both_and_by_model(tmp_path)


@pytest.mark.parametrize("how", [("credit",), ("credit", "", "verdict"), ("credit", "same")])
def test_the_newest_hundred_are_found_or_as_many_as_asked_for(tmp_path: Path, how: tuple[str, ...]) -> None:
    ledger = opened(tmp_path)
    ledger.append(Batch("credit", "s", 0, [leaf("same", "verdict")] * 103))
    assert indices(ledger, *how) == list(range(3, 103))
    assert indices(ledger, *how, limit=1) == [102]
    assert indices(ledger, *how, limit=103) == indices(ledger, *how, limit=104) == list(range(103))


def test_without_an_id_the_newest_20000_entries_are_looked_through(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(typed(0, "prediction", "prediction", model="other"))
    ledger.append(Batch("credit", "s", 0, [leaf("same")] * 19_999))
    assert indices(ledger, "other") == [1]
    assert indices(ledger, "other", "s/0") == [0]


# -- opening -----------------------------------------------------------------------------------------------------------


def cut(root: Path, size: int) -> None:
    """Cut the log within the frame that begins at ``size`` entries."""
    (segment,) = (root / "log").glob("*.seg")
    log = entrylog.EntryLog(root / "log", PlainAead(), SIGNER.name)
    at = next(place.offset for place in log._index(0) if place.first == size)
    os.truncate(segment, at + 1)


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """A closed ledger of ten entries in frames of five."""
    ledger = opened(tmp_path)
    ledger.append(batch(0, 5))
    ledger.append(batch(5, 5))
    ledger.close()
    return tmp_path


def test_a_log_shorter_than_its_snapshot_is_no_torn_write(ten: Path) -> None:
    (ten / "checkpoint").unlink()
    cut(ten, 5)
    words = rf"^5 entries can be read, {ten / 'state'} was written when there were 10; {REMEDY}$"
    with pytest.raises(LedgerDamaged, match=words) as damaged:
        opened(ten)
    assert damaged.value.index == 5
    again = Ledger(ten, PlainAead(), SIGNER, accept_loss=True)
    assert (again.size, again.root_hash()) == (5, naive_root(batch(0, 5).entries))
    assert indices(again, "credit", "server-0/4") == [4]
    assert indices(again, "credit", "server-0/5") == []
    assert again.append(batch(5, 5)).size == 10


def test_a_snapshot_in_the_middle_of_a_frame_is_not_gone_on_from(ten: Path) -> None:
    tree = tiles.TiledTree(ten / "other")
    tree.extend([bytes(32)] * 3)
    state = Snapshot(3, tree.edge, [], [])
    (ten / "state").write_bytes(PlainAead().seal(msgspec.msgpack.encode(state), b"governed ledger state 1"))
    with pytest.raises(LedgerDamaged, match=r"^entries from 3 on are missing, the next are 5") as damaged:
        opened(ten)
    assert damaged.value.index == 3


def test_what_was_made_anew_is_said_in_words(ten: Path) -> None:
    (ten / "index-key").write_bytes(b"spoilt")
    again = opened(ten)
    assert list(again.said) == ["index-key was damaged or missing: a new one was made, and the index with it"]
    assert (ten / "index-key.damaged").read_bytes() == b"spoilt"
    assert indices(again, "credit", "server-0/7") == [7]
    again.close()
    (ten / "state").write_bytes(b"spoilt")
    again = opened(ten)
    (said,) = again.said
    assert said.startswith("state couldn't be opened (")
    assert said.endswith("): it is made anew from the entries")
    again.close()
    next((ten / "index").iterdir()).unlink()
    (said,) = opened(ten).said
    assert said.endswith("is missing: the index is made anew from the entries")


def test_another_cipher_spoils_nothing(ten: Path) -> None:
    """Not the key of the index, and, where that is gone, not the snapshot."""
    before = {path: path.read_bytes() for path in ten.rglob("*") if path.is_file()}
    other = PlainAead(bytes([1]) * 32)
    with pytest.raises(InvalidTag):
        opened(ten, other)
    assert {path: path.read_bytes() for path in ten.rglob("*") if path.is_file()} == before
    key = PlainAead(bytes([1]) * 32).seal(bytes(32), b"governed ledger index key 1")
    (ten / "index-key").write_bytes(key)
    (ten / "checkpoint").unlink()
    with pytest.raises((InvalidTag, LedgerDamaged)):
        opened(ten, other)
    assert (ten / "state").read_bytes() == before[ten / "state"]


def test_the_newest_64_things_that_were_made_anew_are_said(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(70):
        ledger.say(str(number))
    assert list(ledger.said) == [str(number) for number in range(6, 70)]
    assert ledger.rebuilt == 70


def test_the_greatest_of_what_was_signed_is_what_was_lost(ten: Path) -> None:
    notes = {f"note {size}": sign_checkpoint(SIGNER, size, bytes(32)) for size in (12, 30, 20)}
    for places in (notes, dict(reversed(notes.items()))):
        again = Ledger(ten, PlainAead(), SIGNER, told=places, accept_loss=True)
        assert again.lost is not None
        assert (again.lost.place, again.lost.checkpoint.size, again.size) == ("note 30", 30, 10)
        again.close()
    told = {"note": sign_checkpoint(SIGNER, 10, naive_root(batch(0, 10).entries))}
    assert Ledger(ten, PlainAead(), SIGNER, told=told, accept_loss=True).lost is None


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (
            10,
            "note: the first 10 entries don't have the root of the signed checkpoint; run verify to see which differs",
        ),
        (11, "10 entries can be read, but a checkpoint over 11 was signed"),
    ],
)
def test_what_contradicts_a_note_that_was_kept_is_not_served(ten: Path, size: int, words: str) -> None:
    told = {"note": sign_checkpoint(SIGNER, size, bytes(32))}
    with pytest.raises(LedgerDamaged, match=f"^{words}.*{REMEDY}$"):
        Ledger(ten, PlainAead(), SIGNER, told=told)
    assert opened(ten).size == 10


def test_a_damaged_checkpoint_is_taken_from_its_copy_or_not_at_all(ten: Path, tmp_path: Path) -> None:
    ledger = Ledger(ten, PlainAead(), SIGNER, keep=tmp_path / "kept")
    ledger.append(batch(10, 1))
    note = ledger.checkpoint()
    ledger.close()
    (ten / "checkpoint").write_text(note.replace("11", "12"))
    again = Ledger(ten, PlainAead(), SIGNER, keep=tmp_path / "kept")
    (said,) = again.said
    assert said.startswith("checkpoint couldn't be read (")
    assert said.endswith("): the copy beside the ledger has it")
    killed(again)
    for keep, content in ((None, note), (tmp_path / "none", note), (tmp_path / "kept", "x")):
        (tmp_path / "kept").write_text(content)
        with pytest.raises(LedgerDamaged, match=f"^{ten / 'checkpoint'}: .*{REMEDY}$"):
            Ledger(ten, PlainAead(), SIGNER, keep=keep)


# -- looking after -----------------------------------------------------------------------------------------------------


@pytest.fixture
def long(tmp_path: Path) -> Ledger:
    """4,196 entries: two looks of 2,048, and a hundred."""
    ledger = Ledger(tmp_path / "ledger", PlainAead(), SIGNER, keep=tmp_path / "kept")
    for first in range(0, 4096, 512):
        ledger.append(batch(first, 512))
    ledger.append(batch(4096, 100))
    ledger.checkpoint()
    ledger._snapshot()
    return ledger


def frame_of(ledger: Ledger, index: int) -> tuple[Path, int, int]:
    (segment,) = (ledger.root / "log").glob("*.seg")
    place = next(p for p in ledger._log._index(0) if p.first <= index < p.first + p.count)
    return segment, place.offset, place.length


def test_a_look_goes_from_tile_to_tile(long: Ledger) -> None:
    assert [long.inspect(start) for start in (0, 2048, 4096)] == [2048, 4096, 0]
    assert [long.inspect(start, 300) for start in (0, 100, 255, 256, 300)] == [256, 256, 256, 512, 512]
    assert [long.inspect(3900, 256), long.inspect(3900, 512), long.inspect(4096, 256)] == [4096, 0, 0]
    assert (long.faults, long.rebuilt) == ({}, 0)
    long.append(batch(4196, 156))
    assert long.inspect(4096, 256) == 0
    long.append(batch(4352, 1))
    assert long.inspect(4096, 256) == 4352


@pytest.mark.parametrize("index", [0, 511, 2048, 4095, 4195])
def test_a_frame_that_changed_is_a_fault_where_it_lies(long: Ledger, index: int) -> None:
    segment, offset, length = frame_of(long, index)
    data = segment.read_bytes()
    at = offset + length - 1
    segment.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for _ in range(2):
        for start in (0, 2048, 4096):
            long.inspect(start)
    (found,) = long.faults.items()
    assert found[0] == index // 2048 * 2048
    assert "don't decrypt" in found[1]
    assert found[1].endswith("; restore the archive from a backup")
    segment.write_bytes(data)
    long.inspect(index // 2048 * 2048)
    assert long.faults == {}


def test_an_entry_of_the_right_key_that_was_not_signed_is_a_fault(long: Ledger) -> None:
    """Rewritten below the archive while it runs."""
    (segment,) = (long.root / "log").glob("*.seg")
    data = segment.read_bytes()
    log = entrylog.EntryLog(long.root / "log", PlainAead(), SIGNER.name)
    entries = batch(4096, 100).entries
    entries[7] = leaf("forged".ljust(len("server-0/4103"), "x"))
    _, offset, length = frame_of(long, 4096)
    frame = log._sealed(4096, Batch("credit", "server-0", 4096, entries))
    segment.write_bytes(data[:offset] + frame)
    assert [long.inspect(start) for start in (0, 2048, 4096)] == [2048, 4096, 0]
    assert long.faults == {4096: "entry 4103 isn't the one that was signed: restore the archive from a backup"}
    segment.write_bytes(data[: offset + length - 1])
    long.inspect(4096)
    assert long.faults == {4096: "entries between 4096 and 4196 are missing from the log"}


def test_tiles_are_looked_at_where_the_look_is(long: Ledger) -> None:
    paths = [long.root / "tile" / "0" / f"{number:03d}" for number in range(16)]
    kept = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(bytes(8192))
    long.inspect(2048)
    assert [path.read_bytes() == whole for path, whole in zip(paths, kept, strict=True)] == [False] * 8 + [True] * 8
    assert list(long.said) == [f"tile/0/{n:03d} wasn't what the entries make: it was made anew" for n in range(8, 16)]
    long.inspect(0, 512)
    assert [path.read_bytes() == kept[n] for n, path in enumerate(paths[:4])] == [True, True, False, False]


@pytest.mark.parametrize("name", ["vkey", "checkpoint", "kept"])
@pytest.mark.parametrize("harm", ["changed", "deleted"])
def test_small_files_are_written_anew_from_memory(long: Ledger, name: str, harm: str) -> None:
    path = (long.root / name) if name != "kept" else long.root.with_name("kept")
    whole = path.read_bytes()
    path.write_bytes(whole + b"x") if harm == "changed" else path.unlink()
    long.inspect(0)
    assert list(long.said) == [], "they are looked at behind the last entry"
    long.inspect(4096)
    assert list(long.said) == [f"{name} wasn't what was signed: it was written anew"]
    assert path.read_bytes() == whole
    long.inspect(4096)
    assert long.rebuilt == 1


def test_the_snapshot_and_the_index_are_written_anew(long: Ledger) -> None:
    (long.root / "state").write_bytes(b"spoilt")
    (run,) = (long.root / "index").iterdir()
    run.write_bytes(bytes(run.stat().st_size))
    long.inspect(4096)
    (said,) = long.said
    assert said == f"index run {run.name} isn't what was written: the index is made anew from the entries"
    long.inspect(4096)
    assert long.rebuilt == 1
    assert indices(long, "credit", "server-0/4000") == [4000]


def test_a_snapshot_that_doesnt_open_is_written_anew(long: Ledger) -> None:
    (long.root / "state").write_bytes(b"spoilt")
    long.inspect(4096)
    assert list(long.said) == ["state couldn't be opened: it was written anew"]
    killed(long)
    cipher = CountingAead()
    assert Ledger(long.root, cipher, SIGNER).rebuilt == 0
    (long.root / "state").unlink()
    ledger = Ledger(long.root, PlainAead(), SIGNER)
    ledger.inspect(4096)
    assert list(ledger.said) == [], "one that isn't there is written as the ledger closes"


def test_a_ledger_that_must_be_read_again_is_before_it_is_looked_at(
    long: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = (long.root / "state").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(tiles.TiledTree, "extend", full)
        with pytest.raises(OSError, match="No space"):
            long.append(batch(4196, 2))
    assert long.size == 4196
    assert long.inspect(4096) == 0
    assert (long.size, long.faults) == (4198, {})
    with monkeypatch.context() as patched:
        patched.setattr(tiles.TiledTree, "extend", full)
        with pytest.raises(OSError, match="No space"):
            long.append(batch(4198, 1))
    long.close()
    assert (long.root / "state").read_bytes() == before, "nothing is written of what isn't known"
    assert opened(long.root).size == 4199
