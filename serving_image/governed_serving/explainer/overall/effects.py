"""How the output depends on one feature: partial dependence with individual curves, and accumulated local effects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, factorise, is_numeric, repeat, row_count, take
from governed_serving.blackbox.errors import NotExplainable

__all__ = ["Effect", "accumulated_local_effects", "partial_dependence"]


@dataclass(frozen=True)
class Effect:
    """``grid`` (points,) of the feature's values; ``values`` (points, outputs); ``curves`` (rows, points, outputs) for
    partial dependence; ``counts`` (points,) rows behind each point."""

    feature: str
    grid: NDArray[np.generic]
    values: Floats
    counts: NDArray[np.int64]
    curves: Floats | None
    evaluations: int


def partial_dependence(box: BlackBox, rows: Columns, feature: str, points: int = 20) -> Effect:
    """Mean answer with the feature set to each grid value (Friedman 2001), and each row's own curve (Goldstein et al.
    2015).

    Missing numbers have no place on the grid; their rows have curves like any other's, and are in no count.
    """
    before, count = box.rows, row_count(rows)
    grid, counts = _grid(rows, feature, points)
    columns = repeat(rows, len(grid))
    columns[feature] = np.tile(grid, count)
    curves = box(columns).reshape(count, len(grid), -1)
    return Effect(feature, grid, curves.mean(axis=0), counts, curves, box.rows - before)


def accumulated_local_effects(box: BlackBox, rows: Columns, feature: str, points: int = 20) -> Effect:
    """First-order ALE (Apley & Zhu 2020): centred so that its mean over ``rows`` is zero; numbers only.

    Unlike partial dependence it never asks for rows that the data doesn't hold when features are correlated. ``grid``
    holds the edges of the quantile bins; rows without a value of the feature lie in none of them and are left out.
    """
    if rows[feature].dtype == object:
        raise NotExplainable(
            f"{feature}: accumulated local effects need an ordered feature, found text; use partial dependence"
        )
    before = box.rows
    rows = take(rows, np.isfinite(rows[feature].astype(float)))
    values = rows[feature].astype(float)
    if not len(values):
        raise NotExplainable(f"{feature}: expected at least two distinct values, found none")
    edges = np.unique(np.quantile(values, np.linspace(0, 1, points + 1), method="inverted_cdf"))
    if len(edges) < 2:
        raise NotExplainable(f"{feature}: expected at least two distinct values, found one")
    place = np.clip(np.searchsorted(edges, values, side="left"), 1, len(edges) - 1)
    dtype = rows[feature].dtype
    upper = box({**rows, feature: edges[place].astype(dtype)})
    lower = box({**rows, feature: edges[place - 1].astype(dtype)})
    counts = np.bincount(place, minlength=len(edges))[1:]
    sums = np.zeros((len(counts), upper.shape[1]))
    np.add.at(sums, place - 1, upper - lower)
    local = sums / np.maximum(counts, 1)[:, None]
    total = np.concatenate([np.zeros((1, local.shape[1])), np.cumsum(local, axis=0)])
    middle = (total[1:] + total[:-1]) / 2
    centred = total - (counts[:, None] * middle).sum(axis=0) / counts.sum()
    return Effect(feature, edges.astype(dtype), centred, np.concatenate([[0], counts]), None, box.rows - before)


def _grid(rows: Columns, feature: str, points: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    values = rows[feature]
    if is_numeric(values):
        values = values[np.isfinite(values.astype(float))]
        if not len(values):
            raise NotExplainable(f"{feature}: expected rows with a value, found none")
    distinct, codes = factorise(values)
    if not is_numeric(values) or len(distinct) <= points:
        return distinct, np.bincount(codes, minlength=len(distinct))
    grid = np.unique(np.quantile(values, np.linspace(0, 1, points), method="inverted_cdf"))
    nearest = np.abs(values[:, None].astype(float) - grid[None, :].astype(float)).argmin(axis=1)
    return grid, np.bincount(nearest, minlength=len(grid))
