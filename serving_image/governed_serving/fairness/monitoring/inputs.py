"""Drift of all inputs together against training rows: it sees changes of dependence that no single column shows.

How large it is: maximum mean discrepancy with a Gaussian kernel (Gretton et al., JMLR 2012), through random features of
the kernel (Rahimi & Recht, NeurIPS 2007): a row becomes a vector, and what is compared are means of vectors, whose sums
add up over replicas.

Whether it is shown: its law without drift is known for many rows only (a word of 1 % of the rows breaks it at 500), so
that evidence comes from counts. Rows are projected on ``PROJECTIONS`` random lines (Cramér & Wold 1936: differences of
a joint distribution show in projections), cut at training's quantiles, and the two histograms of each compared by an
exact e-value; their mean is one as well.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.json_types import Scalar
from governed_serving.fairness.monitoring.drift import log_dirichlet_multinomial, log_evidence, quantile_edges

__all__ = ["Discrepancy", "InputDrift", "MeanEmbedding"]

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.generic]]
Raw = Sequence[Scalar] | NDArray[np.generic]
"""Values of a column: of training, as its document has them, or of requests."""
"""Raw columns, shape (rows,): numbers, or objects that hold str."""

FREQUENCIES = 128
DRAWS = 2000
"""Of the statistic without drift; the smallest p-value is 1 ÷ (1 + DRAWS)."""
MOST_WORDS = 50
SCALE_ROWS = 500
"""Training rows, a seeded sample, whose distances set the kernel's width."""
PROJECTIONS = 96
"""A third of them over all columns, the others sums and differences of two."""
CELLS = 8
CONCENTRATIONS = (10.0, 30.0, 100.0)
"""How closely the laws that the bets are on lie around training's: as if it had so many rows."""


@dataclass(frozen=True)
class Discrepancy:
    """``statistic``: unbiased MMD²; ``p_value``: asymptotic, of this look alone; ``log_evidence``: exact log e-value of
    this look."""

    statistic: float
    p_value: float
    log_evidence: float


class MeanEmbedding:
    """``training``: (rows, columns), at least two rows, scaled alike by the caller. The same rows and ``seed`` give the
    same features."""

    def __init__(self, training: Floats, frequencies: int = FREQUENCIES, seed: int = 0):
        rng = np.random.default_rng(seed)
        drawn = rng.normal(size=(training.shape[1], frequencies))
        self._frequencies = drawn * np.sqrt(2 / median_square(_sample(training, seed)))
        self._rows = len(training)
        self._cells = ProjectedCells(training, rng)
        features = self._features(training)
        self._mean = features.mean(0)
        variances = np.maximum(np.linalg.eigvalsh(np.cov(features.T)), 0)
        self._trace = float(variances.sum())
        self._unmoved = np.sort(rng.chisquare(1, (DRAWS, len(variances))) @ variances)

    def _features(self, rows: Floats) -> Floats:
        angles = rows @ self._frequencies
        features: Floats = np.concatenate([np.cos(angles), np.sin(angles)], 1)
        features /= np.sqrt(self._frequencies.shape[1])
        return features

    def sums(self, rows: Floats) -> Floats:
        """The number of ``rows``, the sum of each feature, the rows in each cell: what adds up."""
        return np.concatenate([[float(len(rows))], self._features(rows).sum(0), self._cells.counts(rows)])

    def compare(self, sums: Floats) -> Discrepancy:
        """The rows behind ``sums`` and training.

        Without drift the difference of means is normal with the features' covariance (that of training) times
        1/n + 1/m, so that its square is a sum of χ² weighted by that covariance's eigenvalues; it is drawn ``DRAWS``
        times.
        """
        rows, features = float(sums[0]), sums[1 : 1 + len(self._mean)]
        width = 1 / rows + 1 / self._rows
        squared = float(((features / rows - self._mean) ** 2).sum())
        larger = DRAWS - int(np.searchsorted(self._unmoved, squared / width, "left"))
        evidence = self._cells.log_evidence(sums[1 + len(self._mean) :])
        return Discrepancy(squared - width * self._trace, (1 + larger) / (1 + DRAWS), evidence)


