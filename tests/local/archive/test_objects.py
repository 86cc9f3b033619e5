"""The archive's blobs in a real object storage (versitygw): stored before they are acknowledged, named when they are
changed, gone when they are deleted; and a model whose archive has them there."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Busy, Unreachable, Unverified
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.store import objects
from governed_serving.archive.store.objects import Bucket, Place
from local.auditor.site import Site
from support.damage import flipped
from support.object_storage import ObjectStorage, object_storage
from support.waiting import eventually
from unit.archive.ledgers import batch

from ..conftest import SAMPLES, governed, in_ledger, start

pytestmark = pytest.mark.slow


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ObjectStorage]:
    with object_storage(tmp_path / "storage") as running:
        yield running


def sealed(text: str, size: int = 200) -> tuple[str, bytes]:
    data = b"GMSEAL1\n" + (text * size).encode()[:size]
    return hashlib.sha256(data).hexdigest(), data


def written(folder: Path, data: bytes) -> Path:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.body"
    path.write_bytes(data)
    return path


def fetched(bucket: Bucket, digest: str, folder: Path) -> bytes:
    with (folder / "fetched").open("wb") as file:
        bucket.fetch(digest, file)
    return (folder / "fetched").read_bytes()


def test_a_bucket_keeps_what_it_is_given(storage: ObjectStorage, tmp_path: Path) -> None:
    bucket = Bucket(Place.parse(storage.place()), storage.keys)
    assert bucket.problem() == ""
    small, large = sealed("a"), sealed("b", objects.ALONE * 2 + 17)
    for digest, data in (small, large):
        file = written(tmp_path, data)
        assert (bucket.size(digest), bucket.put(digest, file), bucket.put(digest, file)) == (None, True, False)
        assert (bucket.size(digest), fetched(bucket, digest, tmp_path) == data) == (len(data), True)
    (storage.objects / "team" / "notes.txt").write_text("another's")
    assert list(bucket.addresses()) == sorted([small[0], large[0]])
    assert list(Bucket(Place.parse(storage.place("other")), storage.keys).addresses()) == []
    bucket.delete(small[0])
    bucket.delete(small[0])
    assert bucket.size(small[0]) is None
    with pytest.raises(FileNotFoundError):
        fetched(bucket, small[0], tmp_path)


def test_an_object_that_is_there_is_never_replaced_unless_it_is_damaged(storage: ObjectStorage, tmp_path: Path) -> None:
    bucket = Bucket(Place.parse(storage.place()), storage.keys)
    digest, data = sealed("a")
    file = written(tmp_path, data)
    with ThreadPoolExecutor(8) as pool:  # as many archives at once
        assert sorted(pool.map(lambda _: bucket.put(digest, file), range(8))) == [False] * 7 + [True]
    path = storage.files()[f"team/{digest[:2]}/{digest}"]
    path.write_bytes(flipped(data))
    with pytest.raises(Unverified, match=f"blob {digest} has SHA-256 .* it was changed"):
        fetched(bucket, digest, tmp_path)
    assert bucket.put(digest, file), "stored again, since what was there was not it"
    assert fetched(bucket, digest, tmp_path) == data


def test_storage_that_refuses_or_is_away_is_said_to_be(storage: ObjectStorage, tmp_path: Path) -> None:
    bucket = Bucket(Place.parse(storage.place()), storage.keys)
    digest, data = sealed("a")
    wrong = tmp_path / "wrong"
    shutil.copytree(storage.keys, wrong)
    (wrong / "secret-access-key").write_text("another")
    assert "403" in Bucket(Place.parse(storage.place()), wrong).problem()
    assert "NoSuchBucket" in _put_problem(Bucket(Place.parse(storage.place().replace("ledger", "none")), storage.keys))
    storage.stop()
    assert "expected object storage to answer" in bucket.problem()
    with pytest.raises(Busy):
        bucket.put(digest, written(tmp_path, data))
    storage.start()
    assert bucket.put(digest, written(tmp_path, data)), "as soon as it is back"


def test_tls_is_checked_by_the_authority_that_is_given(tmp_path: Path) -> None:
    ours, certificate, key = authority(tmp_path)
    with object_storage(tmp_path / "storage", certificate, key) as storage:
        place = Place.parse(storage.place())
        assert place.endpoint.startswith("https://")
        assert Bucket(place, storage.keys, ours).problem() == ""
        assert "expected object storage to answer" in Bucket(place, storage.keys).problem(), "nobody vouches for it"


def authority(folder: Path) -> tuple[Path, Path, Path]:
    """(its certificate, a certificate that it issued for 127.0.0.1, the key of that one)."""
    ours, ours_key, leaf, leaf_key = (folder / name for name in ("ca.crt", "ca.key", "tls.crt", "tls.key"))
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *new, "-days", "2", "-subj", "/CN=authority", "-keyout", ours_key, "-out", ours],
        ["req", *new, "-subj", "/CN=storage", "-keyout", leaf_key, "-out", folder / "csr"],
        ["x509", "-req", "-in", folder / "csr", "-CA", ours, "-CAkey", ours_key, "-CAcreateserial", "-days", "2",
         "-extfile", folder / "san", "-out", leaf],
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True, timeout=60)
    return ours, leaf, leaf_key


def _put_problem(bucket: Bucket) -> str:
    with pytest.raises(Busy) as raised:
        list(bucket.addresses())
    return str(raised.value)


def test_storage_that_never_answers_holds_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "READ", timedelta(seconds=0.3))
    monkeypatch.setattr(objects, "RETRY_FOR", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Place.parse(f"s3://b?endpoint=http://127.0.0.1:{silent.getsockname()[1]}")
        (tmp_path / "access-key-id").write_text("a")
        (tmp_path / "secret-access-key").write_text("b")
        bucket, found = Bucket(place, tmp_path), list[str]()
        thread = threading.Thread(target=lambda: found.append(bucket.problem()), daemon=True)
        thread.start()
        thread.join(60)
    assert found, "it waits for ever"
    assert "expected object storage to answer" in found[0]


@pytest.fixture
def site(storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An archive process with its blobs in the storage."""
    monkeypatch.setenv("GOVERNED_OBJECTS", storage.place())
    monkeypatch.setenv("GOVERNED_OBJECTS_KEYS", str(storage.keys))
    (tmp_path / "site").mkdir()
    made = Site(tmp_path / "site")
    made.start_archive()
    yield made
    made.close()


