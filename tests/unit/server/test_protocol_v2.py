"""V2 JSON and binary tensors: what fits is read alike from every legal form, what doesn't is named."""

import json
import time
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_serving.blackbox.client import encode
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.messages import InferResponse, OutputValues
from governed_serving.server.protocol import binary
from governed_serving.server.protocol.v2 import OutputEncoding, V2Codec
from governed_serving.server.signature import NUMPY, Input, Output, Signature
from unit.server.tabular_model import manifest, tabular, v2_body

CREDIT = Signature.of(manifest(tabular()))
CODEC = V2Codec(CREDIT, "credit", "r1")
NUMBERS_ONLY = Signature(tuple(Input(n, "FP32") for n in "abc"), (Output("prediction", "FP32"),))


def body(**changes: Any) -> dict[str, Any]:
    return v2_body() | changes


def with_tensor(position: int, **changes: Any) -> bytes:
    message = v2_body()
    message["inputs"][position] |= changes
    return json.dumps(message).encode()


def test_flat_nested_and_reordered_give_the_same_columns() -> None:
    flat, _ = CODEC.decode(json.dumps(v2_body(2)).encode())
    nested = v2_body(2)
    for tensor in nested["inputs"]:
        tensor["data"] = [[value] for value in tensor["data"]]
    other, _ = CODEC.decode(json.dumps(nested).encode())
    backwards, _ = CODEC.decode(json.dumps(v2_body(2) | {"inputs": v2_body(2)["inputs"][::-1]}).encode())
    assert flat.columns == other.columns == backwards.columns
    assert flat.rows == 2


def test_vector_shape_is_accepted() -> None:
    message = v2_body()
    for tensor in message["inputs"]:
        tensor["shape"] = [1]
    assert (
        CODEC.decode(json.dumps(message).encode())[0].columns == CODEC.decode(json.dumps(v2_body()).encode())[0].columns
    )


ERRORS = {
    "not JSON": (b'{"inputs": [}', "byte 12"),
    "cut": (b'{"inputs": [', "end too early (byte 12)"),
    "empty": (b"", "byte 0"),
    "not an object": (b"[]", "Expected `object`"),
    "no inputs": (b"{}", "inputs"),
    "empty inputs": (b'{"inputs": []}', "'income'"),
    "wrong name": (with_tensor(0, name="salary"), "'salary': expected one of income"),
    "missing feature": (json.dumps({"inputs": v2_body()["inputs"][1:]}).encode(), "'income': expected this input"),
    "string for a number": (with_tensor(0, data=["x"]), "'income': expected FP32 numbers, found a string at index 0"),
    "number for a string": (with_tensor(8, data=[1]), "'housing': expected strings, found int at index 0"),
    "BYTES for a number": (
        with_tensor(0, datatype="BYTES", data=["1"]),
        "'income': expected datatype FP32 (numbers), found BYTES",
    ),
    "FP32 for a string": (
        with_tensor(8, datatype="FP32", data=[1.0]),
        "'housing': expected datatype BYTES (strings), found FP32",
    ),
    "unknown datatype": (with_tensor(0, datatype="FP8"), "'income': expected a V2 datatype such as FP32, found 'FP8'"),
    "wrong shape": (with_tensor(0, shape=[1, 2]), "'income': expected shape [n, 1] or [n] with n ≥ 1, found [1, 2]"),
    "no rows": (with_tensor(0, shape=[0, 1], data=[]), "n ≥ 1"),
    "negative": (with_tensor(0, shape=[-1, 1]), "n ≥ 1"),
    "too few values": (with_tensor(0, shape=[2, 1]), "'income': expected 2 values for shape [2, 1], found 1"),
    "rows differ": (
        with_tensor(1, shape=[2, 1], data=[1.0, 2.0]),
        "'employmentYears': expected 1 rows as in 'income', found 2",
    ),
    "twice": (
        json.dumps({"inputs": v2_body()["inputs"] + v2_body()["inputs"][:1]}).encode(),
        "'income' more than once",
    ),
    "no data": (with_tensor(0, data=None), "'income': expected data, or binary_data_size"),
    "unknown output": (json.dumps(body(outputs=[{"name": "score"}])).encode(), "found 'score'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_what_is_wrong(name: str) -> None:
    data, words = ERRORS[name]
    with pytest.raises(InvalidRequest) as caught:
        CODEC.decode(data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


LIES = {
    "2^31 strings in 8 bytes": ("BYTES", [2**31 - 1, 1], b"\0" * 8),
    "2^40 strings": ("BYTES", [2**40], b""),
    "2^31 twice": ("BYTES", [2**31 - 1, 2**31 - 1], b""),
    "80,000 dimensions": ("BYTES", [2**62] * 80_000, b""),
    "a number of 4,000 digits": ("FP32", [10**4000], b""),
    "2^31 floats": ("FP32", [2**31 - 1], b"\0" * 4),
    "nine dimensions": ("FP32", [1] * 9, b"\0" * 4),
    "strings that claim more": ("BYTES", [1], b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_claimed_size_costs_nothing(name: str) -> None:
    datatype, shape, data = LIES[name]
    tensor = {"name": "income", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InvalidRequest) as caught:
            CODEC.decode(head + data, len(head))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1
    assert peak < 30 * len(head) + (1 << 20)
    assert len(str(caught.value)) < 400
    with pytest.raises(InvalidRequest):  # and the same claim beside data in the JSON
        CODEC.decode(json.dumps({"inputs": [tensor | {"data": [1.0], "parameters": {}}]}).encode())


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT8", 300), ("UINT8", -1), ("INT8", 128), ("INT32", 1.5), ("INT32", 2**31), ("INT64", 2**63), ("UINT64", 2**64),  # noqa: E501
        ("BOOL", 7), ("BOOL", 0.5), ("FP32", True), ("FP16", 70_000), ("FP64", True), ("INT16", False),
    ],
)  # fmt: skip
def test_a_declared_datatype_is_enforced(datatype: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="'income': expected"):
        CODEC.decode(with_tensor(0, datatype=datatype, data=[value]))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("UINT8", 255), ("INT8", -128), ("INT32", 7), ("BOOL", True), ("BOOL", 1), ("FP32", 3), ("FP64", 1e300), ("UINT64", 2**64 - 1)],  # noqa: E501
)  # fmt: skip
def test_what_a_datatype_holds_is_taken(datatype: str, value: Any) -> None:
    request, _ = CODEC.decode(with_tensor(0, datatype=datatype, data=[value]))
    assert request.columns[0] == [value]


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2, 1], [[1.0, 2.0]]), ([1, 1], [[[1.0]]]), ([2, 1], [[1.0], 2.0]), ([1], [[1.0]]), ([1, 1], [[]]), ([1, 1], [[1.0], [2.0]])],  # noqa: E501
)  # fmt: skip
def test_nested_data_must_have_the_shape_it_claims(shape: list[int], data: list[Any]) -> None:
    message = v2_body(shape[0])
    message["inputs"][0] |= {"shape": shape, "data": data}
    with pytest.raises(InvalidRequest, match="nested"):
        CODEC.decode(json.dumps(message).encode())


