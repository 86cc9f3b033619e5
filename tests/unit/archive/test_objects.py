"""Blobs in object storage, before a bucket in memory: stored before it is said, held against their address when read,
and never taken for lost by who can't ask."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest

from governed_api import runtime
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.errors import ArchiveError, Busy, Refused, Unreachable, Unverified
from governed_serving.archive.service import Archive
from governed_serving.archive.store.blobs import BlobStore, settle_place
from governed_serving.archive.store.objects import OBJECTS, LedgerCopy, Place, bucket_from_environment
from governed_serving.archive.verify import held_blobs
from governed_serving.archive.verify.held_blobs import MISSING, HeldBlobs
from governed_serving.environment import InvalidSettings, PodEnvironment
from support.damage import flipped

from . import test_app
from .test_backup import back, taken
from .test_backup import pristine as pristine
from .test_backup import work as work

PLACE = "s3://ledgers/team?endpoint=http://127.0.0.1:9"


class MemoryBucket:
    """``down``: it can't be reached."""

    def __init__(self, place: str = PLACE) -> None:
        self.place, self.objects, self.down = Place.parse(place), dict[str, bytes](), False

    def _ask(self) -> None:
        if self.down:
            raise Busy(f"{self.place}: expected object storage to answer, found nothing")

    def put(self, digest: str, file: Path) -> bool:
        self._ask()
        fresh = digest not in self.objects
        self.objects.setdefault(digest, file.read_bytes())
        return fresh

    def size(self, digest: str) -> int | None:
        self._ask()
        return len(self.objects[digest]) if digest in self.objects else None

    def fetch(self, digest: str, into: IO[bytes], room: int = 1 << 20) -> None:
        self._ask()
        if digest not in self.objects or room <= 0:
            raise FileNotFoundError(digest)
        into.write(self.objects[digest])
        if hashlib.sha256(self.objects[digest]).hexdigest() != digest:
            raise Unverified(f"blob {digest} has another SHA-256: it was changed")

    def delete(self, digest: str) -> None:
        self._ask()
        self.objects.pop(digest, None)

    def addresses(self) -> Iterator[str]:
        self._ask()
        return iter(sorted(self.objects))

    def problem(self) -> str:
        return "it doesn't answer" if self.down else ""


def sealed(text: str) -> tuple[str, bytes]:
    data = b"GMSEAL1\n" + text.encode() * 9
    return hashlib.sha256(data).hexdigest(), data


@pytest.fixture
def bucket() -> Any:
    return MemoryBucket()


@pytest.fixture
def blobs(tmp_path: Path, bucket: Any) -> BlobStore:
    return BlobStore(tmp_path / "blobs", lambda head: head.startswith(b"GMSEAL1"), bucket=bucket)


def files(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


PLACES = {
    "s3://b": ("b", "", "", "us-east-1"),
    "s3://b/a/c/": ("b", "a/c", "", "us-east-1"),
    "s3://b/p?region=eu-1&endpoint=https%3A%2F%2Fs3.example%3A9000%2F": ("b", "p", "https://s3.example:9000", "eu-1"),
    "s3://b?endpoint=http://127.0.0.1:9": ("b", "", "http://127.0.0.1:9", "us-east-1"),
    "s3://b?endpoint=http://s3.team.svc&http=allowed": ("b", "", "http://s3.team.svc", "us-east-1"),
}


@pytest.mark.parametrize("text", PLACES)
def test_places(text: str) -> None:
    place = Place.parse(text)
    assert (place.bucket, place.prefix, place.endpoint, place.region) == PLACES[text]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "s3://BUCKET"),
        ("gs://b", "s3://BUCKET"),
        ("s3:///p", "s3://BUCKET"),
        ("s3://b?regoin=x", "s3://BUCKET"),
        ("s3://b#f", "s3://BUCKET"),
        ("s3://b?endpoint=ftp://x", "an endpoint https"),
        ("s3://b?endpoint=https://", "an endpoint https"),
        ("s3://b?ledger=sometimes", r"ledger=stored\|behind\|volume in the address, found ledger='sometimes'"),
        ("s3://b?ledger=", "ledger=stored"),
        ("s3://b?endpoint=http://s3.team.svc", "http=allowed insists"),
        ("s3://b?endpoint=http://127.0.0.1.example", "http=allowed insists"),
    ],
)
def test_what_is_no_place_is_said_to_be_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Place.parse(text)


def test_a_place_says_what_of_the_ledger_is_there_and_reads_back_as_words() -> None:
    copies = [Place.parse(f"s3://b/p{query}").ledger for query in ("", "?ledger=behind", "?ledger=volume")]
    assert copies == [LedgerCopy.STORED, LedgerCopy.BEHIND, LedgerCopy.VOLUME]
    assert str(Place.parse("s3://b/a/c/?endpoint=https://s3.example/")) == "s3://b/a/c at https://s3.example"
    assert str(Place.parse("s3://b")) == "s3://b"
    assert Place.parse("s3://b/p?endpoint=https://one.example").key == Place.parse("s3://b/p").key == ("b", "p")


