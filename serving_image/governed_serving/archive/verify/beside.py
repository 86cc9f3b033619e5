"""Journals held against the ledger that they were shipped to: chain, content, and where shipping stands."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.held_blobs import HeldBlobs
from governed_serving.archive.verify.truth import Shipped, Truth
from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.crypto.document import KeysetDocument
from governed_serving.crypto.segment import TAG_BYTES
from governed_serving.decoding import decode_json
from governed_serving.journal import Cursor, Gap, JournalReader, RawFrame, cursor_text, streams
from governed_serving.journal.acknowledged import ACKNOWLEDGED, Mark, read_mark
from governed_serving.journal.format import parse_segment, same_copies
from governed_serving.journal.reader import identity_of
from governed_serving.journal.segment import segment_path, segments

__all__ = ["Beside", "ShippedTo", "Spools"]

_CURSOR = "shipped-"
_KEPT = frozenset({"auditor", "cursors", "explanations", "journal", "keyset-cache", "keysets"})
_WORKING = "what processes work with (counts, explanations, drafts): sealed, and no evidence"


class ShippedTo(Cursor, frozen=True, forbid_unknown_fields=True):
    """``cursors/shipped-STREAM``, as the auditor's shipper writes it."""

    number: int = 0
    last: int | None = None
    sent: int = 0
    refused: str = ""
    dead_letters: int = 0
    gap: dict[str, Any] | None = None
    unreadable: int = 0


@dataclass(frozen=True)
class Beside:
    """What lies beside an archive's folder on the same machine. ``keks``: key-encryption keys by model."""

    spools: Mapping[str, Path] = field(default_factory=dict)
    """By the name that findings give them."""
    reports: Mapping[str, Path] = field(default_factory=dict)
    keks: Mapping[str, Kek] = field(default_factory=dict)
    whole: bool = False
    """All that a run keeps is here: what is missing is a finding."""
    elsewhere: tuple[str, ...] = ()
    """What else a run keeps, in words: it is said that nothing looks at it."""


