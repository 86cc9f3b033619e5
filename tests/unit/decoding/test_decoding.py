"""Whatever bytes come: a value, or msgspec.DecodeError."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import governed_serving
from governed_serving.decoding import (
    MAX_DEPTH,
    NestedOtherwise,
    decode_json,
    decode_msgpack,
    flatten,
    nested_beyond,
)

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        DEEP,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b'"\xff"',
        b'{"a": "\xed\xa0\x80"}',
        b"\xff\xfe[1]",
        b'"\\ud800"',
        b"",
        b"NaN",
        b"[1e400",
        "\ud800",
    ],
    ids=["arrays", "objects", "byte", "surrogate", "utf-16", "escape", "nothing", "NaN", "cut", "text"],
)
def test_what_is_wrong_is_a_decode_error(data: bytes | str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_json(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    for decode in (decode_json, decode_msgpack):
        with suppress(msgspec.DecodeError):
            decode(data)


def test_deep_msgpack_is_a_decode_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_msgpack(b"\x91" * 100_000 + b"\x01")


@pytest.mark.parametrize(("depth", "beyond"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True)])
def test_depth_is_counted(depth: int, beyond: bool) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if depth % 2 else [value]
    assert nested_beyond(value) is beyond


def test_nothing_decodes_beside_it() -> None:
    folder = Path(governed_serving.__file__).parent
    pattern = re.compile(r"msgspec\.(json|msgpack)\.decode\(|json\.loads\(|[dD]ecoder\.decode\(")
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if path.name != "decoding.py" and pattern.search(path.read_text())
    }
    own = {
        "report/writer.py": "our own report file",
        "explainer/engines/alibi_worker.py": "frames of its own parent, in an environment without msgspec",
        "explainer/engines/captum_worker.py": "frames of its own parent, in an environment without msgspec",
    }
    assert found <= set(own), "whatever comes from outside passes the one decoder"


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2, 2], [1, 2, 3, 4]), ([2, 2], [[1, 2], [3, 4]]), ([2, 1, 2], [[[1, 2]], [[3, 4]]]), ([4], [1, 2, 3, 4])],
)
def test_flat_and_nested_data_are_the_same_tensor(shape: list[int], data: list[Any]) -> None:
    assert flatten(shape, data) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("shape", "data", "found"),
    [
        ([2, 2], [[1, 2, 3, 4]], r"shape \[2, 2\] or flat data, found 1 values where 2 belong"),
        ([2, 2], [[1, 2], 3], "found a single value where 2 belong"),
        ([1, 1], [[[1]]], "found it nested more deeply"),
        ([10**9] * 50, [[1]], "…"),
    ],
)
def test_data_nested_otherwise_than_its_shape_is_named(shape: list[int], data: list[Any], found: str) -> None:
    with pytest.raises(NestedOtherwise, match=found) as caught:
        flatten(shape, data)
    assert len(str(caught.value)) < 200