def test_keys_that_are_not_there_are_named(tmp_path: Path) -> None:
    env = PodEnvironment({runtime.OBJECTS: PLACE, runtime.OBJECTS_KEYS: str(tmp_path)})
    for name in ("access-key-id", "secret-access-key"):
        with pytest.raises(InvalidSettings, match=f"expected a file {name} in {tmp_path}, found none"):
            bucket_from_environment(env)
        (tmp_path / name).write_text("x")
    bucket = bucket_from_environment(env)
    assert bucket is not None
    assert bucket.place == Place.parse(PLACE)
    assert bucket_from_environment(PodEnvironment({})) is None


def test_a_place_that_the_caller_names_counts_where_the_environment_has_none() -> None:
    named, other = bucket_from_environment(PodEnvironment({}), "s3://b/p"), PodEnvironment({runtime.OBJECTS: PLACE})
    assert named is not None
    assert named.place.bucket == "b"
    bucket = bucket_from_environment(other, "s3://b/p")
    assert bucket is not None
    assert bucket.place.text == PLACE


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({runtime.OBJECTS: "gs://b"}, f"{runtime.OBJECTS}: expected s3://BUCKET/PREFIX.*; found 'gs://b'"),
        ({runtime.OBJECTS: "s3://b", runtime.OBJECTS_CA: "/nowhere/ca"}, f"{runtime.OBJECTS_CA}: /nowhere/ca: No such"),
    ],
)
def test_what_the_environment_has_wrong_of_object_storage_is_named(variables: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidSettings, match=told):
        bucket_from_environment(PodEnvironment(variables))


def test_a_blob_is_in_the_bucket_and_not_on_the_volume(blobs: BlobStore, bucket: Any, tmp_path: Path) -> None:
    digest, data = sealed("a")
    assert (blobs.put(digest, data), blobs.put(digest, data)) == (True, False)
    assert bucket.objects == {digest: data}
    assert (blobs.size(digest), b"".join(blobs.read(digest)), list(blobs.addresses())) == (len(data), data, [digest])
    assert files(tmp_path) == set(), "and no copy stays"


def test_what_is_refused_doesn_t_reach_the_bucket(blobs: BlobStore, bucket: Any) -> None:
    digest, _ = sealed("a")
    for body in (b"GMSEAL1\nother", b"plain"):
        with pytest.raises(Refused):
            blobs.put(digest if body != b"plain" else hashlib.sha256(body).hexdigest(), body)
    assert bucket.objects == {}


def test_nothing_is_stored_while_the_bucket_is_away(blobs: BlobStore, bucket: Any, tmp_path: Path) -> None:
    digest, data = sealed("a")
    bucket.down = True
    for call in (lambda: blobs.put(digest, data), lambda: blobs.size(digest), lambda: blobs.expire(digest)):
        with pytest.raises(Busy, match="expected object storage to answer"):
            call()
    assert files(tmp_path) == set(), "and nothing says that it was deleted"
    bucket.down = False
    assert blobs.put(digest, data)


def test_other_bytes_than_the_address_says_are_not_handed_out(blobs: BlobStore, bucket: Any, tmp_path: Path) -> None:
    digest, data = sealed("a")
    blobs.put(digest, data)
    bucket.objects[digest] = flipped(data)
    with pytest.raises(Unverified, match=digest):
        list(blobs.read(digest))
    assert files(tmp_path) == set()


def test_deleted_is_deleted_there_too(blobs: BlobStore, bucket: Any) -> None:
    digest, data = sealed("a")
    blobs.put(digest, data)
    blobs.expire(digest)
    assert (bucket.objects, blobs.expired(digest), blobs.size(digest)) == ({}, True, None)


def test_blobs_of_the_volume_move_out_and_are_served_meanwhile(tmp_path: Path, bucket: Any) -> None:
    def seal(head: bytes) -> bool:
        return head.startswith(b"GMSEAL1")

    before = BlobStore(tmp_path / "blobs", seal)
    made = dict(sealed(str(n)) for n in range(5))
    for digest, data in made.items():
        before.put(digest, data)
    blobs = BlobStore(tmp_path / "blobs", seal, bucket=bucket)
    assert list(blobs.addresses()) == sorted(made)
    first = min(made)
    path, copy = blobs.fetched(first)
    assert copy, "a link: the file itself may be on its way out"
    assert blobs.move_out(2) == 2
    assert path.read_bytes() == made[first]
    path.unlink()
    assert list(blobs.addresses()) == sorted(made), "each once, wherever it is"
    assert all(b"".join(blobs.read(d)) == data for d, data in made.items())
    assert (blobs.move_out(), blobs.move_out()) == (3, 0)
    assert bucket.objects == made
    assert files(tmp_path) == set()


