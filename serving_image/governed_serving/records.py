"""Wire types that rooms exchange: journal frames and ledger entries.

Frames are msgpack (msgspec, tagged arrays) inside the encrypted journal; ledger entries are canonical JSON (UTF-8,
sorted keys, no spaces) and are the leaves of the RFC 6962 tree.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from governed_serving.decoding import decode_with

__all__ = [
    "APPEND_BYTES",
    "CALLER_FORM",
    "DECISION_STREAM",
    "ENTRY_BYTES",
    "ENTRY_TYPES",
    "EVENT_TYPES",
    "RETENTION",
    "ROTATION",
    "UNITS",
    "VERDICT",
    "AppendRequest",
    "Column",
    "Erasure",
    "EventRecord",
    "EventType",
    "ExplanationRecord",
    "Frame",
    "LedgerEntry",
    "PredictionFrame",
    "SubjectFrame",
    "Use",
    "artefact_reference",
    "canonical",
    "decode_frame",
    "encode_frame",
    "is_bias_verdict",
    "making_reference",
    "personal_key",
    "timestamp",
    "within_limit",
]


_EventType = Literal[
    "acknowledgement", "explanationQuality", "importanceDrift", "label", "promiseKey", "review", "verdict"
]
if TYPE_CHECKING:
    EventType = _EventType
else:  # what another version wrote can be read all the same
    EventType = str

EVENT_TYPES: frozenset[str] = frozenset(get_args(_EventType))
ENTRY_TYPES = EVENT_TYPES | {
    "artefact",
    "dataset",
    "deadLetter",
    "explanation",
    "gates",
    "key",
    "prediction",
    "training",
    "unreadable",
}
"""Types of entries that the archive takes from models' pods: one that it refuses is replaced by a
``deadLetter`` (digest, size and why), which stands in its place; ``unreadable`` stands in the place of frames of a
journal that were damaged before they were shipped (how many, where they lay, their bytes' SHA-256)."""

ENTRY_BYTES = (1 << 16) - 1
"""Largest ledger entry (bytes of canonical JSON), as C2SP tlog-tiles prefixes entries with 16 bits of length: whoever
writes one keeps to it, the archive refuses a larger one."""

APPEND_BYTES = 16 << 20
"""Largest body of an append (bytes): writers stay far below, since an entry may be ``ENTRY_BYTES`` long."""

DECISION_STREAM = "decision-"
"""Begins the name of a stream of one entry, which closes the contest whose entry it names; no journal is behind it."""

VERDICT = "verdict"
"""Type of the entries of bias verdicts, and of alarms beside them: :func:`is_bias_verdict` tells them apart."""

RETENTION = "retention"
"""Name of a model's reference in the archive: {"payloads": seconds or null}, how long what requests said is kept."""


ROTATION = "rotation"
"""Likewise: {"keys": seconds or null}, how old a key may get before another one takes over."""


UNITS = ("cached", "microseconds", "rows", "started", "tokensIn", "tokensOut")
"""What ledger entries of predictions say that a caller used, where one is known (``summary.units``), whole numbers from
0: rows; microseconds that the model worked, its batch's shared by rows; tokens read, of them those that the runtime
says it had cached, and tokens written. ``started`` alone: a completion began; the entry of its end says what it
used."""

CALLER_FORM = re.compile(r"[0-9a-f]{32}")
"""Of a caller's pseudonym."""


def artefact_reference(digest: str) -> str:
    """Name of the reference to the artefact with SHA-256 ``digest`` (``sha256:…``): {"blob": address, …}."""
    return f"artefact-{digest.removeprefix('sha256:')}"


def making_reference(key: str) -> str:
    """Name of the reference to what the training or import with that key made: {"artefact": …, …}."""
    return f"training-{key}"


class Column(msgspec.Struct, array_like=True, frozen=True):
    """One feature or output over all rows of a frame.

    ``dtype`` is a V2 datatype (FP32, FP64, INT64, BOOL, BYTES). Numeric: ``data`` holds little-endian values, shape
    (rows, *width*). BYTES: ``values`` is the dictionary of distinct strings and ``data`` int32 codes into it, shape
    (rows,).

    ``shape``: of the tensor that the one row of the frame is, where requests choose it. Of a large one nothing is kept
    but ``sha256`` (hex) of the ``data`` (BYTES: of each string behind its length, u32 little-endian): ``data`` is
    empty then.
    """

    dtype: str
    data: bytes
    values: list[str] = []
    width: int = 1
    shape: list[int] | None = None
    sha256: str = ""


class PredictionFrame(msgspec.Struct, array_like=True, tag_field="kind", tag="p", frozen=True):
    """The predictions of one group commit: many requests, columnar.

    ``times`` float64 seconds since the epoch, shape (requests,); ``rows`` int32 rows per request, shape (requests,).
    Every column of ``features`` (already masked) and ``outputs`` has sum(rows) rows, in request order. ``ids`` are
    ours; ``client_ids`` (masked, "" for none) are what clients called their requests, never unique: empty, or one per
    request. ``callers`` are pseudonyms of those who asked (governed_api.callers.caller_pseudonym, "" for none): empty
    where nobody was asked who they are, or one per request. ``units``: what they used by name (UNITS), int64 little-
    endian, shape (requests,); rows are counted by ``rows``.
    """

    model: str
    revision: str
    artefact: str
    ids: list[str]
    times: bytes
    rows: bytes
    features: dict[str, Column]
    outputs: dict[str, Column]
    client_ids: list[str] = []
    callers: list[str] = []
    units: dict[str, bytes] = {}


class SubjectFrame(msgspec.Struct, array_like=True, tag_field="kind", tag="s", frozen=True):
    """Predictions about one person (a data subject): as :class:`PredictionFrame`, but what was asked and answered is
    sealed under a key of that person's own, which can be destroyed.

    ``subject``: keyed digest (hex) of who it is; ``key``: purpose of the keyset; ``sealed``: msgpack of features,
    outputs and client ids. ``callers`` and ``units`` as there: who asked, and how much, isn't what was asked.
    """

    model: str
    revision: str
    artefact: str
    ids: list[str]
    times: bytes
    rows: bytes
    subject: str
    key: str
    sealed: bytes
    callers: list[str] = []
    units: dict[str, bytes] = {}


class ExplanationRecord(msgspec.Struct, array_like=True, tag_field="kind", tag="x", frozen=True):
    """One explanation as it was answered; ``body`` is the JSON that went out."""

    id: str
    model: str
    revision: str
    time: float
    body: bytes


class EventRecord(msgspec.Struct, array_like=True, tag_field="kind", tag="e", frozen=True):
    """Anything else that must be provable: a verdict, a late label, an acknowledgement. ``type`` is the ledger entry's
    type. One about a data subject has in its summary ``subject`` and ``key``, as :class:`SubjectFrame` has, and its
    ``body`` is sealed once more."""

    type: EventType
    id: str
    model: str
    revision: str
    time: float
    body: bytes
    summary: dict[str, Any] = {}


def personal_key(record: EventRecord) -> str:
    """Purpose of the person's keyset that a record's body is sealed under, "" where it isn't."""
    key = record.summary.get("key")
    return key if isinstance(key, str) and key.startswith("subject-") else ""


Frame = PredictionFrame | SubjectFrame | ExplanationRecord | EventRecord

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Plaintext bytes of one journal frame."""
    return _encoder.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """Inverse of :func:`encode_frame`; raises ``msgspec.ValidationError`` on anything else."""
    return decode_with(_decoder, data)


class LedgerEntry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A leaf of the ledger. ``blob`` is the SHA-256 (hex) of the *ciphertext* that holds the content."""

    type: str
    namespace: str
    model: str
    id: str
    time: str
    revision: str = ""
    blob: str = ""
    frame: int | None = None
    index: int | None = None
    digest: str = ""
    summary: dict[str, Any] = {}
    v: int = 1


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """Receipt of a person's erasure, kept in the place of the key that is destroyed: how many predictions were about
    them, from which ledger entry to which, who erased them and why.

    The ledger has the first three; ``by`` and ``reason`` are in the receipt alone. The rest is as in a key event.
    """

    predictions: int
    first: int | None = None
    last: int | None = None
    by: str = ""
    reason: str = ""
    time: str = ""


class Use(msgspec.Struct, frozen=True):
    """What a caller (a pseudonym) used, as an entry's summary says it: numbers by name (UNITS), none where the server
    was of a version that didn't say."""

    caller: str
    units: dict[str, int] = {}

    @classmethod
    def said_in(cls, summary: Mapping[str, object]) -> "Use | None":
        """None where no caller is named, or what is said isn't of this form."""
        caller, units = summary.get("caller"), summary.get("units", {})
        if not isinstance(caller, str) or not CALLER_FORM.fullmatch(caller) or not isinstance(units, dict):
            return None
        if not all(name in UNITS and type(number) is int and 0 <= number < 1 << 53 for name, number in units.items()):
            return None
        return cls(caller, units)

    def summary(self) -> dict[str, object]:
        """The inverse."""
        return {"caller": self.caller, **({"units": self.units} if self.units else {})}


class AppendRequest(msgspec.Struct, frozen=True):
    """Body of POST /v1/ledger/entries (msgpack): ``entries`` are canonical JSON leaves numbered from ``first_seq`` in
    ``stream``."""

    stream: str
    first_seq: int
    entries: list[bytes]


def is_bias_verdict(entry: LedgerEntry) -> bool:
    """Whether an entry says that bias metrics hold or don't; one of an alarm has the same type."""
    return entry.type == VERDICT and "verdict" in entry.summary


def canonical(entry: LedgerEntry) -> bytes:
    """The one byte form of an entry: sorted keys, no spaces, defaults left out except ``v`` and ``type``."""
    data = msgspec.to_builtins(entry)
    return msgspec.json.encode({"v": entry.v, **data}, order="deterministic")


def within_limit(entry: LedgerEntry) -> LedgerEntry:
    """``entry``, its summary replaced by digest and length where it would be larger than ``ENTRY_BYTES``."""
    if len(canonical(entry)) <= ENTRY_BYTES:
        return entry
    summary = msgspec.json.encode(entry.summary, order="deterministic")
    told = {"leftOut": {"bytes": len(summary), "sha256": sha256(summary).hexdigest()}}
    return msgspec.structs.replace(entry, summary=told)


def timestamp(seconds: float) -> str:
    """RFC 3339 UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
