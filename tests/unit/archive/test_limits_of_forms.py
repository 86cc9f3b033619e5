"""Proofs and promises at each of their limits, on both of its sides."""

import base64
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governed_serving.archive.ledger import promise as promises
from governed_serving.archive.ledger import proof as proofs
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.ledger.promise import AnnouncedKey, Promise, SignedPromise, decode_key, encode_key, sign
from governed_serving.archive.ledger.proof import LogProof

# ---- inclusion proofs (C2SP tlog-proof) ----

NOTE = "example.org/log\n1\nAAAA\n\n— example.org/log AAAA\n"
PROOF = LogProof(b"an entry", 0, (), NOTE)


@pytest.mark.parametrize("hashes", [0, 1, 63])
def test_a_proof_has_at_most_as_many_hashes_as_a_tree_of_2_to_the_63_is_high(hashes: int) -> None:
    proof = replace(PROOF, index=10**18, hashes=tuple(bytes([n]) * 32 for n in range(hashes)))
    assert LogProof.parse(proof.text()) == proof


@pytest.mark.parametrize("hashes", [(b"x" * 32,) * 64, (b"x" * 31,), (b"x" * 33,), (b"x" * 32, b"x" * 16)])
def test_what_can_be_no_inclusion_proof_is_refused(hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(NoteError, match="must be at most 63 hashes of 32 bytes"):
        LogProof.parse(replace(PROOF, hashes=hashes).text())


def test_a_proof_is_read_up_to_its_largest_size() -> None:
    longest = replace(PROOF, note=NOTE + "x" * (proofs.MOST_BYTES - len(PROOF.text())))
    assert (len(longest.text()), proofs.MOST_BYTES) == (256 * 1024, 256 * 1024)
    assert LogProof.parse(longest.text()) == longest
    with pytest.raises(NoteError, match="at most 262144 bytes, found 262145 or more"):
        LogProof.parse(longest.text() + "x")


@pytest.mark.parametrize("lost", ["extra ", "index "])
def test_a_proof_without_its_entry_or_its_index_is_refused(lost: str) -> None:
    lines = PROOF.text().split("\n")
    for text in ("\n".join(line for line in lines if not line.startswith(lost)), PROOF.text().replace(lost, "")):
        with pytest.raises(NoteError, match="must hold its entry"):
            LogProof.parse(text)


def test_a_proof_whose_checkpoint_is_missing_is_refused() -> None:
    with pytest.raises(NoteError, match="a checkpoint must follow an empty line"):
        LogProof.parse(PROOF.text().partition("\n\n")[0])


# ---- promises (RFC 7515) ----

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
AT = "2026-11-30T12:00:00.000Z"
PROMISE = Promise(
    namespace="n", model="m", id="a", revision="", recorded=AT,
    stream="s", frame=0, index=0, record="", time=AT, delay=1,
)  # fmt: skip


def changed(**fields: object) -> str:
    return sign(msgspec.structs.replace(PROMISE, **fields), "k", KEY)


@pytest.mark.parametrize("fields", [{}, {"delay": (1 << 40) - 1}, {"frame": 1 << 40, "index": 1 << 20}], ids=str)
def test_a_promise_is_read_as_it_was_signed(fields: dict[str, int]) -> None:
    told = SignedPromise.parse(changed(**fields))
    assert (told.promise, told.key) == (msgspec.structs.replace(PROMISE, **fields), "k")
    told.verify(KEY.public_key().public_bytes_raw())
    assert SignedPromise.parse(changed(**fields) + "\r\n") == told


@pytest.mark.parametrize("fields", [{"delay": 0}, {"delay": 1 << 40}, {"frame": -1}, {"index": -1}], ids=str)
def test_a_promise_of_a_number_that_cannot_be_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(NoteError, match="holds a number that can't be"):
        SignedPromise.parse(changed(**fields))


@pytest.mark.parametrize("size", [1, 63, 65])
def test_a_promise_with_a_signature_of_another_length_is_refused(size: int) -> None:
    signed = changed().rpartition(".")[0]
    with pytest.raises(NoteError, match="no signature of 64 bytes"):
        SignedPromise.parse(f"{signed}.{base64.urlsafe_b64encode(bytes(size)).decode().rstrip('=')}")


def test_a_promise_is_read_up_to_its_largest_size() -> None:
    near = (8192 - len(changed())) * 3 // 4
    texts = [changed(id="a" * (near + n)) + ends for n in range(-3, 4) for ends in ("", "\r\n")]
    sizes = {len(text): text for text in texts}
    assert promises.MOST_BYTES == 8192
    assert len(SignedPromise.parse(sizes[8192]).promise.id) > near - 3
    with pytest.raises(NoteError, match="of at most 8192 bytes"):
        SignedPromise.parse(sizes[8193])


PARTS: dict[str, Callable[[str], str]] = {
    "padded": lambda part: f"{part}=",
    "empty": lambda part: part[:0],
    "of the other alphabet": lambda part: f"+{part[1:]}",
    "of no alphabet": lambda part: f"é{part[1:]}",
}


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_promise_in_another_form_is_refused(name: str, place: int) -> None:
    parts = changed().split(".")
    parts[place] = PARTS[name](parts[place])
    with pytest.raises(NoteError, match="base64url without padding"):
        SignedPromise.parse(".".join(parts))


def test_bits_behind_the_last_byte_make_no_second_form_of_a_key() -> None:
    """43 characters are 258 bits: the last two say nothing, and are 0 as encoders write them (RFC 4648 §3.5)."""
    key = encode_key(KEY)
    assert (len(key), decode_key(AnnouncedKey(key, AT, AT))) == (43, KEY.public_key().public_bytes_raw())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = key[:-1] + alphabet[alphabet.index(key[-1]) | 1]
    assert other != key
    with pytest.raises(NoteError, match="base64url without padding"):
        decode_key(AnnouncedKey(other, AT, AT))


@pytest.mark.parametrize("size", [31, 33])
def test_a_key_of_another_length_signs_no_promises(size: int) -> None:
    key = base64.urlsafe_b64encode(bytes(size)).decode().rstrip("=")
    with pytest.raises(NoteError, match="must be Ed25519, 32 bytes"):
        decode_key(AnnouncedKey(key, AT, AT))
