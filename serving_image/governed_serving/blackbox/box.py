"""The model as explanations see it: a counted, chunked, deadline-aware function of rows."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from governed_serving.blackbox.columns import Columns, Floats, Predict, row_count, take
from governed_serving.blackbox.errors import BudgetExhausted, ModelMisbehaved

__all__ = ["BlackBox"]

T = TypeVar("T")


class BlackBox:
    """Counts what it evaluates and splits what is too large for one call.

    ``max_rows`` bounds the rows of one call (its columns stay in a core's cache), which are ``predict``'s for the time
    of the call only; ``workers`` calls may run at once (the model must allow it); ``deadline`` is a reading of
    ``clock`` (seconds) after which no further call starts and :class:`BudgetExhausted` is raised; ``costly`` says that
    a row costs more than sorting it, so that callers deduplicate harder.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        max_rows: int = 32_768,
        workers: int = 1,
        deadline: float | None = None,
        costly: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predict = predict
        self.max_rows = max_rows
        self.workers = workers
        self.deadline = deadline
        self.costly = costly
        self.clock = clock
        self.rows = 0
        self.calls = 0
        self._count = threading.Lock()

    def left(self) -> float:
        """Seconds until the deadline; infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - self.clock()

    def __call__(self, columns: Columns) -> Floats:
        """Outputs, shape (rows, outputs), float64. Raises :class:`ModelMisbehaved`, :class:`BudgetExhausted`."""
        rows = row_count(columns)
        if rows <= self.max_rows:
            return self._once(columns, rows)
        starts = range(0, rows, self.max_rows)
        return np.concatenate(
            self.map(lambda start: self(take(columns, slice(start, start + self.max_rows))), list(starts))
        )

    def at_least(self, columns: Columns) -> Floats:
        """As a call, but whatever the clock says: for the few rows without which there is no answer at all."""
        rows = row_count(columns)
        starts = range(0, rows, self.max_rows)
        parts = (take(columns, slice(start, start + self.max_rows)) for start in starts)
        return np.concatenate([self._asked(part, row_count(part)) for part in parts])

    def as_far(self, columns: Columns) -> Floats:
        """Outputs of as many leading rows as the deadline allows for, at least of the first."""
        outputs = []
        for start in range(0, row_count(columns), self.max_rows):
            try:
                outputs.append(self(take(columns, slice(start, start + self.max_rows))))
            except BudgetExhausted:
                break
        return np.concatenate(outputs) if outputs else self.at_least(take(columns, slice(0, 1)))

    def map(self, work: Callable[[int], T], items: list[int]) -> list[T]:
        """``[work(i) for i in items]`` over the workers, in order."""
        if self.workers == 1 or len(items) == 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(work, items))

    def _once(self, columns: Columns, rows: int) -> Floats:
        if self.left() <= 0:
            raise BudgetExhausted("the latency budget ended; raise budgetMilliseconds or lower maxEvaluations")
        return self._asked(columns, rows)

    def _asked(self, columns: Columns, rows: int) -> Floats:
        with self._count:
            self.rows += rows
            self.calls += 1
        outputs = np.asarray(self._predict(columns), np.float64)
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if outputs.ndim != 2 or len(outputs) != rows:
            raise ModelMisbehaved(f"expected {rows} rows of outputs from the model, found shape {outputs.shape}")
        if not np.isfinite(outputs).all():
            raise ModelMisbehaved("the model answered NaN or infinity; it can't be explained on these rows")
        return outputs
