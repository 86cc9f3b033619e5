"""Blobs in object storage by S3's API, so that no volume's size is the archive's limit.

A blob's key is its address below the prefix: ``ab/abcdef…``. It is made only where there is none (If-None-Match, RFC
9110 13.1.2), so that two archives can't replace each other's; what is read is held against its address before anybody
sees a byte of it. ``ROOT/objects`` keeps where the blobs are: without it, they would look lost to whoever reads the
folder.
"""

import hashlib
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict
from urllib.parse import parse_qsl, urlsplit

from governed_api import runtime
from governed_serving.archive.errors import ArchiveError, Busy, Unverified
from governed_serving.environment import InvalidSettings, PodEnvironment

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from obstore import ObjectMeta
    from obstore.store import S3Store

__all__ = ["BLOB_BYTES", "OBJECTS", "Bucket", "LedgerCopy", "Place", "bucket_from_environment", "is_address", "kept_in"]

OBJECTS = "objects"
"""File of an archive's folder that says where its blobs are; on the volume, where it isn't there."""
ACCESS_KEY, SECRET_KEY = "access-key-id", "secret-access-key"
"""Files of the folder that GOVERNED_OBJECTS_KEYS names."""

SLOTS = 16
"""Requests at a time; more wait ``PATIENCE`` seconds."""
PATIENCE = 20.0
CONNECT, READ, WHOLE = timedelta(seconds=5), timedelta(seconds=20), timedelta(minutes=15)
"""A request ends when nothing comes for READ, and in any case after WHOLE: a blob may have gigabytes."""
RETRIES, RETRY_FOR = 4, timedelta(seconds=30)
BLOB_BYTES = 8 << 30
"""What a blob may have."""
_QUERY = {"endpoint", "region", "http", "ledger"}
ALONE = 16 << 20
"""Bytes that are sent in one request, which S3 can refuse where the key is taken; more go in parts."""
_CHUNK = 1 << 20
_NOBODYS = "0" * 64
"""Nobody has bytes with this SHA-256: what answers that it has them (a portal, a proxy) would answer so to anything."""
_FRESH = timedelta(minutes=5)
"""After which keys are read anew: a Secret that is replaced changes the files."""


class LedgerCopy(StrEnum):
    """What of the ledger is in object storage as well; see :mod:`governed_serving.archive.mirror`."""

    STORED = "stored"
    """All that was acknowledged: an answer waits until it is there."""
    BEHIND = "behind"
    """What was acknowledged from the volume follows within seconds."""
    VOLUME = "volume"
    """Nothing."""


@dataclass(frozen=True)
class Place:
    """Where blobs are: ``s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&http=allowed&ledger=stored|behind|volume]``."""

    text: str
    bucket: str
    prefix: str
    endpoint: str
    region: str
    ledger: LedgerCopy = LedgerCopy.STORED

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises ValueError, saying what was expected."""
        parts = urlsplit(text)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.scheme != "s3" or not parts.netloc or parts.fragment or set(query) - _QUERY:
            raise ValueError("s3://BUCKET/PREFIX, with ?endpoint=URL&region=NAME where the service isn't Amazon's")
        copy = query.get("ledger", LedgerCopy.STORED)
        if copy not in list(LedgerCopy):
            raise ValueError(f"ledger={'|'.join(LedgerCopy)} in the address, found ledger={copy!r}")
        endpoint = query.get("endpoint", "").rstrip("/")
        scheme, host = urlsplit(endpoint).scheme, urlsplit(endpoint).hostname
        if endpoint and (scheme not in ("http", "https") or not host):
            raise ValueError(f"an endpoint https://HOST[:PORT], found {endpoint!r}")
        if scheme == "http" and not _is_loopback(host or "") and query.get("http") != "allowed":
            raise ValueError(f"https in {endpoint}: blobs are sealed, keys and names aren't; http=allowed insists")
        region = query.get("region", "us-east-1")
        return cls(text, parts.netloc, parts.path.strip("/"), endpoint, region, LedgerCopy(copy))

    @property
    def key(self) -> tuple[str, str]:
        """What tells two places apart; a service may get another address."""
        return self.bucket, self.prefix

    def __str__(self) -> str:
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + where


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Keys(TypedDict):
    access_key_id: str
    secret_access_key: str
    expires_at: datetime | None


class _NotWritten(Exception):
    """A copy couldn't be written here."""


def _write(into: IO[bytes], chunk: "ReadableBuffer") -> None:
    try:
        into.write(chunk)
    except OSError as error:
        raise _NotWritten(str(error)) from error


