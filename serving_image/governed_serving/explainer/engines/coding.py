"""Rows as another's engine takes them: one matrix of numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.columns import Columns, Floats
from governed_serving.blackbox.errors import EngineAway, NotExplainable
from governed_serving.explainer.service.model import ExplainedModel

__all__ = ["Coding"]


@dataclass(frozen=True)
class Coding:
    """Columns as one matrix: numbers as they are, texts as codes into ``names`` (feature → values, by code)."""

    features: tuple[str, ...]
    dtypes: Mapping[str, np.dtype[np.generic]]
    names: Mapping[str, list[str]]

    @classmethod
    def of(cls, model: ExplainedModel, rows: Columns) -> "Coding":
        """Of the background and ``rows``."""
        both = (model.background, rows)
        names = {
            f.name: list(dict.fromkeys([*f.categories, *(v for part in both for v in part[f.name].tolist())]))
            for f in model.features
            if f.dtype == "BYTES"
        }
        return cls(tuple(rows), {name: values.dtype for name, values in rows.items()}, names)

    def matrix(self, columns: Columns) -> Floats:
        """Shape (rows, features)."""
        parts = []
        for name in self.features:
            codes = {value: code for code, value in enumerate(self.names.get(name, ()))}
            values = [codes[v] for v in columns[name].tolist()] if name in self.names else columns[name]
            parts.append(np.asarray(values, np.float64))
        return np.stack(parts, axis=1)

    def columns(self, matrix: Floats) -> Columns:
        """What :meth:`matrix` was made of. Raises EngineAway for what it can't have been."""
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise EngineAway(f"expected rows of {len(self.features)} features from the engine, found {matrix.shape}")
        return {name: self._column(name, matrix[:, place]) for place, name in enumerate(self.features)}

    def _column(self, name: str, values: Floats) -> NDArray[np.generic]:
        if name not in self.names:
            return self._numbers(name, values)
        objects = np.empty(len(self.names[name]), object)
        objects[:] = self.names[name]
        if not ((values >= 0) & (values < len(objects))).all():
            raise EngineAway(f"expected a category of {name} from the engine, found a number that stands for none")
        column: NDArray[np.generic] = objects[values.astype(np.int64)]
        return column

    def _numbers(self, name: str, values: Floats) -> NDArray[np.generic]:
        """Raises EngineAway for what the type doesn't hold: a cast would make other numbers of it."""
        dtype = self.dtypes[name]
        if np.issubdtype(dtype, np.floating):
            return values.astype(dtype)
        least, most = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype.name).min, np.iinfo(dtype.name).max)
        if not ((values >= least) & (values < float(most) + 1.0)).all():
            raise EngineAway(f"expected values of {dtype} for {name} from the engine, found others")
        return values.astype(dtype)

    def categories(self) -> dict[str, list[str]]:
        """By place, as alibi takes them."""
        return {str(place): self.names[name] for place, name in enumerate(self.features) if name in self.names}

    def whole(self, columns: Columns, where: str) -> None:
        """Raises NotExplainable where a number is missing: for methods that sort them into bins."""
        for name in self.features:
            if name not in self.names and np.isnan(columns[name].astype(float)).any():
                raise NotExplainable(
                    f"{name}: explainer.engine alibi makes no rules of missing values, found one in {where}; leave "
                    "engine out"
                )