class _Stream:
    """One stream of a journal."""

    def __init__(self, spool: "_Spool", name: str):
        self.spool, self.name = spool, name
        self.place = f"{spool.place}/journal/{name}"
        self.folder = spool.root / "journal" / name
        self.identity, self.next = "", 0
        self.tags: dict[int, bytes] = {}
        self.opened: set[int] = set()
        """Segments of which a frame was read."""

    def read(self) -> bool:
        """Follow the chain; whether it could be read to its end."""
        findings, mark = self.spool.findings, read_mark(self.folder)  # before the frames, which are only ahead of it
        first = segments(self.folder)
        if not first:
            return False
        self.identity = identity_of(self.folder)
        if not self.identity:
            findings.skip(self.place, "its only segment has no header: a process was killed as it began")
            return False
        self.next = first[0]
        shipped = self.spool.truth.shipped.get(self.identity)
        cipher = self.spool.cipher(shipped.model if shipped else "")
        if cipher is None:
            findings.skip(self.place, "the model's key-encryption key isn't here: its frames can't be opened")
            return False
        kept = {shipped.frame if shipped else -1}
        if (cursor := self.spool.cursors.get(self.name)) is not None:
            kept.add(cursor.frame - 1)
        ends: dict[int, int] = {}
        for piece in JournalReader(self.spool.root, self.name, cipher).pieces(first[0]):
            self.next = piece.last_seq + 1
            if isinstance(piece, Gap):
                ends[piece.segment] = piece.end
                self._say_gap(piece, shipped)
                continue
            piece.record()
            self._check_bytes(piece)
            self.opened.add(piece.header.first_seq)
            ends[piece.header.first_seq] = piece.end
            if piece.seq in kept:
                self.tags[piece.seq] = piece.tag
        self._check_ends(ends)
        self._check_mark(mark)
        return True

    def _check_mark(self, mark: Mark | None) -> None:
        """What callers were told of is here."""
        path = self.folder / ACKNOWLEDGED
        place = f"{self.place}/{path.name}"
        if mark is None and (path.exists() or self.next):
            why = "doesn't say up to which frame callers were told: it was changed or taken away, or a kill came before"
            self.spool.findings.skip(place, why)
        elif mark is not None and f"{self.name}.{mark.identity}" != self.identity:
            self.spool.findings.fault(
                place, f"is of stream {self.name}.{mark.identity}, the journal is {self.identity}"
            )
        elif mark is not None and mark.next_seq > self.next:
            told = f"callers were told of the frames below {mark.next_seq}"
            self.spool.findings.fault(self.place, f"ends before frame {self.next}, {told}: its tail was cut")
        elif mark is not None and mark.next_seq < self.next:
            state = f"is over the frames below {mark.next_seq}"
            self.spool.findings.note(place, f"{state}, the journal has those below {self.next}: a power cut, or older")

    def _say_gap(self, gap: Gap, shipped: Shipped | None) -> None:
        """Frames that can't be read: a disk's fault, or tampering. The ledger may have said so already."""
        place = f"{self.place}/{segment_path(self.folder, gap.segment).name}"
        told = gap.frames and any(a <= gap.seq and gap.last_seq <= b for a, b in (shipped.gaps if shipped else []))
        if told:
            self.spool.findings.skip(
                place, f"{gap}; an unreadable entry of the ledger says so: what was in them is lost"
            )
        else:
            self.spool.findings.fault(place, f"{gap}: it was changed, and no entry of the ledger says so")

    def _check_bytes(self, frame: RawFrame) -> None:
        """What a reader mends is what was written; the file isn't."""
        path = segment_path(self.folder, frame.header.first_seq)
        with path.open("rb") as file:
            file.seek(frame.offset)
            if file.read(frame.end - frame.offset) == frame.raw:
                return
        place = f"{self.place}/{path.name}"
        self.spool.findings.fault(place, f"the head or the tag of frame {frame.seq} was changed: it reads all the same")

    def _check_ends(self, ends: Mapping[int, int]) -> None:
        """Nothing lies behind the last frame of a segment; behind that of the newest, a kill leaves what it began."""
        files = segments(self.folder)
        for first in files:
            path = segment_path(self.folder, first)
            data = path.read_bytes()
            place = f"{self.place}/{path.name}"
            if first in self.opened and not same_copies(data):
                self.spool.findings.fault(place, "a copy of its header was changed: it reads all the same")
            if ends.get(first) == len(data):
                continue
            parsed = parse_segment(data, self.name)
            end = ends.get(first, parsed[1] if parsed else 0)
            if end == len(data):
                continue
            behind = f"{len(data) - end} bytes behind its last whole frame"
            if first == files[-1]:
                self.spool.findings.skip(place, f"{behind}: a process was killed as it wrote, or they were changed")
            else:
                self.spool.findings.fault(place, f"{behind}, and the next segment follows that frame: it was changed")

    def compare(self, known: Shipped | None) -> None:
        """With the ledger: nothing between what was shipped and what is here is missing, and what is in both is the
        same."""
        findings, shipped = self.spool.findings, known.frame + 1 if known else 0
        oldest = segments(self.folder)[0]
        if oldest > shipped:
            findings.fault(
                self.place, f"begins with frame {oldest}, the ledger has those below {shipped}: some between are gone"
            )
        if self.next < shipped:
            findings.fault(
                self.place,
                f"ends before frame {self.next}, the ledger has those below {shipped}: it was cut, or put back",
            )
        if known and known.frame in self.tags:
            self._same_tag(known, self.tags[known.frame])
        if oldest:
            findings.note(self.place, f"begins with frame {oldest}: those before are in the ledger, and were trimmed")
        if self.next > shipped:
            findings.note(self.place, f"{self.next - shipped} frames at its end aren't in the ledger yet")

    def _same_tag(self, shipped: Shipped, tag: bytes) -> None:
        try:
            chunk = self.spool.blob(shipped.blob)
        except FileNotFoundError:
            return  # a finding of the blob's, or deleted under retention
        if chunk[-TAG_BYTES:] != tag:
            self.spool.findings.fault(
                self.place,
                f"frame {shipped.frame} isn't the one in the ledger (blob {shipped.blob[:12]}…): it was replaced",
            )


@dataclass(frozen=True)
class _Archive:
    """What spools are held against: the archive's folder and blobs, what its entries say, keys by model."""

    root: Path
    blobs: HeldBlobs
    truth: Truth
    keks: Mapping[str, Kek]


def _said(data: bytes) -> tuple[bytes, bool]:
    """Raises ArchiveError."""
    try:
        return cursor_text(data)
    except ValueError as error:
        raise ArchiveError(str(error)) from None


