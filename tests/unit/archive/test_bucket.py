"""What a bucket does with each object, over a store in memory; and how the client that asks a real one is set up."""

import errno
import hashlib
import io
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError
from obstore.store import S3Store

from governed_api import runtime
from governed_serving.archive.errors import ArchiveError, Busy, Unverified
from governed_serving.archive.store import objects
from governed_serving.archive.store.objects import OBJECTS, Bucket, Place, is_address, kept_in
from governed_serving.environment import InvalidSettings, PodEnvironment
from support.damage import flipped

from .test_ledger_copies import PLACE, MemoryBucket

DATA = b"GMSEAL1\n" + bytes(range(200))
DIGEST = hashlib.sha256(DATA).hexdigest()
KEY = f"{DIGEST[:2]}/{DIGEST}"
OTHER = hashlib.sha256(flipped(DATA)).hexdigest()


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


# -- how the client is set up ------------------------------------------------------------------------------------------


def test_a_client_gives_up_in_time_and_asks_only_a_few_times_more() -> None:
    store = Bucket(Place.parse("s3://ledgers/team/a?region=eu-1"))._store
    assert isinstance(store, S3Store)
    assert store.prefix == "team/a"
    assert store.config == {"bucket": "ledgers", "region": "eu-1"}, "Amazon's own address"
    assert store.client_options == {
        "connect_timeout": "5s",
        "read_timeout": "20s",
        "timeout": "15m",
        "allow_http": "false",
    }
    assert store.retry_config == {
        "max_retries": 4,
        "retry_timeout": timedelta(seconds=30),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2.0},
    }
    assert store.credential_provider is None, "what the machine's surroundings give"


ENDPOINTS = {"https://s3.example:9000": "false", "http://127.0.0.1:9": "true"}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_client_of_another_service_asks_there_and_without_tls_only_where_the_place_says_so(endpoint: str) -> None:
    store = Bucket(Place.parse(f"s3://ledgers?endpoint={endpoint}"))._store
    assert store.config == {"bucket": "ledgers", "region": "us-east-1", "endpoint": endpoint}
    assert store.client_options is not None
    assert store.client_options["allow_http"] == ENDPOINTS[endpoint]
    assert store.prefix is None


def test_keys_are_read_from_their_files_again_after_five_minutes(tmp_path: Path) -> None:
    for name, text in (("access-key-id", " AKIA\n"), ("secret-access-key", "s3cret\n")):
        (tmp_path / name).write_text(text)
    provider: Any = Bucket(Place.parse(PLACE), tmp_path)._store.credential_provider
    before = datetime.now(UTC)
    found = provider()
    assert (found["access_key_id"], found["secret_access_key"]) == ("AKIA", "s3cret")
    assert timedelta(minutes=5) <= found["expires_at"] - before < timedelta(minutes=6)
    (tmp_path / "secret-access-key").write_text("replaced")
    assert provider()["secret_access_key"] == "replaced"


def test_a_folder_of_a_place_is_a_place_with_the_same_keys(tmp_path: Path) -> None:
    for name in ("access-key-id", "secret-access-key"):
        (tmp_path / name).write_text("key")
    below = Bucket(Place.parse("s3://ledgers/team?region=eu-1"), tmp_path).below("ledger")
    assert (below.place.bucket, below.place.prefix, below.place.region) == ("ledgers", "team/ledger", "eu-1")
    assert below._store.prefix == "team/ledger"
    assert below._store.credential_provider is not None
    assert Bucket(Place.parse("s3://ledgers")).below("ledger").place.prefix == "ledger"


def test_a_certificate_that_is_none_is_refused_as_the_bucket_is_made(tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"no certificate")
    with pytest.raises(Exception, match="certificate"):
        Bucket(Place.parse("s3://ledgers"), ca=tmp_path / "ca")


def test_who_lacks_the_package_is_told_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ArchiveError, match=r"s3://ledgers: expected the package obstore: pip install 'governed-models"):
        Bucket(Place.parse("s3://ledgers"))


# -- blobs -------------------------------------------------------------------------------------------------------------


TAKEN: dict[str, tuple[bytes | None, bool]] = {
    # name: (what lies under the key, whether the blob is stored now and wasn't before)
    "nothing": (None, True),
    "the blob": (DATA, False),
    "other bytes of its length": (bytes(len(DATA)), True),
    "its beginning": (DATA[:-1], True),
    "more than it": (DATA + b"!", True),
    "no bytes": (b"", True),
}


