"""Copies a ledger to object storage, round after round, and says how far it has come.

A round takes the newest checkpoint and what lies under names while nothing of that can change, puts what isn't there
yet under its SHA-256, and then makes the next manifest. Where somebody else has made it, two archives write to one
place: this one appends nothing any more. What a manifest no longer names is deleted at once, so that an erased
person's key doesn't stay; what a kill left there goes an hour later.
"""

import hashlib
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from governed_api.regular_files import read_regular
from governed_serving.archive.backup.members import PLACES, Stored
from governed_serving.archive.errors import ArchiveError, Busy, Unverified
from governed_serving.archive.ledger.note import Checkpoint, NoteError
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.mirror.manifest import (
    FOLDER,
    PIECE_BYTES,
    FileList,
    Manifest,
    Piece,
    manifest_name,
    newest,
    numbers,
)
from governed_serving.archive.service import Archive
from governed_serving.archive.store.objects import Bucket
from governed_serving.archive.tokens import ROLES_SINCE
from governed_serving.decoding import decode_json
from governed_serving.durable import is_regular
from governed_serving.records import timestamp

__all__ = ["Mirror", "Superseded"]

_NAMED = ("keys", "keysets", "refs", "states")
_LEDGER = ("ledger/vkey", f"ledger/{WITNESSED}", ROLES_SINCE)
_AT_ONCE = 8
_LOOK = 600.0
"""Seconds after which the storage is asked what it really has."""
_ORPHAN = timedelta(hours=1)

_Sign = tuple[int, int, int]


class Superseded(ArchiveError):
    """Another archive writes to this place, or it has what this volume hasn't."""


