"""Whether a content is one of ours (EU AI Act, Art. 50): what it says of itself, and what a ledger shows of that.

Anybody can write a label or copy metadata, so that neither shows anything alone. A content is proved to be ours where
the record that its ProduceID names, or any record, has its SHA-256, and the record's entry is in the signed tree.
"""

import codecs
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec

from governed_api.governance import LABEL_WORDS
from governed_api.json_types import Json
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.verify.sources import LogSource
from governed_serving.archive.verify.verification import Verification, verify
from governed_serving.completions.generated import (
    choice_content,
    choice_number,
    content_digest,
    said_by_all,
    said_in,
    state_of,
)
from governed_serving.completions.labelling import LABELLED, LabelRecord
from governed_serving.crypto import CryptoError, Kek, Keyring, SegmentCipher
from governed_serving.decoding import decode_json, decode_with
from governed_serving.journal import JournalError, open_chunk, strings
from governed_serving.records import LedgerEntry, PredictionFrame

__all__ = ["MOST_BYTES", "AnotherKey", "Content", "Detection", "detect", "read_content"]

MOST_BYTES = 8 << 20
"""Of a content that is looked for."""
MOST_CHUNKS = 2000
"""Pieces of the journal in which a content without ProduceID is looked for, the newest."""
SHIPPED = 60.0
"""Seconds within which a record is in the ledger beside those of other pods."""
_FIELDS = ("", "data", "event", "id", "retry")
"""Of server-sent events; "": a comment."""
_COVERED = ("role", "content")
_SHOWN = 128
"""Characters that are repeated of a claim."""
_decoder = msgspec.json.Decoder(LedgerEntry)

Outcome = Literal["ours", "refuted", "unproved"]


class AnotherKey(ArchiveError):
    """The key given is none of the model whose record is to be opened."""


@dataclass(frozen=True)
class Content:
    """``digests``: SHA-256 of what is said, in the forms in which it may have been copied; none for metadata alone."""

    text: str
    digests: tuple[str, ...]
    produce_id: str = ""
    producer: str = ""
    told: str = ""
    """ReservedCode1."""
    alone: bool = False
    """A text that nothing else came with: of several choices it may be one."""
    cut: bool = False
    """A stream without its end."""
    beside: tuple[str, ...] = ()
    """Fields beside the contents, such as tool calls: no digest is of them."""


class Detection(msgspec.Struct):
    """``ours``: proved; ``refuted``: the record of its ProduceID is there and says otherwise, or the whole ledger has
    none; ``unproved``: nothing shows either. ``lines``: what was found, in words."""

    outcome: Outcome
    lines: list[tuple[str, str]]
    produce_id: str = ""
    entry: int | None = None


def read_content(data: bytes, produce_id: str = "") -> Content:
    """An answer as JSON, the events of a stream, metadata alone, or text; ``produce_id`` counts where it names none.
    Raises ArchiveError."""
    text = _text(data)
    answer = _object(text)
    if (stream := _streamed(text) if answer is None else None) is not None:
        answer, cut = stream
    else:
        cut = False
    metadata, said = _metadata(answer), _said(answer)
    if metadata is None:
        contents = dict.fromkeys(one for one in (said or "", *_copies(text)) if one.strip())
        digests = tuple(map(content_digest, contents))
        return Content(said or text, digests, produce_id, alone=said is None, cut=cut, beside=_beside(answer))
    given = _words(metadata, "ProduceID")
    if produce_id and given and produce_id != given:
        raise ArchiveError(f"--id {produce_id}: the content's own metadata says {given[:_SHOWN]}; leave one out")
    digests = (content_digest(said),) if said and said.strip() else ()
    producer, told = _words(metadata, "ContentProducer"), _words(metadata, "ReservedCode1")
    return Content(said or "", digests, given or produce_id, producer, told, cut=cut, beside=_beside(answer))


def _text(data: bytes) -> str:
    """In UTF-8, or in what PowerShell redirects into. Raises ArchiveError."""
    if len(data) > MOST_BYTES:
        raise ArchiveError(
            f"the content: expected at most {MOST_BYTES >> 20} MiB, found more; give the part in question"
        )
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        expected = "UTF-16, as its first bytes say" if wide else "UTF-8"
        raise ArchiveError(f"the content: expected text ({expected}), found other bytes at {error.start}") from None


def _copies(text: str) -> Iterator[str]:
    """Forms that a text had before it was copied into a file, by an editor of another system too."""
    for copy in (text, text.replace("\r\n", "\n")):
        yield from (copy, copy.removesuffix("\n").removesuffix("\r"), copy.strip())


