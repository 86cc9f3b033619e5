"""What is promised beside the verdict's metrics: slices that are found and how soon, Simpson's intervals, scores in a
range, calibration bands."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from promises import Row, held

from governed_api.governance import Bias
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.inference.bounded import Sample, difference_evidence
from governed_serving.fairness.metrics import slices
from governed_serving.fairness.metrics.calibration import calibration_curve
from governed_serving.fairness.metrics.roster import Roster, enrolled, place_share
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
        *false_discoveries(runs),
        *found_of_three(max(runs // 5, 3)),
        held("Simpson's intervals missed, three together", simpson_missed(runs)),
        held("mean score in a range, rare large values", means_failed(runs)),
        held("calibration bands missed, 2 groups, all bins together, 12 looks", bands_missed(max(2 * runs, 3))),
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
            told = slices_of(BIAS, cells, roster, 0.05)
            found[run] |= told is not None and bool(told.found)
    return found


WORSE = 0.2
"""Selection rate of those who are f and c, of any age; all others: .5."""
TRUE = [{"sex": "f", "race": "c"}, {"sex": "f", "race": "c", "age": "o"}, {"sex": "f", "race": "c", "age": "y"}]


def _selected(run: int, looks: NDArray[Any]) -> Iterator[tuple[int, Cells]]:
    """Counts of one run at each look; rates of the others differ, so that some lie on the bound."""
    rates = np.array([WORSE if key[:2] == ("f", "c") else 0.5 for key in KEYS])
    rng, n = np.random.default_rng([23, run]), np.zeros(len(KEYS), int)
    k = n
    for new, look in zip(np.diff(looks, prepend=0).tolist(), looks.tolist(), strict=True):
        more = rng.multinomial(new, np.full(len(KEYS), 1 / len(KEYS)))
        n, k = n + more, k + rng.binomial(more, rates)
        yield look, counted(tuple(VALUES), KEYS, k, n)


def false_discoveries(runs: int) -> list[Row]:
    """The share of slices found whose true difference lies inside the bounds, of what is found at the end and when
    anything is first found: its mean over runs is what is promised."""
    looks = np.unique(np.geomspace(1000, 20_000, 5).astype(int))
    first, last = np.zeros(runs), np.zeros(runs)
    for run in range(runs):
        roster, met = Roster(), False
        for look, cells in _selected(run, looks):
            roster = enrolled(roster, BIAS, cells, float(look))
            told = slices_of(BIAS, cells, roster, 0.05)
            found = [one.values for one in told.found] if told else []
            share = sum(not _differs(values) for values in found) / max(len(found), 1)
            if found and not met:
                first[run], met = share, True
        last[run] = share
    return [_share("at the first that is found", first), _share("at 20,000 rows", last)]


def _share(what: str, false: NDArray[np.float64]) -> Row:
    mean, error = float(false.mean()), float(false.std() / np.sqrt(len(false)))
    measured = f"{mean * 100:.2f} ± {error * 100:.2f} %"
    return Row(f"share of false slices {what}, {len(false):,} runs", measured, "≤ 5%", mean <= 0.05 + 2 * error)


def _differs(values: dict[str, str]) -> bool:
    """Whether the slice's true rate differs from everybody else's by more than a tenth."""
    inside = np.array([all(dict(zip(VALUES, key, strict=True))[a] == v for a, v in values.items()) for key in KEYS])
    rates = np.array([WORSE if key[:2] == ("f", "c") else 0.5 for key in KEYS])
    return bool(abs(rates[inside].mean() - rates[~inside].mean()) > 0.1)


def found_of_three(runs: int) -> list[Row]:
    """Share of the slice and its two parts that is found after so many rows, by a union bound, as before, and now."""
    found = []
    for rows in (1200, 1600, 2400):
        before, now = np.zeros(runs), np.zeros(runs)
        for run in range(runs):
            ((look, cells),) = _selected(run, np.array([rows]))
            roster = enrolled(Roster(), BIAS, cells, float(look))
            before[run], now[run] = (_of_three(cells, roster, combine) for combine in (_union, slices._e_bh))
        said = f"{now.mean() * 100:.0f} %, before {before.mean() * 100:.0f}"
        found.append(
            Row(f"of three slices found at {rows:,} rows, {runs:,} runs", said, "≥ before", bool((now >= before).all()))
        )
    return found


def _union(weighted: Sequence[float], alpha: float) -> list[int]:
    return [place for place, one in enumerate(weighted) if one >= -np.log(alpha)]


def _of_three(cells: Cells, roster: Roster, combine: Callable[[Sequence[float], float], list[int]]) -> float:
    usual, slices._e_bh = slices._e_bh, combine
    try:
        told = slices_of(BIAS, cells, roster, 0.05)
    finally:
        slices._e_bh = usual
    found = [one.values for one in told.found] if told else []
    return sum(values in found for values in TRUE) / len(TRUE)


def bands_missed(runs: int) -> NDArray[np.bool_]:
    """Whether any bin's band of either group misses its true share at any of 12 looks; scores are multiples of 1/64, of
    which the share that comes true is known."""
    rng, missed = np.random.default_rng(24), np.zeros(runs, bool)
    scores = (np.arange(64) + 0.5) / 64
    truth = {"f": scores**2, "m": np.clip(1.1 * scores, 0, 1)}
    bins = np.minimum((scores * 10).astype(int), 9)
    looks = np.unique(np.geomspace(100, 10_000, 12).astype(int))
    for run in range(runs):
        n = {group: np.zeros(64, int) for group in truth}
        k = {group: np.zeros(64, int) for group in truth}
        for new in np.diff(looks, prepend=0).tolist():
            for place, (group, rates) in enumerate(truth.items(), 1):
                more = rng.multinomial(new, np.full(64, 1 / 64))
                n[group], k[group] = n[group] + more, k[group] + rng.binomial(more, rates)
                own = np.stack([np.bincount(bins, some[group], 10) for some in (n, k)], 1).astype(int)
                drawn = np.bincount(bins, n[group] * rates, 10) / np.maximum(own[:, 0], 1)
                curve = calibration_curve(group, _Binned(own), 0.05 * place_share(place))
                for one in curve.bins:
                    at = round(one.low * 10)
                    missed[run] |= not one.lower <= drawn[at] <= one.upper
    return missed


class _Binned:
    """What a curve needs of a group's scores: rows and favourable labels by bin."""

    def __init__(self, bins: NDArray[np.int64]):
        self.bins = bins

    def mean_in(self, place: int) -> float:
        return (place + 0.5) / 10


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
