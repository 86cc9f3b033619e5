"""What the OpenAPI page says about routes whose bodies msgspec decodes."""

import msgspec
from pydantic import BaseModel

from governed_api.explaining import request_schema
from governed_api.json_types import Json
from governed_serving.server.protocol.v1 import V1Request
from governed_serving.server.protocol.v2_messages import LooseRequest, Reply

__all__ = ["Problem", "any_json", "explain_operation", "infer_operation", "v1_operation"]


class Problem(BaseModel):
    """Every error, as V2 has it: one line with what was expected, what was found, what to do."""

    error: str


def _schema(kind: type[msgspec.Struct]) -> dict[str, object]:
    return _inlined(msgspec.json.schema(kind))


def _inlined(schema: dict[str, Json]) -> dict[str, object]:
    """A schema without references: OpenAPI keeps its components elsewhere than JSON Schema does."""
    definitions = schema.pop("$defs", {})
    assert isinstance(definitions, dict)

    def walk(node: Json) -> object:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                return walk(definitions[reference.rsplit("/", 1)[1]])
            return {key: walk(value) for key, value in node.items()}
        return [walk(value) for value in node] if isinstance(node, list) else node

    inlined = walk(dict(schema))
    assert isinstance(inlined, dict)
    return inlined


def _body(schema: dict[str, object], *, binary: bool) -> dict[str, object]:
    content: dict[str, object] = {"application/json": {"schema": schema}}
    if binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"required": True, "content": content}


_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1},
    "description": "Bytes of JSON before the binary tensors (V2 binary tensor data extension).",
}


def infer_operation() -> dict[str, object]:
    """V2 infer."""
    answer = {"description": "The prediction", "content": {"application/json": {"schema": _schema(Reply)}}}
    return {
        "requestBody": _body(_schema(LooseRequest), binary=True),
        "parameters": [_LENGTH],
        "responses": {"200": answer},
    }


def explain_operation() -> dict[str, object]:
    """V2 explain."""
    answer = {"description": "One explanation per row", "content": {"application/json": {"schema": {"type": "object"}}}}
    asked = _schema(LooseRequest)
    properties = asked["properties"]
    assert isinstance(properties, dict)
    properties["parameters"] = request_schema()
    body = _body(asked, binary=True)
    return {"requestBody": body, "parameters": [_LENGTH], "responses": {"200": answer}}


def v1_operation() -> dict[str, object]:
    """V1 predict and explain."""
    return {"requestBody": _body(_schema(V1Request), binary=False)}


def any_json() -> dict[str, object]:
    """A body that the foreign runtime defines."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
