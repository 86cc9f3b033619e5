"""How long a request would wait for its turn: what waits already, and how fast it went while others waited.

A queue that is longer than the deadline answers nobody: each request would be computed, or given up, when its client
has left. What can't come to its turn in time is better refused while the client may still ask elsewhere.
"""

from collections.abc import Callable

__all__ = ["Backlog"]

HORIZON = 10.0
"""Seconds of work after which what was measured counts half, where the deadline is no shorter."""
TRUSTED = 0.1
"""Share of them, spent behind a queue, without which nothing is said: a burst is no overload."""


class Backlog:
    """Of one model; ``clock`` and ``deadline`` in seconds. Counts work in rows, or in whatever its caller counts."""

    def __init__(self, clock: Callable[[], float], deadline: float = HORIZON) -> None:
        self._clock, self._horizon = clock, min(HORIZON, deadline)
        self.waiting = 0
        """Rows whose turn hasn't come."""
        self._done, self._busy = 0.0, 0.0
        self._since: float | None = None
        """When the last turn ended behind which others waited."""

    def put(self, rows: int) -> None:
        """They wait."""
        self.waiting += rows

    def take(self, rows: int) -> None:
        """Their turn has come, or nobody waits for them."""
        self.waiting -= rows

    def finished(self, rows: int) -> None:
        """A turn ended; :meth:`next` follows once others were taken."""
        if self._since is None:
            return
        self._done += rows
        self._busy += self._clock() - self._since
        if self._busy > self._horizon:
            self._done /= 2
            self._busy /= 2

    def next(self) -> None:
        """All that could be taken was."""
        self._since = self._clock() if self.waiting else None

    def seconds(self) -> float:
        """Until what waits has had its turn; 0 where nothing waits, or too little was seen."""
        if not self.waiting or self._busy < TRUSTED * self._horizon or not self._done:
            return 0.0
        return self.waiting * self._busy / self._done
