"""Labels that arrive late, joined to their predictions by request id.

The last requests are remembered in blocks, one per journal frame: an id costs one dictionary entry. A label may also
come before its prediction was folded, or its prediction may be another replica's; it then waits. Both memories are
bounded, and what falls out of them is counted. The first label of a request counts: a verdict that holds at any time
can't rest on labels that were chosen after it was seen. The same label again is a repetition, another contradicts,
unless it says that it is a correction: it names the label that it replaces, and counts if the prediction has that one.
Corrections whose label isn't known here, or that another replica may have corrected as well, wait for the ledger.
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.counts.cells import CodedColumn, Key
from governed_serving.fairness.counts.coverage import is_covered
from governed_serving.fairness.counts.windows import Joined

__all__ = ["REPETITIONS", "Amended", "Block", "Correction", "LabelJoin", "Read", "Row", "Told", "Waiting"]

CORRECTIONS_EACH = 16
"""Corrections of one request that wait at once."""
REPETITIONS = ("repeated", "contradicting")
"""Why a label that isn't its request's first is dropped: it is the same, or another."""


class Row(NamedTuple):
    """Where a row is in the counts; ``score`` NaN: not kept. ``held``: its prediction set or interval, as
    :func:`packed`; empty: none."""

    bucket: int
    key: Key
    outcome: int
    score: float
    held: bytes = b""


class Read(NamedTuple):
    """A frame as the counts need it: coded columns of the axes, outcome, bucket, score (None: not kept), all shape
    (rows,); prediction sets or intervals as bytes, (rows, width) (None: none)."""

    columns: dict[str, CodedColumn]
    outcome: NDArray[np.bool_]
    bucket: NDArray[np.int64]
    score: NDArray[np.float32] | None
    held: NDArray[np.uint8] | None = None


class Waiting(msgspec.Struct, array_like=True):
    """Labels of a request (favourable or not), when they came (seconds since the epoch), the labels as numbers, and as
    places of classes (−1, or none: not known)."""

    labels: list[int]
    time: float
    truths: list[float]
    places: list[int] = []

    def joined(self, rows: Sequence[Row]) -> list[Joined]:
        """The rows with their labels; empty when the numbers don't agree."""
        if len(rows) != len(self.labels):
            return []
        places = self.places or [-1] * len(rows)
        return [
            Joined(row.bucket, row.key, row.outcome, label, row.score, truth, is_covered(row.held, place, truth))
            for row, label, truth, place in zip(rows, self.labels, self.truths, places, strict=True)
        ]

    def says(self, truths: Sequence[float], places: Sequence[int]) -> bool:
        """Whether a label says the same; ``places``: empty where they weren't kept."""
        alike = not (places and self.places) or [*places] == self.places
        return [*truths] == self.truths and alike


class Correction(msgspec.Struct, array_like=True):
    """A label that is to take the place of another."""

    was: Waiting
    now: Waiting


class Amended(NamedTuple):
    """A row with the label that it had, and with the one that it has."""

    before: Joined
    after: Joined


class Told(NamedTuple):
    """What is known of a request: how many rows it has (None: its prediction isn't known yet), the truths of its label
    and places of its classes (None: it has none, or they aren't known), and whether it has one."""

    rows: int | None
    truths: list[float] | None
    places: list[int] = []
    labelled: bool = True


