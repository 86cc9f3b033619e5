"""What an archive derives from its entries (tiles, index, ``state``, ``edge``), made anew and compared; and whatever
else lies in its folder."""

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from governed_serving.archive.ledger.entrylog import EntryLog
from governed_serving.archive.ledger.idindex import PAIR
from governed_serving.archive.ledger.ledger import INDEX_AAD, STATE_AAD, Snapshot
from governed_serving.archive.ledger.note import Verifier, open_checkpoint
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.service import ANCHOR
from governed_serving.archive.store.blobs import addresses
from governed_serving.archive.store.objects import OBJECTS
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.truth import HeldTiles, Truth
from governed_serving.crypto import Keyset
from governed_serving.decoding import decode_msgpack

__all__ = ["Derived", "files_below", "is_running"]

_DAMAGE_OF_KILL = ("a process that was killed leaves such a thing behind, and so does somebody who puts an older file "
                   "back: the archive's next start settles it")  # fmt: skip


_FOLDERS = re.compile(
    r"keys/|(?:keysets|refs|states)/(?:[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?/)?|ledger/(?:log/|index/|tile/(?:[0-9x]+/)*)"
    r"|blobs/(?:[0-9a-f]{2}/|\.incoming/|expired/(?:[0-9a-f]{2}/)?)?"
)
"""Folders of ours, which may be empty."""


def files_below(root: Path, findings: Findings) -> set[str]:
    """Paths of the regular files and of the empty folders below ``root``, the latter with a slash; anything else that
    isn't a folder is a finding."""
    found = set()
    for folder, names, files in os.walk(root):
        if not (names or files) and Path(folder) != root:
            found.add(f"{Path(folder).relative_to(root).as_posix()}/")
        for name in [*files, *names]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            place = path.relative_to(root).as_posix()
            if stat.S_ISREG(mode):
                found.add(place)
            elif not stat.S_ISDIR(mode):
                findings.fault(place, "is neither a file nor a folder: nothing of ours makes such a thing")
    return found


