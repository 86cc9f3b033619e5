"""What answers in the object storage's place means harm, or is something else: nothing is taken for stored, nothing
fills the archive's volume, no list goes on for ever."""

import errno
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_serving.archive.errors import Busy, Unverified
from governed_serving.archive.store import blobs as blob_store
from governed_serving.archive.store import objects
from governed_serving.archive.store.blobs import BlobStore
from governed_serving.archive.store.objects import Bucket, Place
from support.damage import flipped

from .test_objects import Bed, MemoryBucket, files, sealed

Answer = Callable[[BaseHTTPRequestHandler], None]
DATED = {"last-modified": "Mon, 01 Jan 2024 00:00:00 GMT", "etag": '"x"'}
MIB = 1 << 20


class Storage:
    """``answer`` answers everything, once the request's body was read."""

    def __init__(self) -> None:
        outer = self
        self.answer: Answer = lambda _: None
        self.asked: list[tuple[str, str]] = []
        self.sent = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.asked.append((self.command, self.path))
                try:
                    outer.answer(self)
                except OSError:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def bucket(self, folder: Path) -> Bucket:
        for name in (objects.ACCESS_KEY, objects.SECRET_KEY):
            (folder / name).write_text("key")
        endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        return Bucket(Place.parse(f"s3://ledgers/team?endpoint={endpoint}"), folder)

    def says(self, body: bytes, length: int | None = None, status: int = 200, **headers: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {**DATED, **headers}.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(body) if length is None else length))
            handler.end_headers()
            for _ in range((length or 0) // MIB if handler.command == "GET" else 0):
                handler.wfile.write(body)
                self.sent += len(body)
            if length is None and handler.command != "HEAD":
                handler.wfile.write(body)

        self.answer = answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Full(io.RawIOBase):
    """A file on a disk that has no room left."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_is_not_told_as_the_storages_fault(storage: Storage, tmp_path: Path) -> None:
    body = b"GMSEAL1\n" + b"x" * 100
    storage.says(body)
    with pytest.raises(Busy, match=r"couldn't be written on this machine's disk: .*No space left") as told:
        storage.bucket(tmp_path).fetch(hashlib.sha256(body).hexdigest(), Full())
    assert told.value.status == 507
    assert "expected object storage to answer" not in str(told.value)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(objects, "RETRIES", 0)
    with closing(Storage()) as made:
        yield made


@pytest.fixture
def bucket(storage: Storage, tmp_path: Path) -> Bucket:
    folder = tmp_path / "keys"
    folder.mkdir()
    return storage.bucket(folder)


def store(bucket: Bucket, tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", lambda head: head.startswith(b"GMSEAL1"), bucket=bucket)


def test_whatever_has_everything_is_not_the_storage(storage: Storage, bucket: Bucket) -> None:
    storage.says(b"<html>Please sign in</html>", **{"content-type": "text/html"})
    assert "expected no object 00/0000" in bucket.problem()
    storage.says(b"", status=404)
    assert bucket.problem() == ""


def test_an_object_that_is_said_to_be_there_is_not_believed(storage: Storage, bucket: Bucket, tmp_path: Path) -> None:
    digest, data = sealed("a")
    taken: list[bytes] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        """A key that is taken by other bytes of the same size, until it is written over."""
        whole = handler.command == "PUT" and handler.headers.get("if-none-match") is None
        taken.extend([b"over"] if whole else [])
        body = b"" if handler.command == "PUT" else bytes(len(data))
        handler.send_response(200 if handler.command != "PUT" or whole else 412)
        for name, value in {**DATED, "content-length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"" if handler.command == "HEAD" else body)

    storage.answer = answer
    assert store(bucket, tmp_path).put(digest, data), "it is stored now, and wasn't before"
    assert taken == [b"over"]


def test_a_large_object_is_taken_for_stored_by_its_bytes(
    storage: Storage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "ALONE", 64)
    data = b"GMSEAL1\n" + bytes(200)
    digest = hashlib.sha256(data).hexdigest()
    storage.says(flipped(data))
    with pytest.raises(Busy):  # parts that this storage doesn't know
        store(bucket, tmp_path).put(digest, data)
    assert any(method == "POST" for method, _ in storage.asked), "it was sent again"
    storage.says(data)
    assert store(bucket, tmp_path).put(digest, data) is False


def test_an_answer_without_an_end_doesn_t_fill_the_volume(
    storage: Storage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.says(bytes(MIB), length=200 * MIB)
    monkeypatch.setattr(objects, "BLOB_BYTES", 4 * MIB)
    with pytest.raises(Unverified, match="more than 4194304 bytes"):
        store(bucket, tmp_path).fetched("a" * 64)
    assert files(tmp_path / "blobs") == set()
    assert storage.sent < 100 * MIB


def test_copies_leave_the_ledger_its_room(
    storage: Storage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.says(bytes(MIB), length=20 * MIB)
    free = blob_store.os.statvfs(tmp_path)
    monkeypatch.setattr(blob_store, "RESERVE", free.f_bavail * free.f_frsize - 2 * MIB)
    with pytest.raises(Busy, match="the volume needs more free space"):
        store(bucket, tmp_path).fetched("a" * 64)
    assert files(tmp_path / "blobs") == set()


def test_a_list_that_begins_again_ends(storage: Storage, bucket: Bucket) -> None:
    names = "".join(
        f"<Contents><Key>team/{d[:2]}/{d}</Key><LastModified>2024-01-01T00:00:00Z</LastModified><Size>1</Size>"
        "<ETag>x</ETag></Contents>"
        for d in (f"{number:064x}" for number in range(1000))
    )
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    storage.says(f"<ListBucketResult>{more}{names}</ListBucketResult>".encode())
    found = bucket.addresses()
    assert [int(next(found), 16) for _ in range(1000)] == list(range(1000))
    with pytest.raises(Unverified, match="in order and once"):
        next(found)


def test_no_upload_is_left_out_since_something_is_there(tmp_path: Path) -> None:
    class Portal(MemoryBucket):
        def size(self, digest: str) -> int | None:
            return 7 + len(digest)

    memory: Any = Portal()
    with closing(Bed(tmp_path / "archive", memory)) as bed, bed.client() as client:
        digest, data = sealed("a")
        client.put_blob(data)
        assert memory.objects == {digest: data}


RANGES = [
    "bytes=9-1",
    "bytes=999999-",
    "rows=1",
    "bytes=",
    "bytes=0-0",
    "bytes=0-1,3-4",
    "bytes=0-1,3-4,6-7,9-10,12-13",
]


@pytest.mark.parametrize("asked", RANGES)
def test_no_range_leaves_a_copy_behind(asked: str, tmp_path: Path) -> None:
    memory: Any = MemoryBucket()
    with closing(Bed(tmp_path / "archive", memory)) as bed:
        digest, data = sealed("a")
        with bed.client() as client:
            client.put_blob(data)
        headers = {"authorization": f"Bearer {bed.client()._http.headers['authorization'].partition(' ')[2]}"}
        with httpx.Client(base_url="http://archive", transport=bed.transport) as anyone:
            answer = anyone.get(f"/v1/blobs/{digest}", headers={**headers, "range": asked})
        assert answer.status_code in (200, 206, 400, 416)
        assert files(bed.root / "blobs") == set(), answer.text


def test_what_was_deleted_is_gone_though_the_bucket_has_it_again(tmp_path: Path) -> None:
    memory: Any = MemoryBucket()
    with closing(Bed(tmp_path / "archive", memory)) as bed, bed.client() as client:
        digest, data = sealed("a")
        client.put_blob(data)
        bed.archive.blobs.expire(digest)
        memory.objects[digest] = data  # an earlier version that somebody put back
        with pytest.raises(Exception, match="was deleted under governance"):
            client.get_blob(digest)
