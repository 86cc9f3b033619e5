"""Requests' columns as a graph's own inputs, and its own outputs as answers: of a graph that others exported."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from governed_serving.artefact import Graph, Tensor
from governed_serving.server.predictors.protocol import Columns, Outputs

__all__ = ["Binding"]

Maps = list[dict[str | int, float]]
"""From class to probability, for each row: what a ZipMap answers."""


class Binding:
    """``names``: the graph's outputs, in order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.names = [tensor.name for tensor in graph.outputs]

    def feeds(self, columns: Columns) -> dict[str, NDArray[np.generic]]:
        """What the graph is given. A matrix is put together from its columns."""
        if self._graph.unit == "request":
            return {tensor.name: column for tensor, column in zip(self._graph.inputs, columns, strict=True)}
        feeds: dict[str, NDArray[np.generic]] = {}
        at = 0
        for tensor in self._graph.inputs:
            width = len(tensor.columns) or 1
            own = columns[at : at + width]
            at += width
            if tensor.columns:
                feeds[tensor.name] = np.concatenate(own, axis=1)
            else:
                feeds[tensor.name] = own[0] if tensor.row else own[0].reshape(-1)
        return feeds

    def outputs(self, raw: Sequence[object]) -> Outputs:
        """What the graph answered, maps as a matrix with a column for each class. Raises KeyError, ValueError for maps
        of other classes."""
        return [
            _matrix(tensor, cast(Maps, values)) if tensor.maps else np.asarray(values)
            for tensor, values in zip(self._graph.outputs, raw, strict=True)
        ]


def _matrix(tensor: Tensor, maps: Maps) -> NDArray[np.generic]:
    classes = tensor.classes
    if any(len(row) != len(classes) for row in maps):
        raise ValueError(f"output {tensor.name!r}: expected a probability of each class, found maps of other classes")
    dtype = np.float64 if tensor.datatype == "FP64" else np.float32
    return np.array([[row[name] for name in classes] for row in maps], dtype).reshape(len(maps), len(classes))
