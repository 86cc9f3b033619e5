"""The formats that serving_image/README.md describes, pinned: fixed entries, roots, proofs, signature and a folder."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from governed_serving.archive.app import entry_bundle
from governed_serving.archive.ledger.merkle import Frontier, hash_leaf, verify_consistency, verify_inclusion
from governed_serving.archive.ledger.note import Signer, Verifier, open_checkpoint, sign_checkpoint
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import Kek
from governed_serving.records import LedgerEntry, canonical

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "ledger.json").read_bytes())


def entries(count: int) -> list[bytes]:
    when = "2026-01-01T00:00:00.000Z"
    return [canonical(LedgerEntry("prediction", "default", "credit", f"req-{i}", when, "r1")) for i in range(count)]


def root(size: int) -> bytes:
    tree = Frontier()
    for entry in entries(size):
        tree.append(hash_leaf(entry))
    return tree.root()


def test_entries_and_roots_are_the_fixed_ones() -> None:
    assert [entries(300)[i].decode() for i in (0, -1)] == [VECTORS["first"], VECTORS["last"]]
    assert {size: root(int(size)).hex() for size in VECTORS["roots"]} == VECTORS["roots"]
    assert entry_bundle(entries(2)).hex() == VECTORS["bundle"]


def test_proofs_lead_to_the_roots() -> None:
    one, two = VECTORS["inclusion"], VECTORS["consistency"]
    verify_inclusion(hash_leaf(entries(8)[7]), one["index"], one["size"], _hashes(one), root(300))
    verify_consistency(two["first"], two["second"], _hashes(two), root(257), root(300))


def _hashes(proof: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(h) for h in proof["hashes"]]


def test_the_checkpoint_is_signed_byte_for_byte() -> None:
    signer = Signer("governedmodels.io/archive/default", bytes.fromhex(VECTORS["seed"]))
    assert str(signer.verifier) == VECTORS["vkey"]
    assert sign_checkpoint(signer, 300, root(300)) == VECTORS["checkpoint"]
    assert open_checkpoint(VECTORS["checkpoint"], Verifier.parse(VECTORS["vkey"])).size == 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in VECTORS["folder"]["files"].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
    return tmp_path


def test_a_folder_written_once_is_read_for_ever(folder: Path) -> None:
    kek = Kek(bytes.fromhex(VECTORS["folder"]["kek"]))
    found = inspect_folder(folder, kek, Asked())
    assert found.findings.wrong == []
    assert [one.place for one in found.findings.unchecked] == ["anchor"], "which that version didn't write"
    assert [leaf.data for leaf in DirectorySource(folder, kek).leaves(5)] == entries(5)
