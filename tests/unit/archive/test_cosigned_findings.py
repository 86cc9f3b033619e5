"""What a verification says of a receipt and of the cosignatures below a checkpoint, word for word."""

from typing import Any

import msgspec
import pytest

from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.note import Checkpoint, NoteError, Signer
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.receipt import Receipt, check_receipt
from governed_serving.archive.verify.witnesses import WitnessRule, check_witnesses
from governed_serving.records import LedgerEntry, canonical
from support.witness import Witness

from .ledgers import SIGNER

FIRST, SECOND = Witness(), Witness("witness.example/w2", bytes(range(2, 34)))
TEXT = Checkpoint(SIGNER.name, 1500, bytes(32)).text()
NOTE = SIGNER.sign(TEXT)
W1, W2 = "witness.example/w1", "witness.example/w2"
AT = "2026-01-01T00:00:00.000Z"
Found = list[tuple[str, str]]


def rule(*witnesses: Witness, quorum: int = 0) -> WitnessRule:
    return WitnessRule(tuple(Cosigner.parse(one.vkey) for one in witnesses), quorum or len(witnesses))


def told(findings: Findings) -> tuple[Found, Found, Found]:
    """(wrong, beyond, holds); nothing of this is ever unchecked."""
    assert findings.unchecked == []
    wrong, beyond, holds = (
        [(one.place, one.problem) for one in part] for part in (findings.wrong, findings.beyond, findings.holds)
    )
    return wrong, beyond, holds


OTHERS = "whether others were shown another log"
BEHIND = ("entries 1500 to 1599", "no quorum of witnesses has cosigned them yet")
CASES: dict[str, tuple[str, int, WitnessRule, tuple[Found, Found, Found]]] = {
    # name: (note, entries that the log signs, rule, findings)
    "nobody asked, nobody cosigned": (
        "", 1500, rule(), ([], [(OTHERS, "no witness cosigned a checkpoint that is kept here")], []),
    ),
    "asked, and nobody cosigned": (
        "", 1500, rule(FIRST, SECOND, quorum=1),
        ([("witnesses", "expected cosignatures by 1 of them, found none here")], [], []),
    ),
    "nobody asked, two cosigned": (
        NOTE + SECOND.line(TEXT) + FIRST.line(TEXT), 1500, rule(),
        ([], [(OTHERS, f"cosignatures by {W1}, {W2} are here, no key to check them: --witness-key VKEY")], []),
    ),
    "all that were asked": (
        NOTE + FIRST.line(TEXT) + SECOND.line(TEXT), 1500, rule(SECOND, FIRST),
        ([], [], [("witnesses", f"{W1}, {W2} cosigned 1,500 entries, at {AT} last")]),
    ),
    "as many as are enough": (
        NOTE + FIRST.line(TEXT), 1500, rule(FIRST, SECOND, quorum=1),
        ([], [], [("witnesses", f"{W1} cosigned 1,500 entries, at {AT} last")]),
    ),
    "too few": (
        NOTE + FIRST.line(TEXT), 1500, rule(SECOND, FIRST),
        ([("witnesses", f"1 cosigned the checkpoint over 1500 entries, expected 2: none by {W2}")], [], []),
    ),
    "entries that came since": (
        NOTE + FIRST.line(TEXT), 1600, rule(FIRST),
        ([], [BEHIND], [("witnesses", f"{W1} cosigned 1,500 entries, at {AT} last")]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_who_cosigned_and_what_not_yet(name: str) -> None:
    note, size, asked, want = CASES[name]
    findings = Findings()
    check_witnesses(note, size, asked, findings)
    assert told(findings) == want


def test_the_newest_of_the_cosignatures_says_how_fresh_the_view_is() -> None:
    later = Witness(SECOND.name, bytes(range(2, 34)), clock=FIRST.clock + 60)
    findings = Findings()
    check_witnesses(NOTE + later.line(TEXT) + FIRST.line(TEXT), 1500, rule(FIRST, later), findings)
    assert findings.holds[0].problem.endswith("at 2026-01-01T00:01:00.000Z last")


# -- receipts ----------------------------------------------------------------------------------------------------------

ENTRY = LedgerEntry("prediction", "default", "credit", "a", AT, revision="r1")
CONTENT = ("content", "the entry names it by the digest of its ciphertext, which the archive has")
INCLUSION = ("inclusion", f"entry 1,234 of 1,500 of {SIGNER.name}: proof of 2 hashes holds")
ABOUT = ("receipt", f"prediction a of default/credit, revision r1, {AT}")
NOBODY = (OTHERS, "no witness cosigned a checkpoint that is kept here")

RECEIPTS: dict[str, tuple[dict[str, Any], str, str, WitnessRule, tuple[Found, Found, Found]]] = {
    # name: (the entry's fields, key, id that is asked for, rule, findings)
    "nothing asked": ({}, "", "", rule(), ([], [NOBODY, CONTENT], [ABOUT, INCLUSION])),
    "its id": ({}, "", "a", rule(), ([], [NOBODY, CONTENT], [ABOUT, INCLUSION])),
    "another id": (
        {}, "", "b", rule(), ([("receipt", "is for id a, expected b")], [NOBODY, CONTENT], [ABOUT, INCLUSION]),
    ),
    "a key": (
        {}, str(SIGNER.verifier), "", rule(),
        ([], [NOBODY, CONTENT], [ABOUT, ("signature", "holds, by the key that you gave"), INCLUSION]),
    ),
    "a witness, and none cosigned": (
        {}, "", "", rule(FIRST),
        ([("witnesses", "expected cosignatures by 1 of them, found none here")], [CONTENT], [ABOUT, INCLUSION]),
    ),
    "a dead letter": (
        {"type": "deadLetter", "revision": ""}, "", "", rule(),
        (
            [],
            [("receipt", "the archive refused the answer's own entry; this one stands in its place"), NOBODY, CONTENT],
            [("receipt", f"deadLetter a of default/credit, revision none, {AT}"), INCLUSION],
        ),
    ),
}  # fmt: skip


def receipt(note: str = NOTE, **fields: Any) -> Receipt:
    entry = msgspec.structs.replace(ENTRY, **fields)
    return Receipt(LogProof(canonical(entry), 1234, (bytes(32), bytes(32)), note), entry, Checkpoint.parse(TEXT))


@pytest.mark.parametrize("name", RECEIPTS)
def test_what_a_receipt_shows(name: str) -> None:
    fields, vkey, id, asked, want = RECEIPTS[name]
    findings = Findings()
    check_receipt(receipt(**fields), vkey, id, asked, findings)
    assert told(findings) == want


def test_a_receipt_carries_cosignatures() -> None:
    findings = Findings()
    check_receipt(receipt(NOTE + FIRST.line(TEXT)), "", "", rule(FIRST), findings)
    assert told(findings) == (
        [], [CONTENT], [ABOUT, INCLUSION, ("witnesses", f"{W1} cosigned 1,500 entries, at {AT} last")],
    )  # fmt: skip


def test_a_receipt_by_another_key_than_the_one_that_was_kept_is_refused() -> None:
    other = str(Signer(SIGNER.name, bytes(32)).verifier)
    with pytest.raises(NoteError):
        check_receipt(receipt(), other, "", rule(), Findings())
