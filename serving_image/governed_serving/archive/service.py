"""The archive itself, without a transport: who may do what, and what of it becomes a ledger entry."""

import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from governed_api.lifetimes import Lifetimes
from governed_api.names import ARCHIVE
from governed_serving.archive.errors import OTHER_MODEL, ArchiveError, Busy, LedgerDamaged, Refused
from governed_serving.archive.ledger.appender import Appender
from governed_serving.archive.ledger.entrylog import REMEDY, Batch
from governed_serving.archive.ledger.ledger import Anchor, Appended, FoundEntry, Ledger
from governed_serving.archive.ledger.note import SIGNER, NoteError, Signer
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.archive.ledger.witnessed import WITNESSED, Witnessed
from governed_serving.archive.reach import Speaker
from governed_serving.archive.store.blobs import BlobStore, settle_place
from governed_serving.archive.store.named import NamedFiles, Prepared, check_model, check_name
from governed_serving.archive.store.objects import Bucket
from governed_serving.archive.store.references import References
from governed_serving.archive.store.retention import Pace, Retention
from governed_serving.archive.store.states import States
from governed_serving.archive.times import RECEIVED, TimeBounds
from governed_serving.archive.verdicts import Verdicts
from governed_serving.crypto import (
    SUBJECT,
    DirectoryStore,
    Kek,
    KeyDestroyed,
    KeyEvent,
    Keyring,
    Keyset,
    KeysetChanged,
    is_keyset_document,
    is_purpose,
    is_sealed,
    rotate_due,
)
from governed_serving.decoding import decode_json, decode_with
from governed_serving.records import (
    ENTRY_BYTES,
    ENTRY_TYPES,
    RETENTION,
    ROTATION,
    AppendRequest,
    Erasure,
    LedgerEntry,
    canonical,
    timestamp,
)

__all__ = [
    "ANCHOR",
    "KEYSET",
    "OWN_STREAM",
    "RECEIPT",
    "Archive",
    "ledger_cipher",
    "ledger_origin",
    "ledger_signers",
    "only_one",
    "open_ledger",
    "subject_of",
]

KEYSET = ".keyset.json"
"""Ending of a keyset's file."""
RECEIPT = ".destroyed.json"
"""Ending of the receipt that takes its place."""
ANCHOR = "anchor"
"""Copy of the newest checkpoint beside the ledger: a ledger that is gone doesn't begin anew in silence."""
OWN_STREAM = "governed-archive"
"""Stream under which the archive itself writes entries about a model's keysets, references and states."""

LIFETIMES = MappingProxyType({RETENTION: "payloads", ROTATION: "keys"})
"""References that say how long something lasts, and of what."""
ERASURE = "erasure"
"""Type of the entry that says whose data can't be opened any more; only the archive writes it."""


class _Artefact(msgspec.Struct):
    blob: str = ""


class _Pointer(msgspec.Struct):
    """What of a reference names a blob: its own, or that of the artefact which it is about."""

    blob: str = ""
    artefact: _Artefact = msgspec.field(default_factory=_Artefact)


_entry_decoder = msgspec.json.Decoder(LedgerEntry)
_NEWEST = 16
_RECEIPTS = ("prediction", "promiseKey", "deadLetter")
"""Types of entries that stand for an answer, or announce the key of promises; the last one where the first was
refused."""
_DIGEST = re.compile("[0-9a-f]{64}")
_PATIENCE = 10.0
_FOR_EVER = 100 * 365.25 * 86_400
"""Seconds: a retention or rotation of a century or more is none. Dates that far away can't be reckoned with."""
_SIGNERS = 4
"""Signing keys that sign a checkpoint: the primary one and the newest of the older ones."""


def ledger_origin(namespace: str) -> str:
    """Name of a namespace's log, and of the key that signs it."""
    return f"governedmodels.io/archive/{namespace}"


def ledger_cipher(root: Path, kek: Kek) -> Keyset:
    """The keyset under which an archive directory's entries lie; raises CryptoError when there is none."""
    return Keyring(kek, DirectoryStore(root / "keys")).keyset("ledger", create=False)


