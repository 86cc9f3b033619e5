"""The archive's own keys: rotated as its models ask, old entries readable, old verifiers and checkpoints still good."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from governed_api.names import ARCHIVE
from governed_serving.archive.errors import ArchiveError, Refused
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.note import NoteError, Signer, Verifier, open_checkpoint, sign_checkpoint
from governed_serving.archive.reach import Speaker
from governed_serving.archive.service import Archive, ledger_origin
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.crypto import DirectoryStore, Kek, Keyring
from governed_serving.records import ROTATION, AppendRequest, LedgerEntry

from .ledgers import leaf

KEK = Kek(bytes(range(32)))
DAY = 86400.0
START = 1_800_000_000.0


class Bed:
    def __init__(self, root: Path) -> None:
        self.root, self.now, self.written = root, START, 0
        self.archive = self.opened()

    def opened(self) -> Archive:
        return Archive(self.root, KEK, "default", clock=lambda: self.now)

    def again(self) -> None:
        self.archive.close()
        self.archive = self.opened()

    def write(self, count: int = 10) -> None:
        entries = [leaf(f"req-{self.written + i}") for i in range(count)]
        self.archive.appender.submit(Batch("credit", "s", self.written, entries)).result(10)
        self.written += count

    def ask(self, days: float | None) -> None:
        self.archive.put_reference("credit", ROTATION, msgspec.json.encode({"keys": days and days * DAY}))

    def later(self, days: float) -> list[str]:
        self.now = START + days * DAY
        return self.archive.rotate()

    def source(self) -> DirectorySource:
        self.archive.ledger.checkpoint()
        return DirectorySource(self.root, KEK)


@pytest.fixture
def bed(tmp_path: Path):
    made = Bed(tmp_path / "archive")
    yield made
    made.archive.close()


def test_due_keys_get_a_successor_and_the_ledger_says_so(bed: Bed) -> None:
    bed.write()
    assert bed.later(400) == []
    bed.ask(90)
    assert bed.later(401) == ["ledger", "ledger-signing", "references"]
    assert bed.later(450) == []
    bed.write()
    bed.ask(60)
    bed.again()
    assert bed.later(470) == ["ledger", "ledger-signing", "references"]
    found = [msgspec.json.decode(f.entry, type=LedgerEntry) for f in bed.archive.ledger.find(ARCHIVE, type="key")]
    assert [e.id for e in found].count("ledger:rotated") == 2
    assert [e.summary["verifier"] for e in found if e.id == "ledger-signing:verifier"][-1] == bed.archive.ledger.vkey
    assert msgspec.json.decode(bed.archive.reference("credit", ROTATION)) == {"keys": 60 * DAY}
    bed.write()
    bed.again()
    assert [f.index for f in bed.archive.ledger.find("credit", id="req-3")]
    assert verify(bed.source(), id="req-23").entries == bed.archive.ledger.size


def test_a_verifier_kept_from_before_and_a_checkpoint_too_go_on_working(bed: Bed) -> None:
    bed.write()
    old_key, old_note = bed.archive.ledger.vkey, bed.archive.ledger.checkpoint()
    bed.ask(90)
    bed.later(91)
    bed.write()
    new_key = bed.archive.ledger.vkey
    assert new_key != old_key
    size = bed.archive.ledger.size
    for vkey in ("", old_key, new_key):
        found = verify(bed.source(), vkey=vkey, earlier=(old_note,))
        assert (found.size, found.earlier) == (size, [10])
    with pytest.raises(NoteError, match="no signature by"):
        open_checkpoint(old_note, Verifier.parse(new_key))


def test_a_forged_earlier_checkpoint_is_refused_after_a_rotation(bed: Bed) -> None:
    bed.write()
    bed.ask(90)
    bed.later(91)
    stranger = Signer(ledger_origin("default"), hashlib.sha256(b"x").digest())
    with pytest.raises(NoteError, match="no signature by"):
        verify(bed.source(), earlier=(sign_checkpoint(stranger, 5, bed.archive.ledger.root_hash(5)),))
    keys = Keyring(KEK, DirectoryStore(bed.root / "keys")).keyset("ledger-signing").signing_keys()
    old = Signer(ledger_origin("default"), keys[1].private_bytes_raw())
    verify(bed.source(), earlier=(sign_checkpoint(old, 5, bed.archive.ledger.root_hash(5)),))
    with pytest.raises(ArchiveError, match="rewritten or forked"):
        verify(bed.source(), earlier=(sign_checkpoint(old, 5, bytes(32)),))


def test_a_rotation_that_was_interrupted_is_announced_at_the_next_look(bed: Bed) -> None:
    bed.write()
    old_key = bed.archive.ledger.vkey
    bed.archive.close()
    Keyring(KEK, DirectoryStore(bed.root / "keys")).rotate("ledger-signing")
    bed.archive = bed.opened()
    assert bed.archive.rotate() == []
    assert bed.archive.ledger.vkey != old_key
    (said,) = bed.archive.ledger.find(ARCHIVE, id="ledger-signing:verifier")
    assert msgspec.json.decode(said.entry, type=LedgerEntry).summary == {
        "verifier": bed.archive.ledger.vkey, "before": old_key,
    }  # fmt: skip
    bed.archive.rotate()
    assert len(bed.archive.ledger.find(ARCHIVE, id="ledger-signing:verifier")) == 1
    for vkey in (old_key, ""):
        verify(bed.source(), vkey=vkey)


def test_signatures_stay_few(bed: Bed) -> None:
    bed.write()
    bed.ask(1)
    for day in range(1, 8):
        assert len(bed.later(2.0 * day)) == 3
    assert bed.archive.ledger.checkpoint().count("— ") == 4
    bed.again()
    verify(bed.source())


def test_no_model_speaks_for_the_archive(bed: Bed) -> None:
    entry = leaf("ledger-signing:verifier", type="key", model=ARCHIVE, summary={"verifier": "x"})
    with pytest.raises(Refused, match="only the archive itself"):
        bed.archive.admit(Speaker(ARCHIVE, None), AppendRequest("s", 0, [entry]))
