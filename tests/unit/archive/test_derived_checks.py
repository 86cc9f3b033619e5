"""What a verification says of tiles, index, state, edge and the copy of the checkpoint: whether the archive runs, was
killed or was tampered with, each as the whole of what is found."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_serving.archive.ledger.ledger import STATE_AAD, Snapshot
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.service import ANCHOR
from governed_serving.archive.store.objects import OBJECTS
from governed_serving.archive.verify.derived import Derived, files_below, is_running, unexplained
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.truth import Truth

from .ledgers import SIGNER, PlainAead, batch, opened

SIZE, BEFORE = 300, 280
"""Entries of the ledger, and of its older copy; both have a full tile."""
KILL = (
    "a process that was killed leaves such a thing behind, and so does somebody who puts an older file back: the "
    "archive's next start settles it"
)
CIPHER: Any = PlainAead()
Found = list[tuple[str, str]]


class Bed:
    """A ledger of SIZE entries that closed in order; ``older``: a copy of it at BEFORE."""

    def __init__(self, root: Path) -> None:
        self.root, self.ledger, self.older = root / "archive", root / "archive" / "ledger", root / "older"
        self.batches = [batch(first, 20) for first in range(0, SIZE, 20)]
        self.signed = SIZE
        for upto in (BEFORE, SIZE):
            ledger = opened(self.ledger)
            for one in self.batches[ledger.size // 20 : upto // 20]:
                ledger.append(one)
            note = ledger.checkpoint()
            ledger.close()
            (self.root / ANCHOR).write_text(note)
            if upto == BEFORE:
                shutil.copytree(self.root, self.older)

    @property
    def state(self) -> Snapshot:
        return msgspec.msgpack.decode(CIPHER.open((self.ledger / "state").read_bytes(), STATE_AAD), type=Snapshot)

    def set_state(self, **fields: Any) -> None:
        state = msgspec.structs.replace(self.state, **fields)
        (self.ledger / "state").write_bytes(CIPHER.seal(msgspec.msgpack.encode(state), STATE_AAD))

    def put_back(self, *names: str) -> None:
        for name in names:
            if (self.older / name).is_dir():
                shutil.copytree(self.older / name, self.root / name, dirs_exist_ok=True)
            else:
                shutil.copy(self.older / name, self.root / name)

    def look(self, *, running: bool = False, upto: int = SIZE, during: Callable[[], object] = lambda: None) -> Findings:
        """``upto``: entries that could be read; ``during``: what happens while they are."""
        findings = Findings()
        derived = Derived(self.root, CIPHER, findings, running=running)
        truth = Truth("default", derived.index_key, derived.tiles, derived.asked, set())
        for one in self.batches[: upto // 20]:
            truth.take(truth.size, one)
        during()
        derived.check(truth, self.signed, SIGNER.verifier)
        files = {path for path in files_below(self.root, Findings()) if path.startswith("ledger/")}
        assert upto < SIZE or {path for path in files if not path.endswith("/")} <= derived.known, "all was looked at"
        return findings


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def told(findings: Findings) -> tuple[Found, Found, Found]:
    """(wrong, unchecked, beyond)."""
    parts = (findings.wrong, findings.unchecked, findings.beyond)
    wrong, unchecked, beyond = ([(one.place, one.problem) for one in part] for part in parts)
    return wrong, unchecked, beyond


@pytest.mark.parametrize("running", [False, True])
def test_what_the_entries_make_holds_and_is_counted(bed: Bed, running: bool) -> None:
    findings = bed.look(running=running)
    assert told(findings) == ([], [], [])
    (held,) = findings.holds
    runs = len(bed.state.runs)
    assert runs > 0
    assert (held.place, held.problem) == (
        "derived", f"1 tiles, {runs} index runs, edge and state: each is what the entries make",
    )  # fmt: skip


def _run(bed: Bed) -> Path:
    return bed.ledger / "index" / bed.state.runs[-1]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _edge(bed: Bed, size: int, edge: list[bytes] | None = None) -> None:
    _, known = msgspec.msgpack.decode((bed.ledger / "edge").read_bytes(), type=tuple[int, list[bytes]])
    (bed.ledger / "edge").write_bytes(msgspec.msgpack.encode((size, known if edge is None else edge)))


def _log_of_another_name(bed: Bed) -> None:
    (segment,) = (bed.ledger / "log").glob("*.seg")
    segment.rename(segment.with_name(f"{5:020d}.seg"))


def _torn(bed: Bed) -> None:
    (segment,) = (bed.ledger / "log").glob("*.seg")
    segment.write_bytes(segment.read_bytes() + b"torn")


STATE, EDGE, INDEX, CHECKPOINT = "ledger/state", "ledger/edge", "ledger/index", "ledger/checkpoint"
TILE = "ledger/tile/0/000"

FAULTS: dict[str, tuple[Callable[[Bed], object], str, str]] = {
    # name: (what was done, place, words at the beginning)
    "key file of another": (
        lambda bed: (bed.ledger / "vkey").write_text("another\n"),
        "ledger/vkey", f"isn't the verifier key {SIGNER.verifier} of the checkpoint's signature",
    ),
    "no key file": (lambda bed: (bed.ledger / "vkey").unlink(), "ledger/vkey", ""),
    "copy of the checkpoint of the same size, edited": (
        lambda bed: (bed.root / ANCHOR).write_text(_signed_over(SIZE)),
        ANCHOR, "isn't the copy of the checkpoint: it was edited",
    ),
    "copy of the checkpoint that another signed": (
        lambda bed: (bed.root / ANCHOR).write_text((bed.root / ANCHOR).read_text().replace("default", "other")),
        ANCHOR, "",
    ),
    "state with another edge": (
        lambda bed: bed.set_state(edge=[bytes(32)]),
        STATE, f"has another right edge than the tree over {SIZE} entries",
    ),
    "state with other streams": (
        lambda bed: bed.set_state(streams=[]),
        STATE, f"has other streams than the first {SIZE} entries",
    ),
    "state with a stream more": (
        lambda bed: bed.set_state(streams=[*bed.state.streams, ("credit", "more", [(0, 0, 1)])]),
        STATE, f"has other streams than the first {SIZE} entries",
    ),
    "a state that opens with no key of ours": (lambda bed: _flip(bed.ledger / "state"), STATE, ""),
    "edge of another tree": (
        lambda bed: _edge(bed, SIZE, [bytes(32)]),
        EDGE, f"isn't the right edge of the tree over {SIZE} entries: it was changed",
    ),
    "edge written another way": (
        lambda bed: (bed.ledger / "edge").write_bytes(
            (bed.ledger / "edge").read_bytes().replace(msgspec.msgpack.encode(SIZE), b"\xce\0\0\x01\x2c", 1)
        ),
        EDGE, "isn't as the archive writes it: it was edited",
    ),
    "edge of fewer entries than were signed": (
        lambda bed: bed.put_back("ledger/edge"),
        EDGE, f"is over {BEFORE} entries, the checkpoint over {SIZE}: it is written first",
    ),
    "edge of more entries than there are": (
        lambda bed: _edge(bed, SIZE + 1),
        EDGE, f"is over {SIZE + 1} entries, the log has {SIZE}: its tail was cut",
    ),
    "run that is missing": (
        lambda bed: _run(bed).unlink(),
        f"{INDEX}/{{run}}", "is missing: ledger/state names it",
    ),
    "run that was changed": (
        lambda bed: _flip(_run(bed)),
        f"{INDEX}/{{run}}", "doesn't say where the ids of entries ",
    ),
    "tile that was changed": (
        lambda bed: _flip(bed.ledger / "tile" / "0" / "000"),
        TILE, "doesn't hold the hashes of its entries: it was changed",
    ),
    "tile that is missing": (
        lambda bed: (bed.ledger / "tile" / "0" / "000").unlink(),
        TILE, "is missing: the entries make it a full tile",
    ),
    "segment of another name": (
        _log_of_another_name,
        f"ledger/log/{5:020d}.seg", "begins at another entry than 0, where the segment before it ends",
    ),
}  # fmt: skip


def _signed_over(size: int) -> str:
    """A checkpoint by the ledger's own key over another tree."""
    return SIGNER.sign(Checkpoint(SIGNER.name, size, bytes(32)).text())


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_what_no_kill_leaves_is_a_fault(name: str, running: bool, bed: Bed) -> None:
    act, place, words = FAULTS[name]
    place = place.format(run=bed.state.runs[-1])
    act(bed)
    findings = bed.look(running=running)
    if running and place == EDGE and "written first" in words:
        assert told(findings) == ([], [], []), "it may be written meanwhile"
        return
    assert findings.wrong, "named"
    assert findings.wrong[0].place == place
    assert findings.wrong[0].problem.startswith(words)
    assert findings.holds == []
    assert len(findings.wrong) == 1 + (name == "segment of another name")