class Block(msgspec.Struct):
    """The requests of one frame: ``first`` is the number of the first one, ``starts`` (requests + 1) their rows;
    ``truths`` float64 of each row, NaN without a label (empty: of an earlier version), ``places`` int32 of its class
    (empty: not kept); ``held`` as many bytes of each row as of any other."""

    first: int
    ids: list[str]
    starts: bytes
    codes: list[bytes]
    values: list[list[str]]
    outcome: bytes
    bucket: bytes
    score: bytes
    labelled: bytearray
    truths: bytearray = msgspec.field(default_factory=bytearray)
    held: bytes = b""
    places: bytearray = msgspec.field(default_factory=bytearray)

    def span(self, request: int) -> tuple[int, int]:
        """First row of a request, and the one after its last."""
        start, end = np.frombuffer(self.starts, np.int64)[request : request + 2].tolist()
        return start, end

    def told(self, request: int) -> Told:
        """What is known of a request."""
        start, end = self.span(request)
        truths = np.frombuffer(self.truths[8 * start : 8 * end], np.float64).tolist()
        complete = bool(self.labelled[request]) and bool(truths) and not any(map(isnan, truths))
        places = np.frombuffer(self.places[4 * start : 4 * end], np.int32).tolist()
        return Told(end - start, truths if complete else None, places, bool(self.labelled[request]))

    def note(self, request: int, truths: Sequence[float], places: Sequence[int] = ()) -> None:
        """A request has its label; ``truths``: NaN where they aren't known."""
        self.labelled[request] = 1
        start, end = self.span(request)
        if self.truths:
            self.truths[8 * start : 8 * end] = np.array(truths, np.float64).tobytes()
        if places and not self.places:
            self.places = bytearray(np.full(len(self.outcome), -1, np.int32).tobytes())
        if self.places:
            self.places[4 * start : 4 * end] = np.array(places or [-1] * (end - start), np.int32).tobytes()

    def rows(self, request: int) -> list[Row]:
        """The rows of a request."""
        start, end = self.span(request)
        score = np.frombuffer(self.score, np.float32)
        columns = [np.frombuffer(codes, np.int32) for codes in self.codes]
        outcome, bucket = np.frombuffer(self.outcome, np.uint8), np.frombuffer(self.bucket, np.int64)
        width = len(self.held) // len(outcome) if len(outcome) else 0
        return [
            Row(
                int(bucket[row]),
                tuple(values[int(codes[row])] for codes, values in zip(columns, self.values, strict=True)),
                int(outcome[row]),
                float(score[row]) if len(score) else nan,
                self.held[width * row : width * (row + 1)],
            )
            for row in range(start, end)
        ]


