"""Nodes of a graph that tell a row's group by its own features."""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from governed_serving.fairness.counts.grouping import Grouping
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.preprocessing import Graph

__all__ = ["value_of_group"]


def value_of_group(g: Graph, at: str, name: str, own: Mapping[str, float], *, rest: float, rows: Dataset) -> str:
    """A tensor, float32 (rows, 1), named ``at``: what ``own`` has for the group by attribute ``name``, else ``rest``.

    ``rows`` say what values a group's name stands for, and the borders of its bands.
    """
    edges = rows.bands.get(name, ())
    if rows.types[name] != "numeric":
        return _looked_up(g, at, name, dict(sorted(own.items())), rest)
    if not edges:
        values = zip(rows.features[name], rows.groups[name], strict=True)
        by_value = {float(value): own[group] for value, group in values if group in own}
        return _looked_up(g, at, name, dict(sorted(by_value.items())), rest)
    _, names = Grouping(name, tuple(edges)).encode(np.zeros(1), None)
    table = np.array([own.get(band, rest) for band in names[: len(edges) + 1]], np.float32)
    borders = g.constant(f"{at}/borders", np.array([edges], np.float32))
    above = g.add("GreaterOrEqual", [name, borders], f"{at}/above")
    counted = g.add("Cast", [above], f"{at}/counted", to=TensorProto.INT64)
    axis = g.constant(f"{at}/axis", np.array([1], np.int64))
    band = g.add("ReduceSum", [counted, axis], f"{at}/band", keepdims=1)
    chosen = g.add("Gather", [g.constant(f"{at}/table", table), band], f"{at}/chosen")
    others = g.constant(f"{at}/rest", np.array([[rest]], np.float32))
    return g.add("Where", [g.add("IsNaN", [name], f"{at}/missing"), others, chosen], at)


def _looked_up(g: Graph, at: str, name: str, own: Mapping[str, float] | Mapping[float, float], rest: float) -> str:
    if not own:
        return g.constant(at, np.array([[rest]], np.float32))
    keys = "keys_strings" if isinstance(next(iter(own)), str) else "keys_floats"
    listed = {keys: list(own), "values_floats": list(own.values())}
    return g.add("LabelEncoder", [name], at, domain="ai.onnx.ml", default_float=rest, **listed)
