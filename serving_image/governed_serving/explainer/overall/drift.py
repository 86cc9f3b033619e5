"""Global importances over time, and an alarm when they move.

Every explanation adds a vector of shares |φ| / Σ|φ|. The first ones are the reference; each full window after them is
compared with it: a Welch z per player, Bonferroni over players, and over windows by the spending sequence α·6/(π²k²),
so that the chance of a false alarm over the whole life stays below ``alpha``. A difference also has to matter: total
variation ≥ ``least``.
"""

import math
from statistics import NormalDist

import msgspec
import numpy as np

from governed_serving.blackbox.columns import Floats
from governed_serving.decoding import decode_msgpack

__all__ = ["DriftAlarm", "ImportanceMonitor"]


class DriftAlarm(msgspec.Struct, frozen=True):
    """``player`` moved most, from ``before`` to ``after`` (mean shares); ``distance`` is the total variation of all
    shares."""

    player: str
    before: float
    after: float
    distance: float
    window: int
    p_value: float


class _Moments(msgspec.Struct):
    count: int
    total: list[float]
    square: list[float]

    @classmethod
    def empty(cls, size: int) -> "_Moments":
        return cls(0, [0.0] * size, [0.0] * size)

    def add(self, shares: Floats) -> None:
        self.count += 1
        self.total = (np.array(self.total) + shares).tolist()
        self.square = (np.array(self.square) + shares**2).tolist()

    def mean(self) -> Floats:
        return np.array(self.total) / max(self.count, 1)

    def variance_of_mean(self) -> Floats:
        spread = np.maximum(np.array(self.square) / max(self.count, 1) - self.mean() ** 2, 0.0)
        variance: Floats = (spread * self.count / max(self.count - 1, 1) + 1e-12) / max(self.count, 1)
        return variance


class _State(msgspec.Struct):
    names: list[str]
    reference: _Moments
    window: _Moments
    windows: int = 0
    distance: float = 0.0
    history: list[list[float]] = []


class ImportanceMonitor:
    """Constant memory; ``dump`` and ``restore`` carry it over a restart."""

    KEPT = 52
    """Windows whose mean shares are kept for the report."""

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        reference: int = 200,
        window: int = 200,
        alpha: float = 0.01,
        least: float = 0.1,
    ) -> None:
        self.reference, self.window, self.alpha, self.least = reference, window, alpha, least
        size = len(names)
        self._state = _State(list(names), _Moments.empty(size), _Moments.empty(size))

    def observe(self, values: Floats) -> DriftAlarm | None:
        """``values``: attributions of one row, shape (players,). An alarm comes at the end of a window at the
        earliest."""
        total = float(np.abs(values).sum())
        if total == 0 or not math.isfinite(total):
            return None
        shares = np.abs(values) / total
        state = self._state
        if state.reference.count < self.reference:
            state.reference.add(shares)
            return None
        state.window.add(shares)
        return self._close() if state.window.count >= self.window else None

    def _close(self) -> DriftAlarm | None:
        state = self._state
        state.windows += 1
        before, after = state.reference.mean(), state.window.mean()
        state.distance = float(np.abs(after - before).sum() / 2)
        state.history = [*state.history, after.tolist()][-self.KEPT :]
        z = np.abs(after - before) / np.sqrt(state.reference.variance_of_mean() + state.window.variance_of_mean())
        state.window = _Moments.empty(len(state.names))
        worst = int(z.argmax())
        p_value = min(1.0, len(z) * 2 * NormalDist().cdf(-float(z[worst])))
        spent = self.alpha * 6 / (math.pi**2 * state.windows**2)
        if p_value >= spent or state.distance < self.least:
            return None
        return DriftAlarm(
            state.names[worst], float(before[worst]), float(after[worst]), state.distance, state.windows, p_value
        )

    @property
    def distance(self) -> float:
        """Total variation between the reference and the last full window, 0 to 1."""
        return self._state.distance

    def report(self) -> dict[str, object]:
        """Mean shares of the reference and of each kept window."""
        state = self._state
        return {
            "players": state.names,
            "reference": {"samples": state.reference.count, "shares": state.reference.mean().tolist()},
            "windows": state.windows,
            "window_samples": self.window,
            "history": state.history,
            "distance": state.distance,
        }

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self._state)

    def restore(self, data: bytes) -> bool:
        """False, and nothing changes, when the state is of other players."""
        state = decode_msgpack(data, type=_State)
        if state.names != self._state.names:
            return False
        self._state = state
        return True
