"""What a ledger shows of a promise, as the whole of what is found: each limit of time, both of its sides."""

import hashlib
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.ledger.promise import Promise, SignedPromise, encode_key, sign
from governed_serving.archive.times import AHEAD
from governed_serving.archive.verify import promise as promises
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.promise import check_promise
from governed_serving.crypto import Tampered
from governed_serving.records import LedgerEntry, canonical, timestamp

from .ledgers import SIGNER

NOW, DELAY = 1_700_000_000.0, 3600
PRIVATE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
RECORD = b"the ciphertext of frame 5"
BLOB = "ab" * 32


def at(seconds: float) -> str:
    return timestamp(NOW + seconds)


PROMISE = Promise(
    namespace="default",
    model="credit",
    id="a",
    revision="r1",
    recorded=at(0),
    stream="server-pod",
    frame=5,
    index=0,
    record=hashlib.sha256(RECORD).hexdigest(),
    time=at(0),
    delay=DELAY,
)


def entry(type: str, seconds: float, **fields: Any) -> LedgerEntry:
    said = {"namespace": "default", "model": "credit", "id": "x", "revision": "r1"} | fields
    return LedgerEntry(type=type, time=at(seconds), **said)


def key(seconds: float = -60, *, by: Ed25519PrivateKey = PRIVATE, summary: Any = None, **fields: Any) -> LedgerEntry:
    about = {"publicKey": encode_key(by), "notBefore": at(-60), "notAfter": at(60)} | (summary or {})
    return entry("promiseKey", seconds, **{"id": "key-1", "summary": about, **fields})


def record(type: str = "prediction", seconds: float = 0, **fields: Any) -> LedgerEntry:
    return entry(type, seconds, **{"id": "a", "frame": 5, "index": 0, "blob": BLOB, **fields})


def later(seconds: float, type: str = "label") -> LedgerEntry:
    return entry(type, seconds)


DUE = DELAY + AHEAD
"""Seconds after the promise up to which its record may come."""


class Case:
    """``wrong``, ``unchecked``, ``beyond``: (place, words at the beginning); ``holds``: places."""

    def __init__(
        self,
        *entries: LedgerEntry,
        wrong: tuple[tuple[str, str], ...] = (),
        unchecked: tuple[tuple[str, str], ...] = (),
        beyond: tuple[tuple[str, str], ...] = (),
        holds: tuple[str, ...] = ("signature",),
        chosen: bool = False,
        asked: str = "",
        blob: bytes | Exception = RECORD,
        **changed: Any,
    ) -> None:
        self.entries, self.promise = entries, msgspec.structs.replace(PROMISE, **changed)
        self.want = [list(part) for part in (wrong, unchecked, beyond)]
        self.holds = ["promise", "ledger", *holds]
        self.chosen, self.asked, self.blob = chosen, asked, blob


KEPT = ("signature", "inclusion", "content")
WHOLE = f"frame 5 of blob {BLOB} is the promised record, bit for bit"
REACHED = "the ledger has reached "
CHOSEN = "the bundle holds chosen entries alone, which show no absence: export it whole, or name the archive"

