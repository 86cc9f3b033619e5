"""One matrix [rows, features] in place of one tensor per feature, where all features are numbers."""

import numpy as np

from governed_serving.server.errors import InvalidRequest
from governed_serving.server.protocol.shapes import flattened, quoted
from governed_serving.server.protocol.tensors import check_datatype, values_of
from governed_serving.server.protocol.v2_messages import LooseTensor
from governed_serving.server.signature import Signature, Values

__all__ = ["is_matrix", "split_matrix"]


def is_matrix(signature: Signature, tensors: list[LooseTensor]) -> bool:
    """A single tensor of two dimensions whose name is no input's."""
    return (
        len(tensors) == 1
        and len(tensors[0].shape) == 2
        and tensors[0].name not in signature.index
        and len(signature.inputs) > 1
        and signature.numeric
    )


def split_matrix(signature: Signature, tensor: LooseTensor, data: Values) -> tuple[int, list[Values]]:
    """Rows, and one column per feature in the signature's order. Raises InvalidRequest."""
    width = len(signature.inputs)
    rows, columns = tensor.shape
    if columns != width or rows < 1:
        raise InvalidRequest(
            f"input {quoted(tensor.name)}: expected shape [n, {width}] ({signature.names()}) with n ≥ 1, found "
            f"{quoted(tensor.shape)}"
        )
    check_datatype(tensor.name, False, "FP32", tensor.datatype)
    values = (
        data
        if isinstance(data, np.ndarray)
        else values_of(tensor.name, False, tensor.datatype, flattened(tensor.name, tensor.shape, data))
    )
    if len(values) != rows * width:
        raise InvalidRequest(
            f"input {quoted(tensor.name)}: expected {rows * width} values for shape {tensor.shape}, found {len(values)}"
        )
    return rows, [values[k::width] for k in range(width)]
