"""Signed notes against the published example of Go's sumdb/note, and checkpoints against what can be wrong with
them."""

import base64
import hashlib

import pytest

from governed_serving.archive.ledger.note import (
    Checkpoint,
    NoteError,
    Signer,
    UnknownKey,
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


# -- one thing wrong at a time -----------------------------------------------------------------------------------------

OWN = Signer("log.example/one", bytes(range(32)))


PUBLIC = bytes(range(32))


def vkey(public: bytes, name: str = OWN.name, kind: bytes = b"\x01") -> str:
    """A verifier key with the right hash of whatever it is."""
    digest = hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]
    return f"{name}+{digest.hex()}+{base64.b64encode(kind + public).decode()}"


def test_a_key_with_a_plus_in_its_base64_is_read() -> None:
    found = [s.verifier for s in (Signer("log", bytes([i]) * 32) for i in range(99)) if str(s.verifier).count("+") > 2]
    assert found
    for one in found:
        assert Verifier.parse(f" {one}\n") == one
        assert str(one) == vkey(one.public, "log")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name+hash", "must be name.hash.key"),
        (vkey(bytes(31)), "must be Ed25519"),
        (vkey(bytes(33)), "must be Ed25519"),
        (vkey(PUBLIC, kind=b"\x02"), "must be Ed25519"),
        (vkey(PUBLIC, "two words"), "without spaces"),
        (vkey(PUBLIC, ""), "without spaces"),
        (vkey(PUBLIC).replace("+", "+0", 1), "its hash is"),
        (vkey(PUBLIC) + "=", "not base64|no encoder"),
        *((vkey(bytes([y]) + bytes(30) + bytes([sign])), "anybody can sign") for y in (0, 1) for sign in (0, 128)),
    ],
)
def test_a_verifier_key_with_one_thing_wrong_is_refused(text: str, message: str) -> None:
    assert Verifier.parse(vkey(PUBLIC)).public == PUBLIC
    with pytest.raises(NoteError, match=message):
        Verifier.parse(text)


@pytest.mark.parametrize("name", ["", "a+b", "a b", "a\tb", "a\u2003b"])
def test_a_signer_has_a_name_that_a_note_can_hold(name: str) -> None:
    with pytest.raises(NoteError, match=r"must be without spaces and '\+'"):
        Signer(name, bytes(32))


def test_a_signer_doesnt_tell_its_secret() -> None:
    assert repr(OWN) == "Signer('log.example/one')"


def test_what_is_signed_may_have_empty_lines_and_ends_with_its_own() -> None:
    for text in ("\n", "a\n\nb\n", "a\n\n\n"):
        assert OWN.verifier.open(OWN.sign(text)) == text
    with pytest.raises(NoteError, match="must end with a newline"):
        OWN.sign("text")


def line(name: str, data: bytes) -> str:
    return f"— {name} {base64.b64encode(data).decode()}\n"


def test_each_signature_of_ours_must_verify_and_those_of_others_are_passed_over() -> None:
    text = "text\n"
    good, own = OWN.line(text), OWN.verifier
    others = line("other", b"12345") + line(own.name, b"\0\0\0\0" + bytes(64))  # the second: another key of our name
    for note in (f"{text}\n{others}{good}", f"{text}\n{good}{others}", f"{text}\n{good}{good}"):
        assert own.open(note) == text
    bad = line(own.name, own.key_hash + bytes(64))
    for note in (f"{text}\n{bad}", f"{text}\n{good}{bad}", f"{text}\n{bad}{good}"):
        with pytest.raises(NoteError, match="does not verify") as refused:
            own.open(note)
        assert not isinstance(refused.value, UnknownKey)
    with pytest.raises(UnknownKey, match=f"no signature by {own.name}"):
        own.open(f"{text}\n{others}")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line("other", b"1234"), "found 4 bytes"),
        (line("a+b", b"12345"), "without spaces"),
        (line("other", b"12345").replace("— ", "—  "), "signature line must be"),
        (line("other", b"12345").replace("\n", " x\n"), "signature line must be"),
        (line("other", b"12345").replace("— ", "—"), "signature line must be"),
        ("— other MTIzNDV=\n", "not base64|no encoder"),
        ("— other MTIzNDU1Nh==\n", "base64 that no encoder writes"),
        ("\n", "must be text|signature line must be"),
    ],
)
def test_a_bad_line_of_another_spoils_the_note(bad: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        OWN.verifier.open(OWN.sign("text\n") + bad)


@pytest.mark.parametrize("note", ["", "text\n", "text\n\n— a b", "text"])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError, match="must be text, an empty line and signature lines"):
        OWN.verifier.open(note)


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "each on a line"),
        (f"\n7\n{ROOT}\n", "each on a line"),
        ("log\n7", "each on a line"),
        *((f"log\n{size}\n{ROOT}\n", "decimal") for size in ("", "-1", "+1", "1_0", "00", "07", "7 ", "x", "²", "٣")),
        (f"log\n{'9' * 20}\n{ROOT}\n", "decimal"),
        (f"log\n{'9' * 5000}\n{ROOT}\n", "decimal"),
        (f"log\n7\n{base64.b64encode(bytes(31)).decode()}\n", "32 bytes, found 31"),
        (f"log\n7\n{base64.b64encode(bytes(33)).decode()}\n", "32 bytes, found 33"),
        ("log\n7\n*\n", "root hash is not base64"),
    ],
)
def test_a_checkpoint_with_one_thing_wrong_is_refused(text: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        Checkpoint.parse(text)


@pytest.mark.parametrize("size", [0, 1, 10, 2**63 - 1])
@pytest.mark.parametrize("extensions", [(), ("one",), ("one", "two words")])
def test_a_checkpoint_is_read_as_it_was_written(size: int, extensions: tuple[str, ...]) -> None:
    one = Checkpoint("log", size, bytes(range(32)), extensions)
    root = base64.b64encode(bytes(range(32))).decode()
    assert one.text() == "\n".join(["log", str(size), root, *extensions]) + "\n"
    assert Checkpoint.parse(one.text()) == one


def test_older_keys_sign_after_the_newest_in_their_order() -> None:
    older = (Signer(OWN.name, bytes(32)), Signer(OWN.name, bytes([1]) * 32))
    note = sign_checkpoint(OWN, 7, bytes(32), "more", older=older)
    text = f"{OWN.name}\n7\n{ROOT}\nmore\n"
    assert note == f"{text}\n" + "".join(one.line(text) for one in (OWN, *older))
    assert {open_checkpoint(note, one.verifier).size for one in (OWN, *older)} == {7}
