"""Drift of all inputs together against training rows: it sees changes of dependence that no single column shows.

Maximum mean discrepancy with a Gaussian kernel (Gretton et al., JMLR 2012), through random features of the kernel (Rahimi & Recht,
NeurIPS 2007): a row becomes a vector, and what is compared are means of vectors, whose sums add up over replicas.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_serving.fairness.inference.hypotheses import TestResult

__all__ = ["InputDrift", "MeanEmbedding"]

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
"""Raw columns, shape (rows,): numbers, or objects that hold str."""

FREQUENCIES = 128
DRAWS = 2000
"""Of the statistic without drift; the smallest p-value is 1 ÷ (1 + DRAWS)."""
MOST_WORDS = 50
SCALE_ROWS = 500
"""Training rows whose distances set the kernel's width."""


class MeanEmbedding:
    """``training``: (rows, columns), at least two rows, scaled alike by the caller. The same rows and ``seed`` give the same features."""

    def __init__(self, training: Floats, frequencies: int = FREQUENCIES, seed: int = 0):
        rng = np.random.default_rng(seed)
        drawn = rng.normal(size=(training.shape[1], frequencies))
        self._frequencies = drawn * np.sqrt(2 / median_square(training[:SCALE_ROWS]))
        self._rows = len(training)
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
        """The number of ``rows``, then the sum of each feature: what adds up."""
        return np.concatenate([[float(len(rows))], self._features(rows).sum(0)])

    def compare(self, sums: Floats) -> TestResult:
        """Unbiased MMD² of the rows behind ``sums`` and training, and its p-value.

        Without drift the difference of means is normal with the features' covariance (that of training) times
        1/n + 1/m, so that its square is a sum of χ² weighted by that covariance's eigenvalues; it is drawn ``DRAWS`` times.
        """
        rows = float(sums[0])
        width = 1 / rows + 1 / self._rows
        squared = float(((sums[1:] / rows - self._mean) ** 2).sum())
        larger = DRAWS - int(np.searchsorted(self._unmoved, squared / width, "left"))
        return TestResult(squared - width * self._trace, (1 + larger) / (1 + DRAWS))


def median_square(rows: Floats) -> float:
    """Median squared distance between two rows that differ; 1 where none do."""
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    apart = distances[distances > 1e-12]
    return float(np.median(apart)) if len(apart) else 1.0


class InputDrift:
    """``background``: training rows as raw columns; those with fewer than ``least`` rows, and ``texts``, are left out."""

    def __init__(self, background: Mapping[str, list[Any]], texts: Iterable[str], least: int):
        left_out = set(texts)
        self._background = {n: v for n, v in background.items() if n not in left_out and len(v) >= least}
        self._prepared = ""
        """Name of the columns that ``_encoders`` and ``_embedding`` are for: those of the last look alone, whatever requests carry."""
        self._encoders: dict[str, Encoder] = {}
        self._embedding: MeanEmbedding | None = None

    def sums(self, fresh: Columns) -> dict[str, list[float]]:
        """What ``fresh`` rows add, by a name for the columns that they have: sums of the same name add up. Empty: nothing to compare."""
        kinds = [(name, fresh[name].dtype == object) for name in sorted(fresh) if name in self._background]
        if not kinds:
            return {}
        name = sha256(msgspec.json.encode(kinds)).hexdigest()[:16]
        if self._embedding is None or name != self._prepared:
            self._prepared = name
            self._encoders = {column: encoder(self._background[column], words) for column, words in kinds}
            self._embedding = MeanEmbedding(self._encoded(self._background))
        return {name: self._embedding.sums(self._encoded(fresh)).tolist()}

    def _encoded(self, columns: Mapping[str, Any]) -> Floats:
        return np.column_stack([encode(columns[column]) for column, encode in self._encoders.items()])

    def compared(
        self, own: Mapping[str, Sequence[float]], others: Iterable[Mapping[str, Sequence[float]]] = ()
    ) -> tuple[TestResult, int] | None:
        """The rows last given to :meth:`sums` and those of other replicas, added up, against training, and how many they are.

        None: there are none. Floats don't add up to the same in every order: they are added in an order of their own.
        """
        sums = own.get(self._prepared)
        if sums is None or self._embedding is None:
            return None
        found = (one.get(self._prepared, ()) for one in others)
        whole = np.sum(sorted([list(sums), *(list(part) for part in found if len(part) == len(sums))]), axis=0)
        return self._embedding.compare(whole), int(whole[0])


Encoder = Callable[[Any], Floats]
"""Raw values of a column → (rows, numbers)."""


def encoder(training: list[Any], words: bool) -> Encoder:
    """Numbers in training's standard deviations, gaps at the mean; ``words`` as indicators of the first :data:`MOST_WORDS`."""
    if words:
        names = sorted({str(word or "") for word in training})[:MOST_WORDS]
        return lambda values: np.array([[str(word or "") == name for name in names] for word in values], np.float64)
    known = np.array([np.nan if v is None else v for v in training], np.float64)
    mean, deviation = np.nanmean(known), np.nanstd(known) or 1.0

    def numbers(values: Any) -> Floats:
        found = np.array([np.nan if v is None else v for v in values], np.float64)
        return np.nan_to_num((found - mean) / deviation)[:, None]

    return numbers