class ProjectedCells:
    """Histograms of random projections, between quantiles of ``training``, (rows, columns)."""

    def __init__(self, training: Floats, rng: np.random.Generator):
        columns = training.shape[1]
        self._lines = rng.normal(size=(columns, PROJECTIONS))
        pairs = [(one, other, sign) for one, other in combinations(range(columns), 2) for sign in (1.0, -1.0)]
        of_all = max(PROJECTIONS // 3, PROJECTIONS - len(pairs)) if columns > 2 else PROJECTIONS
        for line, place in zip(range(of_all, PROJECTIONS), rng.permutation(len(pairs)), strict=False):
            one, other, sign = pairs[place]
            self._lines[:, line] = 0.0
            self._lines[[one, other], line] = 1.0, sign
        self._cuts = [_Cut(values) for values in (training @ self._lines).T]

    def counts(self, rows: Floats) -> Floats:
        """Rows per projection and cell, shape (PROJECTIONS × CELLS,)."""
        cells = [cut.count(values) for cut, values in zip(self._cuts, (rows @ self._lines).T, strict=True)]
        return np.concatenate(cells).astype(np.float64)

    def log_evidence(self, counts: Floats) -> float:
        """Log e-value against "rows with these ``counts`` come from where training came from"."""
        in_cells = counts.reshape(PROJECTIONS, CELLS)
        logs = np.zeros(PROJECTIONS)
        for cells in {cut.cells for cut in self._cuts}:
            rows = [i for i, cut in enumerate(self._cuts) if cut.cells == cells]
            parts = np.array([self._cuts[i].parts for i in rows])
            ask = log_evidence if cells else quantile_evidence
            logs[rows] = ask(parts, in_cells[rows][:, : cells or CELLS])
        return float(np.logaddexp.reduce(logs) - np.log(PROJECTIONS))


class _Cut:
    """One projection of training, cut at its quantiles.

    Where no two values are the same, the borders are order statistics of a continuous law: what lies between them has
    Dirichlet's law with as many parts as rows, whatever the law (Wilks 1941), and fresh counts have the
    Dirichlet-multinomial one. Against it stand Dirichlet-multinomials around the same shares that scatter more. Where
    values repeat the borders may be any, and universal inference answers.
    """

    def __init__(self, values: Floats):
        ordered = np.sort(values)
        places = (np.arange(1, CELLS) * len(values)) // CELLS
        continuous = len(np.unique(ordered)) == len(ordered) and len(np.unique(places)) == CELLS - 1
        self._edges = ordered[places] if continuous else quantile_edges(values, CELLS)
        self.cells = 0 if continuous else len(self._edges) + 1
        """In use; 0: all, between order statistics of a continuous law."""
        self.parts = np.diff(places, prepend=-1, append=len(values)).astype(np.float64)
        """Dirichlet's, or training's counts."""
        if not continuous:
            self.parts = self.count(values)[: self.cells].astype(np.float64)

    def count(self, values: Floats) -> NDArray[np.int64]:
        """Rows per cell, shape (CELLS,)."""
        return np.bincount(np.searchsorted(self._edges, values, "right"), minlength=CELLS)


def quantile_evidence(parts: Floats, found: Floats) -> Floats:
    """Log e-value against "fresh counts have the Dirichlet-multinomial law of ``parts``", (…, places) → (…)."""
    shares = parts / parts.sum(-1, keepdims=True)
    apart = [log_dirichlet_multinomial(weight * shares, found) for weight in CONCENTRATIONS]
    whole: Floats = np.logaddexp.reduce(apart) - np.log(len(apart)) - log_dirichlet_multinomial(parts, found)
    return whole


def _sample(rows: Floats, seed: int) -> Floats:
    """At most ``SCALE_ROWS`` of the rows, whatever order they are in."""
    if len(rows) <= SCALE_ROWS:
        return rows
    sample: Floats = rows[np.random.default_rng([seed, SCALE_ROWS]).permutation(len(rows))[:SCALE_ROWS]]
    return sample


def median_square(rows: Floats) -> float:
    """Median squared distance between two rows that differ; 1 where none do."""
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    apart = distances[distances > 1e-12]
    return float(np.median(apart)) if len(apart) else 1.0


class InputDrift:
    """``background``: training rows as raw columns; those with fewer than ``least`` rows, and ``texts``, are left
    out."""

    def __init__(self, background: Mapping[str, Sequence[Scalar]], texts: Iterable[str], least: int):
        left_out = set(texts)
        self._background = {n: v for n, v in background.items() if n not in left_out and len(v) >= least}
        self._prepared = ""
        """Name of the columns that ``_encoders`` and ``_embedding`` are for: those of the last look alone, whatever
        requests carry."""
        self._encoders: dict[str, Encoder] = {}
        self._embedding: MeanEmbedding | None = None

    def sums(self, fresh: Columns) -> dict[str, list[float]]:
        """What ``fresh`` rows add, by a name for the columns that they have: sums of the same name add up. Empty:
        nothing to compare."""
        kinds = [(name, fresh[name].dtype == object) for name in sorted(fresh) if name in self._background]
        if not kinds:
            return {}
        name = sha256(msgspec.json.encode(kinds)).hexdigest()[:16]
        if self._embedding is None or name != self._prepared:
            self._prepared = name
            self._encoders = {column: encoder(self._background[column], words) for column, words in kinds}
            self._embedding = MeanEmbedding(self._encoded(self._background))
        return {name: self._embedding.sums(self._encoded(fresh)).tolist()}

    def _encoded(self, columns: Mapping[str, Raw]) -> Floats:
        return np.column_stack([encode(columns[column]) for column, encode in self._encoders.items()])

    def compared(
        self, own: Mapping[str, Sequence[float]], others: Iterable[Mapping[str, Sequence[float]]] = ()
    ) -> tuple[Discrepancy, int] | None:
        """The rows last given to :meth:`sums` and those of other replicas, added up, against training, and how many
        they are.

        None: there are none. Floats don't add up to the same in every order: they are added in an order of their own.
        """
        sums = own.get(self._prepared)
        if sums is None or self._embedding is None:
            return None
        tables = (counts.get(self._prepared, ()) for counts in others)
        whole = np.sum(sorted([list(sums), *(list(part) for part in tables if len(part) == len(sums))]), axis=0)
        return self._embedding.compare(whole), int(whole[0])


Encoder = Callable[[Raw], Floats]
"""Raw values of a column → (rows, numbers)."""


def encoder(training: Sequence[Scalar], words: bool) -> Encoder:
    """Numbers in training's standard deviations, gaps at the mean; ``words`` as indicators of the first
    :data:`MOST_WORDS`."""
    if words:
        names = sorted({str(word or "") for word in training})[:MOST_WORDS]
        return lambda values: np.array([[str(word or "") == name for name in names] for word in values], np.float64)
    trained = np.array([np.nan if v is None else v for v in training], np.float64)
    mean, deviation = np.nanmean(trained), np.nanstd(trained) or 1.0

    def numbers(values: Raw) -> Floats:
        column = np.array([np.nan if v is None else v for v in values], np.float64)
        return np.nan_to_num((column - mean) / deviation)[:, None]

    return numbers
