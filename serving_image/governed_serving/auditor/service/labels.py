"""Labels that arrive late, joined to their predictions by request id.

The last requests are remembered in blocks, one per journal frame: an id costs one dictionary entry. A label may also come before its
prediction was folded; it then waits. Both memories are bounded, and what falls out of them is counted.
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.auditor.cells import CodedColumn, Key

__all__ = ["Block", "Joined", "LabelJoin"]


class Joined(NamedTuple):
    """A row whose label is known now."""

    bucket: int
    key: Key
    outcome: int
    label: int


class Block(msgspec.Struct):
    """The requests of one frame: ``first`` is the number of the first one, ``starts`` (requests + 1) their rows."""

    first: int
    ids: list[str]
    starts: bytes
    codes: list[bytes]
    values: list[list[str]]
    outcome: bytes
    bucket: bytes
    labelled: bytearray

    def rows(self, request: int, labels: Sequence[int]) -> list[Joined]:
        """The rows of a request with their labels; empty when the numbers don't agree."""
        start, end = np.frombuffer(self.starts, np.int64)[request : request + 2].tolist()
        if end - start != len(labels):
            return []
        columns = [np.frombuffer(codes, np.int32) for codes in self.codes]
        outcome, bucket = np.frombuffer(self.outcome, np.uint8), np.frombuffer(self.bucket, np.int64)
        return [
            Joined(
                int(bucket[row]),
                tuple(values[int(codes[row])] for codes, values in zip(columns, self.values, strict=True)),
                int(outcome[row]),
                label,
            )
            for row, label in zip(range(start, end), labels, strict=True)
        ]


class LabelJoin:
    """Remembers ``capacity`` requests and as many labels that wait for theirs."""

    def __init__(self, capacity: int = 200_000):
        self.capacity = capacity
        self.joined = 0
        self.dropped = {"evicted": 0, "repeated": 0, "rowsDiffer": 0}
        """Labels that came to nothing, by reason."""
        self.forgotten = 0
        """Requests that left the memory without a label."""
        self._blocks: deque[Block] = deque()
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._early: OrderedDict[str, list[int]] = OrderedDict()

    def remember(
        self,
        ids: Sequence[str],
        rows: NDArray[np.int32],
        columns: Sequence[CodedColumn],
        outcome: NDArray[Any],
        bucket: NDArray[np.int64],
    ) -> list[Joined]:
        """A frame was folded; returns the rows whose labels were waiting for it. ``rows``: per request, the others per row."""
        starts = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(rows, out=starts[1:])
        block = Block(
            self._next,
            list(ids),
            starts.tobytes(),
            [codes.astype(np.int32).tobytes() for codes, _ in columns],
            [list(values) for _, values in columns],
            outcome.astype(np.uint8).tobytes(),
            bucket.astype(np.int64).tobytes(),
            bytearray(len(ids)),
        )
        self._blocks.append(block)
        self._numbers.update(zip(ids, range(self._next, self._next + len(ids)), strict=True))
        self._next += len(ids)
        while len(self._blocks) > 1 and self._next - self._blocks[1].first >= self.capacity:
            self._forget(self._blocks.popleft())
        waiting = [i for i in ids if i in self._early] if self._early else []
        return [row for i in waiting for row in self.label(i, self._early.pop(i))]

    def label(self, request: str, labels: list[int]) -> list[Joined]:
        """Rows that get a label now; empty when it has to wait or is dropped (counted)."""
        number = self._numbers.get(request)
        if number is None:
            self._early[request] = labels
            if len(self._early) > self.capacity:
                self._early.popitem(last=False)
                self.dropped["evicted"] += 1
            return []
        block = self._blocks[bisect_right(self._blocks, number, key=lambda b: b.first) - 1]
        place = number - block.first
        if block.labelled[place]:
            self.dropped["repeated"] += 1
            return []
        rows = block.rows(place, labels)
        if not rows:
            self.dropped["rowsDiffer"] += 1
            return []
        block.labelled[place] = 1
        self.joined += len(rows)
        return rows

    @property
    def waiting(self) -> int:
        """Labels whose prediction isn't known (yet)."""
        return len(self._early)

    @property
    def remembered(self) -> int:
        """Requests that a label could still join."""
        return len(self._numbers)

    def _forget(self, block: Block) -> None:
        for offset, request in enumerate(block.ids):
            if self._numbers.get(request) == block.first + offset:
                del self._numbers[request]
        self.forgotten += len(block.ids) - sum(block.labelled)

    def dump(self) -> dict[str, Any]:
        """For the snapshot."""
        return {
            "blocks": [msgspec.to_builtins(b, builtin_types=(bytes, bytearray)) for b in self._blocks],
            "next": self._next,
            "early": [[k, v] for k, v in self._early.items()],
            "joined": self.joined,
            "dropped": self.dropped,
            "forgotten": self.forgotten,
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Inverse of :meth:`dump`."""
        for one in dumped["blocks"]:
            block = Block(**{**one, "labelled": bytearray(one["labelled"])})
            self._blocks.append(block)
            self._numbers.update(zip(block.ids, range(block.first, block.first + len(block.ids)), strict=True))
        self._next = dumped["next"]
        self._early.update((k, v) for k, v in dumped["early"])
        self.joined, self.forgotten = dumped["joined"], dumped["forgotten"]
        self.dropped.update(dumped["dropped"])
