"""The protocol's messages, built from a table when the module is imported: no generated code, no compiler.

Field names, types and numbers are those of the specification's open_inference_grpc.proto (package ``inference``), of
grpc.health.v1 and of grpc.reflection.v1. A pool of our own keeps them apart from clients' copies in the same process.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["MESSAGES", "SERVICES"]

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
_REFLECTION = {  # a field's own number where it isn't its place
    "ServerReflectionRequest": [
        "string host",
        "oneof string file_by_filename =3",
        "oneof string file_containing_symbol =4",
        "oneof string all_extension_numbers_of_type =6",
        "oneof string list_services =7",
    ],
    "FileDescriptorResponse": ["repeated bytes file_descriptor_proto"],
    "ServiceResponse": ["string name"],
    "ListServiceResponse": ["repeated .{package}.ServiceResponse service"],
    "ErrorResponse": ["int32 error_code", "string error_message"],
    "ServerReflectionResponse": [
        "string valid_host",
        ".{package}.ServerReflectionRequest original_request",
        "oneof .{package}.FileDescriptorResponse file_descriptor_response =4",
        "oneof .{package}.ListServiceResponse list_services_response =6",
        "oneof .{package}.ErrorResponse error_response =7",
    ],
}
_REFLECTIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")

_SERVICES: dict[str, tuple[str, list[str]]] = {
    "inference": (
        "GRPCInferenceService",
        ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"],
    ),
    "grpc.health.v1": ("Health", ["Check", "Watch"]),
    **dict.fromkeys(_REFLECTIONS, ("ServerReflection", ["ServerReflectionInfo"])),
}
"""Of each package: its service and that one's methods."""

_Field = descriptor_pb2.FieldDescriptorProto


def _file(package: str, table: dict[str, list[str]]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"governed/{package}.proto", package=package, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in table.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
        made[name] = message
        for place, text in enumerate(fields, 1):
            words, _, number = text.format(package=package).partition(" =")
            _add(message, f".{package}.{name}", int(number or place), words.split())
    name, methods = _SERVICES[package]
    service = file.service.add(name=name)
    for method in methods:
        stem = {"Health": "HealthCheck", "ServerReflection": "ServerReflection"}.get(name, method)
        service.method.add(
            name=method,
            input_type=f".{package}.{stem}Request",
            output_type=f".{package}.{stem}Response",
            server_streaming=method in ("Watch", "ServerReflectionInfo"),
            client_streaming=method == "ServerReflectionInfo",
        )
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
            message.oneof_decl.add(name="parameter_choice" if message.name == "InferParameter" else "choice")
        field.oneof_index = 0
    _typed(field, kind)


def _typed(field: Any, kind: str) -> None:
    if kind.startswith("."):
        field.type, field.type_name = _Field.TYPE_MESSAGE, kind
    else:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")


_TABLES = {"inference": _INFERENCE, "grpc.health.v1": _HEALTH, **dict.fromkeys(_REFLECTIONS, _REFLECTION)}
_FILES = {package: _file(package, table) for package, table in _TABLES.items()}


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    out = {}
    for package, table in _TABLES.items():
        pool.Add(_FILES[package])
        for name in table:  # both versions of reflection have the same fields: either reads the other
            out[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return out


MESSAGES: dict[str, Any] = _classes()
"""Message classes by name."""
SERVICES = {f"{package}.{service}": _FILES[package] for package, (service, _) in _SERVICES.items()}
"""Full name of each service → the file that describes it."""
