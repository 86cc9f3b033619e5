"""Ledgers and entries for the tests of this folder."""

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.archive.ledger.note import Signer
from governed_serving.records import LedgerEntry, canonical

SIGNER = Signer("governedmodels.io/archive/default", bytes(range(32)))


class PlainAead:
    """AES-256-GCM under a fixed key, in place of the keyring."""

    def __init__(self, key: bytes = bytes(32)):
        self._aead = AESGCM(key)

    def seal(self, data: bytes, aad: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        return nonce + self._aead.encrypt(nonce, data, aad)

    def open(self, data: bytes, aad: bytes) -> bytes:
        return self._aead.decrypt(data[:12], data[12:], aad)


TIME = "2026-01-01T00:00:00.000Z"


def leaf(id: str, type: str = "prediction", model: str = "credit", *, time: str = TIME, **fields) -> bytes:
    return canonical(LedgerEntry(type=type, namespace="default", model=model, id=id, time=time, **fields))


def batch(first: int, count: int, stream: str = "server-0", model: str = "credit", *, time: str = TIME) -> Batch:
    entries = [leaf(f"{stream}/{i}", model=model, time=time) for i in range(first, first + count)]
    return Batch(model, stream, first, entries)


def opened(root: Path, cipher: PlainAead | None = None) -> Ledger:
    return Ledger(root, cipher or PlainAead(), SIGNER)
