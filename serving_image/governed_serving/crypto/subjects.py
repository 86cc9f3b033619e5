"""A key for each data subject: what a model was asked about a person is sealed under it, and gone once it is destroyed.

Who it is about is known by a keyed digest alone (HMAC-SHA256 under the ``subject-index`` keyset, 128 bits). A subject's
keyset has the purpose ``subject-DIGEST-N``; somebody who comes again after the key was destroyed has the next N. Open
keysets are kept in memory, ``capacity`` of them and no longer than ``seconds``, and nowhere else: they are let go of
when their time is over, whether anybody asks for them or not.
"""

import re
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import msgspec

from governed_serving.crypto.errors import KeyDestroyed, KeyMissing
from governed_serving.crypto.kek import Kek
from governed_serving.crypto.keyring import Keyring
from governed_serving.crypto.keyset import Keyset
from governed_serving.crypto.store import KeysetStore
from governed_serving.decoding import decode_with
from governed_serving.records import Column, EventRecord, Frame, PredictionFrame, SubjectFrame, personal_key

__all__ = ["INDEX", "SUBJECT", "Subjects", "canonical", "purposes_of"]

INDEX = "subject-index"
SUBJECT = "subject-"
CAPACITY = 4096
SECONDS = 30.0
"""How long a destroyed key may go on in the memory of a process."""
_DIGEST = 16


class _Content(msgspec.Struct, array_like=True):
    features: dict[str, Column]
    outputs: dict[str, Column]
    client_ids: list[str]


class _Held(NamedTuple):
    purpose: str
    keyset: Keyset | None
    """None: destroyed."""
    until: float


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Content)


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.name, timer.daemon = "subject-keys", True
    timer.start()


_BLANKS = "".join(map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200C), 0x2028, 0x2029,
                            0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF)))  # fmt: skip
"""White space, and what takes no place at all."""
_WHOLE = re.compile(r"(-?[0-9]{1,40})\.0+")


def canonical(who: object) -> str:
    """The one form of whom a request is about, where it is recorded and where it is asked for; "": nobody.

    Unicode NFC, no blanks around it; a number without fraction is written without one, so that 7, 7.0, "7" and "7.0"
    are one person. Letters stay as they are, "007" isn't "7".
    """
    if isinstance(who, float):
        who = int(who) if who.is_integer() else "" if who != who else who
    text = unicodedata.normalize("NFC", str(who)).strip(_BLANKS)
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else text


def _former(who: str) -> list[str]:
    """How versions before :func:`canonical` may have recorded ``who``: as it came."""
    written = canonical(who)
    forms = (who, unicodedata.normalize("NFC", who), unicodedata.normalize("NFD", written), f"{written}.0")
    return [form for form in dict.fromkeys(forms) if form and form != written]


def purposes_of(subject: str, purposes: list[str]) -> list[str]:
    """Of a store's ``purposes``, those of a subject's keysets."""
    return [purpose for purpose in purposes if purpose.rpartition("-")[0] == SUBJECT + subject]


