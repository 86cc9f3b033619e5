"""What a verification says of the keysets that lie in an archive's folder, held against the entries about each."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from governed_api.names import ARCHIVE
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.keys import OWN_PURPOSES, check_keysets, check_own_keys
from governed_serving.crypto import DirectoryStore, KeyEvent, Keyring
from governed_serving.records import LedgerEntry

from .test_app import KEK, MODEL_KEK

TIME = "2026-01-01T00:00:00.000Z"
KEYSET, RECEIPT = "keysets/credit/data.keyset.json", "keysets/credit/data.destroyed.json"
PURPOSE = "subject-ab-journal"
PERSONAL = f"keysets/credit/{PURPOSE}.keyset.json"
Told = tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]


def told(findings: Findings) -> Told:
    """(wrong, unchecked, beyond)."""
    wrong, unchecked, beyond = (
        [(one.place, one.problem) for one in part] for part in (findings.wrong, findings.unchecked, findings.beyond)
    )
    return wrong, unchecked, beyond


def said(action: str, data: bytes = b"", **summary: Any) -> LedgerEntry:
    digest = hashlib.sha256(data).hexdigest()
    about = {"action": action, "purpose": "data", **summary}
    return LedgerEntry("key", "default", "credit", "data", TIME, digest=digest, summary=about)


class Bed:
    """A model's keyset, which was replaced once: ``older``, then ``data``."""

    def __init__(self, root: Path) -> None:
        self.root, store = root, DirectoryStore(root / "keysets" / "credit")
        ring = Keyring(MODEL_KEK, store)
        ring.keyset("data")
        self.older = self.read(KEYSET)
        ring.rotate("data")
        self.data = self.read(KEYSET)
        self.entries = [said("created", self.older), said("rotated", self.data)]
        self.erased: set[tuple[str, str]] = set()

    def read(self, place: str) -> bytes:
        return (self.root / place).read_bytes()

    def put(self, place: str, data: bytes) -> None:
        (self.root / place).write_bytes(data)

    def destroyed(self, receipt: bytes, *, named: bool = True) -> None:
        (self.root / KEYSET).unlink()
        self.put(RECEIPT, receipt)
        about = {"receipt": hashlib.sha256(receipt).hexdigest()} if named else {}
        self.entries.append(said("destroyed", self.data, **about))

    def look(self, *more: str, running: bool = False) -> tuple[Told, set[str]]:
        findings = Findings()
        truth: Any = SimpleNamespace(keysets={("credit", "data"): self.entries}, erased=self.erased)
        files = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}
        known = check_keysets(self.root, truth, findings, [*sorted(files), *more], running=running)
        (held,) = findings.holds
        count = 1 - bool({one.place for one in findings.wrong} & {KEYSET, RECEIPT})
        assert (held.place, held.problem) == (
            "keysets",
            f"{count} of models: each is what the last entry about it says",
        )
        return told(findings), known


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def event(bed: Bed, **changes: str) -> bytes:
    """The receipt of an older version, which the entry doesn't name."""
    digest = hashlib.sha256(bed.data).hexdigest()
    fields: dict[str, Any] = {"action": "destroyed", "purpose": "data", "digest": digest} | changes
    return msgspec.json.encode(KeyEvent(keys=[1], kek="k", time=TIME, **fields))


def _put_back(bed: Bed) -> None:
    bed.destroyed(b"{}")
    bed.put(KEYSET, bed.data)


def _no_receipt(bed: Bed) -> None:
    bed.destroyed(b"{}")
    (bed.root / RECEIPT).unlink()


NO_KEYSET = hashlib.sha256(b"{}").hexdigest()
OTHER = "isn't the receipt of the keyset that the log names: it was changed"
CASES: dict[str, tuple[Callable[[Bed], object], Told]] = {
    # name: (what was done, what is found)
    "as the last entry says": (lambda _: None, ([], [], [])),
    "an older one": (
        lambda bed: bed.put(KEYSET, bed.older),
        ([(KEYSET, f"is an older one than the last entry about it ({TIME}) says: it was put back")], [], []),
    ),
    "another one": (
        lambda bed: bed.put(KEYSET, b"{}"),
        ([(KEYSET, f"has SHA-256 {NO_KEYSET}, which no entry about it names: it was changed")], [], []),
    ),
    "none": (
        lambda bed: (bed.root / KEYSET).unlink(),
        ([(KEYSET, f"is missing: the last entry about it, of {TIME}, says rotated")], [], []),
    ),
    "a receipt of a destruction that nobody told of": (
        lambda bed: bed.put(RECEIPT, b"{}"),
        ([(RECEIPT, "the log doesn't say that the data keyset was destroyed")], [], []),
    ),
    "destroyed, with the receipt that the log names": (lambda bed: bed.destroyed(b'{"by":"me"}'), ([], [], [])),
    "destroyed, with another receipt": (
        lambda bed: (bed.destroyed(b'{"by":"me"}'), bed.put(RECEIPT, b'{"by":"you"}')),
        ([(RECEIPT, "isn't the receipt that the log names: it was changed")], [], []),
    ),
    "destroyed, without receipt": (
        _no_receipt,
        ([(RECEIPT, f"is missing: the log says that the keyset was destroyed at {TIME}")], [], []),
    ),
    "destroyed, and the keyset is there again": (
        _put_back,
        ([(KEYSET, f"is there, though the log says it was destroyed at {TIME}: it was put back")], [], []),
    ),
    "destroyed by an older version": (lambda bed: bed.destroyed(event(bed), named=False), ([], [], [])),
    "destroyed by an older version, with an empty receipt": (
        lambda bed: bed.destroyed(b"{}", named=False), ([], [], []),
    ),
    "a receipt of another keyset": (
        lambda bed: bed.destroyed(event(bed, digest="ab" * 32), named=False), ([(RECEIPT, OTHER)], [], []),
    ),
    "a receipt of another action": (
        lambda bed: bed.destroyed(event(bed, action="rotated"), named=False), ([(RECEIPT, OTHER)], [], []),
    ),
    "a receipt of another purpose": (
        lambda bed: bed.destroyed(event(bed, purpose="journal"), named=False), ([(RECEIPT, OTHER)], [], []),
    ),
    "a receipt written another way": (
        lambda bed: bed.destroyed(event(bed) + b" ", named=False), ([(RECEIPT, OTHER)], [], []),
    ),
}  # fmt: skip


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_keyset_is_what_the_last_entry_about_it_says(name: str, running: bool, bed: Bed) -> None:
    act, want = CASES[name]
    act(bed)
    found, known = bed.look(running=running)
    assert found == want
    assert {KEYSET, RECEIPT} <= known


