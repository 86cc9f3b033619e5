"""The protocol's messages, built from a table when the module is imported: no generated code, no compiler.

Field names, types and numbers are those of the specification's open_inference_grpc.proto (package ``inference``) and of
grpc.health.v1. A pool of our own keeps them apart from clients' copies in the same process.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["MESSAGES"]

_TENSOR = ["string name", "string datatype", "repeated int64 shape"]
_PARAMETERS = "map .inference.InferParameter parameters"
_CONTENTS = [*_TENSOR, _PARAMETERS, ".inference.InferTensorContents contents"]

# message → its fields, numbered from 1 in order; "Outer.Inner" is nested
_INFERENCE: dict[str, list[str]] = {
    "ServerLiveRequest": [],
    "ServerLiveResponse": ["bool live"],
    "ServerReadyRequest": [],
    "ServerReadyResponse": ["bool ready"],
    "ModelReadyRequest": ["string name", "string version"],
    "ModelReadyResponse": ["bool ready"],
    "ServerMetadataRequest": [],
    "ServerMetadataResponse": ["string name", "string version", "repeated string extensions"],
    "ModelMetadataRequest": ["string name", "string version"],
    "ModelMetadataResponse": [
        "string name",
        "repeated string versions",
        "string platform",
        "repeated .inference.ModelMetadataResponse.TensorMetadata inputs",
        "repeated .inference.ModelMetadataResponse.TensorMetadata outputs",
    ],
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": [
        "string model_name",
        "string model_version",
        "string id",
        _PARAMETERS,
        "repeated .inference.ModelInferRequest.InferInputTensor inputs",
        "repeated .inference.ModelInferRequest.InferRequestedOutputTensor outputs",
        "repeated bytes raw_input_contents",
    ],
    "ModelInferRequest.InferInputTensor": _CONTENTS,
    "ModelInferRequest.InferRequestedOutputTensor": ["string name", _PARAMETERS],
    "ModelInferResponse": [
        "string model_name",
        "string model_version",
        "string id",
        _PARAMETERS,
        "repeated .inference.ModelInferResponse.InferOutputTensor outputs",
        "repeated bytes raw_output_contents",
    ],
    "ModelInferResponse.InferOutputTensor": _CONTENTS,
    "InferParameter": [
        "oneof bool bool_param",
        "oneof int64 int64_param",
        "oneof string string_param",
        "oneof double double_param",
        "oneof uint64 uint64_param",
    ],
    "InferTensorContents": [
        "repeated bool bool_contents",
        "repeated int32 int_contents",
        "repeated int64 int64_contents",
        "repeated uint32 uint_contents",
        "repeated uint64 uint64_contents",
        "repeated float fp32_contents",
        "repeated double fp64_contents",
        "repeated bytes bytes_contents",
    ],
}
_HEALTH = {
    "HealthCheckRequest": ["string service"],
    "HealthCheckResponse": ["int32 status"],
}  # an enum on the wire is an int32

_Field = descriptor_pb2.FieldDescriptorProto


def _file(package: str, table: dict[str, list[str]]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"governed/{package}.proto", package=package, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in table.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
        made[name] = message
        for number, text in enumerate(fields, 1):
            _add(message, f".{package}.{name}", number, text.split())
    return file


def _add(message: Any, path: str, number: int, words: list[str]) -> None:
    kind, name = words[-2:]
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if words[0] == "map":
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        _typed(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), kind)
        kind = f"{path}.{entry.name}"
    if words[0] in ("repeated", "map"):
        field.label = _Field.LABEL_REPEATED
    if words[0] == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    _typed(field, kind)


def _typed(field: Any, kind: str) -> None:
    if kind.startswith("."):
        field.type, field.type_name = _Field.TYPE_MESSAGE, kind
    else:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    out = {}
    for package, table in (("inference", _INFERENCE), ("grpc.health.v1", _HEALTH)):
        pool.Add(_file(package, table))
        for name in table:
            out[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return out


MESSAGES: dict[str, Any] = _classes()
"""Message classes by name."""
