"""The port for whoever watches the log from outside: hashes, checkpoints, keys, and nothing that tells of anybody."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from governed_api import routes
from governed_serving.archive.app import create_public_app
from governed_serving.archive.ledger.merkle import Frontier, hash_leaf
from governed_serving.archive.ledger.note import Verifier, open_checkpoint
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import READER, model_token
from governed_serving.crypto import Kek

from .ledgers import batch

ROOT = bytes(range(32))
PATHS = [value for name, value in vars(routes).items() if name.isupper() and isinstance(value, str)]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    found = Archive(tmp_path / "archive", Kek(bytes(32)), "default")
    found.ledger.append(batch(0, 300))
    yield found
    found.close()


def asked(archive: Archive, method: str, *paths: str) -> list[httpx.Response]:
    """With the reader's token, which opens all on the other port."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_public_app(archive, ArchiveMetrics("default")))
        headers = {"authorization": f"Bearer {model_token(ROOT, 'default', READER)}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://archive", headers=headers) as client:
            return [await client.request(method, path, content=b"x" if method != "GET" else None) for path in paths]

    return asyncio.run(ask())


def test_a_stranger_can_follow_the_log(archive: Archive) -> None:
    paths = ("checkpoint", "key", "tile/0/000", "tile/0/001.p/44", "proof/consistency?first=7")
    note, key, full, partial, proof = asked(archive, "GET", *(f"/v1/ledger/{path}" for path in paths))
    checkpoint = open_checkpoint(note.text, Verifier.parse(key.text))
    tree, hashes = Frontier(), full.content + partial.content
    for n in range(0, len(hashes), 32):
        tree.append(hashes[n : n + 32])
    assert (tree.size, tree.root()) == (checkpoint.size, checkpoint.root) == (300, checkpoint.root)
    assert len(proof.json()["hashes"]) > 0
    assert hashes[7 * 32 :][:32] == hash_leaf(archive.ledger.entries(7, 8)[0])


def test_nothing_else_is_there_whoever_asks(archive: Archive) -> None:
    """No entry, blob, key or reference, no metrics: by any path of the contract, by any method."""
    public = {routes.CHECKPOINT, routes.WITNESSED, routes.LEDGER_KEY, routes.PROOF_INCLUSION, routes.PROOF_CONSISTENCY}
    filled = {re.sub(r"\{\w+\}", "credit", path) for path in PATHS}
    hidden = [*sorted(filled - public), *(f"/v1/ledger/tile/entries/{n}" for n in ("000", "001.p/44")), "/metrics"]
    for method in ("GET", "POST", "PUT", "DELETE"):
        for path, answer in zip(hidden, asked(archive, method, *hidden), strict=True):
            assert answer.status_code in (400, 404, 405), (method, path)
            assert "server-0/" not in answer.text, path
    for method in ("POST", "PUT", "DELETE"):
        assert {a.status_code for a in asked(archive, method, *sorted(public), "/v1/ledger/tile/0/000")} == {405}
    assert archive.ledger.size == 300


def test_what_is_wrong_is_said_in_words(archive: Archive) -> None:
    paths = ("witnessed", "tile/0/002", "tile/0/xyz", "proof/inclusion?index=400")
    found = asked(archive, "GET", *(f"/v1/ledger/{path}" for path in paths))
    assert [a.status_code for a in found] == [404, 404, 400, 400]
    assert all(a.json()["error"] for a in found)
