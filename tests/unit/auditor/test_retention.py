"""The manifest's retention reaches the archive through the auditor, and payloads go while the ledger stays whole."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from governed_serving.archive.sources import DirectorySource
from governed_serving.archive.verification import verify
from governed_serving.crypto import load_kek
from support.waiting import eventually

from .processes import Site, people, prediction

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    path = site.root / "spec.json"
    model = json.loads(path.read_bytes())
    model["spec"]["governance"]["privacy"] = {"retention": {"payloads": "1s"}}
    path.write_text(json.dumps(model))
    site.start_archive()
    yield site
    site.close()


def test_payloads_are_deleted_after_the_manifest_says_so(site: Site) -> None:
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

    eventually(lambda: len(payloads()) and payloads() <= receipts(), within=40, every=0.2)
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