class Subjects:
    """Keys of one model's data subjects in ``store``, wrapped by ``kek``. Thread-safe; calls may wait for the store and
    raise its errors."""

    def __init__(
        self,
        kek: Kek,
        store: KeysetStore,
        *,
        capacity: int = CAPACITY,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], None] = _later,
    ):
        self._kek, self._store, self._later = kek, store, later
        self._capacity, self._seconds, self._clock = capacity, seconds, clock
        self._index: Keyset | None = None
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting = False
        """Whether :meth:`_forget` is going to be called."""

    def digest(self, who: str, *, create: bool = True) -> str:
        """By which a subject is known. Raises KeyMissing when there are no subjects and none is to be made."""
        return self._digest(canonical(who), create=create)

    def digests(self, who: str) -> list[str]:
        """All by which a subject may be known: the one of now first, then those of older versions. Raises
        KeyMissing."""
        return [self._digest(form, create=False) for form in (canonical(who), *_former(who))]

    def _digest(self, form: str, *, create: bool) -> str:
        if self._index is None:
            self._index = Keyring(self._kek, self._store).keyset(INDEX, create)
        return self._index.digest(form.encode(), _DIGEST).hex()

    def seal(self, frame: PredictionFrame, subject: str) -> SubjectFrame:
        """``frame``, all of which is about ``subject`` (a digest), under its key, which is made where there is none."""
        held = self._current(subject)
        assert held.keyset is not None
        content = _encoder.encode(_Content(frame.features, frame.outputs, frame.client_ids))
        sealed = held.keyset.seal(content, _aad(frame.model, held.purpose, frame.ids))
        return SubjectFrame(
            frame.model, frame.revision, frame.artefact, frame.ids, frame.times, frame.rows, subject, held.purpose,
            sealed, frame.callers, frame.units,
        )  # fmt: skip

    def seal_event(self, event: EventRecord, subject: str) -> EventRecord | None:
        """``event``, which is about ``subject`` (a digest), its body under the newest of their keys; None where all
        were destroyed. None is made: what it is about lies under one."""
        for purpose in sorted(purposes_of(subject, self._store.purposes()), key=_number, reverse=True):
            keyset = self._of(purpose).keyset
            if keyset is not None:
                body = keyset.seal(event.body, _event_aad(event, purpose))
                summary = {**event.summary, "subject": subject, "key": purpose}
                return msgspec.structs.replace(event, body=body, summary=summary)
        return None

    def opened(self, record: SubjectFrame | EventRecord) -> Frame:
        """What ``record`` holds; ``record`` itself once its key was destroyed. Raises Tampered, KeyMissing."""
        if isinstance(record, EventRecord):
            return self._opened_event(record)
        held = self._of(record.key)
        if held.keyset is None:
            return record
        plain = held.keyset.open(record.sealed, _aad(record.model, record.key, record.ids))
        content = decode_with(_decoder, plain)
        return PredictionFrame(
            record.model, record.revision, record.artefact, record.ids, record.times, record.rows, content.features,
            content.outputs, content.client_ids, record.callers, record.units,
        )  # fmt: skip

    def _opened_event(self, record: EventRecord) -> EventRecord:
        key = personal_key(record)
        keyset = self._of(key).keyset if key else None
        if keyset is None:
            return record
        summary = {name: value for name, value in record.summary.items() if name != "key"}
        body = keyset.open(record.body, _event_aad(record, key))
        return msgspec.structs.replace(record, body=body, summary=summary)

    def _current(self, subject: str) -> _Held:
        """The subject's newest keyset that isn't destroyed; made where all are."""
        key = self._known(subject)
        if key is not None:
            return key
        for number in count(1):
            purpose = f"{SUBJECT}{subject}-{number}"
            try:
                return self._keep(subject, _Held(purpose, self._keyset(purpose, create=True), self._until()))
            except KeyDestroyed:
                continue
        raise AssertionError("there is always a next number")

    def _of(self, purpose: str) -> _Held:
        key = self._known(purpose)
        if key is not None:
            return key
        try:
            keyset: Keyset | None = self._keyset(purpose, create=False)
        except (KeyDestroyed, KeyMissing):
            keyset = None
        return self._keep(purpose, _Held(purpose, keyset, self._until()))

    def _keyset(self, purpose: str, *, create: bool) -> Keyset:
        return Keyring(self._kek, self._store).keyset(purpose, create)

    def _until(self) -> float:
        return self._clock() + self._seconds

    def _known(self, name: str) -> _Held | None:
        with self._lock:
            held = self._held.get(name)
            if held is None or held.until <= self._clock():
                self._held.pop(name, None)
                return None
            self._held.move_to_end(name)
            return held

    def _keep(self, name: str, held: _Held) -> _Held:
        with self._lock:
            self._held[name] = held
            while len(self._held) > self._capacity:
                self._held.popitem(last=False)
            self._wait()
        return held

    def _forget(self) -> None:
        """Let go of the keysets whose time is over."""
        with self._lock:
            self._waiting, now = False, self._clock()
            for name in [name for name, held in self._held.items() if held.until <= now]:
                del self._held[name]
            self._wait()

    def _wait(self) -> None:
        """Until the first keyset's time is over; the lock is held."""
        if self._held and not self._waiting:
            self._waiting = True
            first = min(held.until for held in self._held.values())
            self._later(max(first - self._clock(), 0.0), self._forget)


def _aad(model: str, purpose: str, ids: list[str]) -> bytes:
    return _encoder.encode(["governed subject 1", model, purpose, ids])


def _event_aad(event: EventRecord, purpose: str) -> bytes:
    return _encoder.encode(["governed subject event 1", event.type, event.model, purpose, event.id])


def _number(purpose: str) -> int:
    last = purpose.rpartition("-")[2]
    return int(last) if last.isdecimal() and len(last) < 10 else 0
