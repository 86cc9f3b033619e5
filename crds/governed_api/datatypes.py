"""The tensor datatypes of the Open Inference Protocol V2, and what each is called elsewhere.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#tensor-data-types;
no numpy is needed here: its dtypes are named by strings.
"""

from typing import Literal, NamedTuple

__all__ = ["BYTES", "DATATYPES", "NUMERIC", "ONNX", "Datatype"]


class Datatype(NamedTuple):
    """``least`` and ``greatest`` bound the finite values, integers exactly; they mean nothing for BYTES."""

    name: str
    json: Literal["boolean", "integer", "number", "string"]
    """What an element is in JSON."""
    width: int
    """Bytes of an element on the wire; 0: it says so itself."""
    numpy: str
    """Little-endian dtype; objects (str) for BYTES."""
    array: str
    """Type code of Python's array module, "" where it has none."""
    onnx: str
    contents: str
    """Field of gRPC's InferTensorContents, "" where values only travel raw."""
    least: float
    greatest: float


def _integer(bits: int, signed: bool) -> Datatype:
    name = f"{'' if signed else 'U'}INT{bits}"
    code = {8: "b", 16: "h", 32: "i", 64: "q"}[bits]
    contents = f"{'' if signed else 'u'}int{'64' if bits == 64 else ''}_contents"
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = "i" if signed else "u"
    return Datatype(
        name, "integer", bits // 8, f"<{kind}{bits // 8}", code if signed else code.upper(), f"tensor({name.lower()})",
        contents, low, high,
    )  # fmt: skip


def _float(name: str, width: int, code: str, onnx: str, contents: str, greatest: float) -> Datatype:
    return Datatype(name, "number", width, f"<f{width}", code, f"tensor({onnx})", contents, -greatest, greatest)


_ALL = (
    Datatype("BOOL", "boolean", 1, "?", "", "tensor(bool)", "bool_contents", 0, 1),
    *(_integer(bits, signed=False) for bits in (8, 16, 32, 64)),
    *(_integer(bits, signed=True) for bits in (8, 16, 32, 64)),
    _float("FP16", 2, "", "float16", "", 65504.0),
    _float("FP32", 4, "f", "float", "fp32_contents", (2 - 2**-23) * 2.0**127),
    _float("FP64", 8, "d", "double", "fp64_contents", (2 - 2**-52) * 2.0**1023),
    Datatype("BYTES", "string", 0, "O", "", "tensor(string)", "bytes_contents", 0, 0),
)

DATATYPES: dict[str, Datatype] = {d.name: d for d in _ALL}
"""By name, in the order in which they are listed to people."""
BYTES = "BYTES"
NUMERIC = frozenset(d.name for d in _ALL if d.name != BYTES)
"""All that numpy computes with: BOOL and the numbers."""
ONNX: dict[str, str] = {d.onnx: d.name for d in _ALL}
"""ONNX tensor type → datatype."""
