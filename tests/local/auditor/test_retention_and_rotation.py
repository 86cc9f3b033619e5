"""The manifest's retention and rotation take effect: payloads go, keys change, and the ledger stays whole and
readable."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_serving.archive.verify.record import opened_record
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.crypto import load_kek
from governed_serving.records import LedgerEntry
from support.waiting import eventually
from unit.auditor.records import people, prediction

from .site import Site

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def governed(site: Site, **governance: Any) -> None:
    path = site.root / "spec.json"
    model = json.loads(path.read_bytes())
    model["spec"]["governance"] |= governance
    path.write_text(json.dumps(model))
    site.start_archive()


def test_payloads_are_deleted_after_the_manifest_says_so(site: Site) -> None:
    governed(site, privacy={"retention": {"payloads": "1s"}})
    site.start_auditor()
    with site.writer() as journal:
        for number, (sex, decision) in enumerate(people(60, seed=4)):
            journal.append_blocking(prediction(number, sex, decision))

    def receipts() -> set[str]:
        with site.client() as client:
            found = [f.fields() for f in client.find(type="deletion")]
        return {digest for entry in found for digest in entry["summary"]["blobs"]}

    def payloads() -> set[str]:
        with site.client() as client:
            entries = [json.loads(e) for e in client.entries(0, 10_000)]
        return {e["blob"] for e in entries if e["type"] == "prediction"}

    eventually(lambda: len(payloads()) and payloads() <= receipts(), within=120, every=0.2)
    site.stop("auditor")
    site.stop("archive")
    found = verify(DirectorySource(site.root / "archive", load_kek(site.root / "kek")), id="request-3")
    assert found.deleted == len(payloads_on(found.deleted, site))


def payloads_on(number: int, site: Site) -> list[str]:
    """Markers of what was deleted."""
    markers = [p.name for p in (site.root / "archive" / "blobs" / "expired").rglob("*") if p.is_file()]
    assert len(markers) == number
    assert not [m for m in markers if (site.root / "archive" / "blobs" / m[:2] / m).exists()]
    return markers


def test_keys_are_rotated_while_records_pour_in(site: Site) -> None:
    governed(site, encryption={"rotation": "2s"})
    site.start_auditor()
    rows, journal_key = people(60, seed=4), site.keyset().primary_key_id

    def keys() -> dict[str, set[str]]:
        with site.reader() as client:
            found = [json.loads(e) for e in client.entries(0, 10_000)]
        return {
            m: {e["id"] for e in found if (e["type"], e["model"]) == ("key", m)} for m in ("loans", "governed-archive")
        }

    with site.writer() as journal:
        for number, (sex, decision) in enumerate(rows):
            journal.append_blocking(prediction(number, sex, decision))
    eventually(lambda: site.keyset().primary_key_id != journal_key, within=120, every=0.2, what="a new journal key")
    own = {"ledger:rotated", "references:rotated", "ledger-signing:rotated", "ledger-signing:verifier"}
    eventually(keys, lambda k: "journal:replaced" in k["loans"] and own <= k["governed-archive"], within=120, every=0.2)
    eventually(lambda: site.get("/v1/verdict"), lambda v: v["samples"] == len(rows), within=120, every=0.2)
    site.stop("auditor")
    site.stop("archive")
    kek = load_kek(site.root / "kek")
    with closing(DirectorySource(site.root / "archive", kek)) as source:
        found = verify(source, id="request-3")
        entry = msgspec.json.decode(found.proofs[0].entry, type=LedgerEntry)
        assert opened_record(source, load_kek(site.root / "model-kek"), entry)["features"] == {"sex": [rows[3][0]]}
