"""Waiting on a world that settles in its own time: no sleeps in tests, only observations with a deadline."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A failed read is not an observation: the API server may be restarting just now.
NOT_OBSERVED: tuple[type[Exception], ...] = (OSError, RuntimeError, LookupError, ValueError)


def _not_observed() -> tuple[type[Exception], ...]:
    """With the errors of httpx where a test reads through it, which are no OSErrors: support itself does without."""
    httpx = sys.modules.get("httpx")
    return NOT_OBSERVED if httpx is None else (*NOT_OBSERVED, httpx.TransportError)


def eventually(
    look: Callable[[], T],
    holds: Callable[[T], object] = bool,
    *,
    within: float = 60.0,
    every: float = 0.2,
    what: str = "",
) -> T:
    """Look until `holds(look())` is true and return what was seen.

    `look` may raise: that counts as not seen. AssertionErrors inside `look` or `holds` count likewise, so a whole block
    of assertions can be awaited. After `within` seconds the last sight or error is part of the AssertionError.
    """
    deadline = time.monotonic() + within
    last = "nothing seen yet"
    while True:
        try:
            seen = look()
            if holds(seen):
                return seen
            last = f"last seen: {seen!r}"
        except (AssertionError, *_not_observed()) as error:
            last = f"last error: {type(error).__name__}: {error}"
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or 'the condition'} did not come true within {within:.0f} s; {last[:4000]}")
        time.sleep(every)


def comes_to_rest(look: Callable[[], T], *, during: float = 4.0, within: float = 60.0, what: str = "it") -> T:
    """What `look` sees once it has seen the same for `during` seconds."""

    def rests() -> T:
        first = look()
        return consistently(look, lambda seen: seen == first, during=during, what=what)

    return eventually(rests, lambda _: True, within=within, what=f"{what} comes to rest")


def consistently(
    look: Callable[[], T],
    holds: Callable[[T], object] = bool,
    *,
    during: float = 5.0,
    every: float = 0.2,
    what: str = "",
) -> T:
    """Look for `during` seconds; every observation must hold, and there must be at least one. Failed reads don't
    count."""
    deadline = time.monotonic() + during
    observations: list[T] = []
    error: Exception | None = None
    while time.monotonic() < deadline or not observations:
        try:
            seen = look()
        except _not_observed() as failure:
            error = failure
            if time.monotonic() >= deadline + during:
                raise AssertionError(f"{what or 'the condition'} was never observed: {error}") from error
        else:
            assert holds(seen), f"{what or 'the condition'} ceased to hold; seen: {seen!r}"
            observations.append(seen)
        time.sleep(every)
    return observations[-1]
