"""What an earlier version stored opens: ``stored.json`` was written once and must never have to be written again."""

import base64
import json
from pathlib import Path

import msgspec
import pytest
from tink.proto import tink_pb2

from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher, Tampered, is_sealed, load_kek
from governed_serving.crypto.document import KeysetDocument, is_keyset_document
from governed_serving.crypto.errors import CryptoError, KekError, KeyMissing, WrongKek

STORED = json.loads(Path(__file__).with_name("stored.json").read_text())
PURPOSES = sorted(STORED["keysets"])


def raw(name: str) -> bytes:
    return base64.b64decode(STORED[name])


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    store = DirectoryStore(tmp_path)
    for purpose, document in STORED["keysets"].items():
        store.create(purpose, document.encode())
    return Keyring(Kek(raw("kek")), store)


def test_sealed_bytes_tokens_digests_and_signing_keys(keyring: Keyring) -> None:
    assert Kek(raw("kek")).id == STORED["kek_id"]
    artefact = keyring.keyset("artefact", create=False)
    assert artefact.open(raw("sealed"), b"sha256:ab") == b"a model"
    assert is_sealed(raw("sealed"))
    assert len(raw("sealed")) == len(b"a model") + 41
    tokens = keyring.keyset("masking-tokens", create=False)
    assert tokens.tokenize(b"13800138000", b"PHONE_NUMBER") == raw("token")
    assert tokens.detokenize(raw("token"), b"PHONE_NUMBER") == b"13800138000"
    digests = keyring.keyset("masking-digests", create=False)
    assert digests.digest(b"EMAIL\0A@B.CN", 12) == raw("digest")
    assert len(digests.digest(b"x")) == 16
    (key,) = keyring.keyset("ledger-signing", create=False).signing_keys()
    assert key.public_key().public_bytes_raw() == base64.b64decode(STORED["verifier"][0])


def test_journal_segments(keyring: Keyring) -> None:
    cipher = SegmentCipher(keyring.keyset("journal", create=False))
    assert cipher.open(raw("segment"), b"stream 0").open(1, 7, raw("frame"), b"aad") == b"frame"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_nothing_in_a_document_can_be_changed_unseen(purpose: str) -> None:
    """Every field is bound to the wrapping: purpose, key-encryption key, ids, types, states, times."""
    document = KeysetDocument.parse(STORED["keysets"][purpose].encode(), purpose)
    kek = Kek(raw("kek"))
    document.unwrap(kek)
    key = document.keys[0]
    for field, value in (("id", key.id + 1), ("type", "Other"), ("status", "enabled"), ("created", "2020-01-01")):
        changed = msgspec.structs.replace(document, keys=[msgspec.structs.replace(key, **{field: value})])
        with pytest.raises(WrongKek, match="was changed"):
            changed.unwrap(kek)
    with pytest.raises(WrongKek):
        document.unwrap(Kek(bytes(32)))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_document_is_known_and_anything_like_it_is_not(purpose: str) -> None:
    text = STORED["keysets"][purpose]
    assert is_keyset_document(text.encode())
    plain = json.loads(text)
    for change in ({"format": "governed-keyset-2"}, {"keys": []}, {"keyset": ""}, {"keyset": "!"}, {"more": 1}):
        assert is_keyset_document(json.dumps(plain | change).encode()) is False, change
    with pytest.raises(KeyMissing, match="expected a governed-keyset-1"):
        KeysetDocument.parse(text.encode(), "another")


@pytest.mark.parametrize("cut", [0, 7, 8, 12, 40])
def test_a_cut_ciphertext_is_noticed(keyring: Keyring, cut: int) -> None:
    with pytest.raises(Tampered):
        keyring.keyset("artefact").open(raw("sealed")[:cut], b"sha256:ab")


@pytest.mark.parametrize(("size", "known"), [(27, False), (28, False), (29, True)])
def test_a_wrapped_keyset_holds_more_than_nonce_and_tag(size: int, known: bool) -> None:
    """12 bytes of nonce and 16 of tag wrap nothing."""
    wrapped = tink_pb2.EncryptedKeyset(encrypted_keyset=bytes(size)).SerializeToString()
    plain = json.loads(STORED["keysets"]["journal"]) | {"keyset": base64.b64encode(wrapped).decode()}
    assert is_keyset_document(json.dumps(plain).encode()) == known


def test_every_change_of_a_keyset_is_told_by_its_name(tmp_path: Path) -> None:
    """Names of the ledger's key entries, which receipts and readers go by."""
    told: list[tuple[str, str]] = []
    ring = Keyring(Kek(raw("kek")), DirectoryStore(tmp_path), on_event=lambda e: told.append((e.purpose, e.action)))
    first = ring.keyset("journal").primary_key_id
    ring.rotate("journal")
    ring.destroy_key("journal", first)
    assert told == [("journal", "created"), ("journal", "rotated"), ("journal", "key-destroyed")]


@pytest.mark.parametrize("keyset", ["AAAA", "AAA", "Zm9v"])
def test_a_wrapped_keyset_that_is_none_is_damage_and_not_a_wrong_key(keyset: str) -> None:
    document = KeysetDocument.parse(STORED["keysets"]["journal"].encode(), "journal")
    with pytest.raises(KeyMissing, match=r"stored 'journal' keyset is damaged .*restore it from a backup"):
        msgspec.structs.replace(document, keyset=keyset).unwrap(Kek(raw("kek")))


@pytest.mark.parametrize("purpose", ["", "Journal", "1journal", "-x", "a/b", "a.b", "journal\n", "ä", "a" * 64])
def test_a_purpose_is_a_name_that_a_file_can_have(keyring: Keyring, purpose: str) -> None:
    with pytest.raises(CryptoError, match="expected a lower-case name such as 'journal'"):
        keyring.keyset(purpose)


def test_a_purpose_may_have_63_characters(keyring: Keyring) -> None:
    assert keyring.keyset("a-1" * 21).purpose == "a-1" * 21


def test_a_key_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="is no regular file; expected 32 bytes in one"):
        load_kek(tmp_path)