SETTLED: dict[str, tuple[Callable[[Bed], object], Found, Found]] = {
    # name: (what was done, unchecked, beyond), while no archive runs
    "no copy of the checkpoint": (
        lambda bed: (bed.root / ANCHOR).unlink(),
        [(ANCHOR, "is missing: the copy of the checkpoint that each start is held to. Somebody took it away, or an "
                  "older version wrote none, or a kill came as the first one was signed")],
        [],
    ),
    "an older copy of the checkpoint": (
        lambda bed: bed.put_back(ANCHOR),
        [(ANCHOR, f"is over {BEFORE} entries, the checkpoint over {SIZE}: {KILL}")],
        [],
    ),
    "an older state and its index": (
        lambda bed: bed.put_back(STATE, INDEX),
        [],
        [(STATE, f"is of {BEFORE} entries, {SIZE} are signed: the archive was killed since, or an older copy was put "
                 "back; it derives from the entries and is brought up to date at the next start")],
    ),
    "bytes behind the log": (
        _torn,
        [(f"ledger/log/{0:020d}.seg", f"4 bytes behind its last whole frame can't be read: {KILL}")],
        [],
    ),
    "a run that the state doesn't name": (
        lambda bed: (bed.ledger / "index" / "9-9-9.run").write_bytes(b""),
        [(f"{INDEX}/9-9-9.run", f"ledger/state doesn't name it: {KILL}")],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTLED)
def test_what_a_kill_leaves_too_is_left_open(name: str, bed: Bed) -> None:
    act, unchecked, beyond = SETTLED[name]
    act(bed)
    wrong, open_, noted = told(bed.look())
    left = {path.name for path in (bed.ledger / "index").glob("*.run")} - set(bed.state.runs) - {"9-9-9.run"}
    assert wrong == []
    assert [one for one in open_ if Path(one[0]).name not in left] == unchecked
    assert noted == beyond


@pytest.mark.parametrize("name", [name for name in SETTLED if "no copy" not in name and "state" not in name])
def test_what_a_running_archive_may_be_about_to_write_is_not_told(name: str, bed: Bed) -> None:
    SETTLED[name][0](bed)
    assert told(bed.look(running=True)) == ([], [], [])


def test_a_tile_above_the_state_is_what_a_kill_leaves(bed: Bed) -> None:
    """Entries of 255 are in the state, the tile needs one more: it is written, then the state."""
    (bed.ledger / "state").unlink()
    (bed.ledger / "tile" / "0" / "000").unlink()
    for path in (bed.ledger / "index").glob("*.run"):
        path.unlink()
    wrong, unchecked, _ = told(bed.look())
    assert (wrong, unchecked) == ([], [(TILE, f"is missing: the entries make it a full tile; {KILL}")])
    assert told(bed.look(running=True))[:2] == ([], [])


def test_an_older_checkpoint_beside_what_came_later_was_put_back(bed: Bed) -> None:
    bed.put_back(CHECKPOINT)
    bed.signed = BEFORE
    wrong, unchecked, _ = told(bed.look())
    assert wrong == [
        (CHECKPOINT, f"signs {BEFORE} entries, {ANCHOR} {SIZE}: an older checkpoint was put back"),
        (CHECKPOINT, f"signs {BEFORE} entries, {STATE} was written after a checkpoint over {SIZE} or more: an older "
                     "checkpoint was put back"),
    ]  # fmt: skip
    assert unchecked == [(CHECKPOINT, f"is over {BEFORE} entries, the edge over {SIZE}: {KILL}")]
    assert told(bed.look(running=True)) == ([], [], []), "one that runs has written them since"


def test_a_log_that_was_cut_is_found_by_all_that_was_derived_of_it(bed: Bed) -> None:
    wrong, _, _ = told(bed.look(upto=BEFORE))
    assert wrong == [
        (STATE, f"is over {SIZE} entries, the log has {BEFORE}: its tail was cut"),
        (EDGE, f"is over {SIZE} entries, the log has {BEFORE}: its tail was cut"),
    ]


def test_entries_that_no_segment_holds_are_told(bed: Bed) -> None:
    (segment,) = (bed.ledger / "log").glob("*.seg")
    wrong, _, _ = told(bed.look(during=segment.unlink))
    assert wrong[0] == ("ledger/log", f"its segments end at entry 0, {SIZE} were read")


def test_an_index_that_lacks_places_is_told(bed: Bed) -> None:
    bed.set_state(runs=[])
    wrong, unchecked, _ = told(bed.look())
    assert wrong == [(INDEX, f"its runs have 0 places, the entries make {SIZE}")]
    assert [place for place, _ in unchecked] == sorted(
        f"{INDEX}/{p.name}" for p in (bed.ledger / "index").glob("*.run")
    )


def test_a_run_of_a_name_that_says_no_entries_is_a_fault(bed: Bed) -> None:
    bed.set_state(runs=[*bed.state.runs, "odd.run"])
    wrong, _, _ = told(bed.look())
    assert [place for place, _ in wrong] == [f"{INDEX}/odd.run"]


def test_an_index_that_the_running_archive_writes_meanwhile_is_not_looked_at(bed: Bed) -> None:
    def replaced() -> None:
        _run(bed).unlink()
        bed.set_state()

    findings = bed.look(running=True, during=replaced)
    assert told(findings) == ([], [], [(INDEX, "was being written by the running archive: not looked at")])
    assert told(Bed(bed.root.parent / "other").look(running=True)) == ([], [], [])


# -- what else lies in a folder ----------------------------------------------------------------------------------------


def test_whether_an_archive_runs_is_told_by_its_lock(tmp_path: Path) -> None:
    import fcntl

    assert not is_running(tmp_path)
    (tmp_path / ".lock").touch()
    assert not is_running(tmp_path)
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


def test_files_and_empty_folders_are_listed_and_anything_else_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "link").symlink_to("a")
    findings = Findings()
    assert files_below(tmp_path, findings) == {"a/empty/", "a/file"}
    assert told(findings) == ([("link", "is neither a file nor a folder: nothing of ours makes such a thing")], [], [])
    (tmp_path / "nothing").mkdir()
    assert files_below(tmp_path / "nothing", findings) == set()