def test_deep_nesting_is_refused_in_words() -> None:
    deep: Any = 1.0
    for _ in range(900):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested"):
        CODEC.decode(with_tensor(0, data=[deep]))


@pytest.mark.parametrize(
    ("every", "asked", "binary_names"),
    [
        (True, {"probabilities": False}, {"label"}),
        (True, {}, {"label", "probabilities"}),
        (False, {"probabilities": True}, {"probabilities"}),
        (None, {"label": False}, set()),
    ],
)
def test_an_output_s_own_wish_wins(every: bool | None, asked: dict[str, bool], binary_names: set[str]) -> None:
    outputs = [
        {"name": n, "parameters": {"binary_data": asked[n]} if n in asked else {}} for n in ("probabilities", "label")
    ]
    message = body(outputs=outputs, parameters={} if every is None else {"binary_data_output": every})
    _, encoding = CODEC.decode(json.dumps(message).encode())
    assert encoding.names == binary_names


@pytest.mark.parametrize("identity", [None, "", "a", "x" * 128])
def test_ids_that_are_taken(identity: str | None) -> None:
    assert CODEC.decode(json.dumps(body(id=identity)).encode())[0].client_id == (identity or "")


@pytest.mark.parametrize("identity", ["x" * 129, "x" * 270_000, "a\nb", "a\0", "\u202e"])
def test_ids_that_no_ledger_entry_could_hold_are_refused(identity: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^id: expected"):
        CODEC.decode(json.dumps(body(id=identity)).encode())


def test_one_matrix_for_numeric_models() -> None:
    codec = V2Codec(NUMBERS_ONLY, "m", "r1")
    tensor = {"name": "features", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
    request, _ = codec.decode(json.dumps({"inputs": [tensor]}).encode())
    assert request.columns == [[1, 4], [2, 5], [3, 6]]
    with pytest.raises(InvalidRequest, match=r"expected shape \[n, 3\] \(a, b, c\)"):
        codec.decode(json.dumps({"inputs": [tensor | {"shape": [3, 2]}]}).encode())


def binary_body(columns: dict[str, tuple[str, list[Any]]], **more: Any) -> tuple[bytes, int]:
    tail, inputs = b"", []
    for name, (dtype, values) in columns.items():
        raw = binary.pack(dtype, values)
        inputs.append(
            {"name": name, "shape": [len(values), 1], "datatype": dtype, "parameters": {"binary_data_size": len(raw)}}
        )
        tail += raw
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + tail, len(head)


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(floats, st.text(st.characters(codec="utf-8"), max_size=20)), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_binary_equals_json(rows: list[tuple[float, str]]) -> None:
    signature = Signature((Input("x", "FP32"), Input("s", "BYTES", kind="categorical")), (Output("y", "FP32"),))
    codec = V2Codec(signature, "m", "r1")
    numbers, texts = [r[0] for r in rows], [r[1] for r in rows]
    data, header = binary_body({"x": ("FP32", numbers), "s": ("BYTES", texts)})
    from_binary, _ = codec.decode(data, header)
    tensors = [
        {"name": "x", "shape": [len(rows), 1], "datatype": "FP32", "data": numbers},
        {"name": "s", "shape": [len(rows), 1], "datatype": "BYTES", "data": texts},
    ]
    from_json, _ = codec.decode(msgspec.json.encode({"inputs": tensors}))
    assert np.array_equal(np.asarray(from_binary.columns[0], np.float32), np.asarray(from_json.columns[0], np.float32))
    assert list(from_binary.columns[1]) == from_json.columns[1]


@given(st.binary(max_size=200), st.integers(0, 220))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_are_refused_not_crashed_on(data: bytes, header: int) -> None:
    with pytest.raises(InvalidRequest):
        CODEC.decode(data, header)


def test_binary_errors_name_the_tensor() -> None:
    data, header = binary_body({"income": ("FP32", [1.0])})
    with pytest.raises(InvalidRequest, match="'income': expected binary_data_size up to 2"):
        CODEC.decode(data[:-2], header)
    with pytest.raises(InvalidRequest, match="expected 4 bytes of binary tensors, found 5"):
        CODEC.decode(data + b"!", header)
    raw = json.dumps(
        {"inputs": [{"name": "housing", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]}
    ).encode()
    with pytest.raises(InvalidRequest, match="'housing': expected UTF-8 in string 0, found byte 0xff"):
        CODEC.decode(raw + b"\x01\x00\x00\x00\xff", len(raw))


def test_outputs_come_back_in_the_form_asked_for() -> None:
    probabilities, label = CREDIT.outputs
    response = InferResponse(
        "r", [OutputValues(probabilities, 1, [0.25, 0.75]), OutputValues(label, 1, ["yes"])], "pending"
    )
    plain = json.loads(CODEC.encode(response).body)
    assert plain["outputs"][0] == {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]}
    assert plain["parameters"] == {"revision": "r1", "ledger": "pending"}
    assert (plain["model_name"], plain["model_version"], plain["id"]) == ("credit", "r1", "r")
    mixed = CODEC.encode(response, OutputEncoding(names=frozenset({"probabilities"})))
    head = json.loads(mixed.body[: mixed.header])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert head["outputs"][1]["data"] == ["yes"]
    assert np.frombuffer(mixed.body[mixed.header :], np.float32).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("dtype", [d for d in NUMPY if d != "BYTES"])
def test_every_datatype_survives_packing(dtype: str) -> None:
    values = [True, False] if dtype == "BOOL" else [0, 1, 100]
    assert binary.unpack("x", dtype, memoryview(binary.pack(dtype, values)), len(values)).tolist() == values


TEXTS = Signature((Input("x", "FP32"), Input("s", "BYTES", kind="categorical")), (Output("y", "FP32"),))


def test_the_explainers_batches_are_read_as_it_wrote_them() -> None:
    columns = {"x": np.array([1.5, 2.5, 3.5], np.float32), "s": np.array(["锻工", "", "锻工"], object)}
    body, header = encode(columns, "y")
    assert body.count("锻工".encode()) + body.count(json.dumps("锻工").encode()[1:-1]) == 1
    request, form = V2Codec(TEXTS, "m", "r1").decode(body, header)
    assert [list(column) for column in request.columns] == [[1.5, 2.5, 3.5], ["锻工", "", "锻工"]]
    assert form.names == {"y"}


@pytest.mark.parametrize(
    ("dictionary", "codes", "words"),
    [
        (["a"], [0, 1], "expected codes from 0 to 0 into its dictionary, found 0 to 1"),
        (["a"], [-1, 0], "found -1 to 0"),
        (["a", 3], [0, 1], "expected a list of strings"),
        ("ab", [0, 1], "expected a list of strings"),
        (["a"], [0], "expected binary_data_size 8"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_named(dictionary: Any, codes: list[int], words: str) -> None:
    data = np.array(codes, "<i4").tobytes()
    tensor = {"name": "s", "shape": [2, 1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(data), "dictionary": dictionary}
    numbers = {"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1.0, 2.0]}
    head = json.dumps({"inputs": [numbers, tensor]}).encode()
    with pytest.raises(InvalidRequest, match=words):
        V2Codec(TEXTS, "m", "r1").decode(head + data, len(head))
