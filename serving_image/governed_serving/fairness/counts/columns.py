"""Columns as counts take them: integer codes, and the values they stand for."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["OTHER", "CodedColumn", "Subject", "coded", "joint", "joint_name", "parts_of"]

CodedColumn = tuple[NDArray[np.integer], Sequence[str]]
"""Integer codes, shape (rows,), and the values they stand for."""
OTHER = "(other)"
"""Stands for the values beyond a limit."""
Subject = tuple[str, ...]
"""What has groups: an axis, or several whose values together make them (intersections)."""


def joint_name(values: Iterable[str]) -> str:
    """How an intersection is called, and so are the axes that it is of."""
    return _AND.join(values)


_AND = " ∧ "


def parts_of(name: str) -> list[str]:
    """The values that a group's name is made of; inverse of :func:`joint_name` for values without its sign."""
    return name.split(_AND)


def joint(columns: Mapping[str, CodedColumn], subject: Subject) -> CodedColumn:
    """The groups of ``subject`` as one column. Of several axes only the groups that have rows are named."""
    if len(subject) == 1:
        return columns[subject[0]]
    codes, names = columns[subject[0]]
    for axis in subject[1:]:
        more, values = columns[axis]
        distinct, codes = np.unique(codes.astype(np.int64) * len(values) + more, return_inverse=True)
        places = (divmod(code, len(values)) for code in distinct.tolist())
        names = [joint_name((names[one], values[other])) for one, other in places]
    return codes, names


def coded(values: NDArray[np.generic] | Sequence[object]) -> CodedColumn:
    """Codes and names of any column; whole numbers are named without a decimal point."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and bool((array == np.floor(array)).all()):
        array = array.astype(np.int64)
    names, codes = np.unique(array, return_inverse=True)
    return codes, [str(name) for name in names.tolist()]
