"""Signed notes against the published example of Go's sumdb/note, and checkpoints against what can be wrong with
them."""

import base64

import pytest

from governed_serving.archive.ledger.note import (
    Checkpoint,
    NoteError,
    Signer,
    Verifier,
    open_checkpoint,
    sign_checkpoint,
)

# golang.org/x/mod/sumdb/note, package example.
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_the_published_note_opens_and_is_signed_alike() -> None:
    assert Verifier.parse(VKEY).open(NOTE) == TEXT
    signer = Signer("PeterNeumann", base64.b64decode(PRIVATE.split("+", 4)[4])[1:])
    assert str(signer.verifier) == VKEY
    assert signer.sign(TEXT) == NOTE


def test_other_signatures_on_the_note_are_passed_over() -> None:
    other = Signer("witness.example/w1", bytes(32))
    cosigned = NOTE + other.sign(TEXT).rpartition("\n\n")[2]
    assert Verifier.parse(VKEY).open(cosigned) == TEXT
    assert other.verifier.open(cosigned) == TEXT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.replace("answer", "problem"), "does not verify"),
        (lambda n: n.replace("PeterNeumann ", "Paul "), "no signature by PeterNeumann"),
        (lambda n: n.removesuffix("\n"), "must be text"),
        (lambda n: n.replace("x08go", "x08g*"), "not base64"),
        (lambda n: n.replace("— ", "- "), "signature line"),
    ],
)
def test_a_changed_note_is_refused(change, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        Verifier.parse(VKEY).open(change(NOTE))


def test_checkpoints_round_trip() -> None:
    signer = Signer("governedmodels.io/archive/default", bytes(range(32)))
    note = sign_checkpoint(signer, 7, bytes(32), "time 2026-01-01T00:00:00Z")
    assert open_checkpoint(note, signer.verifier) == Checkpoint(
        signer.name, 7, bytes(32), ("time 2026-01-01T00:00:00Z",)
    )
    assert open_checkpoint(note, Verifier.parse(str(signer.verifier))).size == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log\n07\n" + base64.b64encode(bytes(32)).decode() + "\n", "decimal"),
        ("log\n7\nAAAA\n", "32 bytes"),
        ("log\n7\n", "each on a line"),
        ("other\n7\n" + base64.b64encode(bytes(32)).decode() + "\n", "expected 'log'"),
    ],
)
def test_a_signed_but_malformed_checkpoint_is_refused(text: str, message: str) -> None:
    signer = Signer("log", bytes(32))
    with pytest.raises(NoteError, match=message):
        open_checkpoint(signer.sign(text), signer.verifier)


@pytest.mark.parametrize(
    "vkey", ["a+b", "PeterNeumann+00000000+" + VKEY.rpartition("+")[2], "x+00+AAAA", "bad name+1+x"]
)
def test_malformed_verifier_keys_are_refused(vkey: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(vkey)