class _Cursors:
    """Where shipping from one pod's spool stands; what is wrong with how it says so."""

    def __init__(self, place: str, root: Path):
        self.place, self.root = place, root
        self.found: dict[str, ShippedTo] = {}
        self.findings = Findings()
        with self.findings.looking_at(place):
            self._read()

    def _read(self) -> None:
        for path in sorted((self.root / "cursors").glob(f"{_CURSOR}*")):
            place = f"{self.place}/cursors/{path.name}"
            with self.findings.looking_at(place):
                data, whole = _said(path.read_bytes())
                if not whole:
                    self.findings.fault(place, "was damaged in one of its two copies: the other one is used")
                cursor, told = decode_json(data, type=ShippedTo), decode_json(data)
                if msgspec.json.encode(told) != data:
                    raise ArchiveError("isn't as the shipper writes it: it was edited")
                if lacking := sorted(set(ShippedTo.__struct_fields__) - set(told)):
                    why = f"has no {', '.join(lacking)}: an older version wrote it, or it was edited"
                    self.findings.note(place, why)
                self.found[path.name.removeprefix(_CURSOR)] = cursor


class _Spool:
    """One pod's spool."""

    def __init__(self, cursors: "_Cursors", archive: _Archive, findings: Findings):
        self.place, self.root, self._archive, self.findings = cursors.place, cursors.root, archive, findings
        self.truth, self.cursors = archive.truth, cursors.found
        cursors.findings.onto(findings)
        self.identities: set[str] = set()
        self.frames = 0

    def cipher(self, model: str) -> SegmentCipher | None:
        """Of the model whose stream it is; where the ledger doesn't know the stream yet, of the only model there is."""
        keks = self._archive.keks
        models = [model] if model else list(keks)
        if len(models) != 1 or (kek := keks.get(models[0])) is None:
            return None
        store = DirectoryStore(self._archive.root / "keysets" / models[0])
        return SegmentCipher(Keyring(kek, store).keyset("journal", create=False))

    def blob(self, digest: str) -> bytes:
        return self._archive.blobs.content(digest)

    def check(self) -> None:
        for name in streams(self.root):
            stream = _Stream(self, name)
            with self.findings.looking_at(stream.place):
                if stream.read():
                    stream.compare(self.truth.shipped.get(stream.identity))
                    self.frames += stream.next
            self.identities.add(stream.identity)
            self._check_cursor(name, stream)
        for name in sorted(set(self.cursors) - set(streams(self.root))):
            self.findings.fault(f"{self.place}/journal/{name}", f"is missing: {_CURSOR}{name} says that it was shipped")
        self._check_cached_keysets()
        self._say_unknown()
        if any((self.root / name).exists() for name in ("auditor", "explanations", "cursors/explainer")):
            self.findings.note(f"{self.place}/auditor, /explanations, /cursors/explainer", _WORKING)

    def _say_unknown(self) -> None:
        """Files of no kind that a pod keeps here."""
        for path in sorted(p for p in self.root.rglob("*") if p.is_file()):
            place = path.relative_to(self.root)
            folder = place.parts[0]
            ours = folder in _KEPT and (folder != "cursors" or len(place.parts) > 2 or path.name.startswith(_CURSOR))
            if folder == "journal":
                ours = len(place.parts) == 3 and (
                    path.suffix == ".seg" or ".torn-" in path.name or path.name in (".lock", ACKNOWLEDGED)
                )
                if len(place.parts) == 3 and ".damaged-" in path.name:
                    why = "what couldn't be read of a segment, kept as evidence: its SHA-256 is in the ledger"
                    self.findings.note(f"{self.place}/{place.as_posix()}", why)
                    continue
            if not ours:
                self.findings.note(f"{self.place}/{place.as_posix()}", "nothing accounts for this file: not looked at")

    def _check_cursor(self, name: str, stream: _Stream) -> None:
        place, cursor = f"{self.place}/cursors/{_CURSOR}{name}", self.cursors.get(name)
        known = self.truth.shipped.get(stream.identity)
        if cursor is None:
            if known and not any(f.place == place for f in self.findings.wrong):
                self.findings.fault(place, "is missing: the ledger has frames of this stream")
            return
        if cursor.frame and not stream.identity:
            self.findings.fault(stream.place, f"has no frames, those below {cursor.frame} were shipped: it was cut")
            return
        if stream.identity and cursor.identity != stream.identity:
            self.findings.fault(
                place, f"is of stream {cursor.identity}, the journal is {stream.identity}: it was begun anew"
            )
            return
        number = self.truth.streams.next_seq(known.model, stream.identity) if known else 0
        shipped = known.frame + 1 if known else 0
        if cursor.frame > shipped or cursor.number > (number or 0):
            self.findings.fault(
                place,
                f"says that {cursor.number} entries, frames below {cursor.frame}, are in the ledger, which has "
                f"{number or 0}, frames below {shipped}: the ledger's tail was cut",
            )
        elif (cursor.frame, cursor.number, cursor.last) != (shipped, number or 0, None):
            self.findings.note(
                place,
                f"is behind the ledger (frame {cursor.frame} of {shipped}): its process was killed, or an older copy "
                "was put back; what is sent again is appended once",
            )
        elif known and cursor.dead_letters != known.dead_letters:
            self.findings.fault(
                place, f"counts {cursor.dead_letters} dead letters, the ledger has {known.dead_letters}"
            )
        elif known and cursor.gap is None and cursor.unreadable != known.unreadable:
            self.findings.fault(
                place, f"counts {cursor.unreadable} unreadable frames, the ledger has {known.unreadable}"
            )
        elif (cursor.sent, cursor.refused) != (0, ""):
            self.findings.fault(place, "tells of a refusal under way, with no chunk under way: it was edited")
        tag = stream.tags.get(cursor.frame - 1)
        if tag is not None and tag.hex() != cursor.tag:
            self.findings.fault(place, f"has another tag of frame {cursor.frame - 1} than the journal")

    def _check_cached_keysets(self) -> None:
        if self.cursors and not (self.root / "keyset-cache" / "journal.json").is_file():
            self.findings.note(f"{self.place}/keyset-cache/journal.json", "isn't here: a copy, fetched when needed")
        for path in sorted((self.root / "keyset-cache").glob("*.json")):
            place = f"{self.place}/keyset-cache/{path.name}"
            with self.findings.looking_at(place):
                self._check_cached(place, path)

    def _check_cached(self, place: str, path: Path) -> None:
        data, purpose = path.read_bytes(), path.stem
        digests = _digests(self.truth, purpose)
        actual = hashlib.sha256(data).hexdigest()
        KeysetDocument.audit(data, purpose)
        if actual not in digests:
            self.findings.fault(place, f"has SHA-256 {actual}, which no entry about the {purpose} keyset names")
        elif not digests[actual]:
            self.findings.note(place, "is an older keyset than the archive's: a copy that is fetched anew when needed")


