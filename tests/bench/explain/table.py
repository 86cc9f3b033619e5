"""Rows of figures, aligned, and stopwatches."""

import time
from collections.abc import Callable
from typing import Any

__all__ = ["best_ms", "seconds", "show"]


def show(title: str, head: list[str], rows: list[list[Any]], note: str = "") -> None:
    """Prints a table; floats with four significant digits."""
    cells = [head, *[[f"{c:.4g}" if isinstance(c, float) else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    print(f"\n## {title}")
    for row in cells:
        print(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    if note:
        print(note)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of one call, all threads together, and its result: steady on a machine that others use as well."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def best_ms(work: Callable[[int], Any], count: int) -> tuple[float, float]:
    """Median and least CPU milliseconds of ``work(i)`` for i in range(count)."""
    times = sorted(seconds(lambda i=i: work(i))[0] * 1000 for i in range(count))
    return times[len(times) // 2], times[0]
