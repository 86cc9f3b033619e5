"""Recomputes a log from its entries and says what holds: signature, tree, earlier checkpoints, blobs, one request's
proof."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from governed_api.names import ARCHIVE
from governed_serving.archive.errors import ArchiveError, LedgerDamaged, NoSuchEntry
from governed_serving.archive.ledger.merkle import (
    Frontier,
    ProofError,
    hash_leaf,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from governed_serving.archive.ledger.note import SIGNER, Checkpoint, UnknownKey, Verifier, open_checkpoint
from governed_serving.archive.store.holdings import KINDS, Holdings
from governed_serving.archive.store.retention import PAYLOADS, Receipts
from governed_serving.archive.verify.sources import MISSING, DirectorySource, Leaf, LogSource
from governed_serving.decoding import decode_with
from governed_serving.records import LedgerEntry, canonical

__all__ = ["BadEntry", "Proof", "Verification", "verify"]

_decoder = msgspec.json.Decoder(LedgerEntry)
_ALL = 2**62


class BadEntry(ArchiveError):
    """The first entry that is not what was signed, or whose evidence is gone."""

    def __init__(self, index: int, entry: LedgerEntry | None, problem: str):
        what = f"{entry.type}, id {entry.id}, model {entry.model}" if entry else "unreadable"
        super().__init__(f"entry {index} ({what}): {problem}")
        self.index = index


class Proof(msgspec.Struct, frozen=True):
    """That an entry is in the log: RFC 6962 inclusion proof (hex), verified against the signed root."""

    index: int
    size: int
    hashes: list[str]
    entry: msgspec.Raw


class Verification(msgspec.Struct):
    """What was found to hold."""

    origin: str
    size: int
    root: str
    vkey: str
    entries: int = 0
    blobs: int = 0
    blobs_are: str = "there and unchanged"
    complete: bool = True
    earlier: list[int] = []
    proofs: list[Proof] = []
    deleted: int = 0
    """Payload blobs that are gone under retention, each covered by a receipt in the log."""
    unnamed: int = 0
    """Blobs that lie there unchanged, although no entry names them: of uploads whose entries are still to come, for
    example."""

    held: int = 0
    """References, states and keysets that lie there."""
    differing: int = 0
    """Those of them that aren't what their entries say, or are missing: named apart."""

    def of_blobs(self) -> str:
        """What holds of the blobs, in words."""
        others = f"; {self.unnamed:,} that no entry names: unchanged" if self.unnamed else ""
        return f"{self.blobs:,} named by entries: {self.blobs_are}{others}"

    def of_holdings(self) -> str:
        """What holds of references, states and keysets, in words."""
        if not self.held:
            return "not looked at (they are checked over the folder)"
        how = (
            f"all but {self.differing:,} are what their entries say"
            if self.differing
            else "each is what its entries say"
        )
        return f"{self.held:,} references, states and keysets: {how}"


