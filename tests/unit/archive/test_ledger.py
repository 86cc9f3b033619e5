"""The ledger on disk: what was answered stays, once, whatever happens to the process or the files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governed_serving.archive.errors import LedgerDamaged, Refused
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.archive.ledger.merkle import hash_leaf, verify_consistency, verify_inclusion
from governed_serving.archive.ledger.note import open_checkpoint

from .ledgers import SIGNER, PlainAead, batch, leaf, opened
from .test_merkle import naive_root


def killed(ledger: Ledger) -> None:
    """Its files are let go of without a snapshot, as when the process is killed."""
    ledger._log.close()


def test_appended_entries_are_proved_and_found(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.append(batch(0, 3)).ranges == ((0, 3),)
    assert ledger.append(batch(0, 2, "auditor-0")).first_index == 3
    checkpoint = open_checkpoint(ledger.checkpoint(), SIGNER.verifier)
    entries = ledger.entries(0, 99)
    assert checkpoint.size == 5
    assert checkpoint.root == naive_root(entries)
    for index, entry in enumerate(entries):
        verify_inclusion(hash_leaf(entry), index, 5, ledger.inclusion(index, 5), checkpoint.root)
    assert [f.index for f in ledger.find("credit", "server-0/2")] == [2]
    assert ledger.find("other", "server-0/2") == []
    assert ledger.entries(4, 5) == [leaf("auditor-0/1")]


def test_a_batch_sent_twice_is_appended_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 3))
    ledger.append(batch(0, 4, "other"))
    assert ledger.append(batch(0, 3)).ranges == ((0, 3),)
    overlapping = ledger.append(batch(1, 5))
    assert overlapping.ranges == ((1, 2), (7, 3))
    assert overlapping.size == ledger.size == 10
    ledger.close()
    assert opened(tmp_path).append(batch(0, 6)).ranges == ((0, 3), (7, 3))


def test_gaps_and_changed_repeats_are_refused(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 3))
    with pytest.raises(Refused, match="expected seq 3, found 5") as refused:
        ledger.append(batch(5, 1))
    assert refused.value.status == 409
    assert refused.value.details == {"expected": 3}
    with pytest.raises(Refused, match="other content, as index 1"):
        ledger.append(Batch("credit", "server-0", 1, [leaf("forged")]))
    with pytest.raises(Refused, match="must begin at 0 or 1"):
        ledger.append(batch(7, 1, "new"))
    assert ledger.size == 3


def test_a_restart_goes_on_with_snapshot_and_without(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for i in range(40):
        ledger.append(batch(i * 10, 10))
    root = ledger.root_hash()
    killed(ledger)
    again = opened(tmp_path)
    assert again.root_hash() == root
    again.append(batch(400, 10))
    again.close()
    (tmp_path / "state").unlink()
    rebuilt = opened(tmp_path)
    assert rebuilt.size == 410
    assert rebuilt.root_hash(400) == root
    assert [f.index for f in rebuilt.find("credit", "server-0/405")] == [405]
    old = open_checkpoint(again.checkpoint(), SIGNER.verifier)
    verify_consistency(400, 410, rebuilt.consistency(400, 410), root, old.root)


def test_segments_roll_and_the_index_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governed_serving.archive.ledger.entrylog._SEGMENT_ENTRIES", 100)
    ledger = opened(tmp_path)
    for i in range(120):
        ledger.append(batch(i * 30, 30))
    assert len(list((tmp_path / "log").glob("*.seg"))) == 31
    assert len(list((tmp_path / "index").glob("*.run"))) <= 6
    for i in (0, 1799, 3599):
        assert [f.index for f in ledger.find("credit", f"server-0/{i}")] == [i]
    killed(ledger)
    again = opened(tmp_path)
    assert again.root_hash() == ledger.root_hash() == naive_root([leaf(f"server-0/{i}") for i in range(3600)])
    assert again.entries(95, 125) == [leaf(f"server-0/{i}") for i in range(95, 125)]
    assert [f.index for f in again.find("credit", "server-0/1799")] == [1799]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 2000))
def test_a_torn_tail_is_trimmed_and_kept_aside(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    root = tmp_path_factory.mktemp("l")
    ledger = opened(root)
    ledger.append(batch(0, 5))
    ledger.append(batch(5, 5))
    killed(ledger)
    segment = next((root / "log").glob("*.seg"))
    size = segment.stat().st_size
    cut = min(cut, size - 9)
    os.truncate(segment, size - cut)
    again = opened(root)
    assert again.size in (0, 5)
    assert again.root_hash() == naive_root([leaf(f"server-0/{i}") for i in range(again.size)])
    again.append(batch(again.size, 10 - again.size))
    killed(again)
    assert opened(root).entries(0, 10) == batch(0, 10).entries


def test_garbage_after_the_last_frame_is_trimmed(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 5))
    killed(ledger)
    segment = next((tmp_path / "log").glob("*.seg"))
    with segment.open("ab") as file:
        file.write(bytes(100))
    again = opened(tmp_path)
    assert again.size == 5
    assert len(list((tmp_path / "log").glob("*.torn-*"))) == 1


def test_a_tail_cut_below_the_checkpoint_is_no_torn_write(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 5))
    ledger.checkpoint()
    killed(ledger)
    segment = next((tmp_path / "log").glob("*.seg"))
    before = segment.read_bytes()
    os.truncate(segment, len(before) - 1)
    with pytest.raises(LedgerDamaged, match="checkpoint over 5 was signed"):
        opened(tmp_path)
    assert segment.read_bytes() == before[:-1]


def test_a_changed_entry_is_noticed_on_opening(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 5))
    ledger.append(batch(5, 5))
    ledger.checkpoint()
    killed(ledger)
    segment = next((tmp_path / "log").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[60] ^= 1
    segment.write_bytes(data)
    with pytest.raises(LedgerDamaged, match="0 entries can be read"):
        opened(tmp_path)


def test_a_log_rewritten_with_the_right_key_contradicts_its_checkpoint(tmp_path: Path) -> None:
    honest = opened(tmp_path / "a")
    honest.append(batch(0, 5))
    honest.checkpoint()
    killed(honest)
    forged = opened(tmp_path / "b")
    forged.append(Batch("credit", "server-0", 0, [leaf(f"forged/{i}") for i in range(5)]))
    killed(forged)
    (tmp_path / "b" / "checkpoint").write_bytes((tmp_path / "a" / "checkpoint").read_bytes())
    with pytest.raises(LedgerDamaged, match="don't have the root"):
        opened(tmp_path / "b")


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    opened(tmp_path).append(batch(0, 5))
    with pytest.raises(InvalidTag):
        opened(tmp_path, PlainAead(bytes([1]) * 32))


def test_nothing_readable_is_on_disk(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.append(Batch("credit", "server-0", 0, [leaf("Erika-Mustermann", summary={"note": "secret"})]))
    ledger.close()
    data = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"Mustermann" not in data
    assert b"secret" not in data


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 5))
    root = ledger.root_hash()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            ledger.append(batch(5, 5))
    assert ledger.root_hash() == root
    assert ledger.append(batch(5, 5)).first_index == 5


def test_what_is_derived_is_rebuilt_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path)
    ledger.append(batch(0, 250))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("governed_serving.archive.ledger.tiles.TiledTree._write", full)
        with pytest.raises(OSError, match="No space"):
            ledger.append(batch(250, 10))
    assert ledger.append(batch(250, 10)).ranges == ((250, 10),)
    assert ledger.root_hash() == naive_root(batch(0, 260).entries)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from unit.archive.ledgers import batch, opened
ledger = opened(Path({root!r}))
next = ledger.next_seq("credit", "server-0") or 0
while True:
    answer = ledger.append(batch(next, 7))
    next += 7
    sys.stdout.write(f"{{answer.size}}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    code = CHILD.format(tests=str(Path(__file__).parents[2]), root=str(tmp_path))
    answered = 0
    for wanted in (150, 60, 300):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        deadline = time.monotonic() + 120
        for _ in range(wanted):
            answered = int(child.stdout.readline())
            assert time.monotonic() < deadline
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
        answered = max([answered, *map(int, rest)])
        ledger = opened(tmp_path)
        assert ledger.size >= answered
        assert ledger.size % 7 == 0
        assert ledger.root_hash() == naive_root(batch(0, ledger.size).entries)
        killed(ledger)
