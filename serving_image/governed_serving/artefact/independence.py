"""Row independence: whether a model's answer to a row is a function of that row alone, bit for bit.

A model whose graph mixes rows (an activation scale over the batch, an output minus its batch mean) answers one client
by what another sends, once requests share a call. The check serves rows alone, in a batch, shuffled, repeated and among
hostile neighbours, and compares bits. It can show dependence; independence it shows for the rows and batch sizes that
it tried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Independence", "row_independence"]

Values = list[NDArray[Any]]
Run = Callable[[Values], Values]

HOSTILE = (0.0, 1.0, -1.0, 1e6, -1e6, 1e30, -1e30, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min))
"""What a neighbour's float columns are filled with."""
REPEATS = 64
"""Neighbours that repeat one row: more rows than a matrix kernel's tile has."""
STOPPED = "not shown in the time given"
ROWLESS = "not shown: an output has no row for each row asked"


@dataclass(frozen=True)
class Independence:
    """``rows`` answers were compared with the same rows' alone, ``different`` of them differed in a bit; ``first`` says
    where."""

    independent: bool
    rows: int
    different: int
    first: str = ""


def row_independence(
    run: Run, columns: Values, *, seed: int = 0, enough: Callable[[], bool] = lambda: False, repeats: int = REPEATS
) -> Independence:
    """Ask ``run`` about each row of ``columns`` alone and in company.

    ``columns``: one array (rows, …) per input, at least one row; ``run`` takes such columns and returns outputs with a
    row for each row; ``repeats``: copies of one row in the largest batch. ``enough`` stops the check between calls;
    what it didn't reach isn't shown, so ``independent`` is False.
    Raises what ``run`` raises on ``columns``; hostile neighbours that it refuses are left out.
    """
    rows = len(columns[0])
    alone: list[list[bytes]] = []
    for row in range(rows):
        outputs = run([c[row : row + 1] for c in columns])
        if not _rowwise(outputs, 1):
            return Independence(False, 0, 0, ROWLESS)
        alone.append([_bits(values, 0) for values in outputs])
        if enough():
            return Independence(False, 0, 0, STOPPED)
    compared = different = 0
    first = ""
    for name, places, batch in _companies(columns, np.random.default_rng(np.random.PCG64(seed)), repeats):
        try:
            outputs = run(batch)
        except Exception:  # the runtime's own classes; a row that the model refuses can't be anybody's neighbour
            if name == "in a batch":
                raise
            continue
        if not _rowwise(outputs, len(batch[0])):
            return Independence(False, compared, different, ROWLESS)
        for at, row in places:
            compared += 1
            if any(_bits(values, at) != bits for values, bits in zip(outputs, alone[row], strict=True)):
                different += 1
                first = first or f"row {row} of the sample differs {name}"
        if enough():
            return Independence(False, compared, different, first or STOPPED)
    return Independence(not different, compared, different, first)


def _companies(
    columns: Values, rng: np.random.Generator, repeats: int
) -> Iterator[tuple[str, Sequence[tuple[int, int]], Values]]:
    """Name, (place in the batch, row of the sample) pairs, batch."""
    rows = len(columns[0])
    yield "in a batch", [(k, k) for k in range(rows)], columns
    order = rng.permutation(rows)
    yield "in a shuffled batch", list(enumerate(order.tolist())), [c[order] for c in columns]
    for size in (2, 3, 7):
        for start in range(0, rows - size + 1, size):
            places = [(k, start + k) for k in range(size)]
            yield f"in a batch of {size}", places, [c[start : start + size] for c in columns]
    repeated = np.full(repeats, rng.integers(rows))
    yield (
        "among copies of another row",
        [(repeats + k, k) for k in range(rows)],
        [np.concatenate([c[repeated], c]) for c in columns],
    )
    for value in HOSTILE:
        neighbours = [_filled(c[:1], value) for c in columns]
        yield (
            f"beside a row of {value:g}",
            [(k + 1, k) for k in range(rows)],
            [np.concatenate([n, c]) for n, c in zip(neighbours, columns, strict=True)],
        )


def _filled(row: NDArray[Any], value: float) -> NDArray[Any]:
    """``row`` with its floats replaced; texts and codes stay, since a model refuses codes that it doesn't know."""
    return (
        np.full_like(row, np.clip(value, np.finfo(row.dtype).min, np.finfo(row.dtype).max))
        if row.dtype.kind == "f"
        else row
    )


def _rowwise(outputs: Values, rows: int) -> bool:
    return all(values.ndim > 0 and len(values) == rows for values in outputs)


def _bits(values: NDArray[Any], row: int) -> bytes:
    found = values[row]
    return (
        repr(np.asarray(found).tolist()).encode() if values.dtype == object else np.ascontiguousarray(found).tobytes()
    )
