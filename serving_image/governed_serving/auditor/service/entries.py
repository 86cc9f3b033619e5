"""Ledger entries of a shipped chunk: one per prediction, explanation and event; and what stands for one that is
refused."""

import hashlib
import json
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from governed_api.names import request_id_fault
from governed_serving.decoding import decode_with
from governed_serving.journal import Chunk, Gap
from governed_serving.records import (
    UNITS,
    EventRecord,
    ExplanationRecord,
    Frame,
    LedgerEntry,
    PredictionFrame,
    SubjectFrame,
    Use,
    canonical,
    timestamp,
)

__all__ = ["Unreadable", "dead_letter", "entries_of"]

_WHY = 400
_NAME = 128


class Unreadable(msgspec.Struct, frozen=True):
    """Frames ``first`` … ``last`` of a stream, which were damaged before they were shipped: as found at ``time``, in
    ``length`` bytes from ``offset`` of ``segment``, kept as ``kept`` beside it ("": no room, or nothing left)."""

    first: int
    last: int
    tag: str
    segment: int
    offset: int
    length: int
    digest: str
    why: str
    kept: str
    time: float

    @classmethod
    def of(cls, gap: Gap, kept: str, time: float) -> "Unreadable":
        """What is written down of a gap."""
        where = (gap.segment, gap.offset, gap.length, gap.digest)
        return cls(gap.seq, gap.last_seq, gap.tag.hex(), *where, _bounded(gap.why, _WHY), kept, time)

    @property
    def frames(self) -> int:
        """How many."""
        return self.last + 1 - self.first

    def entry(self, namespace: str, model: str, stream: str) -> bytes:
        """The ledger entry that takes the place of the frames' own. The same bytes whenever it is asked."""
        summary: dict[str, str | int] = {
            "stream": _bounded(stream, _NAME),
            "frames": self.frames,
            "first": self.first,
            "last": self.last,
            "segment": self.segment,
            "offset": self.offset,
            "length": self.length,
            "kept": self.kept,
        }
        if self.why:
            summary["why"] = self.why
        time, digest = timestamp(self.time), self.digest
        return canonical(LedgerEntry("unreadable", namespace, model, "", time, digest=digest, summary=summary))


class _Head(msgspec.Struct):
    """What of a refused entry says whose it is and where its content lies; the rest may be what is wrong with it."""

    type: str
    namespace: str
    model: str
    id: str
    time: str
    revision: str = ""
    blob: str = ""
    frame: int | None = None
    index: int | None = None
    summary: dict[str, object] = {}


_head_decoder = msgspec.json.Decoder(_Head)


def dead_letter(refused: bytes, why: str, stream: str, number: int) -> bytes:
    """The entry that takes the place of ``refused`` as ``number`` of ``stream``: whatever was refused, this one is
    bounded (below 3 kB) and canonical.

    It names the blob, frame and index of the content, which stays readable there, and what a caller used. The same
    arguments give the same bytes, so that it may be sent again.
    """
    head = decode_with(_head_decoder, refused)
    entry = LedgerEntry(
        "deadLetter",
        head.namespace,
        head.model,
        "" if request_id_fault(head.id) else head.id,
        head.time,
        _bounded(head.revision, _NAME),
        blob=head.blob,
        frame=head.frame,
        index=head.index,
        digest=hashlib.sha256(refused).hexdigest(),
        summary={
            "refused": _bounded(head.type, _NAME),
            "size": len(refused),
            "why": _bounded(why, _WHY),
            "stream": _bounded(stream, _NAME),
            "sequence": number,
            **(use.summary() if (use := Use.said_in(head.summary)) else {}),
        },
    )
    return canonical(entry)


def _bounded(text: str, most: int) -> str:
    """At most ``most`` printable characters (a lone surrogate, which JSON can bring in, can't be encoded again)."""
    return "".join(c if c.isprintable() else " " for c in text[:most])


def entries_of(chunk: Chunk, namespace: str) -> Iterator[tuple[bytes, Frame]]:
    """(canonical entry, its record), in the order of the stream. The same chunk gives the same bytes, whenever it is
    asked."""
    blob = chunk.digest
    for seq, record in enumerate(chunk.records, chunk.first_seq):
        if isinstance(record, PredictionFrame | SubjectFrame):
            for entry in _predictions(record, blob, seq, namespace):
                yield entry, record
        else:
            yield canonical(_single(record, blob, seq, namespace)), record


def _single(record: ExplanationRecord | EventRecord, blob: str, seq: int, namespace: str) -> LedgerEntry:
    event = isinstance(record, EventRecord)
    return LedgerEntry(
        record.type if isinstance(record, EventRecord) else "explanation",
        namespace,
        record.model,
        record.id,
        timestamp(record.time),
        record.revision,
        blob=blob,
        frame=seq,
        summary=record.summary if isinstance(record, EventRecord) and event else {},
    )


def _predictions(frame: PredictionFrame | SubjectFrame, blob: str, seq: int, namespace: str) -> Iterator[bytes]:
    """Byte for byte what ``canonical`` makes, from a template: the part that differs is three fields (a test compares
    them)."""
    summary = {"subject": frame.subject} if isinstance(frame, SubjectFrame) else {}
    empty = LedgerEntry("prediction", namespace, frame.model, "", "", frame.revision, blob, seq, 0, summary=summary)
    templates: dict[str, _Template] = {}
    times = np.frombuffer(frame.times, "<f8").tolist()
    stamps: dict[float, bytes] = {}
    units = _units(frame)
    marked = {"units": "\u241d"} if units else {}
    for index, (request, time) in enumerate(zip(frame.ids, times, strict=True)):
        stamp = stamps.get(time)
        if stamp is None:
            stamp = stamps[time] = b'"' + timestamp(time).encode() + b'"'
        name = json.dumps(request, ensure_ascii=False).encode()
        caller = frame.callers[index] if frame.callers else ""
        template = templates.get(caller)
        if template is None:
            template = templates[caller] = _template(empty, caller, marked)
        head, before, after, tail = template
        if caller and units:
            after = after.replace(_UNITS, units[index], 1)
        yield b"".join((head, name, before, b"%d" % index, after, stamp, tail))


def _units(frame: PredictionFrame | SubjectFrame) -> list[bytes]:
    """What each request used, as it stands in its entry; none where the server didn't say a number of each."""
    said = {name: data for name, data in frame.units.items() if name in UNITS and len(data) == 8 * len(frame.ids)}
    if not said:
        return []
    columns = {name: np.frombuffer(data, "<i8").tolist() for name, data in said.items()}
    if "started" not in columns:
        columns["rows"] = np.frombuffer(frame.rows, "<i4").tolist()
    names = sorted(columns)
    values = zip(*(columns[name] for name in names), strict=True)
    return [msgspec.json.encode(dict(zip(names, one, strict=True))) for one in values]


_UNITS = b'"\xe2\x90\x9d"'
_Template = tuple[bytes, bytes, bytes, bytes]
"""What is before an entry's id, its index and its time, and behind all; ``_UNITS`` stands for what was used."""


def _template(empty: LedgerEntry, caller: str, units: Mapping[str, object]) -> _Template:
    """Of entries of one frame that ``caller`` ("": nobody known) asked for."""
    summary = {**empty.summary, "caller": caller, **units} if caller else empty.summary
    example = msgspec.structs.replace(empty, id="\u241f", time="\u241e", summary=summary)
    head, rest = canonical(example).split(b'"\xe2\x90\x9f"')
    between, tail = rest.split(b'"\xe2\x90\x9e"')
    before, after = between.split(b'"index":0', 1)
    return head, before + b'"index":', after, tail
