"""LIME for tables (Ribeiro, Singh, Guestrin 2016), vectorised, seeded, with intervals.

A sample draws each player's values from a random background row; its interpretable form is 1 where the player stays in the
explained row's bin (quartiles of the background, or the same category). Kernel and ridge penalty are the lime library's.
"""

import math

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, row_count, take
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.intervals import student_quantile
from governed_serving.explainer.local.ridge import weighted_ridge
from governed_serving.explainer.players import Players

__all__ = ["bins", "lime_tabular"]

RIDGE = 1.0


def bins(values: NDArray[np.generic], background: NDArray[np.generic]) -> NDArray[np.int64]:
    """Bin of each value: quartile of ``background`` for numbers (NaN its own bin), code of the category for text."""
    if background.dtype == object:
        codes = {value: code for code, value in enumerate(dict.fromkeys(background.tolist()))}
        return np.array([codes.get(value, len(codes)) for value in values], np.int64)
    numbers = background.astype(float)
    finite = numbers[np.isfinite(numbers)]
    edges = np.unique(np.percentile(finite, [25, 50, 75])) if len(finite) else np.empty(0)
    found = np.searchsorted(edges, values.astype(float), side="left")
    return np.where(np.isnan(values.astype(float)), len(edges) + 1, found).astype(np.int64)


def lime_tabular(
    box: BlackBox,
    rows: Columns,
    background: Columns,
    players: Players,
    *,
    samples: int,
    seed: np.random.SeedSequence,
    kernel_width: float | None = None,
    confidence: float = 0.95,
) -> list[Attribution]:
    """One :class:`Attribution` per row: ``values`` are the local model's coefficients, ``base`` its intercept.

    ``kernel_width`` defaults to 0.75 √players; ``details`` holds the local model's weighted R² (``score``).
    """
    width = 0.75 * math.sqrt(len(players)) if kernel_width is None else kernel_width
    streams = seed.spawn(row_count(rows))
    return [
        _one(
            box,
            take(rows, slice(row, row + 1)),
            background,
            players,
            samples,
            np.random.default_rng(stream),
            width,
            confidence,
        )
        for row, stream in enumerate(streams)
    ]


def _one(
    box: BlackBox,
    row: Columns,
    background: Columns,
    players: Players,
    samples: int,
    rng: np.random.Generator,
    width: float,
    confidence: float,
) -> Attribution:
    before = box.rows
    drawn = rng.integers(0, row_count(background), (samples, len(players)))
    columns, same = {}, np.ones((samples, len(players)))
    for g, members in enumerate(players.members):
        for feature in members:
            values = background[feature][drawn[:, g]]
            values[0] = row[feature][0]
            columns[feature] = values
            here = bins(row[feature], background[feature])[0]
            known = bins(background[feature], background[feature])
            same[1:, g] *= known[drawn[1:, g]] == here
    outputs = box(columns)
    distance = len(players) - same.sum(axis=1)
    weight = np.sqrt(np.exp(-distance / width**2))
    fit = weighted_ridge(same, outputs, weight, RIDGE)
    half = student_quantile(confidence, fit.freedom) * fit.error
    return _attribution(
        "lime",
        players.names,
        fit.coefficients,
        half,
        fit.intercept,
        outputs[0],
        box.rows - before,
        confidence,
        fit.score,
    )


def _attribution(
    method: str,
    names: tuple[str, ...],
    values: Floats,
    half: Floats,
    base: Floats,
    prediction: Floats,
    evaluations: int,
    confidence: float,
    score: Floats,
) -> Attribution:
    return Attribution(
        method=method,
        names=names,
        values=values,
        lower=values - half,
        upper=values + half,
        base=base,
        prediction=prediction,
        evaluations=evaluations,
        coalitions=evaluations,
        confidence=confidence,
        details={"score": [float(value) for value in score]},
    )