def ledger_signers(root: Path, kek: Kek, namespace: str) -> list[Signer]:
    """All keys that signed an archive directory's checkpoints, the newest first; raises CryptoError when there are
    none."""
    keys = Keyring(kek, DirectoryStore(root / "keys")).keyset("ledger-signing", create=False).signing_keys()
    return [Signer(ledger_origin(namespace), key.private_bytes_raw()) for key in keys]


def open_ledger(
    root: Path, keyring: Keyring, namespace: str, told: Mapping[str, str] | None = None, *, accept_loss: bool = False
) -> Ledger:
    """The ledger of an archive directory, under the archive's own keyring.

    ``told``: notes of its checkpoints that were kept elsewhere, by their place. Raises LedgerDamaged, CryptoError,
    OSError.
    """
    signer, *older = _signers(keyring, namespace)
    cipher = keyring.keyset("ledger")
    told = told or {}
    return Ledger(root / "ledger", cipher, signer, tuple(older), keep=root / ANCHOR, told=told, accept_loss=accept_loss)


def _signers(keyring: Keyring, namespace: str) -> list[Signer]:
    """Newest key first; some older keys keep signing, so that a verifier that was kept stays valid."""
    keys = keyring.keyset("ledger-signing").signing_keys()
    return [Signer(ledger_origin(namespace), key.private_bytes_raw()) for key in keys[:_SIGNERS]]


