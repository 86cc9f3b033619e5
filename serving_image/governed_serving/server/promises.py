"""Promises in answers: this process's own key, announced in the ledger before it signs anything.

The private half is drawn here and never leaves the process's memory. Its public half goes the way of every record, by
the journal and the auditor; only once the archive proves that the entry is in the ledger does the key sign. A process
that ends takes its key along; what it signed is verified by the entry for ever.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governed_api.runtime import PROMISE_HEADER
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.ledger.promise import KEY_TYPE, AnnouncedKey, Promise, encode_key, sign
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.decoding import decode_json
from governed_serving.hosting.logs import log
from governed_serving.journal.errors import JournalError
from governed_serving.records import EventRecord, LedgerEntry, PredictionFrame, SubjectFrame, timestamp
from governed_serving.server.errors import InvalidRequest, PromiseUnavailable, ServerError
from governed_serving.server.identifiers import Identifiers
from governed_serving.server.identity import Identity
from governed_serving.server.receipts import Receipts
from governed_serving.server.recording import Journal, Kept

__all__ = ["HEADER", "NO_PROMISES", "Promises", "wants_promise"]

HEADER = PROMISE_HEADER.encode()
"""Asks for a promise in a request, and carries it in an answer."""
VALID_SECONDS = 7 * 86_400
"""How long a key signs; another one is announced when a day of it is left."""
_RENEW_SECONDS = 86_400
_POLL_SECONDS = 2.0
_LONGEST_POLL = 60.0
_AGAIN_SECONDS = 600.0
"""After an announcement that the archive refused."""
_LARGE = 1 << 20
"""Bytes of a frame from which its digest is taken off the event loop."""

NO_PROMISES = InvalidRequest(
    "X-Governed-Promise: expected spec.governance.audit.promises in the model's manifest, found none; add it, or ask "
    "for a receipt later (/v2/models/MODEL/predictions/ID/receipt)"
)


class _Refused(Exception):
    """The archive took no announcement."""


@dataclass(frozen=True)
class _Key:
    id: str
    private: Ed25519PrivateKey
    not_before: float
    not_after: float

    def announcement(self, identity: Identity) -> EventRecord:
        """What says to the ledger that this key signs."""
        said = AnnouncedKey(encode_key(self.private), timestamp(self.not_before), timestamp(self.not_after))
        summary = msgspec.to_builtins(said)
        return EventRecord("promiseKey", self.id, identity.model, identity.revision, self.not_before, b"{}", summary)


class Promised(Protocol):
    """What the governed path needs of promises."""

    always: bool
    """Every answer carries one."""

    def check(self) -> None:
        """Raises PromiseUnavailable while none can be given."""

    async def give(self, frame: PredictionFrame | SubjectFrame, kept: Kept, ids: Collection[str]) -> dict[str, str]:
        """Promises by id for those of ``frame``'s requests; none while none can be given."""


class Promises:
    """Of one process's answers. ``delay``: seconds within which the ledger has them. Lives on the event loop;
    ``clock``: seconds since the epoch."""

    def __init__(
        self,
        identity: Identity,
        journal: Journal,
        receipts: Receipts,
        delay: int,
        *,
        always: bool = False,
        clock: Callable[[], float] = time.time,
        poll: float = _POLL_SECONDS,
    ) -> None:
        self._identity, self._journal, self._receipts, self._delay = identity, journal, receipts, delay
        self._clock, self._poll, self._new_id = clock, poll, Identifiers()
        self._key: _Key | None = None
        self.always = always

    def check(self) -> None:
        if self._signing() is None:
            raise PromiseUnavailable(
                "X-Governed-Promise: expected this server's key in the ledger, found that it isn't announced yet, or "
                "out of its time; retry later, or ask without a promise"
            )

    def _signing(self) -> _Key | None:
        key = self._key
        return key if key is not None and key.not_before <= self._clock() <= key.not_after else None

    async def give(self, frame: PredictionFrame | SubjectFrame, kept: Kept, ids: Collection[str]) -> dict[str, str]:
        key = self._signing()
        if key is None or not ids:
            return {}
        digest = await asyncio.to_thread(kept.digest) if len(kept.ciphertext) >= _LARGE else kept.digest()
        times, asked = memoryview(frame.times).cast("d"), set(ids)
        identity, now = self._identity, timestamp(self._clock())
        given = {}
        for index, id in enumerate(frame.ids):
            if id in asked:
                promise = Promise(
                    namespace=identity.namespace, model=frame.model, id=id, revision=frame.revision,
                    recorded=timestamp(times[index]), stream=kept.stream, frame=kept.seq, index=index, record=digest,
                    time=now, delay=self._delay,
                )  # fmt: skip
                given[id] = sign(promise, key.id, key.private)
        return given

    async def run(self) -> None:
        """Announce keys, one after another, until cancelled."""
        while True:
            try:
                key = await self._announced()
            except _Refused:
                log("error", "the archive refused the key of promises: none are given until another is announced")
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            self._key = key
            log("info", "answers may carry promises", key=key.id, until=timestamp(key.not_after))
            await self._until(key.not_after - _RENEW_SECONDS)

    async def _until(self, moment: float) -> None:
        """A clock that is set meanwhile is noticed within an hour."""
        left = moment - self._clock()
        while left > 0:
            await asyncio.sleep(min(3600.0, left))
            left = moment - self._clock()

    async def _announced(self) -> _Key:
        """A new key, once its entry is in the ledger. Raises _Refused."""
        now = self._clock()
        key = _Key(self._new_id(), Ed25519PrivateKey.generate(), now, now + VALID_SECONDS)
        pause = self._poll
        while not await self._journalled(key):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)
        pause = self._poll
        while True:
            try:
                proof = await self._receipts.receipt(key.id)
            except ServerError:  # not shipped yet, or the archive is away
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, _LONGEST_POLL)
                continue
            if _announces(proof, key, self._identity):
                return key
            raise _Refused

    async def _journalled(self, key: _Key) -> bool:
        try:
            await self._journal.append(key.announcement(self._identity))
        except JournalError as error:
            log("warning", "the key of promises can't be journalled yet", why=str(error))
            return False
        return True


def _announces(proof: bytes, key: _Key, identity: Identity) -> bool:
    """Whether the ledger has the announcement itself, and not a dead letter in its place."""
    try:
        entry = decode_json(LogProof.parse(proof.decode()).extra, type=LedgerEntry)
    except (NoteError, UnicodeDecodeError, msgspec.DecodeError):
        return False
    said = key.announcement(identity)
    return (entry.type, entry.id, entry.model, entry.summary) == (KEY_TYPE, key.id, identity.model, said.summary)


def wants_promise(value: bytes) -> bool:
    """What the header's value asks. Raises InvalidRequest."""
    if value.strip().lower() not in (b"1", b"true"):
        raise InvalidRequest(f"X-Governed-Promise: expected 1, found {value[:40].decode('latin-1')!r}")
    return True
