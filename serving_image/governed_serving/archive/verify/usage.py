"""What each caller of a model used, by what a signed log says: a fold over its entries, each of which is in the tree.

What isn't counted is named, never left out in silence: entries that aren't what was signed, answers whose record was
lost on its way, entries that don't say what was used.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from governed_serving.archive.errors import ArchiveError, LedgerDamaged
from governed_serving.archive.ledger.merkle import Frontier, ProofError, hash_leaf, verify_inclusion
from governed_serving.archive.ledger.note import Checkpoint, Verifier, open_checkpoint
from governed_serving.archive.verify.sources import DirectorySource, Leaf, LogSource
from governed_serving.decoding import decode_with
from governed_serving.records import LedgerEntry, Use, canonical

__all__ = ["Charge", "Uncounted", "Usage", "fold"]

_decoder = msgspec.json.Decoder(LedgerEntry)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z")


class Charge(msgspec.Struct, rename="camel"):
    """What a caller (a pseudonym) used on a day (UTC), of one class of requests: ``prediction`` or ``completion``.
    ``units``: ``requests``, and those of governed_serving.records.UNITS."""

    caller: str
    kind: str
    day: str
    units: dict[str, int]


class Uncounted(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry that may stand for answers, and why they aren't counted."""

    index: int
    id: str
    why: str
    altered: bool = False
    """It isn't what was signed."""


class Usage(msgspec.Struct, rename="camel"):
    """``start`` and ``end`` (excluded), as entries write times; "" without a bound. ``complete``: the source holds the
    whole log, not chosen entries of it."""

    origin: str
    size: int
    root: str
    vkey: str
    complete: bool
    namespace: str
    model: str
    start: str
    end: str
    charges: list[Charge] = []
    uncounted: list[Uncounted] = []
    nameless: int = 0
    """Predictions of nobody who is known: the model didn't ask then who calls."""
    dead_letters: int = 0
    """Of those that are counted, requests whose own entry was refused: the one in its place says what they used."""

    @property
    def altered(self) -> bool:
        """An entry isn't what was signed."""
        return any(one.altered for one in self.uncounted)


def fold(source: LogSource, model: str, *, vkey: str = "", start: str = "", end: str = "", caller: str = "") -> Usage:
    """Of ``model``, between ``start`` and ``end``; ``caller``: of that one alone. ``vkey``: the key that must have
    signed (default: the source's own word). Raises ArchiveError, NoteError for what concerns the whole."""
    verifier = Verifier.parse(vkey or source.vkey())
    now = open_checkpoint(source.checkpoint(), verifier)
    usage = Usage(now.origin, now.size, now.root.hex(), str(verifier), source.complete, "", model, start, end)
    tally = _Tally(usage, caller)
    for leaf in _proved(source, now, tally.altered):
        tally.leaf(leaf)
    if not usage.namespace and not usage.uncounted:
        raise ArchiveError(f"the {now.size} entries have none of model {model}: expected a model that has served here")
    usage.charges = [charge for _, charge in sorted(tally.charges.items())]
    usage.uncounted.sort(key=lambda one: one.index)
    return usage


def _proved(source: LogSource, now: Checkpoint, altered: Callable[[int, str, str], None]) -> Iterator[Leaf]:
    """The entries that are in the signed tree; ``altered`` is told of the others. Raises ArchiveError where the stored
    tree can't tell which they are."""
    if not source.complete:
        for leaf in source.leaves(now.size):
            try:
                verify_inclusion(hash_leaf(leaf.data), leaf.index, now.size, leaf.proof or [], now.root)
            except ProofError as error:
                altered(leaf.index, _id(leaf.data), str(error))
            else:
                yield leaf
        return
    if _whole(source, now):
        yield from source.leaves(now.size)
        return
    if not isinstance(source, DirectorySource) or source.tiles_root(now.size) != now.root:
        raise ArchiveError(
            f"the {now.size} entries don't have the signed root {now.root.hex()}, and nothing here tells which of them "
            "differ: nothing is counted; governed verify names what it can, a bundle made before may have them"
        )
    index = -1
    try:
        for leaf in source.leaves(now.size):
            index = leaf.index
            if source.leaf_hash(leaf.index, now.size) == hash_leaf(leaf.data):
                yield leaf
            else:
                altered(leaf.index, _id(leaf.data), "its content isn't what was signed")
    except LedgerDamaged as error:
        index = error.index - 1
        altered(error.index, "", str(error))
    if index + 1 < now.size:
        altered(index + 1, "", f"it and what follows can't be read, up to entry {now.size - 1}")