CASES: dict[str, Case] = {
    "kept": Case(key(), record(), holds=KEPT),
    "kept, at its last moment": Case(key(), later(DUE), record(), holds=KEPT),
    "kept, too late": Case(
        key(), later(DUE + 1), record(),
        wrong=(("delay", "broken promise: entry 2 came when the ledger had reached "),),
    ),
    "kept in time, and the ledger went on": Case(key(), record(), later(9 * DUE), holds=KEPT),
    "the first record counts": Case(key(), record(), later(DUE + 1), record(), holds=KEPT),
    "asked for this answer": Case(key(), record(), holds=KEPT, asked="a"),
    "asked for another answer": Case(
        key(), record(), holds=KEPT, asked="b",
        wrong=(("promise", "is for id a, expected b: it was given for another answer"),),
    ),
    # who signed
    "by another key": Case(
        key(by=OTHER), record(), holds=(), wrong=(("signature", "the promise's signature is not by the key that"),),
    ),
    "by a key of no length": Case(
        key(summary={"publicKey": "AAAA"}), holds=(),
        wrong=(("signature", "a key of promises must be Ed25519, 32 bytes in base64url"),),
    ),
    "by a key of another kind": Case(
        key(summary={"algorithm": "RSA"}), holds=(),
        wrong=(("signature", "a key of promises must be Ed25519, 32 bytes in base64url"),),
    ),
    "by a key that is announced without its time": Case(
        key(summary={"notAfter": 7}), holds=(), wrong=(("signature", "Expected `str`, got `int`"),),
    ),
    "by the first of two keys of one id": Case(key(), key(by=OTHER), record(), holds=KEPT),
    "by a key of another model": Case(
        key(model="other"), record(),
        wrong=(("key", "entry 0 announces key key-1 for another model (default/other), which may promise nothing of"),),
    ),
    "by a key of another namespace": Case(
        key(namespace="other"), record(), wrong=(("key", "entry 0 announces key key-1 for another model (other/cred"),),
    ),
    "by a key of another revision": Case(
        key(revision="r2"), record(),
        wrong=(("key", "entry 0 announces key key-1 for revision 'r2', the promise is of 'r1'"),),
    ),
    "at the first moment of its key": Case(key(summary={"notBefore": at(0)}), record(), holds=KEPT),
    "at the last moment of its key": Case(key(summary={"notAfter": at(0)}), record(), holds=KEPT),
    "before its key's time": Case(
        key(summary={"notBefore": at(1)}), record(),
        wrong=(("time", f"made {at(0)}, outside of the key's time ({at(1)} to {at(60)})"),),
    ),
    "after its key's time": Case(
        key(summary={"notAfter": at(-1)}), record(),
        wrong=(("time", f"made {at(0)}, outside of the key's time ({at(-60)} to {at(-1)})"),),
    ),
    "by a key whose time doesn't begin": Case(
        key(summary={"notBefore": "ever"}), record(),
        wrong=(("time", f"made {at(0)}, outside of the key's time (ever to "),),
    ),
    "by a key whose time has no zone": Case(
        key(summary={"notAfter": "2099-01-01T00:00:00"}), record(),
        wrong=(("time", f"made {at(0)}, outside of the key's time ("),),
    ),
    "by a key that was announced behind": Case(
        record(), key(), holds=KEPT,
        wrong=(("key", "was announced behind what it promised (entry 0): not before it was used"),),
    ),
    "by a key that nobody announced": Case(
        later(AHEAD + 1), holds=(),
        wrong=(("key", "no entry announces key key-1: the promise is not by a server of this ledger"),),
    ),
    "by a key that may be announced yet": Case(
        later(AHEAD), holds=(), unchecked=(("key", "this ledger ends at "),),
    ),
    "by a key that may be among the others": Case(
        later(AHEAD + 1), holds=(), unchecked=(("key", CHOSEN),), chosen=True,
    ),
    "of an empty ledger": Case(holds=(), unchecked=(("key", "this ledger ends at 19"),)),
    # when it was made
    "made at no time": Case(
        key(), record(), holds=(), time="noon", wrong=(("time", "'noon' is no time: the promise was changed"),),
    ),
    "recorded as long before as clocks may differ": Case(
        key(), record(seconds=-AHEAD), holds=KEPT, recorded=at(-AHEAD),
    ),
    "recorded longer before": Case(
        key(), record(seconds=-AHEAD - 1), recorded=at(-AHEAD - 1),
        wrong=(("time", f"made {at(0)} of what was recorded {at(-AHEAD - 1)}: one of the two was invented"),),
    ),
    "recorded longer after": Case(
        key(), record(seconds=AHEAD + 1), recorded=at(AHEAD + 1),
        wrong=(("time", f"made {at(0)} of what was recorded {at(AHEAD + 1)}: one of the two was invented"),),
    ),
    "recorded at no time": Case(
        key(), record(), recorded="noon", wrong=(("time", f"made {at(0)} of what was recorded noon: one of the two"),),
    ),
    # what is there of it
    "a record of another time": Case(
        key(), record(seconds=1), wrong=(("record", f"entry 1 is of {at(1)}, revision 'r1': not what was promised"),),
    ),
    "a record of another revision": Case(
        key(), record(revision="r2"),
        wrong=(("record", f"entry 1 is of {at(0)}, revision 'r2': not what was promised"),),
    ),
    "a dead letter in its place": Case(
        key(), record("deadLetter", 5, revision=""), holds=KEPT,
        beyond=(("record", "the archive refused the answer's own entry; a dead letter stands in its place"),),
    ),
    "the record and a dead letter": Case(key(), record("deadLetter"), record(), holds=KEPT),
    "a blob that is gone": Case(
        key(), record(), holds=("signature", "inclusion"), blob=FileNotFoundError("gone"),
        beyond=(("content", "the blob isn't here (retention, or a bundle without): the entry alone was compared"),),
    ),
    "a blob that is none": Case(
        key(), record(), holds=("signature", "inclusion"), blob=Tampered("no chunk"),
        wrong=(("content", f"blob {BLOB} is no chunk of a journal: no chunk"),),
    ),
    "another record in its place": Case(
        key(), record(), holds=("signature", "inclusion"), blob=b"another",
        wrong=(("content", f"broken promise: blob {BLOB} has frame 5 with SHA-256 "),),
    ),
    # nothing of it
    "not due yet": Case(
        key(), later(DUE),
        unchecked=(("inclusion", f"not included yet, and not due in this ledger: {REACHED}"),),
    ),
    "never": Case(
        key(), later(DUE + 1), wrong=(("inclusion", f"broken promise: not included within 3,600 s; {REACHED}"),),
    ),
    "never, and others have its id": Case(
        key(), record(frame=4), record(index=1), record("deadLetter", frame=6), later(DUE + 1),
        wrong=(("inclusion", f"broken promise: not included within 3,600 s; 3 other entries have its id; {REACHED}"),),
    ),
    "of another model": Case(
        key(), record(model="other"), record(namespace="other"), record("label"), later(DUE + 1),
        wrong=(("inclusion", f"broken promise: not included within 3,600 s; {REACHED}"),),
    ),
    "among chosen entries": Case(key(), later(DUE + 1), chosen=True, unchecked=(("inclusion", CHOSEN),)),
    "a frame that can't be read": Case(
        key(), entry("unreadable", 0, summary={"stream": "server-pod.1", "first": 5, "last": 5}),
        wrong=(("inclusion", f"broken promise: entry 1 says that frame 5 of server-pod can't be read; {REACHED}"),),
    ),
    "another frame that can't be read": Case(
        key(), entry("unreadable", 0, summary={"stream": "server-pod.1", "first": 6, "last": 6}),
        unchecked=(("inclusion", "not included yet"),),
    ),
    "times that nobody checked": Case(
        key(), later(DUE + 1, "deadLetter"), unchecked=(("inclusion", "not included yet"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_ledger_shows_of_a_promise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]

    def content(digest: str) -> bytes:
        assert digest == BLOB
        if isinstance(case.blob, FileNotFoundError):
            raise case.blob
        return b"chunk"

    def frame(data: bytes, seq: int) -> bytes:
        assert (data, seq) == (b"chunk", 5)
        if isinstance(case.blob, Exception):
            raise case.blob
        return case.blob

    monkeypatch.setattr(promises, "frame_of_chunk", frame)
    leaves = [SimpleNamespace(index=i, data=canonical(one)) for i, one in enumerate(case.entries)]
    note = SIGNER.sign(Checkpoint(SIGNER.name, len(leaves), bytes(32)).text())
    source: Any = SimpleNamespace(
        checkpoint=lambda: note, leaves=lambda size: leaves[:size], complete=not case.chosen, blob_bytes=content
    )
    findings = Findings()
    check_promise(SignedPromise.parse(sign(case.promise, "key-1", PRIVATE)), case.asked, source, findings)
    for found, want in zip((findings.wrong, findings.unchecked, findings.beyond), case.want, strict=True):
        assert [one.place for one in found] == [place for place, _ in want], findings
        for one, (_, words) in zip(found, want, strict=True):
            assert one.problem.startswith(words)
    assert [one.place for one in findings.holds] == case.holds


def test_what_holds_of_a_promise_is_said_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "frame_of_chunk", lambda *_: RECORD)
    leaves = [SimpleNamespace(index=i, data=canonical(one)) for i, one in enumerate((key(), record()))]
    note = SIGNER.sign(Checkpoint(SIGNER.name, 2, bytes(32)).text())
    source: Any = SimpleNamespace(
        checkpoint=lambda: note, leaves=lambda _: leaves, complete=True, blob_bytes=lambda _: b""
    )
    findings = Findings()
    check_promise(SignedPromise.parse(sign(PROMISE, "key-1", PRIVATE)), "", source, findings)
    assert [(one.place, one.problem) for one in findings.holds] == [
        ("promise", f"record of answer a of default/credit, revision r1, made {at(0)}, within 3,600 s"),
        ("ledger", f"{SIGNER.name}, 2 entries, root {'00' * 32}"),
        ("signature", f"holds, by the key of default/credit; entry 0 announces key key-1, {at(-60)}"),
        ("inclusion", f"kept: entry 1 is the promised record's (prediction a, {at(0)})"),
        ("content", WHOLE),
    ]