def _digests(truth: Truth, purpose: str) -> dict[str, bool]:
    """Digest of each keyset of this purpose that the log tells of → whether it is its model's newest."""
    by_digest: dict[str, bool] = {}
    for (_, of), entries in truth.keysets.items():
        if of == purpose:
            by_digest |= {entry.digest: entry is entries[-1] for entry in entries}
    return by_digest


class Spools:
    """Every journal that lies beside the archive. Cursors are read at once: before the ledger, which is only ahead of
    them then."""

    def __init__(self, beside: Beside):
        self._beside = beside
        self._cursors = [_Cursors(place, root) for place, root in beside.spools.items()]

    def check(self, archive: Path, truth: Truth, findings: Findings, blobs: HeldBlobs) -> None:
        """What lies here against what the ledger says; and which streams of the ledger have no journal here."""
        before = len(findings.wrong) + len(findings.unchecked)
        held, spools = _Archive(archive, blobs, truth, self._beside.keks), list[_Spool]()
        for cursors in self._cursors:
            spool = _Spool(cursors, held, findings)
            with findings.looking_at(spool.place):
                spool.check()
            spools.append(spool)
        _say_gone(truth, spools, self._beside, findings)
        if spools and before == len(findings.wrong) + len(findings.unchecked):
            count, frames = sum(len(s.identities) for s in spools), sum(s.frames for s in spools)
            how = f"{count} streams, {frames:,} frames: each chain holds and leads to what was shipped"
            findings.hold("journal", how)


def _say_gone(truth: Truth, spools: Sequence[_Spool], beside: Beside, findings: Findings) -> None:
    here = {identity for spool in spools for identity in spool.identities}
    gone = sorted(set(truth.shipped) - here)
    if beside.whole:
        for identity in gone:
            findings.skip(
                f"journal {identity}", f"isn't here: the ledger has {truth.shipped[identity].frame + 1} frames of it, "
                "whether more were written can't be told"
            )  # fmt: skip
    elif gone:
        findings.note("journals", f"{len(gone)} streams were shipped from spools that aren't here: give --workdir")
