"""Bodies that no client means well with: refused in words, at no cost."""

import json
import time
from typing import Any

import pytest

from governed_serving.artefact import Feature
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.service.protocol import parse

FEATURES = [Feature("x", "numeric", "FP32"), Feature("y", "numeric", "FP32")]


def body(shape: list[Any], data: list[Any], name: str = "x") -> bytes:
    other = {"name": "y", "shape": [1], "datatype": "FP32", "data": [1.0]}
    first = {"name": name, "shape": shape, "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [first, other] if name == "x" else [first]}).encode()


@pytest.mark.parametrize(
    "sent",
    [
        body([99999999999999999999] * 40_000, []),
        body([2**62], [1.0]),
        body([-1], [1.0]),
        body([2], [[1.0], 2.0]),
        body([1], [10**400]),
        body([1, 2], ["x", 2], "m"),
        body([1, 2], [{}, 2], "m"),
        body([2, 1], [[1.0], 2.0], "m"),
        body([1, 2], [[1.0]], "m"),
        body([2, 2], [[1.0, 2.0, 3.0, 4.0]], "m"),
        body([2], [[1.0, 2.0]]),
    ],
    ids=[
        "rank",
        "size",
        "negative",
        "uneven",
        "huge",
        "a string",
        "an object",
        "uneven matrix",
        "short matrix",
        "a matrix on its side",
        "a column on its side",
    ],
)
def test_it_is_refused_in_words(sent: bytes) -> None:
    began = time.process_time()
    with pytest.raises(NotExplainable) as caught:
        parse(sent, FEATURES, "id")
    assert time.process_time() - began < 1
    assert len(str(caught.value)) < 400
