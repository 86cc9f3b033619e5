"""The background is a seeded sample of what the artefact holds, whoever sorted that."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from governed_serving.artefact import Feature
from governed_serving.explainer.service.model import _background


def artefact(count: int) -> Any:
    """Of rows sorted by both columns."""
    columns = {"x": [float(k) for k in range(count)], "c": ["ab"[2 * k // count] for k in range(count)]}
    features = [Feature("x", "numeric", "FP32"), Feature("c", "categorical", "BYTES")]
    return SimpleNamespace(background=lambda: columns, manifest=SimpleNamespace(features=features))


@pytest.mark.parametrize("count", [120, 1000])
def test_the_background_is_no_head_of_sorted_rows(count: int) -> None:
    found = _background(artefact(count), 100)
    assert len(found["x"]) == len(set(found["x"].tolist())) == 100
    assert abs(float(np.mean(found["x"])) / count - 0.5) < 0.1
    assert 35 < int((found["c"] == "b").sum()) < 65
    assert {c == "b" for c in found["c"]} == {bool(x >= count / 2) for x in found["x"]}, "rows stay together"
    assert len(set(found["c"][:10])) == 2, "the first ten are a sample of them"
    np.testing.assert_array_equal(found["x"], _background(artefact(count), 100)["x"])


def test_all_rows_come_where_there_are_no_more() -> None:
    assert sorted(_background(artefact(40), 100)["x"].tolist()) == list(range(40))
