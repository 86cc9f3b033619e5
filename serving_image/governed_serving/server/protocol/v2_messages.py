"""The JSON of the Open Inference Protocol V2 as types: decoding checks every element in C.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from typing import Annotated, Any, ClassVar

import msgspec

__all__ = [
    "ANY_REQUEST",
    "INTEGER_RANGES",
    "REQUEST",
    "InferenceRequest",
    "LooseRequest",
    "LooseTensor",
    "OutputTensor",
    "Reply",
    "ReplyParameters",
    "RequestedOutput",
    "Tensor",
]


class Tensor(msgspec.Struct, tag_field="datatype"):
    """What every input tensor has; ``data`` is flattened in row-major order, and absent where bytes follow the JSON."""

    name: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    text: ClassVar[bool] = False
    datatype: ClassVar[str]


def _tensor(tag: str, element: Any) -> Any:
    data: Any = list[element] | None
    made: Any = msgspec.defstruct(
        f"{tag}Tensor", [("data", data, None)], bases=(Tensor,), tag=tag, tag_field="datatype"
    )
    made.text = element is str
    made.datatype = tag
    return made


INTEGER_RANGES = {f"INT{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)}
INTEGER_RANGES |= {f"UINT{n}": (0, min(2**n - 1, 2**63 - 1)) for n in (8, 16, 32, 64)}
"""Least and greatest value of each integer datatype; of UINT64 as far as the fast decoder bounds it."""

_KINDS = [_tensor("FP16", Annotated[float, msgspec.Meta(ge=-65504, le=65504)])]
_KINDS += [_tensor(tag, float) for tag in ("FP32", "FP64")]
_KINDS += [_tensor(tag, Annotated[int, msgspec.Meta(ge=low, le=high)]) for tag, (low, high) in INTEGER_RANGES.items()]
_KINDS += [_tensor("BOOL", bool), _tensor("BYTES", str)]

TENSOR: Any = _KINDS[0]
for _kind in _KINDS[1:]:
    TENSOR = TENSOR | _kind


class RequestedOutput(msgspec.Struct):
    """An output that the client wants."""

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(msgspec.Struct):
    """$inference_request, with typed tensors. ``inputs`` is list[TENSOR]; see ``REQUEST``."""

    inputs: list[Any]
    id: str | None = None
    """null is none: some clients send it."""
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


_Typed = msgspec.defstruct("TypedRequest", [("inputs", list[TENSOR])], bases=(InferenceRequest,))
REQUEST: "msgspec.json.Decoder[InferenceRequest]" = msgspec.json.Decoder(_Typed)
"""The fast decoder: flat, typed data."""


class LooseTensor(msgspec.Struct):
    """Any tensor that the specification allows: nested data, nulls."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class LooseRequest(msgspec.Struct):
    """$inference_request as loosely as the specification allows."""

    inputs: list[LooseTensor]
    id: str | None = None
    """null is none: some clients send it."""
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


ANY_REQUEST: "msgspec.json.Decoder[LooseRequest]" = msgspec.json.Decoder(LooseRequest)
"""The decoder for what the fast one refuses: it finds the words for what is wrong."""


class ReplyParameters(msgspec.Struct, omit_defaults=True):
    """What governance adds to an answer."""

    revision: str = ""
    ledger: str = ""


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """$response_output."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Reply(msgspec.Struct, omit_defaults=True):
    """$inference_response."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]
    parameters: ReplyParameters | None = None
