"""V2's datatypes against those who define what they are called elsewhere: numpy, array, ONNX, the gRPC message."""

import array

import numpy as np
import onnx
import pytest

from governed_api.datatypes import DATATYPES, NUMERIC, ONNX, Datatype
from governed_serving.server.rpc.messages import MESSAGES

# the specification's table of tensor data types, with the size of an element in bytes
SPECIFIED = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8, "BYTES": 0,
}  # fmt: skip


def test_they_are_those_of_the_specification() -> None:
    assert {name: d.width for name, d in DATATYPES.items()} == SPECIFIED
    assert all(name == d.name for name, d in DATATYPES.items())
    assert SPECIFIED.keys() - {"BYTES"} == NUMERIC


@pytest.mark.parametrize("datatype", [DATATYPES[name] for name in sorted(NUMERIC)], ids=lambda d: d.name)
def test_numpy_agrees(datatype: Datatype) -> None:
    dtype = np.dtype(datatype.numpy)
    assert dtype.itemsize == datatype.width
    assert dtype.newbyteorder("<") == dtype
    assert {"b": "boolean", "i": "integer", "u": "integer", "f": "number"}[dtype.kind] == datatype.json
    if dtype.kind == "f":
        assert (datatype.least, datatype.greatest) == (float(np.finfo(dtype).min), float(np.finfo(dtype).max))
    elif dtype.kind in "iu":
        assert (datatype.least, datatype.greatest) == (np.iinfo(dtype).min, np.iinfo(dtype).max)
        assert dtype.name == datatype.name.lower()


@pytest.mark.parametrize("datatype", [d for d in DATATYPES.values() if d.array], ids=lambda d: d.name)
def test_python_arrays_hold_the_same_bytes(datatype: Datatype) -> None:
    values = [0, 1, datatype.greatest] if datatype.json == "integer" else [0.0, -1.5, datatype.greatest]
    assert array.array(datatype.array, values).tobytes() == np.array(values, datatype.numpy).tobytes()


def test_onnx_agrees() -> None:
    for onnx_type, name in ONNX.items():
        element = onnx_type.removeprefix("tensor(").removesuffix(")")
        number = onnx.TensorProto.DataType.Value(element.upper())
        dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
        assert dtype == (np.dtype(DATATYPES[name].numpy)), onnx_type


def test_grpc_agrees() -> None:
    contents = MESSAGES["InferTensorContents"]()
    for datatype in DATATYPES.values():
        if datatype.contents:
            field = getattr(contents, datatype.contents)
            field.append(b"x" if datatype.name == "BYTES" else datatype.json == "boolean" or datatype.greatest)
            assert len(field) >= 1
    assert [d.name for d in DATATYPES.values() if not d.contents] == ["FP16"], (
        "the specification has no contents for it"
    )
    assert {f.name for f in contents.DESCRIPTOR.fields} == {d.contents for d in DATATYPES.values() if d.contents}