class Archive:
    """Ledger, blobs, keysets, references and states of one namespace below ``root``.

    One process at a time: a second one is refused. ``clock`` gives seconds since the epoch, and other ones than the
    machine's are believed to run as they say; ``told`` and
    ``accept_loss``: see :func:`open_ledger`. What is let go becomes an entry, with ``let_go`` in its summary.
    """

    def __init__(
        self,
        root: Path,
        kek: Kek,
        namespace: str,
        *,
        clock: Callable[[], float] = time.time,
        told: Mapping[str, str] | None = None,
        accept_loss: bool = False,
        let_go: Mapping[str, object] = MappingProxyType({}),
        bucket: Bucket | None = None,
    ):
        self._let_go = let_go
        root.mkdir(parents=True, exist_ok=True)
        self._guard = only_one(root)
        self.root = root
        self.namespace = namespace
        self._clock = clock
        own = DirectoryStore(root / "keys")
        self._keyring = Keyring(kek, own, clock=lambda: datetime.fromtimestamp(self._clock(), UTC))
        witnessed = root / "ledger" / WITNESSED
        self.witnessed = Witnessed(witnessed)
        self.show: Callable[[], str] = lambda: self.ledger.checkpoint()
        """The newest checkpoint that others may see."""
        if self.witnessed.note:
            told = {**(told or {}), str(witnessed): self.witnessed.note}
        try:
            self.ledger = open_ledger(root, self._keyring, namespace, told, accept_loss=accept_loss)
            self.appender = Appender(self.ledger)
        except BaseException:
            os.close(self._guard)
            raise
        try:
            settle_place(root, bucket)
            self._open(root, bucket)
        except BaseException:
            self.appender.close()
            os.close(self._guard)
            raise

    def _open(self, root: Path, bucket: Bucket | None) -> None:
        cipher = self._keyring.keyset("references")
        self.blobs = BlobStore(root / "blobs", is_sealed, bucket=bucket)
        self._refs = References(root / "refs", cipher)
        self._states = States(root / "states", is_sealed)
        self._keysets = root / "keysets"
        self._own = threading.RLock()
        self._payloads = threading.Lock()
        self.pace = Pace(time.monotonic if self._clock is time.time else self._clock)
        self.pace.lag(self._clock())
        self._announced = ""
        self.lifetimes: Callable[[str], Lifetimes | None] = lambda _: None
        """What the operator says of a model's, which none of its pods may set to anything else; None: it says nothing.
        Raises OSError where that can't be known."""
        self.verdicts = Verdicts(self.ledger, self.models())
        if self.ledger.lost is not None:
            self._note_loss(self.ledger.lost)
        self._settle_witnessed()
        self.retention = Retention(root / "retention", cipher, self.ledger, self.blobs, self._note_alone)
        self.finished = self._settle_all()
        """Replacements that a kill had interrupted."""

    def _settle_all(self) -> list[str]:
        """What was done, in words."""
        return [
            *(f"reference {what}" for what in self._settle("ref", self._refs)),
            *(f"state {what}" for what in self._settle("state", self._states)),
            *(f"keyset {what}" for what in self._settle_keysets()),
        ]

    # -- ledger -------------------------------------------------------------------------------------------------------

    def admit(self, speaker: Speaker, request: AppendRequest) -> Batch:
        """The batch that ``request`` asks for, every entry checked: canonical, of this namespace, the speaker's model
        and a type that its role writes.

        Raises :class:`Refused`.
        """
        model = check_model(speaker.model)
        check_name(request.stream)
        if model == ARCHIVE:
            raise Refused(403, f"what {ARCHIVE} says, only the archive itself says")
        if request.stream == OWN_STREAM:
            raise Refused(403, f"stream {OWN_STREAM} is the archive's own")
        if request.first_seq < 0:
            raise Refused(400, f"first_seq must be 0 or more, found {request.first_seq}")
        late: list[LedgerEntry] = []
        now = self._clock()
        bounds = TimeBounds(now, self.pace.lag(now))
        next_seq = self.ledger.next_seq(model, request.stream) or 0
        for number, entry in enumerate(request.entries, request.first_seq):
            taken = self._check_entry(speaker, number, entry)
            if number >= next_seq:  # else it was taken before, and is sent again after its answer was lost
                bounds.check(number, taken)
                late += [taken] if bounds.is_late(taken) else []
        batch = Batch(model, request.stream, request.first_seq, list(request.entries))
        self._note_received(batch, late)
        return batch

    def _note_received(self, batch: Batch, late: list[LedgerEntry]) -> None:
        """When old entries came, by the archive's clock. Before they are written: of some that then weren't, it says
        too much rather than nothing."""
        if late:
            times = sorted(entry.time for entry in late)
            summary = {"stream": batch.stream, "first": batch.first_seq, "entries": len(batch.entries),
                       "late": len(late), "oldest": times[0], "newest": times[-1]}  # fmt: skip
            self._note_alone(batch.model, RECEIVED, batch.stream, "", summary)

    def hold_against(self, place: str, note: str, *, accept_loss: bool = False) -> str:
        """Hold the ledger against a checkpoint of it that ``place`` keeps: what contradicts it, in words, or "".

        The log's own key signed two histories then, or one and a part of it: nothing is appended any more, so that
        neither goes on in silence. ``accept_loss``: a person lets go of the other one, and an entry says so; of one
        that was let go before, it is only told. Raises NoteError for a note that isn't this log's.
        """
        signed = self.ledger.contradicting(note)
        if signed is None:
            return ""
        what = (
            f"{place} has a checkpoint over {signed.size} entries (root {signed.root.hex()[:16]}…) that this log's key "
            f"signed and that this ledger of {self.ledger.size} doesn't go on from: an older copy was put back, or "
            "another archive signs with the same key"
        )
        if self.ledger.was_let_go(signed):
            return f"{what}; a person let go of it"
        if accept_loss:
            self._note_loss(Anchor(place, signed))
            return f"{what}; let go of just now"
        self.witnessed.contradiction = what
        self.appender.refuse(f"nothing is appended: {what}; {REMEDY}")
        return what

    def receipt(self, model: str, id: str) -> LogProof:
        """That the entry about an answer is in the ledger: under the newest checkpoint that witnesses cosigned, where
        that has it already, else under the newest one. Raises :class:`Refused` (404)."""
        if not id:
            raise Refused(400, "a receipt is for one id: give the X-Prediction-Id of an answer")
        for type in _RECEIPTS:
            if entries := self.ledger.find(model, id=id, type=type, limit=_NEWEST):
                break
        else:
            raise Refused(404, f"no answer of {model} with id {id} is in the ledger: it may not be shipped yet")
        first, note = entries[0], self.witnessed.note
        if self.witnessed.size <= first.index:
            note = self.witnessed.cosigned(self.show())
        size = int(note.split("\n")[1])
        if size <= first.index:
            raise Refused(404, f"the answer of {model} with id {id} isn't in object storage yet: retry later")
        return LogProof(first.entry, first.index, tuple(self.ledger.inclusion(first.index, size)), note)

    def _settle_witnessed(self) -> None:
        """What was cosigned of a part that is gone, or isn't a checkpoint of this log, isn't told any more."""
        note = self.witnessed.note
        try:
            if not note or self.ledger.contradicting(note) is None:
                return
        except NoteError:
            self.ledger.say("witnessed is no checkpoint of ours: the witnesses are asked anew")
        self.witnessed.discard()

    def names_blob(self, model: str, digest: str, index: int, reference: str) -> bool:
        """Whether the entry at ``index`` (−1: none), or a reference, is ``model``'s and names a blob."""
        if reference:
            data = self._refs.get(model, check_name(reference))
            named = decode_json(data, type=_Pointer) if data else _Pointer()
            return digest in (named.blob, named.artefact.blob)
        for leaf in self.ledger.entries(index, index + 1) if index >= 0 else ():
            entry = decode_with(_entry_decoder, leaf)
            return entry.model == model and entry.blob == digest
        return False

    def _check_entry(self, speaker: Speaker, number: int, data: bytes) -> LedgerEntry:
        try:
            entry = decode_with(_entry_decoder, data)
        except msgspec.DecodeError as error:
            raise Refused(400, f"entry {number}: {error}") from None
        if entry.model != speaker.model or entry.namespace != self.namespace:
            whose = f"entry {number} is of {entry.namespace}/{entry.model}; the token is for"
            only = f"{self.namespace}/{speaker.model}, which may write only its own"
            raise Refused(403, f"{whose} {only}", reason=OTHER_MODEL)
        if entry.type not in ENTRY_TYPES:
            types = ", ".join(sorted(ENTRY_TYPES))
            raise Refused(400, f"entry {number}: type must be one of {types}, found {entry.type!r}")
        speaker.check_type(number, entry.type)
        if len(data) > ENTRY_BYTES or canonical(entry) != data:
            raise Refused(
                400, f"entry {number} must be canonical JSON (sorted keys, no spaces) of at most {ENTRY_BYTES} bytes"
            )
        return entry

    def models(self) -> list[str]:
        """Names of the models that have keysets, references or states here."""
        roots = (NamedFiles(self._keysets), self._refs.files, self._states.files)
        return sorted({model for root in roots for model in root.models()})

    # -- keysets ------------------------------------------------------------------------------------------------------

    def keyset(self, model: str, purpose: str) -> bytes:
        """A wrapped keyset; raises :class:`Refused` (404, 410), :class:`LedgerDamaged` where none of its entries names
        it."""
        document = self._keyset(model, purpose)
        if self._is_said(document, "key", model, f"{purpose}:created", f"{purpose}:replaced"):
            return document
        with self._own:  # it may have been replaced just now
            document = self._keyset(model, purpose)
            if self._is_said(document, "key", model, f"{purpose}:created", f"{purpose}:replaced"):
                return document
        raise _changed("keyset", model, purpose)

    def _keyset(self, model: str, purpose: str) -> bytes:
        try:
            document = self._store(model).get(check_name(purpose))
        except KeyDestroyed as error:
            raise Refused(410, str(error)) from None
        if document is None:
            raise Refused(404, f"{model} has no {purpose} keyset")
        return document

    def _is_said(self, data: bytes, type: str, model: str, *ids: str) -> bool:
        """Whether one of the newest entries about a name has the digest of ``data``: the last one, or one before it
        while a replacement isn't in place yet. After a loss there may be none."""
        entries = [f for id in ids for f in self.ledger.find(model, id=id, type=type, limit=_NEWEST)]
        digests = {decode_with(_entry_decoder, f.entry).digest for f in entries}
        return not digests or hashlib.sha256(data).hexdigest() in digests

    def purposes(self, model: str) -> list[str]:
        """Purposes for which the model has a keyset."""
        return self._store(model).purposes()

    def create_keyset(self, model: str, purpose: str, document: bytes) -> bytes | None:
        """Store a keyset where there is none (→ None); else change nothing and return the one there is."""
        self._check_document(purpose, document)
        with self._own:
            try:
                existing = self._store(model).get(check_name(purpose))
            except KeyDestroyed as error:
                raise Refused(410, str(error)) from None
            if existing is None:
                prepared = self._prepare_keyset(model, purpose, document)
                self._note_key(model, purpose, "created", document)
                self._store(model).create(purpose, document)
                prepared.discard()
            return existing

    def replace_keyset(self, model: str, purpose: str, document: bytes, expected: str) -> None:
        """Rotation: put a keyset in the place of the one whose SHA-256 is ``expected``; raises :class:`Refused`
        (412)."""
        self._check_document(purpose, document)
        with self._own:
            existing = self._keyset(model, purpose)
            digest = hashlib.sha256(existing).hexdigest()
            if digest != expected:
                raise Refused(
                    412, f"the {purpose} keyset of {model} has SHA-256 {digest}, expected {expected}: read it again"
                )
            prepared = self._prepare_keyset(model, purpose, document)
            self._note_key(model, purpose, "replaced", document)
            try:
                self._store(model).replace(purpose, existing, document)
            except KeysetChanged as error:
                raise Refused(412, str(error)) from None
            prepared.discard()

    def destroy_keyset(self, model: str, purpose: str, receipt: bytes) -> None:
        """Crypto-shredding: the keyset goes, its receipt stays. Raises :class:`Refused` (404, 410).

        The receipt lies beside its place before the ledger says anything: a kill in between is made good at the next
        start, an error when it is asked again.
        """
        with self._own:
            self._settle_keysets(check_model(model), f"{check_name(purpose)}{RECEIPT}")
            document = self._keyset(model, purpose)
            receipt = receipt or b"{}"
            about = _erasure(receipt) if purpose.startswith(SUBJECT) else None
            digest = hashlib.sha256(receipt).hexdigest()
            prepared = NamedFiles(self._keysets).prepare(model, f"{purpose}{RECEIPT}", receipt, digest)
            if about is not None:
                self._note_erasure(model, purpose, about, digest)
            self._note_key(model, purpose, "destroyed", document, receipt=digest)
            self._store(model).destroy(purpose, receipt)
            prepared.discard()

    def _settle_keysets(self, *only: str) -> list[str]:
        """Finish or undo what was begun, of all keysets or of one (model, name); what was finished, in words."""
        return NamedFiles(self._keysets).settle(self._last_keyset, self._put_in_place, *only)

    def _put_in_place(self, prepared: Prepared) -> None:
        """A keyset; or a receipt, in whose stead the keyset goes."""
        receipt = prepared.read() if prepared.name.endswith(RECEIPT) else None
        if receipt is None:
            prepared.put_in_place()
            return
        model, purpose = prepared.model, prepared.name.removesuffix(RECEIPT)
        newest = self._newest_key(model, purpose)
        if newest is None or newest.summary.get("action") != "destroyed":
            there = self._store(model).get(purpose) or b""
            self._note_key(model, purpose, "destroyed", there, receipt=prepared.digest)
        self._store(model).destroy(purpose, receipt)
        prepared.discard()

    def erase_again(self, model: str, purpose: str) -> bool:
        """Destroy a key that the ledger, or a newer copy of it, says was destroyed; False when it isn't here."""
        try:
            if self._store(model).get(check_name(purpose)) is None:
                return False
        except KeyDestroyed:
            return False
        again = Erasure(predictions=0, reason="the ledger says so", time=timestamp(self._clock()))
        self.destroy_keyset(model, purpose, msgspec.json.encode(again))
        return True

    def _note_erasure(self, model: str, purpose: str, erased: Erasure, receipt: str) -> None:
        """That somebody's data can't be opened any more, and how much of it the receipt (digest) says there was."""
        subject = subject_of(purpose)
        summary = {"subject": subject, "purpose": purpose, "predictions": erased.predictions, "first": erased.first,
                   "last": erased.last}  # fmt: skip
        self._note(model, ERASURE, subject, receipt, summary)

    def _prepare_keyset(self, model: str, purpose: str, document: bytes) -> Prepared:
        """Beside its place first: a kill between the entry and the act is made good at the next start."""
        digest = hashlib.sha256(document).hexdigest()
        return NamedFiles(self._keysets).prepare(model, f"{purpose}{KEYSET}", document, digest)

    def _last_keyset(self, model: str, name: str) -> str:
        """Digest of the keyset that the archive's newest entry about it puts there; "" when it destroys it. Of a
        receipt likewise."""
        purpose = name.removesuffix(RECEIPT).removesuffix(KEYSET)
        entry = self._newest_key(model, purpose)
        destroyed = entry is not None and entry.summary.get("action") == "destroyed"
        if not name.endswith(RECEIPT):
            return entry.digest if entry and not destroyed else ""
        if entry is not None and destroyed:
            return str(entry.summary.get("receipt", ""))
        told = self.ledger.find(model, id=subject_of(purpose), type=ERASURE) if purpose.startswith(SUBJECT) else []
        said = (decode_with(_entry_decoder, f.entry) for f in reversed(told))
        return next((entry.digest for entry in said if entry.summary.get("purpose") == purpose), "")

    def _newest_key(self, model: str, purpose: str) -> LedgerEntry | None:
        told = [f for a in ("created", "replaced", "destroyed") for f in self._own_keys(model, f"{purpose}:{a}")]
        newest = max(told, key=lambda f: f.index, default=None)
        return decode_with(_entry_decoder, newest.entry) if newest else None

    def _own_keys(self, model: str, id: str) -> list[FoundEntry]:
        return self.ledger.find(model, id=id, type="key", limit=1)

    def _store(self, model: str) -> DirectoryStore:
        return DirectoryStore(self._keysets / check_model(model))

    def _check_document(self, purpose: str, document: bytes) -> None:
        if not is_purpose(purpose):
            raise Refused(400, f"a purpose must be lower-case letters, digits and '-', found {purpose[:80]!r}")
        if not is_keyset_document(document):
            raise Refused(415, "the body is no wrapped keyset: keysets are stored wrapped by the model's key only")

    def _note_key(self, model: str, purpose: str, action: str, document: bytes, **more: str) -> None:
        # Before the act: an entry about an act that then failed is a lesser evil than an act without an entry.
        digest = hashlib.sha256(document).hexdigest()
        self._note(model, "key", f"{purpose}:{action}", digest, {"action": action, "purpose": purpose, **more})

    # -- references ---------------------------------------------------------------------------------------------------

    def reference(self, model: str, name: str) -> bytes:
        """A JSON pointer; raises :class:`Refused` (404)."""
        data = self._refs.get(model, name)
        if data is None:
            raise Refused(404, f"{model} has no reference {name}")
        return data

    def references(self, model: str) -> list[str]:
        """Names of the model's references."""
        return self._refs.files.names(model)

    def put_reference(self, model: str, name: str, data: bytes) -> None:
        """Set a JSON pointer; the ledger keeps the digest of every value it had."""
        check_name(name)
        try:
            value = decode_json(data)
        except msgspec.DecodeError as error:
            raise Refused(400, f"a reference must be JSON: {error}") from None
        if not isinstance(value, dict):
            raise Refused(400, "a reference must be a JSON object")
        if len(data) > References.MAX_BYTES:
            raise Refused(413, f"a reference may have at most {References.MAX_BYTES} bytes, found {len(data)}")
        if name in LIFETIMES:
            said = self._lifetime(model, name, data)
            if said is None:
                return
            data = said
        with self._own:
            self._settle("ref", self._refs, model, name)
            if self._refs.get(model, name) != data:
                self._replace("ref", self._refs, model, name, data, hashlib.sha256(data).hexdigest())

    def _lifetime(self, model: str, name: str, claimed: bytes) -> bytes | None:
        """What is set in place of what a pod claims: what the operator says; None while that can't be known, and what
        is set stays."""
        try:
            said = self.lifetimes(model)
        except OSError:
            return None
        if said is None:
            return claimed
        field = LIFETIMES[name]
        return msgspec.json.encode({field: getattr(said, field)})

    # -- states -------------------------------------------------------------------------------------------------------

    def state(self, model: str, name: str, known: str = "") -> tuple[bytes, str]:
        """(sealed bytes, their SHA-256); no bytes when that is ``known``. Raises :class:`Refused` (404),
        :class:`LedgerDamaged` where none of its entries names it."""
        if known and self._states.digest(model, name) == known:
            return b"", known
        data = self._states.get(model, name)
        if data is not None and not self._is_said(data, "state", model, name):
            with self._own:  # it may be being replaced
                data = self._states.get(model, name)
                if data is not None and not self._is_said(data, "state", model, name):
                    raise _changed("state", model, name)
        if data is None:
            raise Refused(404, f"{model} has no state {name}")
        return data, hashlib.sha256(data).hexdigest()

    def states(self, model: str) -> list[str]:
        """Names of the model's states."""
        return self._states.files.names(model)

    def put_state(self, model: str, name: str, sealed: bytes) -> None:
        """Replace a state; the ledger keeps the digest of every one there was. Raises :class:`Refused` (413, 415)."""
        self._states.check(sealed)
        digest = hashlib.sha256(sealed).hexdigest()
        with self._own:
            # A type of its own: a reference may have the same name, and its digests are of JSON.
            self._settle("state", self._states, model, name)
            if self._states.digest(model, name) != digest:
                self._replace("state", self._states, model, name, sealed, digest)

    # -- what lies under a name ---------------------------------------------------------------------------------------

    def _replace(self, type: str, under: References | States, model: str, name: str, data: bytes, digest: str) -> None:
        """Prepared, said, put in place. When the saying ends in an error, its entry may yet come: the next look settles
        it."""
        prepared = under.prepare(model, name, data, digest)
        self._note(model, type, name, digest, {})
        under.put_in_place(prepared)

    def _settle(self, type: str, under: References | States, *only: str) -> list[str]:
        """What was said is done, what wasn't is undone, of all names or of one (model, name). What was done, in
        words."""
        return under.files.settle(partial(self._last, type), under.put_in_place, *only)

    def _last(self, type: str, model: str, name: str) -> str:
        """Digest that the newest entry about a name says, or ""."""
        entries = self.ledger.find(model, id=name, type=type, limit=1)
        return decode_with(_entry_decoder, entries[-1].entry).digest if entries else ""

    # -- own entries --------------------------------------------------------------------------------------------------

    def _note(self, model: str, type: str, id: str, digest: str, summary: Mapping[str, object]) -> None:
        time = timestamp(self._clock())
        entry = LedgerEntry(type, self.namespace, check_model(model), id, time, digest=digest, summary=dict(summary))
        seq = self.ledger.next_seq(model, OWN_STREAM) or 0
        answer = self.appender.submit(Batch(model, OWN_STREAM, seq, [canonical(entry)])).result(timeout=30)
        assert isinstance(answer, Appended)

    def _note_alone(self, model: str, type: str, id: str, digest: str, summary: Mapping[str, object]) -> None:
        with self._own:
            self._note(model, type, id, digest, summary)

    def _note_loss(self, lost: Anchor) -> None:
        """That a person let signed entries go: how many there were and under which root, how many were left."""
        signed = lost.checkpoint
        summary = {"signed": signed.size, "left": self.ledger.size, "place": lost.place, **self._let_go}
        self._note_alone(ARCHIVE, "loss", "", signed.root.hex(), summary)

    # -- retention ----------------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Delete payloads past their model's window; the number of blobs. During a backup none: later. Raises
        ArchiveError, OSError."""
        if not self._payloads.acquire(blocking=False):
            return 0
        try:
            return self.retention.sweep(self._seconds(RETENTION, "payloads"), self._clock(), self.pace)
        finally:
            self._payloads.release()

    def pause(self) -> float:
        """Seconds until the next look: ten, or a tenth of the shortest time that a model gives. A look reads only what
        is new."""
        times = [*self._seconds(RETENTION, "payloads").values(), *self._seconds(ROTATION, "keys").values()]
        return max(1.0, min(10.0, min(times, default=100.0) / 10))

    # -- backup -------------------------------------------------------------------------------------------------------

    @contextmanager
    def frozen(self) -> Iterator[str]:
        """Meanwhile nothing that lies under a name and none of the archive's own keys changes; the checkpoint over all
        that was appended."""
        with self._own:
            self._settle_all()
            yield self.ledger.checkpoint()

    def hold_payloads(self) -> None:
        """No payload is deleted until :meth:`let_payloads_go`. Raises Busy."""
        if not self._payloads.acquire(timeout=_PATIENCE):
            raise Busy("a backup of this archive is under way, or payloads are being deleted; try again later")

    def let_payloads_go(self) -> None:
        self._payloads.release()

    def sign_dossier(self, model: str, digest: str) -> str:
        """Signed note that a dossier about ``model`` has the index with this SHA-256. Raises :class:`Refused`."""
        if not _DIGEST.fullmatch(digest):
            raise Refused(400, f"expected a SHA-256 (64 hexadecimal digits), found {digest[:80]!r}")
        return self.ledger.signed_dossier(check_model(model), digest)

    # -- own keys -----------------------------------------------------------------------------------------------------

    def rotate(self) -> list[str]:
        """Rotate the archive's own keys that are older than the shortest rotation of its models; the purposes.

        Old keys go on opening what they sealed, and a new signing key is announced in the ledger, under both
        signatures. Raises ArchiveError, CryptoError, OSError.
        """
        with self._own:
            return self._rotate()

    def _rotate(self) -> list[str]:
        periods = self._seconds(ROTATION, "keys").values()
        events: list[KeyEvent] = []
        if periods:
            now = datetime.fromtimestamp(self._clock(), UTC)
            events = rotate_due(self._keyring, min(periods), ("ledger", "ledger-signing", "references"), now)
        for event in events:
            summary = {"action": event.action, "purpose": event.purpose, "keys": event.keys, "kek": event.kek}
            self._note_alone(ARCHIVE, "key", f"{event.purpose}:{event.action}", event.digest, summary)
        self._announce_signer()
        return [event.purpose for event in events]

    def _announce_signer(self) -> None:
        """A signing key that isn't the first one, said in the log that it signs: also after a rotation that was
        interrupted."""
        signer, *older = _signers(self._keyring, self.namespace)
        vkey = str(signer.verifier)
        if not older or self._announced == vkey:
            return
        said = self.ledger.find(ARCHIVE, id=SIGNER)
        if not any(decode_with(_entry_decoder, f.entry).summary.get("verifier") == vkey for f in said):
            self._note_alone(ARCHIVE, "key", SIGNER, "", {"verifier": vkey, "before": str(older[0].verifier)})
        self.ledger.sign_with(signer, tuple(older))
        self._announced = vkey

    def _seconds(self, reference: str, name: str) -> dict[str, float]:
        """What models say in a reference, in seconds; those that say nothing, or a century, are left out."""
        numbers = {model: self._refs.number(model, reference, name) for model in self.models()}
        return {model: value for model, value in numbers.items() if 0 < value < _FOR_EVER}

    def close(self) -> None:
        """Finish what is queued, snapshot the ledger, let go of the directory."""
        self.appender.close()
        self.ledger.close()
        os.close(self._guard)


def subject_of(purpose: str) -> str:
    """Whose keyset it is (a digest); "" where it is nobody's."""
    return purpose.removeprefix(SUBJECT).rpartition("-")[0] if purpose.startswith(SUBJECT) else ""


def _erasure(receipt: bytes) -> Erasure:
    try:
        return decode_json(receipt, type=Erasure)
    except msgspec.DecodeError as error:
        raise Refused(400, f"the receipt of an erasure: {error}") from None


def _changed(kind: str, model: str, name: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"{kind} {name} of {model} isn't what any of its ledger entries says: it was changed; restore it from a backup",
        index=0,
    )


def only_one(root: Path) -> int:
    """A handle that locks an archive's folder for this process. Raises ArchiveError, OSError."""
    handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ArchiveError(f"{root} is in use by another archive process; stop it first") from None
    return handle