def is_running(root: Path) -> bool:
    """Whether an archive process has the folder open."""
    try:
        handle = os.open(root / ".lock", os.O_RDONLY | os.O_NONBLOCK)  # whatever lies there isn't waited for
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class Derived:
    """``ledger/`` but for the entries. Made before the entries are read, so that their pass keeps what is asked for."""

    def __init__(self, root: Path, cipher: Keyset, findings: Findings, *, running: bool):
        self._root, self._ledger, self._findings, self._running = root, root / "ledger", findings, running
        self._cipher = cipher
        before = len(findings.wrong)
        self.state = Snapshot(0, [], [], [])
        self.edge: tuple[int, list[bytes]] = (0, [])
        self.index_key: bytes | None = None
        self.known: set[str] = set()
        """Paths below the folder that were looked at."""
        self._sealed: bytes | None = None
        self._late: list[tuple[str, str, int]] = []
        self.tiles = HeldTiles(self._ledger / "tile", lambda *what: self._late.append(what))
        with findings.looking_at("ledger/index-key"):
            self.index_key = cipher.open((self._ledger / "index-key").read_bytes(), INDEX_AAD)
        if (self._ledger / "state").exists():
            with findings.looking_at("ledger/state"):
                self._sealed = (self._ledger / "state").read_bytes()
                self.state = decode_msgpack(cipher.open(self._sealed, STATE_AAD), type=Snapshot)
        if (self._ledger / "edge").exists():
            with findings.looking_at("ledger/edge"):
                data = (self._ledger / "edge").read_bytes()
                self.edge = decode_msgpack(data, type=tuple[int, list[bytes]])
                if msgspec.msgpack.encode(self.edge) != data:
                    findings.fault("ledger/edge", "isn't as the archive writes it: it was edited")
        self.known |= {f"ledger/{n}" for n in ("index-key", "state", "edge", "vkey", "checkpoint", WITNESSED)} | {
            ANCHOR
        }
        self._damaged = len(findings.wrong) > before

    @property
    def asked(self) -> set[int]:
        """Sizes at which the pass over the entries keeps what it has."""
        return {self.state.size, self.edge[0]}

    def check(self, truth: Truth, signed: int, verifier: Verifier) -> None:
        """``signed``: entries of the checkpoint; ``verifier``: the key that signed it."""
        before = len(self._findings.wrong)
        with self._findings.looking_at("ledger/vkey"):
            if (self._ledger / "vkey").read_text() != f"{verifier}\n":
                self._findings.fault("ledger/vkey", f"isn't the verifier key {verifier} of the checkpoint's signature")
        with self._findings.looking_at("ledger/log"):
            self._check_log(truth)
        with self._findings.looking_at(ANCHOR):
            self._check_anchor(signed, verifier)
        self._check_size("ledger/state", self.state.size, truth, signed, at_most=True)
        self._check_edge(truth, signed)
        with self._findings.looking_at("ledger/state"):
            self._check_state(truth, signed)
        with self._findings.looking_at("ledger/index"):
            self._check_index(truth)
        self._check_tiles()
        if not self._damaged and len(self._findings.wrong) == before:
            counted = f"{len(self.tiles.paths):,} tiles, {len(self.state.runs)} index runs, edge and state"
            self._findings.hold("derived", f"{counted}: each is what the entries make")

    def _check_log(self, truth: Truth) -> None:
        log, end = EntryLog(self._ledger / "log", self._cipher, ""), 0
        for name, behind, whole, size in log.coverage():
            place = f"ledger/log/{name}"
            self.known.add(place)
            if int(Path(name).stem) != end:
                self._findings.fault(place, f"begins at another entry than {end}, where the segment before it ends")
            end = behind
            if whole != size and not self._running:
                self._findings.skip(
                    place, f"{size - whole} bytes behind its last whole frame can't be read: {_DAMAGE_OF_KILL}"
                )
        if end < truth.size:
            self._findings.fault("ledger/log", f"its segments end at entry {end}, {truth.size} were read")

    def _check_anchor(self, signed: int, verifier: Verifier) -> None:
        """The copy of the checkpoint beside the ledger, written after it."""
        path = self._root / ANCHOR
        if not path.is_file():
            self._findings.skip(
                ANCHOR, "is missing: the copy of the checkpoint that each start is held to. Somebody took it away, "
                "or an older version wrote none, or a kill came as the first one was signed"
            )  # fmt: skip
            return
        if path.read_bytes() == _bytes(self._ledger / "checkpoint"):
            return
        size = open_checkpoint(path.read_text(), verifier).size
        if size > signed and not self._running:
            self._findings.fault(
                "ledger/checkpoint", f"signs {signed} entries, {ANCHOR} {size}: an older checkpoint was put back"
            )
        elif size == signed:
            self._findings.fault(ANCHOR, "isn't the copy of the checkpoint: it was edited")
        elif not self._running:
            self._findings.skip(ANCHOR, f"is over {size} entries, the checkpoint over {signed}: {_DAMAGE_OF_KILL}")

    def _check_size(self, place: str, size: int, truth: Truth, signed: int, *, at_most: bool) -> None:
        if size > truth.size:
            self._findings.fault(place, f"is over {size} entries, the log has {truth.size}: its tail was cut")
        elif at_most and size > signed and not self._running:
            self._findings.fault(
                "ledger/checkpoint", f"signs {signed} entries, {place} was written after a checkpoint over {size} or "
                "more: an older checkpoint was put back"
            )  # fmt: skip

    def _check_edge(self, truth: Truth, signed: int) -> None:
        size, edge = self.edge
        place = "ledger/edge"
        self._check_size(place, size, truth, signed, at_most=False)
        if size < signed and not self._running:
            self._findings.fault(place, f"is over {size} entries, the checkpoint over {signed}: it is written first")
        elif signed < size <= truth.size and not self._running:
            self._findings.skip(
                "ledger/checkpoint", f"is over {signed} entries, the edge over {size}: {_DAMAGE_OF_KILL}"
            )
        if size in truth.edges and _trimmed(truth.edges[size]) != _trimmed(edge):
            self._findings.fault(place, f"isn't the right edge of the tree over {size} entries: it was changed")

    def _check_state(self, truth: Truth, signed: int) -> None:
        place, state = "ledger/state", self.state
        if state.size not in truth.edges:
            return
        if _trimmed(truth.edges[state.size]) != _trimmed(state.edge):
            self._findings.fault(place, f"has another right edge than the tree over {state.size} entries")
        if sorted(truth.runs[state.size]) != sorted((m, s, [tuple(r) for r in runs]) for m, s, runs in state.streams):
            self._findings.fault(place, f"has other streams than the first {state.size} entries")
        if state.size < signed and not self._running:
            self._findings.note(
                place, f"is of {state.size} entries, {signed} are signed: the archive was killed since, or an older "
                "copy was put back; it derives from the entries and is brought up to date at the next start"
            )  # fmt: skip

    def _check_index(self, truth: Truth) -> None:
        if self._running and self._sealed != _bytes(self._ledger / "state"):
            self._findings.note("ledger/index", "was being written by the running archive: not looked at")
            self.known |= {f"ledger/index/{p.name}" for p in (self._ledger / "index").glob("*.run")}
            return
        if self.index_key is None or self.state.size > truth.size:
            return
        pairs = np.empty(len(truth.ids), dtype=PAIR)
        pairs["key"], pairs["index"] = truth.ids, truth.places
        pairs = pairs[pairs["index"] < self.state.size]
        seen = 0
        for name in self.state.runs:
            seen += self._check_run(name, pairs)
        if seen != len(pairs):
            self._findings.fault("ledger/index", f"its runs have {seen} places, the entries make {len(pairs)}")
        for path in sorted((self._ledger / "index").glob("*.run")):
            if path.name not in self.state.runs:
                self.known.add(f"ledger/index/{path.name}")
                self._findings.skip(f"ledger/index/{path.name}", f"ledger/state doesn't name it: {_DAMAGE_OF_KILL}")

    def _check_run(self, name: str, pairs: "np.ndarray[tuple[int], np.dtype[np.void]]") -> int:
        place = f"ledger/index/{name}"
        self.known.add(place)
        with self._findings.looking_at(place):
            first, last, count = (int(part) for part in Path(name).stem.split("-"))
            expected = pairs[(pairs["index"] >= first) & (pairs["index"] <= last)]
            expected = expected[np.lexsort((expected["index"], expected["key"]))]
            path = self._ledger / "index" / name
            if not path.is_file():
                self._findings.fault(place, "is missing: ledger/state names it")
            elif path.read_bytes() != expected.tobytes():
                self._findings.fault(place, f"doesn't say where the ids of entries {first} to {last} are")
            return count
        return 0

    def _check_tiles(self) -> None:
        self.known |= {f"ledger/{name}" for name in self.tiles.paths}
        for name, problem, entries in self._late:
            if entries <= self.state.size:
                self._findings.fault(f"ledger/{name}", problem)
            elif not self._running:
                self._findings.skip(f"ledger/{name}", f"{problem}; {_DAMAGE_OF_KILL}")


