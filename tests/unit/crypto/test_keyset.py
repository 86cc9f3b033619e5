"""What becomes of keys: their order, their states, what is left of one that was shredded, what the ledger is told."""

import os
import re
import stat
from pathlib import Path

import pytest
from tink import aead, daead, prf, signature
from tink.proto import tink_pb2

from governed_serving.crypto import CryptoError, DirectoryStore, Kek, KeyEvent, KeyMissing, Keyring, Tampered
from governed_serving.crypto import keyset as keyset_module
from governed_serving.crypto.document import KeysetDocument, handle_of, plain_keyset
from governed_serving.crypto.keyset import SEALED_BYTES, Keyset, with_new_primary


@pytest.fixture
def kek() -> Kek:
    return Kek(os.urandom(32))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "made" / "keysets")


@pytest.fixture
def keyring(kek: Kek, store: DirectoryStore) -> Keyring:
    return Keyring(kek, store)


def opened(keyset: tink_pb2.Keyset, purpose: str, kek: Kek) -> Keyset:
    """As a store would hold it."""
    handle = handle_of(keyset)
    wrapped = KeysetDocument.wrap(purpose, handle, kek, {k.key_id: "2026-01-01T00:00:00.000Z" for k in keyset.key})
    document = KeysetDocument.parse(wrapped, purpose)
    return Keyset(document, document.unwrap(kek))


def grown(purpose: str, keys: int) -> tink_pb2.Keyset:
    handle = keyset_module.new_handle(purpose)
    for _ in range(keys - 1):
        handle = handle_of(with_new_primary(handle, purpose))
    return plain_keyset(handle)


@pytest.mark.parametrize("primary", range(4))
def test_the_primary_signing_key_comes_first_then_the_newest(kek: Kek, primary: int):
    plain = grown("ledger-signing", 4)
    made = [opened(alone(plain, k.key_id), "ledger-signing", kek).signing_keys()[0] for k in plain.key]
    plain.primary_key_id = plain.key[primary].key_id
    order = [primary, *(n for n in (3, 2, 1, 0) if n != primary)]
    keys = opened(plain, "ledger-signing", kek).signing_keys()
    assert [k.private_bytes_raw() for k in keys] == [made[n].private_bytes_raw() for n in order]


def alone(keyset: tink_pb2.Keyset, key_id: int) -> tink_pb2.Keyset:
    """The one key alone."""
    return tink_pb2.Keyset(primary_key_id=key_id, key=[k for k in keyset.key if k.key_id == key_id])


def test_no_signing_key_is_made_of_another(keyring: Keyring):
    with pytest.raises(CryptoError, match="the 'data' keyset holds no Ed25519 key; use the 'ledger-signing' keyset"):
        keyring.keyset("data").signing_keys()


def test_shredded_and_disabled_keys_are_named_as_such_and_sign_nothing(kek: Kek):
    plain = grown("ledger-signing", 3)
    plain.key[0].status = tink_pb2.DISABLED
    plain.key[1].status = tink_pb2.DESTROYED
    plain.key[1].ClearField("key_data")
    keyset = opened(plain, "ledger-signing", kek)
    assert [(k.status, k.type) for k in keyset.info()] == [
        ("disabled", "Ed25519Private"),
        ("destroyed", "none"),
        ("primary", "Ed25519Private"),
    ]
    assert len(keyset.signing_keys()) == 1


def test_a_disabled_key_opens_nothing(kek: Kek):
    plain = grown("data", 2)
    old = alone(plain, plain.key[0].key_id)
    sealed = opened(old, "data", kek).seal(b"x")
    assert opened(plain, "data", kek).open(sealed) == b"x"
    plain.key[0].status = tink_pb2.DISABLED
    first, second = (k.key_id for k in plain.key)
    says = f"sealed under key {first}, the 'data' keyset holds {first} (disabled), {second} (primary): that key was"
    with pytest.raises(KeyMissing, match=re.escape(says)):
        opened(plain, "data", kek).open(sealed)


def test_the_material_of_a_shredded_key_is_gone_for_good(kek: Kek, store: DirectoryStore, keyring: Keyring):
    first = keyring.keyset("data").primary_key_id
    keyring.rotate("data")
    keyring.destroy_key("data", first)
    document = KeysetDocument.parse(store.get("data") or b"", "data")
    left = plain_keyset(document.unwrap(kek))
    assert [(k.status, k.HasField("key_data")) for k in left.key] == [
        (tink_pb2.DESTROYED, False),
        (tink_pb2.ENABLED, True),
    ]
    assert [(k.status, k.type) for k in keyring.inventory()] == [("destroyed", "none"), ("primary", "AesGcm")]


