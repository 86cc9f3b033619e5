"""Keysets live, rotate and die as promised, and every failure says what to do."""

import json
import os
import threading
from pathlib import Path

import pytest

from governed_serving.crypto import (
    DirectoryStore,
    Kek,
    KeyDestroyed,
    KeyEvent,
    KeyMissing,
    Keyring,
    KeysetChanged,
    Tampered,
    WrongKek,
    is_keyset_document,
)


@pytest.fixture
def kek() -> Kek:
    return Kek(os.urandom(32))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "keysets")


@pytest.fixture
def keyring(kek: Kek, store: DirectoryStore) -> Keyring:
    return Keyring(kek, store)


def test_what_one_process_seals_another_opens(kek: Kek, store: DirectoryStore, keyring: Keyring):
    sealed = keyring.keyset("data").seal(b"applicant", b"rows.csv")
    assert Keyring(kek, DirectoryStore(store.root)).keyset("data").open(sealed, b"rows.csv") == b"applicant"


@pytest.mark.parametrize("place", [0, 9, 14, 30, -1])
def test_a_changed_byte_is_noticed(keyring: Keyring, place: int):
    keyset = keyring.keyset("data")
    sealed = bytearray(keyset.seal(b"applicant", b"rows.csv"))
    sealed[place] ^= 1
    with pytest.raises((Tampered, KeyMissing)):
        keyset.open(bytes(sealed), b"rows.csv")


def test_sealed_data_belongs_to_its_place(keyring: Keyring):
    keyset = keyring.keyset("data")
    with pytest.raises(Tampered, match="changed, cut or moved"):
        keyset.open(keyset.seal(b"applicant", b"rows.csv"), b"other.csv")


def test_another_kek_is_named(store: DirectoryStore, keyring: Keyring, kek: Kek):
    keyring.keyset("data")
    other = Kek(os.urandom(32))
    with pytest.raises(WrongKek, match=f"wrapped by key {kek.id}, the key given is {other.id}"):
        Keyring(other, store).keyset("data")


def test_a_keyset_is_not_made_unless_asked(keyring: Keyring):
    with pytest.raises(KeyMissing, match="no 'journal' keyset is stored"):
        keyring.keyset("journal", create=False)


