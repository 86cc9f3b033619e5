"""In-process storage for the `limits` library's sliding windows, made for one event loop.

The library's MemoryStorage starts an expiry thread every 10 ms while requests come and takes locks; with one model's
handful of keys, dropping a window when its key comes round again is enough.
"""

import time
from collections.abc import Callable
from math import floor

from limits.storage.base import SlidingWindowCounterSupport, Storage

__all__ = ["WindowStorage"]


class WindowStorage(Storage, SlidingWindowCounterSupport):
    """Counts per key and window: at most two windows of each key are kept. ``clock`` reads seconds."""

    STORAGE_SCHEME = ["governed-window"]

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[str, list[int]] = {}  # key → [number of the current window, its count, the previous one's]

    def _at(self, key: str, expiry: int, now: float) -> list[int]:
        number = int(now // expiry)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = [number, 0, 0]
        elif number < window[0]:  # a clock that is set back gives nothing back
            window[0] = number
        elif window[0] != number:
            previous = max(0, window[1]) if window[0] == number - 1 else 0
            window[:] = [number, 0, previous]
        return window

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add ``amount`` (negative gives back) unless the weighted count would exceed ``limit``."""
        now = self._clock()
        window = self._at(key, expiry, now)
        weighted = window[1] + (window[2] * (1 - (now / expiry) % 1) if window[2] else 0)
        if floor(weighted) + amount > limit:
            return False
        window[1] += amount
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """(previous count, seconds until it counts nothing, current count, seconds until that one does)."""
        now = self._clock()
        _, current, previous = self._at(key, expiry, now)
        left = (1 - (now / expiry) % 1) * expiry
        return max(0, previous), left if previous else 0.0, max(0, current), left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002
        """Forget ``key``."""
        self._windows.pop(key, None)

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in the current window alone."""
        window = self._at(key, expiry, self._clock())
        window[1] += amount
        return window[1]

    def get(self, key: str) -> int:
        """Count of the current window."""
        window = self._windows.get(key)
        return window[1] if window else 0

    def get_expiry(self, key: str) -> float:  # noqa: ARG002
        """Windows expire when they come round; there is nothing to wait for."""
        return self._clock()

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)