def unexplained(root: Path, found: Iterable[str], known: set[str], findings: Findings) -> None:
    """Say of what nothing accounts for. Left alone: blobs and names, which have checks of their own; locks."""
    blobs = {f"blobs/{digest[:2]}/{digest}" for digest in addresses(root / "blobs")}
    for place in sorted(set(found) - known - blobs - {OBJECTS}):
        folder, _, name = place.rpartition("/")  # an empty folder has no name
        if not (root / place).exists():  # a running archive replaced it meanwhile
            continue
        if name == ".lock":
            if (root / place).stat().st_size:
                findings.fault(place, "isn't empty: a lock holds nothing")
        elif ".torn-" in name:
            findings.note(place, "what a killed process had begun to write, set aside: no part of the log")
        elif not name:
            if not _FOLDERS.fullmatch(place):
                findings.skip(place, "nothing accounts for this empty folder: the archive doesn't make one here")
        elif name.endswith(".partial") or folder == "blobs/.incoming":
            findings.note(place, "was being written: no part of the archive")
        else:
            findings.skip(place, "nothing accounts for this file: the archive doesn't make one of this name here")


def _trimmed(edge: list[bytes]) -> list[bytes]:
    """Without empty tiles at its top: a level that was just filled."""
    while edge and not edge[-1]:
        edge = edge[:-1]
    return edge


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
