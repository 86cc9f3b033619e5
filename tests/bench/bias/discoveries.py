"""What is promised beside the verdict's metrics: slices that are found, Simpson's intervals, scores in a range."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from promises import Row, held

from governed_api.governance import Bias
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.inference.bounded import Sample, difference_evidence
from governed_serving.fairness.metrics.roster import Roster, enrolled, panel_of
from governed_serving.fairness.metrics.simpson import simpson
from governed_serving.fairness.metrics.slices import slices_of

VALUES = {"sex": "fm", "race": "abc", "age": "oy"}
KEYS = list(product(*VALUES.values()))
BIAS = Bias.model_validate(
    {
        "protectedAttributes": [{"name": name} for name in VALUES],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
        "minSamples": 1,
    }
)


def discoveries(runs: int) -> list[Row]:
    """All with the truth on the bound, or inside it."""
    return [
        held("found a slice, one of two attributes and two of three on the bound", slices_found(runs)),
        held("Simpson's intervals missed, three together", simpson_missed(runs)),
        held("mean score in a range, rare large values", means_failed(runs)),
    ]


def counted(axes: tuple[str, ...], keys: list[tuple[str, ...]], k: NDArray[Any], n: NDArray[Any]) -> Cells:
    cells = Cells(axes)
    for key, cases, rows in zip(keys, k, n, strict=True):
        cells.put(key, np.array([[0, 0, rows - cases], [0, 0, cases]]))
    return cells


def slices_found(runs: int) -> NDArray[np.bool_]:
    """Those who are f and c are selected .1 less often than all others; 25 looks to 20,000 rows."""
    rates = np.array([0.4 if key[:2] == ("f", "c") else 0.5 for key in KEYS])
    rng, found = np.random.default_rng(20), np.zeros(runs, bool)
    looks = np.unique(np.geomspace(100, 20_000, 25).astype(int))
    for run in range(runs):
        n = k = np.zeros(len(KEYS), int)
        roster = Roster()
        for new, look in zip(np.diff(looks, prepend=0).tolist(), looks.tolist(), strict=True):
            more = rng.multinomial(new, np.full(len(KEYS), 1 / len(KEYS)))
            n, k = n + more, k + rng.binomial(more, rates)
            cells = counted(tuple(VALUES), KEYS, k, n)
            roster = enrolled(roster, BIAS, cells, float(look))
            panels = {name: panel_of(cells, (name,), [], roster) for name in VALUES}
            told = slices_of(BIAS, cells, panels, 0.05)
            found[run] |= told is not None and bool(told.found)
    return found


def simpson_missed(runs: int) -> NDArray[np.bool_]:
    """Nothing within strata, a difference in all; 25 looks."""
    rates, shares = np.array([[0.7, 0.7], [0.2, 0.2]]), np.array([[0.05, 0.3], [0.45, 0.2]])
    keys = [(group, stratum) for stratum in "pq" for group in "ab"]
    whole = (shares / shares.sum(0) * rates).sum(0)
    rng, missed = np.random.default_rng(21), np.zeros(runs, bool)
    for run in range(runs):
        n = k = np.zeros((2, 2), int)
        for look in range(25):
            more = rng.multinomial(int(20 * 1.2**look), shares.ravel()).reshape(2, 2)
            n, k = n + more, k + rng.binomial(more, rates)
            if n.min() < 1:
                continue
            (told,) = simpson(counted(("g", "s"), keys, k.ravel(), n.ravel()), "g", "s", ["b"])
            change = (n / n.sum(0) * rates).sum(0)
            missed[run] |= not (
                told.difference_lower <= whole[0] - whole[1] <= told.difference_upper
                and told.adjusted_lower <= 0 <= told.adjusted_upper
                and told.change_lower - 1e-9 <= change[0] - change[1] <= told.change_upper + 1e-9
            )
    return missed


def means_failed(runs: int) -> NDArray[np.bool_]:
    """Scores of 20, or rarely 90: the means differ by a twentieth of the range, which is the bound; 30 looks."""
    rng, failed = np.random.default_rng(22), np.zeros(runs, bool)
    looks = np.unique(np.geomspace(50, 20_000, 30).astype(int))
    for run in range(runs):
        sides = [np.where(rng.random(20_000) < rare, 90.0, 20.0) for rare in (0.01, 0.06)]
        for rows in looks.tolist():
            one, other = (Sample(rows, float(x[:rows].mean()), float(x[:rows].var()), 20.0, 90.0) for x in sides)
            failed[run] |= difference_evidence(one, other, -3.5, 3.5) >= np.log(20)
    return failed