def test_a_replacement_that_was_begun_is_noted(bed: Bed) -> None:
    bed.put(KEYSET, bed.older)
    bed.put(f"keysets/credit/.data.keyset.json.{hashlib.sha256(bed.data).hexdigest()}", bed.data)
    why = "its successor lies beside it: a kill came between, the archive's next start settles it"
    assert bed.look()[0] == ([], [], [(KEYSET, why)])


AGAIN = "interrupted erasure: run it again, or start the archive, which finishes it"


@pytest.mark.parametrize("running", [False, True])
def test_a_destruction_that_was_begun_is_open_until_it_is_done(bed: Bed, running: bool) -> None:
    receipt = b'{"by":"me"}'
    digest = hashlib.sha256(receipt).hexdigest()
    beside = f"keysets/credit/.data.destroyed.json.{digest}"
    bed.entries.append(said("destroyed", bed.data, receipt=digest))
    bed.put(beside, receipt)
    (_, unchecked, beyond), known = bed.look(running=running)
    want = [(KEYSET, f"{AGAIN} (its receipt lies beside it)")]
    assert (unchecked, beyond) == (([], want) if running else (want, []))
    assert beside in known


@pytest.mark.parametrize("running", [False, True])
def test_an_erased_person_s_key_that_is_still_there_is_an_interrupted_erasure(bed: Bed, running: bool) -> None:
    bed.erased = {("credit", "data")}
    (_, unchecked, beyond), _ = bed.look(running=running)
    want = [(KEYSET, f"{AGAIN} (the log says that a person was erased, their key is still there)")]
    assert (unchecked, beyond) == (([], want) if running else (want, []))
    (bed.root / KEYSET).unlink()
    assert bed.look(running=running)[0][0] == [
        (KEYSET, f"is missing: the last entry about it, of {TIME}, says rotated")
    ]


def test_a_keyset_that_no_entry_tells_of_is_a_fault_unless_it_came_meanwhile(bed: Bed) -> None:
    for place in (PERSONAL, f"keysets/credit/{PURPOSE}.destroyed.json", "keysets/credit/notes", "refs/x.keyset.json"):
        (bed.root / place).parent.mkdir(parents=True, exist_ok=True)
        bed.put(place, b"{}")
    why = "no entry tells of this keyset: nobody that the archive knows put it there"
    (wrong, unchecked, beyond), known = bed.look()
    assert (unchecked, beyond) == ([], [])
    assert wrong == [(f"keysets/credit/{PURPOSE}.destroyed.json", why), (PERSONAL, why)]
    assert PERSONAL in known
    assert bed.look(running=True)[0] == ([], [], [])


# -- the archive's own -------------------------------------------------------------------------------------------------


def own(root: Path, keys: list[int], purpose: str = "ledger") -> Findings:
    """With an entry that says which keys the keyset of this purpose was given."""
    about = {"action": "rotated", "purpose": purpose, "keys": keys}
    entry = LedgerEntry("key", "default", ARCHIVE, f"{purpose}:rotated", TIME, summary=about)
    truth: Any = SimpleNamespace(keysets={(ARCHIVE, purpose): [entry]})
    findings = Findings()
    assert check_own_keys(root, KEK, truth, findings) == {f"keys/{purpose}.keyset.json" for purpose in OWN_PURPOSES}
    return findings


def test_the_archive_s_own_keysets_have_every_key_that_the_log_tells_of(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "keys")
    ring = Keyring(KEK, store)
    ids = {purpose: ring.keyset(purpose).primary_key_id for purpose in OWN_PURPOSES}
    findings = own(tmp_path, [ids["ledger"]])
    assert told(findings) == ([], [], [])
    (held,) = findings.holds
    whole = "3 keysets of the archive: whole, and with every key that the log tells of"
    assert (held.place, held.problem) == ("own keys", whole)
    gone = "which entry ledger:rotated of 2026-01-01T00:00:00.000Z says it was given: an older keyset was put back"
    assert told(own(tmp_path, [ids["ledger"], 9, 7])) == (
        [("keys/ledger.keyset.json", f"lacks key 7, {gone}")], [], [],
    )  # fmt: skip
    (tmp_path / "keys" / "references.keyset.json").unlink()
    findings = own(tmp_path, [ids["ledger"]])
    assert [place for place, _ in told(findings)[0]] == ["keys/references.keyset.json"]
    assert findings.holds == []