class _Walk:
    """State of one pass over the entries."""

    def __init__(
        self,
        source: LogSource,
        now: Checkpoint,
        earlier: list[Checkpoint],
        id: str,
        check_blobs: bool,
        holdings: Holdings,
    ):
        self.source, self.now, self.id = source, now, id
        self.check_blobs = check_blobs
        self.holdings = holdings
        self.earlier = {c.size: c for c in earlier}
        self.frontier = Frontier()
        self.hashes: list[bytes] = []
        self.found: list[Leaf] = []
        self.blobs: set[str] = set()
        self.missing: dict[str, list[tuple[int, LedgerEntry]]] = {}
        self.receipts = Receipts()
        self.announced: dict[str, None] = {}
        self.roots: dict[int, bytes] = {}
        """Roots at sizes of ``asked``."""
        self.asked: set[int] = set()

    def leaf(self, leaf: Leaf) -> None:
        """One entry: canonical form, place, blob."""
        entry = _entry(leaf)
        self._place(leaf, entry)
        self.receipts.add(entry)
        self.holdings.add(entry)
        if entry.model == ARCHIVE and entry.id == SIGNER:
            self.announced |= {
                str(entry.summary[name]): None for name in ("verifier", "before") if name in entry.summary
            }
        if self.check_blobs and entry.blob and entry.blob not in self.blobs:
            self._blob(leaf.index, entry)
        if self.id and entry.id == self.id:
            self.found.append(leaf)

    def _blob(self, index: int, entry: LedgerEntry) -> None:
        """There and unchanged; or missing, which a receipt may explain that comes later in the log."""
        problem = None if entry.blob in self.missing else self.source.blob(entry.blob)
        if entry.blob in self.missing or problem == MISSING:
            self._remember(index, entry)
        elif problem:
            raise BadEntry(index, entry, f"its blob {entry.blob} {problem}")
        else:
            self.blobs.add(entry.blob)

    def _remember(self, index: int, entry: LedgerEntry) -> None:
        """Of each missing blob the first entry and the newest payload: what is to be held against the receipt."""
        entries = self.missing.setdefault(entry.blob, [(index, entry)])
        if entry.type in PAYLOADS and (entries[-1][1].type not in PAYLOADS or entry.time > entries[-1][1].time):
            self.missing[entry.blob] = [entries[0], (index, entry)]

    def explain_missing(self) -> int:
        """Blobs that were deleted with a receipt. Raises BadEntry for the first one without."""
        for index, entry in sorted(
            (one for entries in self.missing.values() for one in entries), key=lambda one: one[0]
        ):
            problem = self.receipts.problem(entry)
            if problem:
                raise BadEntry(index, entry, problem)
        return len(self.missing)

    def unnamed(self) -> int:
        """Blobs that no entry names. Raises ArchiveError for one that was changed; one that retention deletes meanwhile
        is none."""
        count = 0
        for digest in self.source.addresses() if self.check_blobs else ():
            if digest in self.blobs or (problem := self.source.blob(digest)) == MISSING:
                continue
            if problem:
                raise ArchiveError(f"blob {digest}, which no entry names, {problem}")
            count += 1
        return count

    def differing(self) -> Iterator[str]:
        """What lies under a name and can't be opened, or isn't what the last entry about it says, in words.

        A running archive puts things in place between its checkpoints: their entries are there already, not signed yet.
        """
        yield from self.holdings.problems
        if not self.source.sees_names:
            return
        if self.holdings.unnamed() or self.holdings.differing():
            for leaf in self.source.leaves(_ALL):
                if leaf.index >= self.now.size:
                    self.holdings.add(_entry(leaf))
        for held in self.holdings.unnamed():
            what = f"{KINDS[held.type]} {held.name} of {held.model} has SHA-256 {held.digest}"
            yield f"{what}, which no entry about it names: it was changed"
        for held in self.holdings.put_back(self.source.holdings, self.source.prepared):
            what = f"{KINDS[held.type]} {held.name} of {held.model} is not what the last entry about it says"
            yield f"{what} (SHA-256 {held.digest}): an older one was put back, or it was taken away"

    def _place(self, leaf: Leaf, entry: LedgerEntry) -> None:
        leaf_hash = hash_leaf(leaf.data)
        if leaf.proof is not None:
            try:
                verify_inclusion(leaf_hash, leaf.index, self.now.size, leaf.proof, self.now.root)
            except ProofError as error:
                raise BadEntry(leaf.index, entry, str(error)) from None
            return
        self.frontier.append(leaf_hash)
        if self.id:
            self.hashes.append(leaf_hash)
        if self.frontier.size in self.asked:
            self.roots[self.frontier.size] = self.frontier.root()
        signed = self.earlier.get(self.frontier.size)
        if signed and self.frontier.root() != signed.root:
            raise ArchiveError(
                f"the first {signed.size} entries have root {self.frontier.root().hex()}, the earlier checkpoint signed "  # noqa: E501
                f"{signed.root.hex()}: the log was rewritten or forked at or before entry {signed.size - 1}"
            )

    def node(self, height: int, index: int) -> bytes:
        """A complete node over the hashes of all entries."""
        part = Frontier()
        for leaf in self.hashes[index << height : (index + 1) << height]:
            part.append(leaf)
        return part.root()


def verify(
    source: LogSource,
    *,
    vkey: str = "",
    earlier: tuple[str, ...] = (),
    id: str = "",
    blobs: bool = True,
    differing: list[str] | None = None,
) -> Verification:
    """Check everything that ``source`` holds.

    ``vkey``: the key that must have signed (default: the source's own word). ``earlier``: checkpoints kept elsewhere,
    which must be prefixes. ``id``: an entry id whose inclusion is proved. ``differing`` takes what lies under a name
    and isn't what its entries say, which is else an error. Raises :class:`BadEntry` for the first invalid entry, and
    ArchiveError, NoteError for what concerns the whole.

    The archive may be running: what retention deletes meanwhile has its receipt after the checkpoint that was read, so
    that a bad entry counts when it is bad under the newest one.
    """
    asked = _Asked(Verifier.parse(vkey or source.vkey()), earlier, id, blobs, differing)
    held, note = list(source.holdings()), source.checkpoint()
    try:
        return _verified(source, note, asked, Holdings(held))
    except BadEntry:
        newer = source.checkpoint()
        if newer == note:
            raise
    return _verified(source, newer, asked, Holdings(held))


@dataclass(frozen=True)
class _Asked:
    """What :func:`verify` was asked."""

    verifier: Verifier
    earlier: tuple[str, ...]
    id: str
    blobs: bool
    differing: list[str] | None


