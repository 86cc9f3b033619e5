"""Calls that may safely be sent twice, sent again: bounded, backing off with full jitter, heeding Retry-After."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import httpx

from governed_api.pauses import pause, retry_after

__all__ = ["RETRYABLE_ERRORS", "RETRYABLE_STATUS", "Backoff", "GaveUp", "Retrying"]

RETRYABLE_STATUS = frozenset({429, 502, 503, 504})
"""Answers that another try may change: too many requests, bad gateway, unavailable, gateway timeout."""
RETRYABLE_ERRORS = (httpx.TransportError,)
"""No answer: refused, reset, timed out."""


class GaveUp(Exception):
    """No answer that is final; the message is the last one's status and text, or the last error."""


@dataclass(frozen=True)
class Backoff:
    """Pauses of at most ``first``·2ⁿ, at most ``longest`` seconds, until ``patience`` seconds are over or ``attempts``
    made.

    ``heeds_retry_after``: wait at least as long as the answer asks for, and give up at once where that is beyond
    ``patience``.
    """

    patience: float
    first: float = 0.1
    longest: float = 5.0
    attempts: int | None = None
    heeds_retry_after: bool = True


class Retrying:
    """``sleep`` and ``clock`` are injected by tests; ``text`` says in words why an answer isn't final."""

    def __init__(
        self,
        backoff: Backoff,
        retryable: Callable[[int], bool] | Collection[int] = RETRYABLE_STATUS,
        *,
        text: Callable[[httpx.Response], str] = lambda answer: f"{answer.status_code} {answer.text[:200]}",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._backoff = backoff
        self._retryable = retryable if callable(retryable) else retryable.__contains__
        self._text, self._clock, self._sleep = text, clock, sleep

    def call(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that is final, whatever its status. Raises GaveUp."""
        bounds, attempt, asked = self._backoff, 0, 0.0
        deadline = self._clock() + bounds.patience
        while True:
            try:
                answer = send()
                if not self._retryable(answer.status_code):
                    return answer
                problem = self._text(answer)
                asked = retry_after(answer.headers.get("retry-after", "")) if bounds.heeds_retry_after else 0.0
            except RETRYABLE_ERRORS as error:
                problem, asked = str(error) or type(error).__name__, 0.0
            seconds = pause(bounds.first, bounds.longest, attempt, asked)
            attempt += 1
            if attempt == bounds.attempts or self._clock() + seconds > deadline:
                raise GaveUp(problem)
            self._sleep(seconds)
