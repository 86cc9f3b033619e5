"""LIME for tables (Ribeiro, Singh, Guestrin 2016), vectorised, seeded, with intervals.

A sample draws each player's values from a random background row; its interpretable form is 1 where the player stays in
the explained row's bin (quartiles of the background, or the same category). Kernel and ridge penalty are the lime
library's.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, row_count, take
from governed_serving.explainer.attribution import Attribution
from governed_serving.explainer.local.ridge import weighted_ridge
from governed_serving.explainer.players import Players

__all__ = ["bins", "lime_tabular", "quartiles"]

RIDGE = 1.0


def bins(values: NDArray[np.generic], background: NDArray[np.generic]) -> NDArray[np.int64]:
    """Bin of each value: quartile of ``background`` for numbers (NaN its own bin), code of the category for text."""
    if background.dtype == object:
        codes = {value: code for code, value in enumerate(dict.fromkeys(background.tolist()))}
        return np.array([codes.get(value, len(codes)) for value in values], np.int64)
    edges = quartiles(background)
    places = np.searchsorted(edges, values.astype(float), side="left")
    return np.where(np.isnan(values.astype(float)), len(edges) + 1, places).astype(np.int64)


def quartiles(background: NDArray[np.generic]) -> Floats:
    """Distinct quartiles of the finite numbers in ``background``, shape (0 to 3,)."""
    numbers = background.astype(float)
    finite = numbers[np.isfinite(numbers)]
    edges: Floats = np.unique(np.percentile(finite, [25, 50, 75])) if len(finite) else np.empty(0)
    return edges


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

    ``kernel_width`` defaults to 0.75 √players; ``details`` holds the local model's weighted R² (``score``). A budget
    cuts the samples short: asking for as many as were used gives the same bits.
    """
    width = 0.75 * math.sqrt(len(players)) if kernel_width is None else kernel_width
    drawing = _Drawing(background, players, samples, width, confidence)
    return [
        _one(box, take(rows, slice(row, row + 1)), drawing, np.random.default_rng(stream))
        for row, stream in enumerate(seed.spawn(row_count(rows)))
    ]


@dataclass(frozen=True)
class _Drawing:
    """What samples are drawn from, and how they are weighted."""

    background: Columns
    players: Players
    samples: int
    width: float
    confidence: float


def _one(box: BlackBox, row: Columns, drawing: _Drawing, rng: np.random.Generator) -> Attribution:
    before = box.rows
    columns, same = _drawn(row, drawing, rng)
    outputs = box.as_far(columns)
    same = same[: len(outputs)]
    distance = len(drawing.players) - same.sum(axis=1)
    fit = weighted_ridge(same, outputs, np.sqrt(np.exp(-distance / drawing.width**2)), RIDGE)
    half = fit.half_width(drawing.confidence)
    evaluations = box.rows - before
    return Attribution(
        method="lime",
        names=drawing.players.names,
        values=fit.coefficients,
        lower=fit.coefficients - half,
        upper=fit.coefficients + half,
        base=fit.intercept,
        prediction=outputs[0],
        evaluations=evaluations,
        coalitions=evaluations,
        confidence=drawing.confidence,
        details={
            "score": [float(value) for value in fit.score],
            "stopped": "evaluations" if len(outputs) == drawing.samples else "budget",
        },
    )


def _drawn(row: Columns, drawing: _Drawing, rng: np.random.Generator) -> tuple[Columns, Floats]:
    """Samples as columns, the explained row first, and their interpretable form: shape (samples, players)."""
    background, players = drawing.background, drawing.players
    drawn = rng.integers(0, row_count(background), (drawing.samples, len(players)))
    columns, same = {}, np.ones((drawing.samples, len(players)))
    for g, members in enumerate(players.members):
        for feature in members:
            values = background[feature][drawn[:, g]]
            values[0] = row[feature][0]
            columns[feature] = values
            here = bins(row[feature], background[feature])[0]
            bins_of_background = bins(background[feature], background[feature])
            same[1:, g] *= bins_of_background[drawn[1:, g]] == here
    return columns, same
