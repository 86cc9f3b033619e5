"""Explanations that may take their time: a bounded queue whose jobs lie sealed on the spool and survive a restart."""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from governed_serving.blackbox.errors import EngineAway, ExplainerError, PredictorAway
from governed_serving.crypto import CryptoError
from governed_serving.decoding import decode_msgpack
from governed_serving.durable import discard_partial, replace_file, set_aside
from governed_serving.explainer.service.lanes import Busy
from governed_serving.hosting.logs import log
from governed_serving.journal import JournalError

__all__ = ["Job", "JobQueue", "JobStore", "Sealer", "status"]

_SUFFIX = ".job"
ATTEMPTS = 5
"""Tries of a job while the model server or an engine is away; then it has failed."""
POSTS = 8
"""Tries of a webhook, over about 20 minutes; the result stays available under its id."""
LONGEST_PAUSE = 600.0
"""Seconds between two of them."""


class Sealer(Protocol):
    """Authenticated encryption of small documents; ``aad`` binds them to their name."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes: ...

    def open(self, ciphertext: bytes, aad: bytes) -> bytes: ...


class Job(msgspec.Struct):
    """``body`` is the request as it came, ``result`` the answer as it went into the ledger."""

    id: str
    body: bytes
    created: float
    status: Literal["queued", "running", "done", "failed"] = "queued"
    result: bytes = b""
    error: str = ""
    webhook: str = ""
    attempts: int = 0
    delivered: bool = False
    posts: int = 0
    """Tries of its webhook so far."""

    @property
    def undelivered(self) -> bool:
        return bool(self.webhook) and not self.delivered and self.posts < POSTS


class JobStore:
    """One sealed file per job, replaced atomically. Names are hashed ids, so that an id can't name a path.

    A file that can't be opened any more (damaged, of a key that is gone) costs that job alone: it is set aside, counted
    in ``unreadable`` and told.
    """

    def __init__(self, directory: Path, sealer: Sealer, *, log: Callable[..., None] = log) -> None:
        self._directory, self._sealer, self._log = directory, sealer, log
        self.unreadable = 0
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save(self, job: Job) -> None:
        """Durable on return. Raises OSError."""
        path = self._path(job.id)
        replace_file(path, self._sealer.seal(msgspec.msgpack.encode(job), path.name.encode()))

    def load(self, job_id: str) -> Job | None:
        path = self._path(job_id)
        return self._open(path) if path.exists() else None

    def all(self) -> list[Job]:
        """Every job, oldest first; leftovers of a cut write are removed."""
        discard_partial(self._directory)
        jobs = (self._open(path) for path in sorted(self._directory.glob(f"*{_SUFFIX}")))
        return sorted((job for job in jobs if job is not None), key=lambda job: job.created)

    def remove(self, job_id: str) -> None:
        self._path(job_id).unlink(missing_ok=True)

    def _open(self, path: Path) -> Job | None:
        try:
            return decode_msgpack(self._sealer.open(path.read_bytes(), path.name.encode()), type=Job)
        except (CryptoError, msgspec.DecodeError, OSError) as error:
            self.unreadable += 1
            kept = None if isinstance(error, OSError) else set_aside(path)  # a disk may answer the next time
            told = "an explanation's job can't be read; it is forgotten, and has to be asked for again"
            self._log("error", told, path=str(kept or path), error=f"{type(error).__name__}: {error}")
            return None

    def _path(self, job_id: str) -> Path:
        return self._directory / (hashlib.sha256(job_id.encode()).hexdigest() + _SUFFIX)


class JobQueue:
    """Runs jobs one after another through ``work``; keeps the last ``keep`` finished ones for who asks.

    ``work(body, id)`` answers the JSON that is in the ledger; ``deliver(url, body)`` posts it to a webhook and answers
    why that failed, or nothing.
    """

    def __init__(
        self,
        store: JobStore,
        work: Callable[[bytes, str], Awaitable[bytes]],
        deliver: Callable[[str, bytes], Awaitable[str]],
        *,
        limit: int = 256,
        keep: int = 1024,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        log: Callable[..., None] = log,
    ) -> None:
        self._store, self._work, self._deliver = store, work, deliver
        self._limit, self._keep, self._clock, self._pause, self._log = limit, keep, clock, pause, log
        self._waiting: deque[Job] = deque()
        self._finished: deque[str] = deque()
        self._wake, self._due = asyncio.Event(), asyncio.Event()
        self._undelivered: dict[str, float] = {}
        """Id of a finished job → when its webhook is to be tried (``clock``)."""
        for job in store.all():
            if job.status in ("queued", "running"):
                self._waiting.append(job)
                continue
            self._finished.append(job.id)
            if job.undelivered:
                self._undelivered[job.id] = 0.0
        self.restored = len(self._waiting)
        self.unsaved = 0

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def submit(self, job_id: str, body: bytes, webhook: str) -> Job:
        """Sealed on the spool on return; the same id twice is the same job. Raises :class:`Busy`, OSError."""
        stored = self._store.load(job_id)
        if stored is not None:
            return stored
        if len(self._waiting) >= self._limit:
            raise Busy(f"{len(self._waiting)} explanations wait already, at most {self._limit}; try again later")
        job = Job(job_id, body, self._clock(), webhook=webhook)
        self._store.save(job)
        self._waiting.append(job)
        self._wake.set()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job as it stands, or None if there is none or it has been forgotten."""
        return self._store.load(job_id)

    async def run(self) -> None:
        """Until cancelled; a job that is cut goes back to the queue at the next start."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            job = self._waiting.popleft()
            try:
                await self._one(job)
            except OSError as error:  # the spool is full: the job stays as it last was there, and is tried again
                self._waiting.appendleft(job)
                self.unsaved += 1
                self._log("error", "job state not saved: spool unwritable", error=str(error))
                await self._pause(1.0)

    async def run_deliveries(self) -> None:
        """Webhooks, one after another, until cancelled: none holds up a computation."""
        while True:
            while not self._undelivered:
                self._due.clear()
                await self._due.wait()
            job_id = min(self._undelivered, key=self._undelivered.__getitem__)
            if (wait := self._undelivered[job_id] - self._clock()) > 0:
                await self._pause(min(wait, 1.0))  # another may be due earlier by then
                continue
            del self._undelivered[job_id]
            try:
                await self._post(job_id)
            except OSError as error:
                self.unsaved += 1
                self._log("error", "job state not saved: spool unwritable", error=str(error))
                await self._pause(1.0)

    async def _post(self, job_id: str) -> None:
        job = self._store.load(job_id)
        if job is None:  # forgotten meanwhile
            return
        problem = await self._deliver(job.webhook, status(job))
        job.posts, job.delivered = job.posts + 1, not problem
        self._store.save(job)
        if job.undelivered:
            self._undelivered[job_id] = self._clock() + min(5.0 * 3.0 ** (job.posts - 1), LONGEST_PAUSE)
        if problem:
            end = "retrying" if job.undelivered else "given up; the result stays available under its id"
            self._log("warning", f"explanation not delivered, {end}", error=problem, tries=job.posts)

    async def _one(self, job: Job) -> None:
        """Raises OSError where the job couldn't be saved: it is as it was, or finished and not computed again."""
        if job.status in ("queued", "running"):
            self._store.save(msgspec.structs.replace(job, status="running", attempts=job.attempts + 1))
            job.status, job.attempts = "running", job.attempts + 1
            if not await self._finished_work(job):
                self._store.save(job)
                await self._pause(min(2.0**job.attempts, 30.0))
                self._waiting.append(job)
                return
        self._store.save(job)
        self._remember(job.id)
        if job.webhook:
            self._undelivered[job.id] = self._clock()
            self._due.set()

    async def _finished_work(self, job: Job) -> bool:
        """False: it is to be tried again."""
        try:
            job.result = await self._work(job.body, job.id)
            job.status = "done"
        except (EngineAway, PredictorAway, Busy, JournalError, OSError) as error:
            if job.attempts < ATTEMPTS:
                job.status = "queued"
                return False
            job.status, job.error = "failed", str(error)
        except ExplainerError as error:
            job.status, job.error = "failed", str(error)
        except Exception as error:  # a bug of ours costs this job alone
            self._log("error", "a job failed unexpectedly", exception=error)
            job.status, job.error = "failed", f"expected an explanation, found {type(error).__name__}; see the log"
        return True

    def _remember(self, job_id: str) -> None:
        self._finished.append(job_id)
        while len(self._finished) > self._keep:
            forgotten = self._finished.popleft()
            self._undelivered.pop(forgotten, None)
            self._store.remove(forgotten)


def status(job: Job) -> bytes:
    """The job as clients see it."""
    answer: dict[str, object] = {"id": job.id, "status": job.status, "created": job.created, "attempts": job.attempts}
    if job.error:
        answer["error"] = job.error
    if job.result:
        answer["result"] = msgspec.Raw(job.result)
    return msgspec.json.encode(answer)