def test_an_archive_remembers_where_its_blobs_are(tmp_path: Path, bucket: Any) -> None:
    settle_place(tmp_path, None)
    assert files(tmp_path) == set()
    settle_place(tmp_path, bucket)
    settle_place(tmp_path, MemoryBucket("s3://ledgers/team?endpoint=https://moved.example"))  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match="its blobs are in object storage"):
        settle_place(tmp_path, None)
    with pytest.raises(ArchiveError, match="copy all objects there"):
        settle_place(tmp_path, MemoryBucket("s3://ledgers/other"))  # type: ignore[arg-type]
    assert "moved.example" in (tmp_path / "objects").read_text(), "where archives of before have it"


class Bed(test_app.Bed):
    def __init__(self, root: Path, bucket: Any) -> None:
        super().__init__(root)
        self.archive.close()
        self.archive = Archive(root, test_app.KEK, "default", clock=lambda: 1_767_225_600.0, bucket=bucket)
        self.transport.stop()
        tokens, metrics = test_app.Tokens(test_app.ROOT, "default"), test_app.ArchiveMetrics("default")
        self.transport = test_app.Loopback(test_app.create_app(self.archive, tokens, metrics))


@pytest.fixture
def bed(tmp_path: Path, bucket: Any) -> Iterator[Bed]:
    with closing(Bed(tmp_path / "archive", bucket)) as bed:
        yield bed


def test_over_http_a_bucket_that_is_away_is_503_and_a_changed_blob_500(bed: Bed, bucket: Any) -> None:
    digest, data = sealed("a")
    with bed.client() as client:
        assert client.put_blob(data) == digest
        assert (client.get_blob(digest), client.has_blob(digest)) == (data, True)
        bucket.down = True
        with pytest.raises(Unreachable, match="expected object storage to answer"):
            client.put_blob(sealed("b")[1])
        with pytest.raises(Unreachable, match="expected object storage to answer"):
            client.get_blob(digest)
        bucket.down = False
        bucket.objects[digest] = flipped(data)
        with pytest.raises(ArchiveError, match="it was changed"):
            client.get_blob(digest)
    assert files(bed.root / "blobs") == set(), "no copy stays"


def test_a_backup_holds_the_blobs_of_the_bucket_and_says_which_were_changed(
    work: Any, bucket: Any, tmp_path: Path
) -> None:
    whole = taken(work)
    with closing(Archive(work.archive, work_kek(work), "default", bucket=bucket)) as archive:
        moved = archive.blobs.move_out()
        assert moved > 0
        with closing(Snapshot(archive)) as snapshot:
            data = b"".join(snapshot.chunks())
        digest = min(bucket.objects)
        bucket.objects[digest] += b"!"
        with closing(Snapshot(archive)) as snapshot:
            damaged = b"".join(snapshot.chunks())
    restored = back(data, tmp_path / "there", work)
    assert restored.blobs == back(whole, tmp_path / "whole", work).blobs == moved
    assert not (tmp_path / "there" / OBJECTS).exists(), "what comes back is on the volume"
    with pytest.raises(ArchiveError, match=f"its blob {digest} is missing"):
        back(damaged, tmp_path / "again", work)
    with_loss = back(damaged, tmp_path / "with-loss", work, accept_loss=True)
    assert with_loss.blobs == moved - 1


def work_kek(work: Any) -> Any:
    from governed_serving.crypto import load_kek

    return load_kek(work.kek_file)


def test_who_can_t_ask_the_bucket_calls_no_blob_missing(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / OBJECTS).write_text(PLACE)
    digest, data = sealed("a")
    monkeypatch.setattr(held_blobs, "kept_in", lambda _: bucket)
    bucket.down = True
    unseen = HeldBlobs(tmp_path)
    assert (unseen.problem(digest), list(unseen.addresses())) == (None, [])
    assert "couldn't be asked: it doesn't answer" in unseen.are
    assert "unchanged" not in unseen.are, "the verification is incomplete"
    with pytest.raises(Busy, match="couldn't be asked"):
        unseen.content(digest)
    bucket.down = False
    seen = HeldBlobs(tmp_path)
    assert (seen.problem(digest), seen.is_there(digest)) == (MISSING, False)
    bucket.objects[digest] = data
    assert (seen.problem(digest), seen.content(digest), list(seen.addresses())) == (None, data, [digest])
    bucket.objects[digest] = data + b"!"
    assert "was changed" in str(seen.problem(digest))


def test_a_volume_without_object_storage_is_read_as_before(tmp_path: Path) -> None:
    digest, data = sealed("a")
    held = HeldBlobs(tmp_path)
    assert (held.problem(digest), held.are) == (MISSING, "there and unchanged")
    BlobStore(tmp_path / "blobs", lambda _: True).put(digest, data)
    assert (held.problem(digest), held.content(digest)) == (None, data)
    assert io.BytesIO(held.content(digest)).read() == data
