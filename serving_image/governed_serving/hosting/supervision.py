"""Tasks beside the routes, kept running: an error that a task doesn't know costs a pause, never the process or the
other tasks."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from governed_serving.containment import is_own_cancellation
from governed_serving.hosting.logs import log

__all__ = ["kept_running"]

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a task that failed is started again: doubled each time, and back to the first after a run of more than
the longest."""


async def kept_running(
    task: str, run: Callable[[], Awaitable[None]], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """``run`` until it returns or is cancelled; one that raises is logged under the name ``task`` and started again."""
    failures = 0
    while True:
        began = time.monotonic()
        try:
            return await run()
        except BaseException as error:  # whatever it is, a panic too: none may end in silence
            if is_own_cancellation(error):
                raise
            log("error", "a background task failed unexpectedly, restarting it", task=task, exception=error)
        failures = 1 if time.monotonic() - began > LONGEST_PAUSE else failures + 1
        await pause(min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE))