def readiness(site: Site) -> tuple[int, str]:
    answer = httpx.get(f"{site.archive_url}/healthz/ready", trust_env=False, timeout=30)
    return answer.status_code, answer.text


def test_an_archive_acknowledges_nothing_that_isn_t_stored(site: Site, storage: ObjectStorage) -> None:
    digest, data = sealed("a")
    with ArchiveClient(site.archive_url, site.token, "loans", patience=0.0) as client:
        assert client.put_blob(data) == digest
        assert [f for f in storage.files() if "/_ledger/" not in f] == [f"team/{digest[:2]}/{digest}"]
        assert client.get_blob(digest) == data
        storage.stop()
        with pytest.raises(Unreachable, match="expected object storage to answer"):
            client.put_blob(sealed("b")[1])
        with pytest.raises(Unreachable, match="expected object storage to answer"):
            client.get_blob(digest)
        eventually(lambda: readiness(site), lambda found: found[0] == 503, within=60)
        metrics = httpx.get(f"{site.archive_url}/metrics", trust_env=False, timeout=30).text
        assert 'governed_archive_objects_away{component="archive",namespace="default"} 1.0' in metrics
        storage.start()
        eventually(lambda: readiness(site), lambda found: found[0] == 200, within=60)
        assert client.put_blob(sealed("b")[1])
        path = storage.files()[f"team/{digest[:2]}/{digest}"]
        path.write_bytes(flipped(data))
        with pytest.raises(ArchiveError, match=f"{digest} has SHA-256 .* it was changed"):
            client.get_blob(digest)