def _whole(source: LogSource, now: Checkpoint) -> bool:
    frontier = Frontier()
    with suppress(LedgerDamaged):
        for leaf in source.leaves(now.size):
            frontier.append(hash_leaf(leaf.data))
    return (frontier.size, frontier.root()) == (now.size, now.root)


def _id(data: bytes) -> str:
    with suppress(msgspec.DecodeError):
        return decode_with(_decoder, data).id
    return ""


class _Tally:
    """State of one pass over proved entries."""

    def __init__(self, usage: Usage, caller: str) -> None:
        self._usage, self._caller = usage, caller
        self._seen: set[bytes] = set()
        self.charges: dict[tuple[str, str, str], Charge] = {}

    def altered(self, index: int, id: str, why: str) -> None:
        """An entry isn't what was signed, whosever it is."""
        self._usage.uncounted.append(Uncounted(index, id, why, True))

    def leaf(self, leaf: Leaf) -> None:
        """Count it where it is of the model, the time and the caller that are asked for."""
        usage = self._usage
        try:
            entry = decode_with(_decoder, leaf.data)
        except msgspec.DecodeError as error:
            usage.uncounted.append(Uncounted(leaf.index, "", f"it is no ledger entry: {error}"))
            return
        if entry.model != usage.model:
            return
        usage.namespace = usage.namespace or entry.namespace
        if entry.type not in ("prediction", "deadLetter", "unreadable"):
            return
        if not _TIME.fullmatch(entry.time) or canonical(entry) != leaf.data:
            self._not_counted(leaf, entry, "its form isn't that of an entry of ours")
        elif (not usage.start or entry.time >= usage.start) and (not usage.end or entry.time < usage.end):
            self._within(leaf, entry)

    def _not_counted(self, leaf: Leaf, entry: LedgerEntry, why: str) -> None:
        self._usage.uncounted.append(Uncounted(leaf.index, entry.id, why))

    def _within(self, leaf: Leaf, entry: LedgerEntry) -> None:
        if entry.type == "unreadable":
            frames = entry.summary.get("frames")
            self._not_counted(leaf, entry, f"{frames} frames were damaged before they were shipped: answers are lost")
            return
        if entry.type == "deadLetter" and entry.summary.get("refused") != "prediction":
            return
        use = Use.said_in(entry.summary)
        if use is None:
            self._nobody(leaf, entry)
        elif self._caller in ("", use.caller):
            self._count(leaf, entry, use)

    def _nobody(self, leaf: Leaf, entry: LedgerEntry) -> None:
        if entry.type == "deadLetter":
            self._not_counted(leaf, entry, "an answer whose entry was refused, without who asked for it")
        elif "caller" in entry.summary:
            self._not_counted(leaf, entry, "what it says of its caller has another form")
        else:
            self._usage.nameless += 1

    def _count(self, leaf: Leaf, entry: LedgerEntry, use: Use) -> None:
        if not use.units:
            self._not_counted(leaf, entry, "it names its caller, and not what was used: of an older server")
            return
        place = f"{entry.blob}/{entry.frame}/{entry.index}".encode()
        mark = hashlib.blake2b(place, digest_size=12).digest()
        if mark in self._seen:
            self._not_counted(leaf, entry, "the log has the same answer before")
            return
        self._seen.add(mark)
        kind = "completion" if "started" in use.units or "tokensOut" in use.units else "prediction"
        key = (use.caller, kind, entry.time[:10])
        units = self.charges.setdefault(key, Charge(*key, {"requests": 0})).units
        units["requests"] += "started" not in use.units
        for name, number in use.units.items():
            units[name] = units.get(name, 0) + number
        self._usage.dead_letters += entry.type == "deadLetter"