NO_FILE = "nothing accounts for this file: the archive doesn't make one of this name here"
NO_FOLDER = "nothing accounts for this empty folder: the archive doesn't make one here"
OTHERS: dict[str, tuple[str, bytes | None, tuple[Found, Found, Found]]] = {
    # name: (place, its bytes; None: an empty folder, findings)
    "a file of an unknown name": ("notes", b"x", ([], [("notes", NO_FILE)], [])),
    "a lock": (".lock", b"", ([], [], [])),
    "a lock that holds something": (".lock", b"x", ([(".lock", "isn't empty: a lock holds nothing")], [], [])),
    "a lock of a folder below": ("keysets/.lock", b"", ([], [], [])),
    "a torn tail set aside": (
        "ledger/log/0.torn-1", b"x",
        ([], [], [("ledger/log/0.torn-1", "what a killed process had begun to write, set aside: no part of the log")]),
    ),
    "what was being written": (
        "refs/m.partial", b"x", ([], [], [("refs/m.partial", "was being written: no part of the archive")]),
    ),
    "an upload": (
        "blobs/.incoming/1", b"x", ([], [], [("blobs/.incoming/1", "was being written: no part of the archive")]),
    ),
    "a blob": (f"blobs/ab/{'ab' * 32}", b"x", ([], [], [])),
    "a blob under another's prefix": (
        f"blobs/cd/{'ab' * 32}", b"x", ([], [(f"blobs/cd/{'ab' * 32}", NO_FILE)], []),
    ),
    "where its blobs are": (OBJECTS, b"s3://b", ([], [], [])),
    "an empty folder of ours": ("blobs/ab/", None, ([], [], [])),
    "an empty folder of nobody's": ("notes/", None, ([], [("notes/", NO_FOLDER)], [])),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_nothing_accounts_for_is_named(name: str, tmp_path: Path) -> None:
    place, data, want = OTHERS[name]
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        (tmp_path / place).mkdir(exist_ok=True)
    else:
        (tmp_path / place).write_bytes(data)
    findings = Findings()
    unexplained(tmp_path, {place, "gone-meanwhile"}, set(), findings)
    assert told(findings) == want
    findings = Findings()
    unexplained(tmp_path, {place}, {place}, findings)
    assert told(findings) == ([], [], []), "what is known is left alone"
