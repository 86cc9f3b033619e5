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

__all__ = ["ROUNDING", "Independence", "covering", "row_independence"]

Values = list[NDArray[np.generic]]
Run = Callable[[Values], Values]

HOSTILE = (0.0, 1.0, -1.0, 1e6, -1e6, 1e30, -1e30, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min))
"""What a neighbour's float columns are filled with."""
REPEATS = 64
"""Neighbours that repeat one row: more rows than a matrix kernel's tile has."""
ROUNDING = 2e-6
"""A float that moves by at most this times max(1, |value|), some 16 steps of float32, is rounded differently: matrix
kernels add in another order for another number of rows. More, or another text or whole number, is another answer."""
STOPPED = "not shown in the time given"
ROWLESS = "not shown: an output has no row for each row asked"


@dataclass(frozen=True)
class Independence:
    """``rows`` answers were compared with the same rows' alone, ``different`` of them differed in a bit, ``material``
    of these by more than rounding; ``first`` says where, a material difference before any other."""

    independent: bool
    rows: int
    different: int
    first: str = ""
    material: int = 0


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
    alone: list[Values] = []
    for row in range(rows):
        outputs = run([c[row : row + 1] for c in columns])
        if not _rowwise(outputs, 1):
            return Independence(False, 0, 0, ROWLESS)
        alone.append([np.array(values[0]) for values in outputs])
        if enough():
            return Independence(False, 0, 0, STOPPED)
    tally = _Tally(alone)
    for name, places, batch in _companies(columns, np.random.default_rng(np.random.PCG64(seed)), repeats):
        try:
            outputs = run(batch)
        except Exception:  # the runtime's own classes; a row that the model refuses can't be anybody's neighbour
            if name == "in a batch":
                raise
            continue
        if not _rowwise(outputs, len(batch[0])):
            return tally.found(ROWLESS)
        tally.compare(name, places, outputs)
        if enough():
            return tally.found(STOPPED)
    return tally.found()


class _Tally:
    """Answers in company against the same rows' alone."""

    def __init__(self, alone: list[Values]) -> None:
        self._alone = alone
        self._compared = self._different = self._material = 0
        self._first = self._worse = ""

    def compare(self, name: str, places: Sequence[tuple[int, int]], outputs: Values) -> None:
        """``places``: (place in ``outputs``, row of the sample) pairs."""
        for at, row in places:
            self._compared += 1
            pairs = [(values[at], own) for values, own in zip(outputs, self._alone[row], strict=True)]
            if all(_bits(together) == _bits(own) for together, own in pairs):
                continue
            self._different += 1
            text = f"row {row} of the sample differs {name}"
            self._first = self._first or text
            if not all(_rounded(together, own) for together, own in pairs):
                self._material += 1
                self._worse = self._worse or text

    def found(self, unfinished: str = "") -> Independence:
        """``unfinished``: why the comparison ended early."""
        independent = not self._different and not unfinished
        first = self._worse or self._first or unfinished
        return Independence(independent, self._compared, self._different, first, self._material)


def covering(columns: Values, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Places of at most ``most`` rows that hold as many different texts as they can, rising: int64 (min(rows, most),).

    ``columns``: one array (rows, …) per input. In seeded random order, the first row with each text comes before all
    others, so that a category of one row in a thousand is asked about as well. A column in which most texts are unique
    has no categories.
    """
    rows = len(columns[0])
    order = np.random.default_rng(np.random.PCG64(seed)).permutation(rows)
    first = np.zeros(rows, bool)
    for column in columns:
        if column.dtype == object:
            width = column.size // rows
            _, places = np.unique(column.reshape(rows, width)[order].astype(str), return_index=True)
            if 2 * len(places) <= rows:
                first[places // width] = True
    return np.sort(order[np.argsort(~first, kind="stable")][:most])


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


def _filled(row: NDArray[np.generic], value: float) -> NDArray[np.generic]:
    """``row`` with its floats replaced; texts and codes stay, since a model refuses codes that it doesn't know."""
    if row.dtype.kind != "f":
        return row
    limits = np.finfo(row.dtype.str)
    return np.full_like(row, np.clip(value, limits.min, limits.max))


def _rowwise(outputs: Values, rows: int) -> bool:
    return all(values.ndim > 0 and len(values) == rows for values in outputs)


def _bits(array: Any) -> bytes:
    values = np.asarray(array)
    return repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()


def _rounded(together: Any, own: Any) -> bool:
    """Whether two answers to a row are the same but for rounding."""
    merged, alone = np.asarray(together), np.asarray(own)
    if merged.dtype.kind != "f":
        return _bits(merged) == _bits(alone)
    with np.errstate(all="ignore"):
        near = np.abs(merged.astype(np.float64) - alone) <= ROUNDING * np.maximum(1, np.abs(alone.astype(np.float64)))
    return bool((near | (merged == alone) | (np.isnan(merged) & np.isnan(alone))).all())