def _verified(source: LogSource, note: str, asked: _Asked, holdings: Holdings) -> Verification:
    verifier, id, blobs = asked.verifier, asked.id, asked.blobs
    now = open_checkpoint(note, verifier)
    before, rotated = _by_key(asked.earlier, verifier)
    for old in before:
        if old.size > now.size:
            raise ArchiveError(
                f"an earlier checkpoint signed {old.size} entries, the log now has {now.size}: its tail was cut"
            )
        if old.size != now.size:
            _goes_on(source, old, now)
        if old.size == now.size and old.root != now.root:
            raise ArchiveError(f"two checkpoints over {now.size} entries have different roots: the log forked")
    walk = _Walk(source, now, before, id, blobs, holdings)
    walk.asked = {Checkpoint.unverified(note).size for note in rotated}
    count = _recompute(walk, source)
    deleted, unnamed = walk.explain_missing(), walk.unnamed()
    differing = list(walk.differing())
    if differing and asked.differing is None:
        raise ArchiveError(differing[0])
    if asked.differing is not None:
        asked.differing[:] = differing
    before += [_signed_before_rotation(note, walk, verifier) for note in rotated]
    proofs = [_prove(walk, leaf) for leaf in walk.found]
    if id and not proofs:
        raise NoSuchEntry(f"id {id} is not among the {count} entries: expected the id of a request that was answered")
    checked = [c.size for c in before]
    return Verification(
        now.origin,
        now.size,
        now.root.hex(),
        str(verifier),
        count,
        len(walk.blobs),
        source.blobs_are if blobs else "not looked at",
        source.complete,
        checked,
        proofs,
        deleted,
        unnamed,
        len(holdings),
        len(differing),
    )


def _goes_on(source: LogSource, old: Checkpoint, now: Checkpoint) -> None:
    """Check the source's own proof that the log extends ``old``: all there is where entries are left out, and what a
    witness is told where the tree is recomputed as well. Raises ArchiveError."""
    proof = source.consistency(old.size, now.size) if old.size else []
    if proof is None and not source.complete:
        raise ArchiveError(
            f"this bundle of chosen entries can't show that it extends an earlier checkpoint of {old.size}: "
            "export it with that checkpoint, or verify the archive itself"
        )
    try:
        if proof is not None:
            verify_consistency(old.size, now.size, proof, old.root, now.root)
    except ProofError as error:
        raise ArchiveError(
            f"from the earlier checkpoint of {old.size} entries to that of {now.size}: {error}: the log was rewritten or forked"  # noqa: E501
        ) from None


def _by_key(earlier: tuple[str, ...], verifier: Verifier) -> tuple[list[Checkpoint], list[str]]:
    """(checkpoints signed by this key, notes that don't bear its signature: of a key that it took over from, if the log
    says so)."""
    signed, others = [], []
    for note in earlier:
        try:
            signed.append(open_checkpoint(note, verifier))
        except UnknownKey:
            others.append(note)
    return signed, others


def _signed_before_rotation(note: str, walk: _Walk, verifier: Verifier) -> Checkpoint:
    """An earlier checkpoint by a key that the log itself announces. Raises NoteError, ArchiveError."""
    for vkey in walk.announced:
        try:
            old = open_checkpoint(note, Verifier.parse(vkey))
        except UnknownKey:
            continue
        if walk.roots.get(old.size) != old.root:
            raise ArchiveError(
                f"the first {old.size} entries don't have the root that an earlier checkpoint signed: the log was rewritten or forked"  # noqa: E501
            )
        return old
    return open_checkpoint(note, verifier)


def _recompute(walk: _Walk, source: LogSource) -> int:
    count = 0
    try:
        for leaf in source.leaves(walk.now.size):
            walk.leaf(leaf)
            count += 1
    except LedgerDamaged as error:
        raise BadEntry(error.index, None, str(error)) from None
    if not source.complete:
        return count
    if walk.frontier.size < walk.now.size:
        raise BadEntry(
            walk.frontier.size,
            None,
            f"it and what follows are missing: {walk.frontier.size} of {walk.now.size} signed entries are there",
        )
    if walk.frontier.root() != walk.now.root:
        _name_difference(source, walk.now)
    return count


def _name_difference(source: LogSource, now: Checkpoint) -> None:
    """The recomputed root is wrong: find the first entry whose hash isn't the one in the signed tree."""
    pinned = not isinstance(source, DirectorySource) or source.tiles_root(now.size) == now.root
    for leaf in source.leaves(now.size) if pinned else _none():
        signed = source.leaf_hash(leaf.index, now.size)
        if signed is not None and signed != hash_leaf(leaf.data):
            actual = hash_leaf(leaf.data).hex()
            raise BadEntry(
                leaf.index, _entry(leaf), f"its content was changed: it hashes to {actual}, signed was {signed.hex()}"
            )
    raise ArchiveError(
        f"the {now.size} entries don't have the signed root {now.root.hex()}, and the stored tree can't tell which of them differs"  # noqa: E501
    )


def _none() -> Iterator[Leaf]:
    yield from ()


def _entry(leaf: Leaf) -> LedgerEntry:
    try:
        entry = decode_with(_decoder, leaf.data)
    except msgspec.DecodeError as error:
        raise BadEntry(leaf.index, None, f"it is no ledger entry: {error}") from None
    if canonical(entry) != leaf.data:
        raise BadEntry(leaf.index, entry, "it is not in canonical form: it was changed")
    return entry


def _prove(walk: _Walk, leaf: Leaf) -> Proof:
    hashes = leaf.proof if leaf.proof is not None else inclusion_proof(walk.node, leaf.index, walk.now.size)
    verify_inclusion(hash_leaf(leaf.data), leaf.index, walk.now.size, hashes, walk.now.root)
    return Proof(leaf.index, walk.now.size, [h.hex() for h in hashes], msgspec.Raw(leaf.data))
