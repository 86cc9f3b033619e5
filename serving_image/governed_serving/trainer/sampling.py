"""Which rows stand for all of a table: the one way in which the trainer takes fewer rows than there are."""

import numpy as np
from numpy.typing import NDArray

from governed_serving.trainer.dataset import Dataset

__all__ = ["sample"]


def sample(rows: Dataset, most: int, seed: int) -> NDArray[np.int64]:
    """Places of at most ``most`` rows, drawn without replacement: int64 (min(rows, most),), rising.

    Systematic sampling (Madow & Madow 1944) along the protected attributes and strata, then the label, in random order
    among equals: each row has the same chance, and of every group of n rows n·most/rows come, to within one for the
    first of them by name, however the file is sorted. The same rows and ``seed`` give the same places.
    """
    if rows.rows <= most:
        return np.arange(rows.rows)
    rng = np.random.default_rng(np.random.PCG64(seed))
    groups = [np.unique(column.astype(str), return_inverse=True)[1] for _, column in sorted(rows.groups.items())]
    order = np.lexsort((rng.random(rows.rows), rows.label, *reversed(groups)))
    places = ((rng.random() + np.arange(most)) * (rows.rows / most)).astype(np.int64)
    return np.sort(order[np.minimum(places, rows.rows - 1)])