def verified(root: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ["verify", str(root / "archive"), "--key-file", str(root / "kek"), *more]
    command = [sys.executable, "-m", "governed_serving.archive", *words]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GOVERNED_OBJECTS")}
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def emptied(folder: Path) -> None:
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def reported(path: Path) -> int:
    """Entries under the checkpoint that the archive told its report."""
    if not path.exists():
        return 0
    section = json.loads(path.read_bytes())["status"].get("archive", {})
    return Checkpoint.unverified(section["checkpoint"]).size if "checkpoint" in section else 0


def test_an_archive_whose_volume_is_lost_starts_from_the_bucket(
    site: Site, storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was acknowledged is there, and less than the report has is refused."""
    folder = tmp_path / "site" / "archive"
    assert site.stop("archive") == 0
    monkeypatch.setenv("GOVERNED_REPORT", f"file://{tmp_path}/report.json")
    site.start_archive()
    with ArchiveClient(site.archive_url, site.token, "loans") as client:
        client.append("server-0", batch(0, 300, model="loans").entries, 0)
        signed = client.checkpoint()
    eventually(lambda: reported(tmp_path / "report.json") >= Checkpoint.unverified(signed).size, within=60)
    older = {name: path.read_bytes() for name, path in storage.files().items() if "/_ledger/" in name}
    assert site.stop("archive", signal.SIGKILL) != 0
    emptied(folder)
    site.start_archive()
    with ArchiveClient(site.archive_url, site.token, "loans") as client:
        assert len(client.entries(0, 300)) == 300
        assert client.append("server-0", batch(300, 300, model="loans").entries, 300) >= 300
        size = Checkpoint.unverified(client.checkpoint()).size
    eventually(lambda: reported(tmp_path / "report.json") >= size, within=60)
    assert site.stop("archive") == 0
    whole = verified(tmp_path / "site", GOVERNED_OBJECTS_KEYS=str(storage.keys))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    emptied(folder)
    for name, path in storage.files().items():
        if "/_ledger/manifest/" in name:
            path.unlink()
    for name, data in older.items():
        (storage.objects / name).parent.mkdir(parents=True, exist_ok=True)
        (storage.objects / name).write_bytes(data)
    with pytest.raises(AssertionError, match="entries can be read, but a checkpoint over"):
        site.start_archive()
    storage.stop()
    emptied(folder)
    with pytest.raises(AssertionError, match="expected object storage to answer"):
        site.start_archive()


def test_the_place_can_t_be_forgotten_or_mistaken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.stop("archive") == 0
    monkeypatch.delenv("GOVERNED_OBJECTS")
    with pytest.raises(AssertionError, match="its blobs are in object storage"):
        site.start_archive()


def answers(served: Any, row: dict[str, str]) -> str:
    inputs = [{"name": n, "shape": [1, 1], "datatype": "BYTES", "data": [v]} for n, v in row.items()]
    answer = httpx.post(f"{served.url}/infer", json={"inputs": inputs}, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-prediction-id"])


def test_a_model_s_blobs_move_out_and_it_goes_on(
    admissions_once: tuple[Path, Any], storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`governed run --objects` over a work directory of before: artefact, records and proofs come from the bucket."""
    work = tmp_path / "work"
    shutil.copytree(admissions_once[0], work)
    archive = work / "volumes" / "archive-governed-archive-0"
    before = {p.name for p in (archive / "blobs").glob("[0-9a-f][0-9a-f]/*")}
    assert before
    options = ("--objects", storage.place(), "--objects-keys", str(storage.keys))
    sample = SAMPLES / "admissions.yaml"
    assert yaml.safe_load(sample.read_text())["metadata"]["name"] == "admissions"
    served = start(sample, work, tmp_path / "log", "admissions", *options)
    try:
        id = answers(served, {"department": "A", "sex": "female"})
        eventually(lambda: id in in_ledger(served), within=90, what="the prediction is in the ledger")
        eventually(lambda: not list((archive / "blobs").glob("[0-9a-f][0-9a-f]/*")), within=90, what="all have moved")
    finally:
        assert served.stop() == 0
    there = {Path(name).name for name in storage.files() if "/_ledger/" not in name}
    assert before < there, "and what came since"
    monkeypatch.setenv("GOVERNED_OBJECTS_KEYS", str(storage.keys))
    whole = governed("verify", work)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    again = start(sample, work, tmp_path / "log", "admissions", *options)  # the artefact comes from the bucket
    try:
        answers(again, {"department": "B", "sex": "male"})
    finally:
        assert again.stop() == 0
    path = storage.files()[min(n for n in storage.files() if Path(n).name in before and "/_ledger/" not in n)]
    path.write_bytes(flipped(path.read_bytes()))
    changed = governed("verify", work)
    assert changed.returncode == 1, changed.stdout + changed.stderr
    assert path.name in changed.stdout + changed.stderr
    storage.stop()
    unseen = governed("verify", work)
    assert unseen.returncode == 3, unseen.stdout + unseen.stderr
    assert "couldn't be asked" in unseen.stdout + unseen.stderr
