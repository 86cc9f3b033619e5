"""How requests fit a graph that others exported: its tensors by its own names, and by those that requests use."""

import math
from typing import Literal

import msgspec

__all__ = ["NO_FILES", "Graph", "Tensor"]

NO_FILES = ("session.model_external_initializers_file_folder_path", "/dev/null/nothing")
"""ONNX Runtime's setting for where values outside of a graph's bytes lie, and a folder that there can't be: else it
reads them from the process's own."""


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An input or output of the graph. ``shape`` is the whole of it, -1 where a dimension is free.

    ``served``: its name in requests and answers. ``columns``: the features that make up the last axis of a tabular
    matrix, each an input of its own in requests. ``maps``: the graph answers a sequence of maps from class to
    probability, which are served as a matrix of ``classes``. ``example``: a shape, filled with ``fill``, that the
    graph answers.
    """

    name: str
    datatype: str
    shape: list[int]
    served: str
    role: str = ""
    columns: list[str] = []
    classes: list[str | int] = []
    maps: bool = False
    accepts_missing: bool = False
    example: list[int] = []
    fill: float = 0.0

    @property
    def fixed(self) -> bool:
        """No dimension is free."""
        return -1 not in self.shape

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of a row, where the first axis counts them."""
        return tuple(self.shape[1:])

    @property
    def size(self) -> int:
        """Elements of the example."""
        return math.prod(self.example)


class Graph(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """``unit`` row: the first axis of every tensor counts rows, all others are fixed. request: one call of the graph
    answers one request, whose tensors are as the graph has them."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    unit: Literal["row", "request"]