def test_what_is_not_there_can_not_be_rotated_or_shredded(keyring: Keyring):
    for act in (keyring.destroy, keyring.rotate):
        with pytest.raises(KeyMissing, match="no 'data' keyset is stored"):
            act("data")
    there = keyring.keyset("data").primary_key_id
    with pytest.raises(CryptoError, match=f"no key {there + 1} in the keyset; it holds {there}"):
        keyring.destroy_key("data", there + 1)


def test_a_token_without_a_place_is_bound_to_none(keyring: Keyring):
    tokens = keyring.keyset("masking-tokens")
    assert tokens.tokenize(b"13800138000") == tokens.tokenize(b"13800138000", b"")
    assert tokens.detokenize(tokens.tokenize(b"13800138000", b"")) == b"13800138000"


def test_five_bytes_are_enough_to_name_the_key_that_is_missing(keyring: Keyring):
    keyset = keyring.keyset("data")
    other = (keyset.primary_key_id + 1) % 2**32
    with pytest.raises(KeyMissing, match=f"sealed under key {other}, the 'data' keyset"):
        keyset.open(SEALED_BYTES + b"\x01" + other.to_bytes(4, "big"))
    for short in (b"", b"\x01", b"\x01abc", b"\x00" + other.to_bytes(4, "big")):
        with pytest.raises(Tampered, match="the 'data' keyset doesn't begin like a ciphertext"):
            keyset.open(SEALED_BYTES + short)


def test_a_process_that_only_opens_registers_what_it_opens_with_once(
    kek: Kek, store: DirectoryStore, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
):
    keyring.keyset("data")
    keyring.keyset("journal")
    registered: list[str] = []
    monkeypatch.setattr(keyset_module, "_done", False)
    for module in (aead, daead, prf, signature):
        monkeypatch.setattr(module, "register", lambda name=module.__name__: registered.append(name))
    later = Keyring(kek, store)
    for purpose in ("data", "journal"):
        later.keyset(purpose, create=False)
    assert registered == ["tink.aead", "tink.daead", "tink.prf", "tink.signature"]


def test_a_destroyed_keyset_is_overwritten_before_its_name_goes(
    store: DirectoryStore, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
):
    keyring.keyset("data")
    path, kept = store.root / "data.keyset.json", store.root.parent / "same-blocks"
    os.link(path, kept)
    before = kept.read_bytes()
    durable: list[tuple[bool, bool]] = []

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) or os.path.samestat(os.fstat(handle), kept.stat()):
            durable.append(
                (
                    kept.read_bytes() != before,
                    any(p.name.startswith((path.name, f".{path.name}")) for p in store.root.iterdir()),
                )
            )

    monkeypatch.setattr(os, "fsync", fsync)
    keyring.destroy("data")
    assert len(kept.read_bytes()) == len(before)
    assert durable == [(False, True), (True, True), (True, False)]  # receipt, blocks, name


def test_a_store_of_keysets_is_its_owners_alone(store: DirectoryStore, keyring: Keyring):
    keyring.keyset("data")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (store.root, *store.root.iterdir())}
    assert modes == {"keysets": 0o700, ".lock": 0o600, "data.keyset.json": 0o600}


def test_events_become_ledger_entries(kek: Kek, store: DirectoryStore):
    events: list[KeyEvent] = []
    keyring = Keyring(kek, store, on_event=events.append)
    keyring.keyset("data")
    keyring.rotate("data")
    keyring.destroy("data")
    assert [e.action for e in events] == ["created", "rotated", "destroyed"]
    entry = events[2].entry("default", "credit")
    assert (entry.type, entry.model, entry.digest) == ("key", "credit", events[1].digest)
    assert (entry.namespace, entry.id, entry.time, entry.revision) == ("default", "data:destroyed", events[2].time, "")
    assert entry.summary == {
        "action": "destroyed",
        "purpose": "data",
        "keys": [events[0].keys[0], events[1].keys[0]],
        "kek": kek.id,
    }
    assert events[2].entry("default", "credit", "r7").revision == "r7"