def detect(content: Content, source: LogSource, *, vkey: str = "", model_key: Kek | None = None) -> Detection:
    """Hold ``content`` against a ledger, which is verified. Raises ArchiveError, NoteError for one that isn't what was
    signed."""
    lines = list(_claims(content))
    named = content.produce_id
    found, newest = _named(source, named) if named else (_searched(source, content, model_key), "")
    log = verify(source, vkey=vkey, id=found.id if found else "")
    trusted = "" if vkey else ", by its own word (--key-file names a key that you trust)"
    lines.append(("ledger", f"{log.origin}: {log.size:,} entries verified{trusted}"))
    if found is None:
        made = _made(named)
        later = made > 0 and made + SHIPPED > _seconds(newest)
        lines.append(("record", _nothing(content, log, searched=model_key is not None, later=later)))
        refuted = bool(named) and log.complete and not later
        return Detection("refuted" if refuted else "unproved", lines, named)
    index = max(proof.index for proof in log.proofs)
    lines.append(("record", f"entry {index} of {found.model}, {found.time}: request {found.id}"))
    outcome, words = _compared(content, _record(source, found, log, model_key), opened=model_key is not None)
    lines.append(("content", words))
    return Detection(outcome, lines, found.id, index)


def _claims(content: Content) -> Iterator[tuple[str, str]]:
    """What the content says of itself."""
    if content.produce_id:
        by = f" of producer {content.producer[:_SHOWN]!r}" if content.producer else ""
        yield "metadata", f"ProduceID {content.produce_id[:_SHOWN]}{by}: anybody can write it"
    else:
        yield "metadata", "none"
    if content.told and content.digests:
        same = content.told in content.digests
        yield "digest", f"the content {'is' if same else 'is not'} what its ReservedCode1 says"
    if content.beside:
        yield "beside", f"{', '.join(content.beside)[:_SHOWN]}: the digest isn't of them, they may have been changed"
    words = next((words for words in LABEL_WORDS.values() if words in content.text), "")
    yield "label", f"carries the words {words!r}: anybody can write them" if words else "none of the usual words"


def _nothing(content: Content, log: Verification, *, searched: bool, later: bool) -> str:
    if content.produce_id and not log.complete:
        return "none in this part of the ledger: ask the whole ledger for the ProduceID"
    if later:
        return "none yet: this ledger ends before the ProduceID was given, or a minute after; ask a newer one"
    if content.produce_id:
        return "none: no answer in this ledger has the ProduceID"
    if searched:
        return "no answer that could be opened has exactly this content; one that was changed or cut isn't found"
    return "nothing to look for: the content names no ProduceID, and searching needs the model's key (--model-key)"


def _compared(content: Content, record: LabelRecord | None, *, opened: bool) -> tuple[Outcome, str]:
    if not content.digests:
        return "unproved", "there is only metadata, or nothing is said: the record exists, of which content isn't shown"
    if record is None:
        how = "its record has no digest" if opened else "its record is sealed: --model-key opens it"
        return "unproved", f"whether the record is of this content isn't shown: {how}"
    if not record.content:
        return "unproved", "the record has no digest of what was said: the stream was cut, or its metadata was off"
    if record.content in content.digests:
        return "ours", "the record has the SHA-256 of this very content"
    if content.cut:
        return "unproved", "the file has no end of the stream, and its record is of all of it"
    if content.alone and len(record.choices) > 1:
        return "unproved", f"the record is of {len(record.choices)} choices together: give the whole answer"
    return (
        "refuted",
        f"the record is of another content ({record.content}): it was changed since, or the ProduceID copied",
    )


def _named(source: LogSource, id: str) -> tuple[LedgerEntry | None, str]:
    """The last prediction of that id, and the time of the newest of all."""
    last, newest = None, ""
    for entry in _predictions(source):
        newest = max(newest, entry.time)
        if entry.id == id:
            last = entry
    return last, newest


def _made(id: str) -> float:
    """Seconds since 1970 at which a server gave the id (RFC 9562, UUIDv7); 0: it tells none."""
    try:
        known = UUID(id)
    except ValueError:
        return 0.0
    return (known.int >> 80) / 1000 if known.version == 7 else 0.0


def _seconds(time: str) -> float:
    """Of an entry's time; 0: of none."""
    try:
        return datetime.fromisoformat(time).astimezone(UTC).timestamp()
    except ValueError:
        return 0.0


def _searched(source: LogSource, content: Content, key: Kek | None) -> LedgerEntry | None:
    """The prediction whose record has the content's digest, as far as the key opens them."""
    if key is None or not content.digests:
        return None
    chunks: OrderedDict[tuple[str, str], dict[int | None, LedgerEntry]] = OrderedDict()
    for one in _predictions(source):
        if one.blob:
            chunks.setdefault((one.model, one.blob), {})[one.frame] = one
        while len(chunks) > MOST_CHUNKS:  # of a long ledger only what is looked through is kept
            chunks.popitem(last=False)
    ciphers: dict[str, SegmentCipher | None] = {}
    for (model, blob), entries in reversed(chunks.items()):
        if model not in ciphers:
            ciphers[model] = _cipher(source, key, model)
        for number, record in _records(source, blob, ciphers[model]):
            entry = entries.get(number)
            if record.content in content.digests and entry is not None:
                return entry
    return None