@pytest.mark.parametrize("alone", [len(DATA), len(DATA) - 1], ids=["in one request", "in parts"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_blob_is_stored_unless_the_key_holds_these_very_bytes(
    name: str, alone: int, bucket: MemoryBucket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "ALONE", alone)
    there, fresh = TAKEN[name]
    if there is not None:
        bucket.put_in(KEY, there)
    assert bucket.put(DIGEST, file) is fresh
    assert bucket.copied() == {KEY: DATA}
    assert bucket.put(DIGEST, file) is False
    assert bucket.size(DIGEST) == len(DATA)


def test_the_parts_of_a_large_blob_have_sixteen_mebibytes(
    bucket: MemoryBucket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    sent: list[dict[str, Any]] = []
    put = obstore.put

    def noted(*place: Any, **how: Any) -> Any:
        sent.append(how)
        return put(*place, **how)

    monkeypatch.setattr(obstore, "put", noted)
    with file.open("r+b") as handle:
        handle.truncate(objects.ALONE + 1)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert objects.ALONE == 16 << 20
    assert bucket.put(digest, file)
    assert sent == [{"use_multipart": True, "chunk_size": 16 << 20, "max_concurrency": 2}]
    with file.open("r+b") as handle:
        handle.truncate(objects.ALONE)
    assert bucket.put(hashlib.sha256(file.read_bytes()).hexdigest(), file)
    assert sent[1:] == [{"mode": "create", "use_multipart": False}]


def test_what_is_not_there_has_no_size_and_is_not_fetched(bucket: MemoryBucket) -> None:
    assert bucket.size(DIGEST) is None
    into = io.BytesIO()
    with pytest.raises(FileNotFoundError, match=f"{DIGEST} is not there"):
        bucket.fetch(DIGEST, into)
    assert into.getvalue() == b""
    bucket.delete(DIGEST)


FETCHED: dict[str, tuple[bytes, int, type[Exception] | None, str]] = {
    # name: (what lies there, room, error, words)
    "whole, into just enough room": (DATA, len(DATA), None, ""),
    "a byte more than there is room": (DATA, len(DATA) - 1, Busy, f"has more than the {len(DATA) - 1} bytes that a"),
    "a byte more than any blob has": (DATA, 1 << 60, Unverified, f"has more than {len(DATA) - 1} bytes: it was chan"),
    "other bytes": (flipped(DATA), 1 << 60, Unverified, f"has SHA-256 {OTHER}: it was changed"),
}


@pytest.mark.parametrize("name", FETCHED)
def test_what_is_fetched_is_that_blob_and_has_room(
    name: str, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, room, error, words = FETCHED[name]
    most = len(DATA) - ("any blob" in name)
    monkeypatch.setattr(objects, "BLOB_BYTES", most)
    bucket.put_in(KEY, there)
    into = io.BytesIO()
    if error is None:
        bucket.fetch(DIGEST, into, room)
        assert into.getvalue() == DATA
    else:
        with pytest.raises(error, match=words):
            bucket.fetch(DIGEST, into, room)


def test_a_blob_may_have_eight_gibibytes() -> None:
    assert objects.BLOB_BYTES == 8 * 1024**3


def test_a_disk_that_takes_nothing_is_told_as_this_machine_s(bucket: MemoryBucket) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    bucket.put_in(KEY, DATA)
    with pytest.raises(Busy, match=r"couldn't be written on this machine's disk: .*No space left") as told:
        bucket.fetch(DIGEST, Full())
    assert told.value.status == 507


def test_addresses_and_times_are_those_of_blobs_alone(bucket: MemoryBucket) -> None:
    digests = sorted(hashlib.sha256(text).hexdigest() for text in (b"a", b"b", b"c"))
    before = datetime.now(UTC)
    for digest in digests:
        bucket.put_bytes(digest, b"what it is, is the reader's to see")
    other = hashlib.sha256(b"d").hexdigest()
    for path in (f"zz/{other}", other, f"{other[:2]}/{other[:-1]}", f"{other[:2]}/{other[:2]}{'G' * 62}", "notes"):
        bucket.put_in(path, b"x")
    assert list(bucket.addresses()) == digests
    assert list(bucket.modified()) == digests
    assert all(before - timedelta(minutes=1) < when for when in bucket.modified().values())
    bucket.delete(digests[0])
    assert list(bucket.addresses()) == digests[1:]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (DIGEST, True),
        (DIGEST[:-1], False),
        (DIGEST + "0", False),
        (DIGEST[:-1] + "A", False),
        (DIGEST[:-1] + "g", False),
        ("", False),
    ],
    ids=["64 hex digits", "63", "65", "a capital", "no digit", "nothing"],
)
def test_what_an_address_is(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_is_made_once_read_and_taken_away(bucket: MemoryBucket) -> None:
    assert bucket.read("manifest/1", 9) is None
    assert bucket.create("manifest/1", b"first")
    assert bucket.create("manifest/1", b"other") is False
    assert bucket.read("manifest/1", 5) == b"first"
    with pytest.raises(Unverified, match="manifest/1 has 5 bytes, expected at most 4"):
        bucket.read("manifest/1", 4)
    bucket.create("manifest/0", b"")
    bucket.create("manifests/9", b"")
    assert bucket.names("manifest") == ["manifest/0", "manifest/1"]
    bucket.remove("manifest/1")
    bucket.remove("manifest/1")
    assert bucket.names("manifest") == ["manifest/0"]


def test_lists_of_several_pages_are_read_to_their_end(bucket: MemoryBucket) -> None:
    for number in range(1001):
        bucket.put_in(f"manifest/{number:05d}", b"")
    assert bucket.names("manifest") == [f"manifest/{number:05d}" for number in range(1001)]


@pytest.mark.parametrize("listed", [("f/a", "f/a"), ("f/b", "f/a")], ids=["again", "out of order"])
def test_a_list_that_is_not_in_order_is_refused(
    listed: tuple[str, ...], bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    monkeypatch.setattr(obstore, "list", lambda *_, **__: iter([[{"path": path} for path in listed]]))
    with pytest.raises(Unverified, match=f"in order and once, found '{listed[1]}' again"):
        bucket.names("f")


# -- a storage that doesn't answer -------------------------------------------------------------------------------------


def test_what_has_everything_is_not_the_storage(bucket: MemoryBucket) -> None:
    assert bucket.problem() == ""
    bucket.put_in(f"00/{'0' * 64}", b"hello")
    assert bucket.problem() == (
        f"{bucket.place}: expected no object 00/{'0' * 64}, found one: whatever answers isn't that storage"
    )
    bucket.down = True
    assert bucket.problem() == f"{bucket.place}: expected object storage to answer, found nothing"


ASKED: dict[str, Callable[[Bucket, Path], object]] = {
    "put": lambda bucket, file: bucket.put(DIGEST, file),
    "put_bytes": lambda bucket, _: bucket.put_bytes(DIGEST, DATA),
    "size": lambda bucket, _: bucket.size(DIGEST),
    "fetch": lambda bucket, _: bucket.fetch(DIGEST, io.BytesIO()),
    "delete": lambda bucket, _: bucket.delete(DIGEST),
    "addresses": lambda bucket, _: list(bucket.addresses()),
    "create": lambda bucket, _: bucket.create("name", b""),
    "read": lambda bucket, _: bucket.read("name", 9),
    "modified": lambda bucket, _: bucket.modified(),
}


class _Failing:
    """Stands in the place of the module: whatever is asked of it fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> Any:
            raise self._error

        return fail


@pytest.mark.parametrize("name", ASKED)
def test_each_question_says_briefly_what_failed_and_lets_the_next_one_ask(
    name: str, bucket: MemoryBucket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    monkeypatch.setattr(objects, "SLOTS", 1)
    monkeypatch.setattr(bucket, "_slots", threading.BoundedSemaphore(1))
    error = GenericError(f"no\n  route{'x' * 600} Debug source: {{ 40 lines }}")
    for operation in ("put", "get", "head", "delete"):
        monkeypatch.setattr(obstore, operation, getattr(_Failing(error), operation))
    monkeypatch.setattr(obstore, "list", lambda *_, **__: _raising(error))
    for _ in range(2):
        with pytest.raises(Busy) as told:
            ASKED[name](bucket, file)
        words = f"no route{'x' * 492}"
        assert str(told.value) == f"{bucket.place}: expected object storage to answer, found GenericError: {words}"


def _raising(error: Exception) -> Any:
    raise error
    yield


def test_more_than_sixteen_questions_at_a_time_wait_and_give_up(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (objects.SLOTS, objects.PATIENCE) == (16, 20.0)
    monkeypatch.setattr(objects, "PATIENCE", 0.01)
    for _ in range(15):
        assert bucket._slots.acquire(blocking=False)
    assert bucket.size(DIGEST) is None
    assert bucket._slots.acquire(blocking=False)
    with pytest.raises(Busy, match=r"16 requests are under way and none ended in 0.01 s: retry later"):
        bucket.size(DIGEST)
    bucket._slots.release()
    assert bucket.size(DIGEST) is None


# -- where an archive's blobs are --------------------------------------------------------------------------------------


def test_an_archive_s_folder_names_its_bucket_and_the_environment_may_name_another_address(tmp_path: Path) -> None:
    assert kept_in(tmp_path, PodEnvironment({runtime.OBJECTS: PLACE})) is None, "its blobs are on its volume"
    (tmp_path / OBJECTS).write_text("s3://ledgers/team")
    noted = kept_in(tmp_path, PodEnvironment({}))
    named = kept_in(tmp_path, PodEnvironment({runtime.OBJECTS: PLACE}))
    assert noted is not None
    assert named is not None
    assert (noted.place.text, named.place.text) == ("s3://ledgers/team", PLACE)


def test_a_certificate_that_can_not_be_read_is_named_by_its_setting(tmp_path: Path) -> None:
    env = PodEnvironment({runtime.OBJECTS: PLACE, runtime.OBJECTS_CA: str(tmp_path)})
    (tmp_path / OBJECTS).write_text(PLACE)
    with pytest.raises(InvalidSettings, match=f"{runtime.OBJECTS_CA}: {tmp_path}: Is a directory"):
        kept_in(tmp_path, env)
