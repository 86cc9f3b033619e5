"""What has been appended of which stream: the reason why sending a batch twice appends it once."""

from bisect import bisect_right
from collections.abc import Iterable

__all__ = ["Run", "Streams"]

Run = tuple[int, int, int]
"""(first seq, first index, count): consecutive numbers of a stream at consecutive places of the ledger."""

_REMEMBERED = 65_536


class Streams:
    """Runs per (model, stream). Of each stream the last 65,536 runs are remembered; the ledger itself has the rest."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], list[Run]] = {}

    @classmethod
    def load(cls, dumped: Iterable[tuple[str, str, list[Run]]]) -> "Streams":
        """Inverse of :meth:`dump`."""
        streams = cls()
        for model, stream, runs in dumped:
            streams._runs[model, stream] = [(r[0], r[1], r[2]) for r in runs]
        return streams

    def dump(self) -> list[tuple[str, str, list[Run]]]:
        """All of it, for a snapshot."""
        return [(model, stream, list(runs)) for (model, stream), runs in self._runs.items()]

    def next_seq(self, model: str, stream: str) -> int | None:
        """Number of the next entry; None for a stream never seen."""
        runs = self._runs.get((model, stream))
        return runs[-1][0] + runs[-1][2] if runs else None

    def add(self, model: str, stream: str, seq: int, index: int, count: int) -> None:
        """``count`` entries from ``seq`` on are at ``index``; adjoining runs become one."""
        runs = self._runs.setdefault((model, stream), [])
        if runs and runs[-1][0] + runs[-1][2] == seq and runs[-1][1] + runs[-1][2] == index:
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + count)
            return
        runs.append((seq, index, count))
        if len(runs) > _REMEMBERED:
            del runs[: _REMEMBERED // 2]

    def run_at(self, model: str, stream: str, seq: int) -> Run | None:
        """The run that holds ``seq``; None when it isn't remembered."""
        runs = self._runs.get((model, stream), [])
        place = bisect_right(runs, seq, key=lambda r: r[0]) - 1
        if place < 0 or seq >= runs[place][0] + runs[place][2]:
            return None
        return runs[place]