def _record(source: LogSource, entry: LedgerEntry, log: Verification, key: Kek | None) -> LabelRecord | None:
    """What the entry's record says of labels; of the entries of one request, that of its complete answer. The entries
    are those that were proved."""
    if key is None:
        return None
    cipher = _cipher(source, key, entry.model)
    if cipher is None:
        raise AnotherKey(f"--model-key: expected the key of {entry.model}, found another, or the key was destroyed")
    best = None
    for proof in log.proofs:
        proved = decode_json(bytes(proof.entry), type=LedgerEntry)
        if proved.type == "prediction" and proved.model == entry.model:
            for number, record in _records(source, proved.blob, cipher):
                best = record if number == proved.frame and (best is None or record.content) else best
    return best


def _records(source: LogSource, blob: str, cipher: SegmentCipher | None) -> Iterator[tuple[int, LabelRecord]]:
    """(frame, record) of the labelled answers in a piece of the journal; none of one that is gone."""
    if cipher is None:
        return
    try:
        frames = open_chunk(source.blob_bytes(blob), cipher)
    except (FileNotFoundError, CryptoError, JournalError):
        return
    for number, frame in frames:
        if isinstance(frame, PredictionFrame) and state_of(frame) in ("complete", "cut"):
            column = frame.outputs.get(LABELLED)
            if column is not None:
                yield number, decode_json(str(strings(column)[0]), type=LabelRecord)


def _cipher(source: LogSource, key: Kek, model: str) -> SegmentCipher | None:
    try:
        return SegmentCipher(Keyring(key, source.keysets(model)).keyset("journal", create=False))
    except CryptoError:
        return None


def _predictions(source: LogSource) -> Iterator[LedgerEntry]:
    for leaf in source.leaves(Checkpoint.unverified(source.checkpoint()).size):
        try:
            entry = decode_with(_decoder, leaf.data)
        except msgspec.DecodeError:
            continue  # verification names it
        if entry.type == "prediction":
            yield entry


def _object(text: str) -> dict[str, Json] | None:
    try:
        value = decode_json(text)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) else None


def _streamed(text: str) -> tuple[dict[str, Json], bool] | None:
    """(the answer that server-sent events make, whether their end is missing); None for what isn't such events."""
    contents: dict[int, list[str]] = {}
    beside: dict[str, Json] = {}
    metadata: Json = None
    ended = False
    for line in text.replace("\r\n", "\n").split("\n"):
        name, colon, value = line.partition(":")
        if line and not (colon and name in _FIELDS):
            return None
        event = _object(value) if name == "data" else None
        ended = ended or (name == "data" and value.strip() == "[DONE]")
        metadata = (event or {}).get("AIGC") or metadata
        for number, words in _spoken(event):
            contents.setdefault(number, []).append(words)
        beside |= dict.fromkeys(_beside(event), True)
    if not contents and metadata is None:
        return None
    said = {number: beside | {"content": "".join(words)} for number, words in contents.items()}
    choices: list[Json] = [{"index": number, "delta": one} for number, one in said.items()]
    return {"choices": choices, "AIGC": metadata}, not ended


def _metadata(answer: dict[str, Json] | None) -> dict[str, Json] | None:
    """Of an answer, or standing alone."""
    if answer is None:
        return None
    inner = answer.get("AIGC", answer if "ProduceID" in answer else None)
    return inner if isinstance(inner, dict) and inner.get("ProduceID") else None


def _words(metadata: dict[str, Json], name: str) -> str:
    value = metadata.get(name)
    return value if isinstance(value, str) else ""


def _said(answer: dict[str, Json] | None) -> str | None:
    """The choices' contents as their digest takes them; None where there are no choices."""
    spoken = dict(_spoken(answer))
    return said_by_all(spoken) if spoken else None


def _beside(answer: dict[str, Json] | None) -> tuple[str, ...]:
    """What else the choices of an answer have."""
    choices = answer.get("choices") if answer else None
    told = [said_in(choice) for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return tuple(sorted({name for one in told for name, value in one.items() if value and name not in _COVERED}))


def _spoken(answer: dict[str, Json] | None) -> Iterator[tuple[int, str]]:
    """(number, content) of each choice of an answer or of a chunk."""
    choices = answer.get("choices") if answer else None
    for place, choice in enumerate(choices) if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield choice_number(choice, place), choice_content(choice)
