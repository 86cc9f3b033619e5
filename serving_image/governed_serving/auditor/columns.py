"""Columns as counts take them: integer codes, and the values they stand for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OTHER", "CodedColumn", "coded"]

CodedColumn = tuple[NDArray[Any], Sequence[str]]
"""Integer codes, shape (rows,), and the values they stand for."""
OTHER = "(other)"
"""Stands for the values beyond a limit."""


def coded(values: NDArray[Any] | Sequence[Any]) -> CodedColumn:
    """Codes and names of any column; whole numbers are named without a decimal point."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and bool((array == np.floor(array)).all()):
        array = array.astype(np.int64)
    names, codes = np.unique(array, return_inverse=True)
    return codes, [str(name) for name in names.tolist()]
