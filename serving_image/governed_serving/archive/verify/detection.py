"""Whether a content is one of ours (EU AI Act, Art. 50): what it says of itself, and what a ledger shows of that.

Anybody can write a label or copy metadata, so that neither shows anything alone. A content is proved to be ours where
the record that its ProduceID names, or any record, has its SHA-256, and the record's entry is in the signed tree.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
    state_of,
)
from governed_serving.completions.labelling import LABELLED, LabelRecord
from governed_serving.crypto import CryptoError, Kek, Keyring, SegmentCipher
from governed_serving.decoding import decode_json, decode_with
from governed_serving.journal import JournalError, open_chunk, strings
from governed_serving.records import LedgerEntry, PredictionFrame

__all__ = ["MOST_BYTES", "Content", "Detection", "detect", "read_content"]

MOST_BYTES = 8 << 20
"""Of a content that is looked for."""
MOST_CHUNKS = 2000
"""Pieces of the journal in which a content without ProduceID is looked for, the newest."""
_SHOWN = 128
"""Characters that are repeated of a claim."""
_decoder = msgspec.json.Decoder(LedgerEntry)

Outcome = Literal["ours", "refuted", "unproved"]


@dataclass(frozen=True)
class Content:
    """``digests``: SHA-256 of what is said, in the forms in which it may have been copied; none for metadata alone."""

    text: str
    digests: tuple[str, ...]
    produce_id: str = ""
    producer: str = ""
    told: str = ""
    """ReservedCode1."""


class Detection(msgspec.Struct):
    """``ours``: proved; ``refuted``: the record of its ProduceID is there and says otherwise, or the whole ledger has
    none; ``unproved``: nothing shows either. ``lines``: what was found, in words."""

    outcome: Outcome
    lines: list[tuple[str, str]]
    produce_id: str = ""
    entry: int | None = None


def read_content(data: bytes, produce_id: str = "") -> Content:
    """An answer as JSON, its metadata alone, or text; ``produce_id`` counts where it names none. Raises
    ArchiveError."""
    if len(data) > MOST_BYTES:
        raise ArchiveError(
            f"the content: expected at most {MOST_BYTES >> 20} MiB, found more; give the part in question"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ArchiveError(f"the content: expected text (UTF-8), found other bytes at {error.start}") from None
    answer = _object(text)
    metadata = _metadata(answer)
    if metadata is None:
        copies = dict.fromkeys([text, text.removesuffix("\n").removesuffix("\r"), text.strip()])
        return Content(text, tuple(map(content_digest, copies)) if text.strip() else (), produce_id)
    said = _said(answer)
    given = _words(metadata, "ProduceID")
    if produce_id and given and produce_id != given:
        raise ArchiveError(f"--id {produce_id}: the content's own metadata says {given}; leave one out")
    digests = (content_digest(said),) if said is not None else ()
    told = _words(metadata, "ReservedCode1")
    return Content(said or "", digests, given or produce_id, _words(metadata, "ContentProducer"), told)


def detect(content: Content, source: LogSource, *, vkey: str = "", model_key: Kek | None = None) -> Detection:
    """Hold ``content`` against a ledger, which is verified. Raises ArchiveError, NoteError for one that isn't what was
    signed."""
    lines = list(_claims(content))
    named = content.produce_id
    found = _named(source, named) if named else _searched(source, content, model_key)
    log = verify(source, vkey=vkey, id=found.id if found else "")
    trusted = "" if vkey else ", by its own word (--key-file names a key that you trust)"
    lines.append(("ledger", f"{log.origin}: {log.size:,} entries verified{trusted}"))
    if found is None:
        lines.append(("record", _nothing(content, log, searched=model_key is not None)))
        refuted = bool(named) and log.complete
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
    words = next((words for words in LABEL_WORDS.values() if words in content.text), "")
    yield "label", f"carries the words {words!r}: anybody can write them" if words else "none of our own words"


def _nothing(content: Content, log: Verification, *, searched: bool) -> str:
    if content.produce_id and not log.complete:
        return "none in this part of the ledger: ask the whole ledger for the ProduceID"
    if content.produce_id:
        return "none: no answer in this ledger has the ProduceID (records are shipped within seconds of their answers)"
    if searched:
        return "no answer that could be opened has exactly this content; one that was changed or cut isn't found"
    return "nothing to look for: the content names no ProduceID, and searching needs the model's key (--model-key)"


def _compared(content: Content, record: LabelRecord | None, *, opened: bool) -> tuple[Outcome, str]:
    if not content.digests:
        return "unproved", "there is only metadata: its record exists, of which content it tells nothing"
    if record is None:
        how = "its record has no digest" if opened else "its record is sealed: --model-key opens it"
        return "unproved", f"whether the record is of this content isn't shown: {how}"
    if not record.content:
        return "unproved", "the record has no digest of what was said: the stream was cut, or its metadata was off"
    if record.content in content.digests:
        return "ours", "the record has the SHA-256 of this very content"
    return (
        "refuted",
        f"the record is of another content ({record.content}): it was changed since, or the ProduceID copied",
    )


def _named(source: LogSource, id: str) -> LedgerEntry | None:
    """The last prediction of that id."""
    last = None
    for entry in _predictions(source):
        if entry.id == id:
            last = entry
    return last


def _searched(source: LogSource, content: Content, key: Kek | None) -> LedgerEntry | None:
    """The prediction whose record has the content's digest, as far as the key opens them."""
    if key is None or not content.digests:
        return None
    entries = {(entry.blob, entry.frame): entry for entry in _predictions(source) if entry.blob}
    chunks = dict.fromkeys((entry.model, blob) for (blob, _), entry in entries.items())
    ciphers: dict[str, SegmentCipher | None] = {}
    for model, blob in reversed(list(chunks)[-MOST_CHUNKS:]):
        if model not in ciphers:
            ciphers[model] = _cipher(source, key, model)
        for number, record in _records(source, blob, ciphers[model]):
            entry = entries.get((blob, number))
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
        raise ArchiveError(f"--model-key: expected the key of {entry.model}, found another, or the key was destroyed")
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
    choices = answer.get("choices") if answer else None
    if not isinstance(choices, list) or not choices:
        return None
    numbered = ((place, choice) for place, choice in enumerate(choices) if isinstance(choice, dict))
    return said_by_all({choice_number(choice, place): choice_content(choice) for place, choice in numbered})