def test_metadata_can_not_be_changed_unnoticed(kek: Kek, store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data")
    path = store.root / "data.keyset.json"
    document = json.loads(path.read_bytes())
    document["keys"][0]["created"] = "2001-01-01T00:00:00.000Z"
    path.write_text(json.dumps(document))
    with pytest.raises(WrongKek, match="it was changed"):
        Keyring(kek, store).keyset("data")


def test_a_damaged_document_is_named(kek: Kek, store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data")
    (store.root / "data.keyset.json").write_bytes(b"{")
    with pytest.raises(KeyMissing, match="damaged"):
        Keyring(kek, store).keyset("data")


def test_one_purpose_does_not_open_anothers_data(keyring: Keyring):
    sealed = keyring.keyset("data").seal(b"x")
    with pytest.raises((KeyMissing, Tampered)):
        keyring.keyset("artefact").open(sealed)


def test_a_keyset_put_into_anothers_place_is_refused(kek: Kek, store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data")
    (store.root / "data.keyset.json").rename(store.root / "journal.keyset.json")
    with pytest.raises(KeyMissing, match="for 'journal', found a governed-keyset-1 for 'data'"):
        Keyring(kek, store).keyset("journal")


def test_rotation_seals_with_the_new_key_and_opens_the_old(keyring: Keyring):
    keyset = keyring.keyset("data")
    before, first = keyset.seal(b"old"), keyset.primary_key_id
    event = keyring.rotate("data")
    assert keyset.primary_key_id == event.keys[0] != first
    assert keyset.open(before) == b"old"
    assert [k.status for k in keyset.info()] == ["enabled", "primary"]


def test_a_reader_learns_of_a_rotation_elsewhere(kek: Kek, store: DirectoryStore, keyring: Keyring):
    reader = Keyring(kek, store).keyset("journal")
    keyring.keyset("journal")
    keyring.rotate("journal")
    assert reader.open(keyring.keyset("journal").seal(b"after")) == b"after"


def test_a_retired_key_can_be_shredded_alone(keyring: Keyring):
    keyset = keyring.keyset("data")
    old, first = keyset.seal(b"old"), keyset.primary_key_id
    keyring.rotate("data")
    new = keyset.seal(b"new")
    keyring.destroy_key("data", first)
    assert keyset.open(new) == b"new"
    with pytest.raises(KeyMissing, match=f"sealed under key {first}.*was destroyed"):
        keyset.open(old)


def test_the_primary_key_is_not_shredded_by_mistake(keyring: Keyring):
    with pytest.raises(Exception, match="rotate first"):
        keyring.destroy_key("data", keyring.keyset("data").primary_key_id)


def test_destruction_leaves_a_receipt_and_nothing_that_opens(kek: Kek, store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data").seal(b"x")
    stored = store.get("data")
    event = keyring.destroy("data")
    receipt = json.loads((store.root / "data.destroyed.json").read_bytes())
    assert receipt["digest"] == event.digest
    assert receipt["action"] == "destroyed"
    assert stored is not None
    assert all(stored[40:200] not in p.read_bytes() for p in store.root.iterdir())
    for ring in (keyring, Keyring(kek, store)):
        with pytest.raises(KeyDestroyed, match="was destroyed"):
            ring.keyset("data")


def test_the_kek_rotates_and_the_old_one_is_worthless(store: DirectoryStore, keyring: Keyring, kek: Kek):
    sealed = {p: keyring.keyset(p).seal(p.encode()) for p in ("data", "journal")}
    new = Kek(os.urandom(32))
    told: list[KeyEvent] = []
    events = Keyring(kek, store, on_event=told.append).rewrap(new)
    assert [(e.action, e.purpose, e.kek) for e in events] == [
        ("rewrapped", "data", new.id),
        ("rewrapped", "journal", new.id),
    ]
    assert told == events
    assert keyring.rewrap(new) == []
    opened = Keyring(new, store)
    assert {p: opened.keyset(p).open(s) for p, s in sealed.items()} == {"data": b"data", "journal": b"journal"}
    with pytest.raises(WrongKek):
        Keyring(kek, store).keyset("data")


def test_the_inventory_needs_no_key(store: DirectoryStore, keyring: Keyring, kek: Kek):
    keyring.keyset("data")
    keyring.keyset("ledger-signing")
    keyring.rotate("data")
    inventory = Keyring(Kek(os.urandom(32)), store).inventory()
    assert [(k.purpose, k.status, k.type) for k in inventory] == [
        ("data", "enabled", "AesGcm"),
        ("data", "primary", "AesGcm"),
        ("ledger-signing", "primary", "Ed25519Private"),
    ]
    assert {k.kek for k in inventory} == {kek.id}


def test_two_who_create_at_once_end_up_with_one_keyset(kek: Kek, store: DirectoryStore):
    start, rings = threading.Barrier(4), [Keyring(kek, DirectoryStore(store.root)) for _ in range(4)]
    sealed: list[bytes] = []

    def seal(ring: Keyring) -> None:
        start.wait()
        sealed.append(ring.keyset("data").seal(b"x"))

    threads = [threading.Thread(target=seal, args=(r,)) for r in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rings[0].keyset("data").open(s) for s in sealed] == [b"x"] * 4


def test_a_stale_change_is_refused(store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data")
    old = store.get("data")
    keyring.rotate("data")
    assert old is not None
    with pytest.raises(KeysetChanged, match="try again"):
        store.replace("data", old, old)


def test_stored_documents_are_recognised_and_private(store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data")
    path = store.root / "data.keyset.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_keyset_document(path.read_bytes())
    assert not is_keyset_document(b'{"purpose":"data"}')
    assert not is_keyset_document(path.read_bytes().replace(b'"keyset":"', b'"keyset":"!'))


def test_signing_tokens_and_digests(keyring: Keyring):
    key = keyring.keyset("ledger-signing").signing_keys()[0]
    key.public_key().verify(key.sign(b"checkpoint"), b"checkpoint")
    tokens = keyring.keyset("masking-tokens")
    assert tokens.tokenize(b"13800138000", b"PHONE") == tokens.tokenize(b"13800138000", b"PHONE")
    assert tokens.detokenize(tokens.tokenize(b"13800138000", b"PHONE"), b"PHONE") == b"13800138000"
    with pytest.raises(Tampered):
        tokens.detokenize(tokens.tokenize(b"13800138000", b"PHONE"), b"EMAIL")
    digests = keyring.keyset("masking-digests")
    assert digests.digest(b"a") == digests.digest(b"a") != digests.digest(b"b")
    with pytest.raises(Exception, match="which can't do this"):
        tokens.seal(b"x")