class Bucket:
    """Blobs at ``place``. ``keys``: folder with the files access-key-id and secret-access-key; None: what the
    machine's surroundings give (a workload's identity). ``ca``: certificates to trust.

    Every method raises Busy while the storage can't be reached or refuses us. Safe to use from several threads.
    """

    def __init__(self, place: Place, keys: Path | None = None, ca: Path | None = None) -> None:
        self.place, self._keys, self._ca = place, keys, ca
        self._slots = threading.BoundedSemaphore(SLOTS)
        self._store = self._opened(ca)

    def _opened(self, ca: Path | None) -> "S3Store":
        try:
            from obstore.store import S3Store  # an extra: who has a volume needs none
        except ImportError:
            raise ArchiveError(
                f"{self.place}: expected the package obstore: pip install 'governed-models[objects]'"
            ) from None
        place = self.place
        return S3Store(
            place.bucket,
            prefix=place.prefix or None,
            config={"region": place.region, **({"endpoint": place.endpoint} if place.endpoint else {})},
            client_options={
                "connect_timeout": CONNECT,
                "read_timeout": READ,
                "timeout": WHOLE,
                "allow_http": place.endpoint.startswith("http:"),
                **({"root_certificate": ca.read_bytes()} if ca else {}),
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": RETRY_FOR,
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=3),
                    "base": 2,
                },
            },
            **({"credential_provider": self._read_keys} if self._keys else {}),
        )

    def below(self, folder: str) -> "Bucket":
        """What lies in a folder of this place: other blobs, under other keys."""
        prefix = f"{self.place.prefix}/{folder}".strip("/")
        return Bucket(replace(self.place, prefix=prefix), self._keys, self._ca)

    def _read_keys(self) -> _Keys:
        assert self._keys is not None
        access, secret = ((self._keys / name).read_text().strip() for name in (ACCESS_KEY, SECRET_KEY))
        return {"access_key_id": access, "secret_access_key": secret, "expires_at": datetime.now(UTC) + _FRESH}

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        if not self._slots.acquire(timeout=PATIENCE):
            raise Busy(f"{self.place}: {SLOTS} requests are under way and none ended in {PATIENCE:g} s: retry later")
        try:
            yield
        except _NotWritten as error:  # the storage has nothing to do with it
            raise Busy(
                f"what {self.place} answered couldn't be written on this machine's disk: {error}; free space there, or "
                "enlarge the volume",
                status=507,
            ) from error
        except (BaseError, OSError) as error:
            words = " ".join(str(error).split()).partition(" Debug source:")[0][:500]
            raise Busy(
                f"{self.place}: expected object storage to answer, found {type(error).__name__}: {words}"
            ) from error
        finally:
            self._slots.release()

    def put(self, digest: str, file: Path) -> bool:
        """Store a file that has this digest; False when it was there already."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        length = file.stat().st_size
        if length > ALONE:
            with self._asking():  # whoever is quicker has put the same bytes there
                if self._holds(digest, length):
                    return False
                obstore.put(self._store, _key(digest), file, use_multipart=True, chunk_size=ALONE, max_concurrency=2)
            return True
        with self._asking():
            try:
                obstore.put(self._store, _key(digest), file, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                if self._holds(digest, length):
                    return False
                obstore.put(self._store, _key(digest), file, use_multipart=False)
        return True

    def _holds(self, digest: str, length: int) -> bool:
        """Whether a key that is taken holds these very bytes: else nothing was stored."""
        import obstore
        from obstore.exceptions import NotFoundError

        try:
            answer = obstore.get(self._store, _key(digest))
        except (NotFoundError, FileNotFoundError):
            return False
        hashed = hashlib.sha256()
        for chunk in answer.stream(min_chunk_size=_CHUNK):
            hashed.update(chunk)
            if (length := length - len(chunk)) < 0:
                return False
        return hashed.hexdigest() == digest

    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when it isn't there."""
        import obstore
        from obstore.exceptions import NotFoundError

        with self._asking():
            try:
                return int(obstore.head(self._store, _key(digest))["size"])
            except (NotFoundError, FileNotFoundError):
                return None

    def fetch(self, digest: str, into: IO[bytes], room: int = BLOB_BYTES) -> None:
        """Write a blob to ``into``. Raises FileNotFoundError, Unverified for other bytes than its address says, Busy
        for more than there is ``room``, and (507) where ``into`` can't be written to."""
        import obstore
        from obstore.exceptions import NotFoundError

        hashed, missing, left = hashlib.sha256(), False, min(room, BLOB_BYTES)
        with self._asking():
            try:
                for chunk in obstore.get(self._store, _key(digest)).stream(min_chunk_size=_CHUNK):
                    if (left := left - len(chunk)) < 0:
                        break
                    hashed.update(chunk)
                    _write(into, chunk)
            except (NotFoundError, FileNotFoundError):
                missing = True
        if missing:
            raise FileNotFoundError(f"{self.place}: blob {digest} is not there")
        if left < 0 and room < BLOB_BYTES:
            raise Busy(
                f"{self.place}: what answers for blob {digest} has more than the {room} bytes that a copy may have on "
                "the archive's volume: it isn't that blob, or the volume needs more free space"
            )
        if left < 0 or hashed.hexdigest() != digest:
            has = f"SHA-256 {hashed.hexdigest()}" if left >= 0 else f"more than {BLOB_BYTES} bytes"
            raise Unverified(
                f"{self.place}: blob {digest} has {has}: it was changed; put the bucket's "
                "earlier version of the object back, or restore a backup"
            )

    def delete(self, digest: str) -> None:
        """Delete a blob, if it is there."""
        self.remove(_key(digest))

    def addresses(self) -> Iterator[str]:
        """Addresses of all blobs, sorted; whatever else lies there is none. Raises Unverified."""
        paths = (str(listed["path"]) for listed in self._listed(None))
        return (path.rpartition("/")[2] for path in paths if _is_key(path))

    def put_bytes(self, digest: str, data: bytes) -> None:
        """Store bytes that have this digest, in one request, whatever lies there now."""
        import obstore

        with self._asking():
            obstore.put(self._store, _key(digest), data, use_multipart=False)

    def create(self, name: str, data: bytes) -> bool:
        """Make an object under a name of the caller's; False, and nothing is changed, where there is one."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._asking():
            try:
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def read(self, name: str, most: int) -> bytes | None:
        """An object under a name of the caller's; None where there is none. Raises Unverified for more than
        ``most`` bytes."""
        import obstore
        from obstore.exceptions import NotFoundError

        with self._asking():
            try:
                answer = obstore.get(self._store, name)
                if answer.meta["size"] > most:
                    raise Unverified(f"{self.place}: {name} has {answer.meta['size']} bytes, expected at most {most}")
                return bytes(answer.bytes())
            except (NotFoundError, FileNotFoundError):
                return None

    def remove(self, name: str) -> None:
        """Delete what :meth:`create` made, if it is there."""
        import obstore
        from obstore.exceptions import NotFoundError

        with self._asking():
            try:
                obstore.delete(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return

    def names(self, folder: str) -> list[str]:
        """Names of the objects in a folder, sorted."""
        return sorted(str(listed["path"]) for listed in self._listed(f"{folder}/"))

    def modified(self) -> dict[str, datetime]:
        """When each blob was put there last, by its address."""
        listed = ((str(stored["path"]), stored["last_modified"]) for stored in self._listed(None))
        return {path.rpartition("/")[2]: when for path, when in listed if _is_key(path)}

    def _listed(self, prefix: str | None) -> "Iterator[ObjectMeta]":
        """Raises Unverified for a list that isn't S3's: one that begins again would never end."""
        import obstore

        pages, last = obstore.list(self._store, prefix, chunk_size=1000), ""
        while True:
            with self._asking():
                page = next(pages, None)
            if page is None:
                return
            for listed in page:
                path = str(listed["path"])
                if path <= last:
                    raise Unverified(
                        f"{self.place}: expected its objects in order and once, found {path[:100]!r} again"
                    )
                last = path
                yield listed

    def problem(self) -> str:
        """Why nothing can be stored or read, or ""."""
        try:
            size = self.size(_NOBODYS)
        except Busy as error:
            return str(error)
        if size is not None:
            return f"{self.place}: expected no object {_key(_NOBODYS)}, found one: whatever answers isn't that storage"
        return ""


def _key(digest: str) -> str:
    return f"{digest[:2]}/{digest}"


def _is_key(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder == name[:2] and is_address(name)


def is_address(text: str) -> bool:
    """Whether it is a SHA-256 in 64 lower-case hex digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def bucket_from_environment(env: PodEnvironment, place: str = "") -> Bucket | None:
    """The bucket that the environment, or else ``place``, names; None where neither does. Raises InvalidSettings,
    ArchiveError."""
    text = env.text(runtime.OBJECTS) or place
    if not text:
        return None
    keys, ca = env.path(runtime.OBJECTS_KEYS), env.path(runtime.OBJECTS_CA)
    if keys is not None:
        for name in (ACCESS_KEY, SECRET_KEY):
            if not (keys / name).is_file():
                raise InvalidSettings(f"{runtime.OBJECTS_KEYS}: expected a file {name} in {keys}, found none")
    try:
        return Bucket(Place.parse(text), keys, ca)
    except ValueError as error:
        raise InvalidSettings(f"{runtime.OBJECTS}: expected {error}; found {text!r}") from None
    except OSError as error:
        raise InvalidSettings(f"{runtime.OBJECTS_CA}: {ca}: {error.strerror}") from error


def kept_in(root: Path, env: PodEnvironment | None = None) -> Bucket | None:
    """Where an archive's folder says that its blobs are; None: on its volume. Raises InvalidSettings, ArchiveError."""
    note = root / OBJECTS
    return bucket_from_environment(env or PodEnvironment(), note.read_text()) if note.is_file() else None