class LabelJoin:
    """Remembers ``capacity`` requests and as many labels that wait for theirs."""

    def __init__(self, capacity: int = 200_000):
        self.capacity = capacity
        self.joined = 0
        self.corrected = 0
        """Rows whose label was replaced, each time."""
        reasons = ("evicted", *REPETITIONS, "rowsDiffer", "otherRevision", "unreadable")
        self.dropped = dict.fromkeys(reasons, 0)
        """Labels dropped (no matching prediction, or none that can be told from), by reason."""
        self.forgotten = 0
        """Requests that left the memory without a label."""
        self._blocks: deque[Block] = deque()
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._early: OrderedDict[str, Waiting] = OrderedDict()
        self.doubt = False
        """There are other replicas, where the same label may have been posted before: what is joined is to be
        confirmed."""
        self._doubtful: OrderedDict[str, Waiting] = OrderedDict()
        self._corrections: OrderedDict[str, list[Correction]] = OrderedDict()
        self._amended: list[Amended] = []

    def remember(self, ids: Sequence[str], rows: NDArray[np.int32], axes: Sequence[str], read: Read) -> list[Joined]:
        """A frame was folded; returns the rows whose labels were waiting for it. ``rows``: of each request."""
        columns = [read.columns[axis] for axis in axes]
        starts = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(rows, out=starts[1:])
        block = Block(
            self._next,
            list(ids),
            starts.tobytes(),
            [codes.astype(np.int32).tobytes() for codes, _ in columns],
            [list(values) for _, values in columns],
            read.outcome.astype(np.uint8).tobytes(),
            read.bucket.astype(np.int64).tobytes(),
            b"" if read.score is None else read.score.astype(np.float32).tobytes(),
            bytearray(len(ids)),
            bytearray(np.full(int(starts[-1]), nan).tobytes()),
            b"" if read.held is None else read.held.tobytes(),
        )
        self._blocks.append(block)
        self._numbers.update(zip(ids, range(self._next, self._next + len(ids)), strict=True))
        self._next += len(ids)
        while len(self._blocks) > 1 and self._next - self._blocks[1].first >= self.capacity:
            self._forget(self._blocks.popleft())
        waiting = [i for i in ids if i in self._early] if self._early else []
        early = [(i, self._early.pop(i)) for i in waiting]
        return [row for i, found in early for row in self._label(i, found)]

    def label(
        self,
        request: str,
        labels: list[int],
        time: float = 0.0,
        truths: list[float] | None = None,
        places: Sequence[int] = (),
    ) -> list[Joined]:
        """Rows that get a label now; empty when it has to wait or is dropped (counted). ``time``: when it came;
        ``places``: of classes."""
        return self._label(request, Waiting(labels, time, truths or [float(label) for label in labels], [*places]))

    def _label(self, request: str, label: Waiting) -> list[Joined]:
        number = self._numbers.get(request)
        if number is None:
            if (before := self._early.get(request)) is not None:
                self._again(label, Told(None, before.truths, before.places))
                return []
            self._early[request] = label
            if len(self._early) > self.capacity:
                self._early.popitem(last=False)
                self.dropped["evicted"] += 1
            return []
        block = self._block_of(number)
        place = number - block.first
        if block.labelled[place]:
            self._again(label, block.told(place))
            return []
        rows = label.joined(block.rows(place))
        if not rows:
            self.dropped["rowsDiffer"] += 1
            return []
        block.note(place, label.truths, label.places)
        self.joined += len(rows)
        if self.doubt:
            self._doubtful[request] = label
            if len(self._doubtful) > self.capacity:
                self._doubtful.popitem(last=False)
        elif (waiting := self._corrections.pop(request, None)) is not None:
            for correction in waiting:
                self._correct(block, place, correction)
        return rows

    def _again(self, label: Waiting, counts: Told) -> None:
        """``counts``: what the label says that counts."""
        same = counts.truths is None or label.says(counts.truths, counts.places)
        self.dropped["repeated" if same else "contradicting"] += 1

    def correct(self, request: str, correction: Correction) -> None:
        """Another label takes the place of the one that counts; :meth:`amended` has the rows that it changes now."""
        number = self._numbers.get(request)
        if number is not None and not self.is_doubtful(request):
            block = self._block_of(number)
            if block.told(place := number - block.first).truths is not None:
                self._correct(block, place, correction)
                return
        waiting = self._corrections.setdefault(request, [])
        waiting.append(correction)
        if len(waiting) > CORRECTIONS_EACH:
            waiting.pop()
            self.dropped["evicted"] += 1
        if len(self._corrections) > self.capacity:
            self.dropped["evicted"] += len(self._corrections.popitem(last=False)[1])

    def _correct(self, block: Block, place: int, correction: Correction) -> None:
        told = block.told(place)
        assert told.truths is not None, "what isn't known waits"
        if correction.was.says(told.truths, told.places):
            if self._amend(block.rows(place), correction):
                block.note(place, correction.now.truths, correction.now.places)
        else:
            self._again(correction.now, told)

    def _amend(self, rows: Sequence[Row], correction: Correction) -> bool:
        amended = [
            Amended(*pair) for pair in zip(correction.was.joined(rows), correction.now.joined(rows), strict=False)
        ]
        if not amended:
            self.dropped["rowsDiffer"] += 1
        self.corrected += len(amended)
        self._amended += amended
        return bool(amended)

    def amended(self) -> list[Amended]:
        """Rows whose labels were corrected since this was asked."""
        taken, self._amended = self._amended, []
        return taken

    def is_doubtful(self, request: str) -> bool:
        """Whether other replicas may have a label, or a correction, that comes before ours."""
        return self.doubt or request in self._doubtful

    def settle_correction(self, request: str, rows: Sequence[Row], dropped: str = "") -> None:
        """The ledger says that the oldest waiting correction of a request counts, of ``rows``, or why it doesn't."""
        waiting = self._corrections.get(request)
        if not waiting:
            return
        correction = waiting.pop(0)
        if not waiting:
            del self._corrections[request]
        if dropped:
            self.dropped[dropped] += 1
        elif self._amend(rows, correction) and (number := self._numbers.get(request)) is not None:
            block = self._block_of(number)
            block.note(number - block.first, correction.now.truths, correction.now.places)

    def all_corrections(self) -> dict[str, Correction]:
        """Of each request the oldest correction that waits, without those whose label still waits or is to be
        confirmed: a copy."""
        unsettled = self._early.keys() | self._doubtful.keys()
        return {request: waiting[0] for request, waiting in self._corrections.items() if request not in unsettled}

    def told(self, request: str) -> Told | None:
        """What is known of a request; None: nothing."""
        number = self._numbers.get(request)
        if number is None:
            early = self._early.get(request)
            return None if early is None else Told(None, early.truths, early.places)
        block = self._block_of(number)
        return block.told(number - block.first)

    def _block_of(self, number: int) -> Block:
        return self._blocks[bisect_right(self._blocks, number, key=lambda b: b.first) - 1]

    def confirm(self, request: str, dropped: str) -> list[Joined]:
        """The ledger says whether a joined label was the request's first (``dropped`` empty), or why it is none of its
        own; the rows whose label is to be taken back."""
        doubtful, number = self._doubtful.pop(request, None), self._numbers.get(request)
        if doubtful is None or number is None or not dropped:
            return []
        block = self._block_of(number)
        rows = doubtful.joined(block.rows(number - block.first))
        block.note(number - block.first, [nan] * len(rows))
        self.joined -= len(rows)
        self.dropped[dropped] += 1
        return rows

    def rows_of(self, request: str) -> list[Row]:
        """The rows of a request that is remembered; empty for another."""
        number = self._numbers.get(request)
        if number is None:
            return []
        block = self._block_of(number)
        return block.rows(number - block.first)

    def settle(self, request: str, rows: Sequence[Row], dropped: str = "") -> list[Joined]:
        """The prediction of a waiting label was found elsewhere; its rows with their labels, or ``dropped`` says why
        there are none."""
        early = self._early.pop(request, None)
        if early is None:
            return []
        joined = [] if dropped else early.joined(rows)
        if not joined:
            self.dropped[dropped or "rowsDiffer"] += 1
        self.joined += len(joined)
        return joined

    @property
    def waiting(self) -> int:
        """Labels whose prediction isn't known (yet)."""
        return len(self._early)

    def all_waiting(self) -> dict[str, Waiting]:
        """The labels that wait, oldest first: a copy."""
        return dict(self._early)

    def all_doubtful(self) -> dict[str, Waiting]:
        """The labels that are joined and to be confirmed, oldest first: a copy."""
        return dict(self._doubtful)

    @property
    def remembered(self) -> int:
        """Requests that a label could still join."""
        return len(self._numbers)

    def _forget(self, block: Block) -> None:
        for offset, request in enumerate(block.ids):
            if self._numbers.get(request) == block.first + offset:
                del self._numbers[request]
        self.forgotten += len(block.ids) - sum(block.labelled)

    def dump(self) -> dict[str, object]:
        """For the snapshot, to be encoded before anything else is remembered: it shares the blocks' content."""
        return {
            "blocks": [msgspec.structs.asdict(block) for block in self._blocks],
            "next": self._next,
            "early": [[k, *msgspec.to_builtins(v)] for k, v in self._early.items()],
            "doubtful": [[k, *msgspec.to_builtins(v)] for k, v in self._doubtful.items()],
            "corrections": [[k, msgspec.to_builtins(v)] for k, v in self._corrections.items()],
            "joined": self.joined,
            "corrected": self.corrected,
            "dropped": self.dropped,
            "forgotten": self.forgotten,
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Inverse of :meth:`dump`."""
        for dumped_block in dumped["blocks"]:
            kept = {name: bytearray(dumped_block.get(name, b"")) for name in ("labelled", "truths", "places")}
            block = Block(**{**dumped_block, **kept})
            self._blocks.append(block)
            self._numbers.update(zip(block.ids, range(block.first, block.first + len(block.ids)), strict=True))
        self._next = dumped["next"]
        self._early.update((k, Waiting(*waiting)) for k, *waiting in dumped["early"])
        self._doubtful.update((k, Waiting(*waiting)) for k, *waiting in dumped["doubtful"])
        self._corrections.update((k, msgspec.convert(v, list[Correction])) for k, v in dumped.get("corrections", ()))
        self.joined, self.forgotten = dumped["joined"], dumped["forgotten"]
        self.corrected = dumped.get("corrected", 0)
        self.dropped.update(dumped["dropped"])
