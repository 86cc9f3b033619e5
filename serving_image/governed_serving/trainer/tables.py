"""Raw tables: CSV text or a generator's columns, before anything is known about types."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from governed_serving.trainer.errors import InvalidTraining

Column = NDArray[np.generic]
"""Shape (rows,): object (str, "" where missing) or float64 (NaN where missing)."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length; ``counts`` (int64, shape (rows,)) says how often each row occurs, None means once."""

    columns: dict[str, Column]
    counts: NDArray[np.int64] | None = field(default=None)

    @property
    def rows(self) -> int:
        """Rows as written, before counts repeat them."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def take(self, name: str, path: str) -> Column:
        """The column ``name``; raises InvalidTraining for the manifest field ``path`` when there is none."""
        if name not in self.columns:
            listed = ", ".join(self.columns)
            raise InvalidTraining(path, f"expected a column of the data, found {name!r}; the columns are {listed}")
        return self.columns[name]


def parse_csv(text: str, path: str) -> Table:
    """A table from CSV text (RFC 4180, header line first). Raises InvalidTraining, which names the row, for
    ``path``."""
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff")), strict=True)
    try:
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise InvalidTraining(path, f"line {reader.line_num}: expected CSV, found {error}") from error
    if not lines:
        raise InvalidTraining(path, "expected CSV with a header line, found nothing: is the file empty?")
    header = [name.strip() for name in lines[0]]
    if len(set(header)) != len(header) or "" in header:
        twice = next(name for name in header if header.count(name) > 1 or not name)
        raise InvalidTraining(path, f"expected distinct column names in the header, found {twice!r} twice or empty")
    if len(lines) == 1:
        raise InvalidTraining(path, "expected rows after the header, found none")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise InvalidTraining(path, f"row {number}: expected {len(header)} values, found {len(line)}")
    return Table({name: strings(line[k].strip() for line in lines[1:]) for k, name in enumerate(header)})


def strings(values: Iterable[str]) -> Column:
    """Object array of str, shape (rows,)."""
    listed = list(values)
    out = np.empty(len(listed), dtype=object)
    out[:] = listed
    return out


def numbers(column: Column, name: str, path: str) -> NDArray[np.float64]:
    """``column`` as float64, NaN where it is empty.

    Raises InvalidTraining for ``path`` naming row and column of the first value that is no finite number.
    """
    if column.dtype != object:
        return column.astype(np.float64)
    blank = column == ""
    try:
        values = np.where(blank, "nan", column).astype(np.float64)
    except ValueError:
        values = np.array([_number(value, row, name, path) for row, value in enumerate(column, 1)])
    for row in np.flatnonzero(~np.isfinite(values) & ~blank)[:1]:
        raise InvalidTraining(
            path,
            f"row {row + 1}, column {name}: expected a finite number, or nothing where it is missing, "
            f"found {column[row]!r}",
        )
    return values


def _number(value: str, row: int, name: str, path: str) -> float:
    try:
        return float(value or "nan")
    except ValueError:
        raise InvalidTraining(path, f"row {row}, column {name}: expected a number, found {value!r}") from None


def with_counts(table: Table, name: str, path: str) -> Table:
    """``table`` without the column ``name``, which says how often each row occurs (whole numbers ≥ 0)."""
    values = numbers(table.take(name, path), name, path)
    wrong = np.flatnonzero(~(values >= 0) | (values != np.floor(values)))
    if len(wrong):
        raise InvalidTraining(
            path,
            f"row {wrong[0] + 1}, column {name}: expected a whole number ≥ 0, found {table.columns[name][wrong[0]]!r}",
        )
    if values.sum() == 0:
        raise InvalidTraining(path, f"column {name}: expected at least one row that occurs, found only zeros")
    return Table({k: v for k, v in table.columns.items() if k != name}, values.astype(np.int64))