class Mirror:
    """Of one archive, whose blobs are in ``bucket``. One thread at a time; ``size`` entries are stored, under
    ``checkpoint``."""

    def __init__(
        self,
        archive: Archive,
        bucket: Bucket,
        *,
        accept_loss: bool = False,
        clock: Callable[[], float] = time.time,
        passing: Callable[[], float] = time.monotonic,
    ) -> None:
        self.volume = bucket.below(FOLDER)
        self.size, self.checkpoint = 0, ""
        self._archive, self._clock, self._accept_loss = archive, clock, accept_loss
        self._last: Manifest | None = None
        self._referenced: set[str] = set()
        """What the last manifest names, its lists included."""
        self._there: set[str] = set()
        self._damaged: set[str] = set()
        """What is there, and isn't what was stored."""
        self._passing = passing
        self._nobodys: dict[str, float] = {}
        """What no manifest names, and since when that is known."""
        self._looked = float("-inf")
        self._files: dict[str, tuple[_Sign, Stored]] = {}

    def round(self) -> None:
        """Store what isn't stored yet. Raises Superseded for good; Busy, ArchiveError, OSError: try again."""
        if self._last is None:
            self._begin()
        if self._clock() - self._looked > _LOOK:
            self._look()
        archive, fresh = self._archive, dict[str, bytes]()
        with archive.frozen() as note:
            files = self._take(fresh)
        signed = Checkpoint.unverified(note)
        segments = {name: self._pieces(name, end) for name, end in archive.ledger.extent(signed.size)}
        lists = {hashlib.sha256(data).hexdigest(): data for data in _lists(files)}
        last = self._last
        wanted = {one.sha256 for one in files} | {p.sha256 for pieces in segments.values() for p in pieces} | set(lists)
        if last and last.checkpoint == note and wanted == self._referenced and wanted <= self._there:
            self.size, self.checkpoint = signed.size, note
            return
        self._put_missing(wanted, fresh | lists, files, segments)
        made = Manifest(
            last.number + 1 if last else 1,
            socket.gethostname(),
            timestamp(self._clock()),
            signed.origin,
            signed.size,
            note,
            segments,
            sorted(lists),
        )
        self._make(made)
        gone = self._referenced - wanted
        self._last, self._referenced = made, wanted
        self._accept_loss = False
        self.size, self.checkpoint = signed.size, note
        for address in sorted(gone):
            self.volume.delete(address)
            self._there.discard(address)

    def _begin(self) -> None:
        """Go on from what is stored, if this ledger does. Raises Superseded."""
        stored, ledger = newest(self.volume), self._archive.ledger
        if stored is None:
            self._last, self._referenced = None, set()
            return
        where = f"{self.volume.place} has a ledger of {stored.size} entries"
        if stored.origin != ledger.origin:
            raise Superseded(f"{where} of {stored.origin}, this one is {ledger.origin}: give each a place of its own")
        if not self._accept_loss:
            try:
                other = ledger.contradicting(stored.checkpoint)
            except NoteError as error:
                raise Superseded(f"{where} that another key signed ({error}): give each a place of its own") from None
            if other is not None:
                raise Superseded(
                    f"{where}, stored by {stored.writer} at {stored.time}, that this volume's ledger of {ledger.size} "
                    "doesn't go on from: another archive wrote there, or this volume is an older copy. Move away what "
                    "is on the volume (an archive over an empty one starts from what is stored), or serve it with "
                    "--accept-loss, which lets go of what is stored"
                )
        self._referenced = stored.addresses() | {file.sha256 for file in self._listed(stored)}
        self._last = stored

    def _listed(self, found: Manifest) -> Iterator[Stored]:
        for address in found.lists:
            files = self._list(address)
            if files is None:
                self._damaged.add(address)  # it is written anew
            else:
                yield from files

    def _list(self, address: str) -> list[Stored] | None:
        """Files of a list that is there as it was stored."""
        try:
            data = self.volume.read(f"{address[:2]}/{address}", PIECE_BYTES)
            whole = data is not None and hashlib.sha256(data).hexdigest() == address
            return decode_json(data or b"", FileList).files if whole else None
        except (Unverified, msgspec.DecodeError):
            return None

    def _look(self) -> None:
        """What is really there; what no manifest names, and a kill left an hour ago, goes. That hour is told by the
        storage's clock, or by what really passed: by ours, were it ahead, what another archive just puts would go."""
        found = self.volume.modified()
        self._there = set(found) - self._damaged
        now = datetime.fromtimestamp(self._clock(), UTC)
        old = min(now, max(found.values(), default=now)) - _ORPHAN
        nobodys, passed = self._there - self._referenced if self._last else set[str](), self._passing()
        self._nobodys = {address: self._nobodys.get(address, passed) for address in nobodys}
        for address in sorted(nobodys):
            if found[address] < old or passed - self._nobodys[address] > _ORPHAN.total_seconds():
                self.volume.delete(address)
                self._there.discard(address)
        self._looked = self._clock()

    def _take(self, fresh: dict[str, bytes]) -> list[Stored]:
        """The files, and the bytes of those that are new."""
        root, known = self._archive.root, dict[str, tuple[_Sign, Stored]]()
        for place in (*_LEDGER, *_named(root)):
            try:
                status = os.stat(root / place, follow_symlinks=False)
                sign = (status.st_mtime_ns, status.st_size, status.st_ino)
                if place not in self._files or self._files[place][0] != sign:
                    data = read_regular(root / place)
                    stored = Stored(place, len(data), hashlib.sha256(data).hexdigest())
                    fresh[stored.sha256] = data
                    self._files[place] = (sign, stored)
                known[place] = self._files[place]
            except FileNotFoundError:
                continue
        self._files = known
        return [stored for _, stored in known.values()]

    def _pieces(self, name: str, end: int) -> list[Piece]:
        """Of a segment's first ``end`` bytes. New ones take in short ones before them: there are few, and each byte is
        sent a few times at most."""
        pieces = list(self._last.segments.get(name, [])) if self._last else []
        path = self._archive.root / "ledger" / "log" / name
        while pieces and (pieces[-1].end > end or not self._is(path, pieces[-1])):
            pieces.pop()  # a loss was accepted, or it is another archive's
        start = pieces[-1].end if pieces else 0
        while pieces and start < end and pieces[-1].end - pieces[-1].start <= 2 * (end - start):
            if end - pieces[-1].start > PIECE_BYTES:
                break
            start = pieces.pop().start
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                data = file.read(min(PIECE_BYTES, end - start))
                if not data:
                    raise OSError(f"{path}: expected {end} bytes, found {start}")
                pieces.append(Piece(start, start + len(data), hashlib.sha256(data).hexdigest()))
                start += len(data)
        return pieces

    def _is(self, path: Path, piece: Piece) -> bool:
        """Whether the volume has these very bytes; what was looked at once doesn't change."""
        if piece.sha256 in self._there and self.size:
            return True
        return hashlib.sha256(_cut(path, piece)).hexdigest() == piece.sha256

    def _put_missing(
        self, wanted: set[str], fresh: dict[str, bytes], files: list[Stored], segments: dict[str, list[Piece]]
    ) -> None:
        root = self._archive.root
        places = {one.sha256: one.path for one in files}
        pieces = {p.sha256: (root / "ledger" / "log" / name, p) for name, ps in segments.items() for p in ps}

        def put(address: str) -> str:
            data = fresh.get(address)
            if data is None and address in pieces:
                data = _cut(*pieces[address])
            elif data is None:  # somebody took it away there
                data = read_regular(root / places[address])
            if hashlib.sha256(data).hexdigest() == address:  # else it was replaced meanwhile: the next round has it
                self.volume.put_bytes(address, data)
                return address
            raise Busy(f"{places.get(address, address)} was replaced while it was copied")

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for address in pool.map(put, sorted(wanted - self._there)):
                self._there.add(address)
                self._damaged.discard(address)

    def _make(self, made: Manifest) -> None:
        """Raises Superseded where another archive made this number, or is further."""
        name, data = manifest_name(made.number), msgspec.json.encode(made)
        if not self.volume.create(name, data) and not self._is_ours(name, data):
            raise self._superseded(made.number)
        known = numbers(self.volume)
        if made.number not in known:
            raise Busy(f"{self.volume.place}: {name} was taken and isn't there: whatever answers isn't that storage")
        if known[-1] > made.number:
            self.volume.remove(name)  # ours came into the place of an older one that was deleted
            raise self._superseded(known[-1])
        for number in known:
            if number < made.number:
                self.volume.remove(manifest_name(number))

    def _is_ours(self, name: str, data: bytes) -> bool:
        """Whether an answer was lost, and what is there is what was sent."""
        try:
            return self.volume.read(name, len(data)) == data
        except Unverified:
            return False

    def _superseded(self, number: int) -> Superseded:
        return Superseded(
            f"{self.volume.place}: another archive made manifest {number}: two write to one place, and this one stops. "
            "Stop one of them; over an empty volume it starts from what is stored"
        )


def _named(root: Path) -> Iterator[str]:
    """Places of what lies under names, as in a backup."""
    for kind in _NAMED:
        for path in sorted((root / kind).rglob("*")):
            place = path.relative_to(root).as_posix()
            if not path.name.startswith(".") and is_regular(path) and PLACES.fullmatch(place):
                yield place


def _lists(files: list[Stored]) -> Iterator[bytes]:
    shards: dict[str, list[Stored]] = defaultdict(list)
    for one in files:
        shards[hashlib.sha256(one.path.encode()).hexdigest()[:2]].append(one)
    for found in shards.values():
        yield msgspec.json.encode(FileList(sorted(found, key=lambda one: one.path)))


def _cut(path: Path, piece: Piece) -> bytes:
    with path.open("rb") as file:
        file.seek(piece.start)
        return file.read(piece.end - piece.start)
