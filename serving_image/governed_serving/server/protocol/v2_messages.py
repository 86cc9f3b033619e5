"""The JSON of the Open Inference Protocol V2 as types: decoding checks every element in C.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from typing import Annotated, Any, ClassVar

import msgspec

from governed_api.datatypes import DATATYPES, Datatype

__all__ = [
    "ANY_REQUEST",
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


def _element(datatype: Datatype) -> Any:
    """The JSON that one element is, bounded where that costs the decoder nothing worth naming."""
    if datatype.json == "integer":
        bounds = msgspec.Meta(ge=int(datatype.least), le=min(int(datatype.greatest), _MOST))
        return Annotated[int, bounds]
    if datatype.name == "FP16":
        return Annotated[float, msgspec.Meta(ge=datatype.least, le=datatype.greatest)]
    return {"number": float, "boolean": bool, "string": str}[datatype.json]


_MOST = 2**63 - 1
"""As far as msgspec bounds an integer: what is beyond in a UINT64 takes the slow way."""
_KINDS = [_tensor(datatype.name, _element(datatype)) for datatype in DATATYPES.values()]

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
    prediction_id: str = ""
    """Ours, where the answer's ``id`` is the client's."""
    mitigation: str = ""
    """Of bias, applied in training: the model isn't what its data alone would have made."""


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
