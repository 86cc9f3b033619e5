"""What others' code raises, as an Exception whatever it is.

A library in Rust panics, a model's code calls ``sys.exit``: neither is an Exception, and both pass every
``except Exception`` on the way to the event loop, which they end. StopIteration can't be put into a future at all:
whoever awaits it waits for ever.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["Escaped", "Threads", "contained", "is_own_cancellation"]

P = ParamSpec("P")
T = TypeVar("T")


class Escaped(Exception):
    """Stands for what was raised (``__cause__``), which is no Exception, or can't be put into a future."""


def contained(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work``'s result. Raises what it raises where that is an Exception, else Escaped.

    Only for what is neither awaited nor meant to end the process: nobody cancels it.
    """
    try:
        return work(*args, **kwargs)
    except (StopIteration, StopAsyncIteration) as error:
        raise Escaped(f"{type(error).__name__}: {error}") from error
    except Exception:
        raise
    except BaseException as error:
        raise Escaped(f"{type(error).__name__}: {error}") from error


def is_own_cancellation(error: BaseException) -> bool:
    """Whether the running task is being cancelled; others' code may raise CancelledError of itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


class Threads(ThreadPoolExecutor):
    """Whose work raises nothing but Exceptions."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return super().submit(lambda: contained(fn, *args, **kwargs))
