"""How long to wait before another try: backing off with full jitter, heeding Retry-After.

Full jitter after Brooker, "Exponential Backoff And Jitter" (AWS, 2015): pauses are drawn evenly from 0 to the bound, so
that callers that failed together don't come again together. Retry-After: RFC 9110, 10.2.3.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from governed_api.jitter import JITTER

__all__ = ["pause", "retry_after"]


def pause(first: float, longest: float, attempt: int, asked: float) -> float:
    """Seconds before another try: drawn from 0 to ``first``·2^``attempt``, at most ``longest``; at least ``asked``."""
    return max(asked, JITTER.uniform(0, min(longest, first * 2.0 ** min(attempt, 62))))


def retry_after(value: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Seconds that a Retry-After field asks for, as a number or a date; 0 for none, for one that is past, and for
    nonsense."""
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now()).total_seconds())
