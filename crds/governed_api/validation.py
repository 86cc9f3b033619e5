"""What an API server would say of a manifest, said offline.

Follows apiextensions-apiserver: strict decoding (unknown fields by path), defaulting, structural validation, list-map
keys, then CEL rules unless an earlier error blocks them; messages are those of kube-openapi and field.Error.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import isfinite
from typing import Any

import cel

from governed_api import schema as generated
from governed_api.names import API_VERSION, CLUSTER_POLICY_KIND, CONSUMER_KIND, KIND, POLICY_KIND
from governed_api.quantities import QUANTITY, quantity
from governed_api.schema import Schema

NOT_CHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


class FieldError(str):
    """One message; ``blocking`` ones keep CEL rules from running."""

    blocking: bool

    def __new__(cls, text: str, blocking: bool = False) -> "FieldError":
        out = super().__new__(cls, text)
        out.blocking = blocking
        return out


_CRDS: Mapping[str, Callable[[], Schema]] = {
    KIND: generated.model_crd,
    CONSUMER_KIND: generated.consumer_crd,
    POLICY_KIND: generated.policy_crd,
    CLUSTER_POLICY_KIND: generated.cluster_policy_crd,
}
"""What people write, by kind."""


@cache
def schema_of(kind: str) -> Schema:
    """Structural schema of a kind that people write, as its CRD has it; an empty one for any other kind."""
    if kind not in _CRDS:
        return {}
    root: Schema = _CRDS[kind]()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root


def expected_kinds() -> str:
    """Kinds that people write, in words."""
    *first, last = _CRDS
    return f"{', '.join(first)} or {last}"


def validate(manifest: object, old: Mapping[str, object] | None = None) -> list[str]:
    """Messages for a manifest, in the API server's words; empty when it would be accepted.

    ``old`` is the object that an update would replace: rules with ``oldSelf`` are checked against it.
    """
    if not isinstance(manifest, dict):
        return [f"expected a mapping with apiVersion, kind, metadata and spec, found {_type(manifest)}"]
    kind = manifest.get("kind")
    if manifest.get("apiVersion") != API_VERSION or not isinstance(kind, str) or kind not in _CRDS:
        named = f"{manifest.get('apiVersion')!s} {kind!s}"
        return [f"no matches for kind: expected {API_VERSION} {expected_kinds()}, found {named}"]
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return ["metadata.name: Required value: name or generateName is required"]
    root = schema_of(kind)
    body = {k: v for k, v in manifest.items() if k != "status"}
    unknown = [f'unknown field "{p}"' for p in _unknown(body, root, "", top=True)]
    if unknown:
        return unknown
    body = defaulted(body, root)
    findings = list(_structure(body, root, ""))
    findings += _list_maps(body, root, "")
    findings += _scale(body) if kind == KIND else []
    blocked = any(f.blocking for f in findings)
    return [*findings, NOT_CHECKED] if blocked else [*findings, *_rules(body, old, root, "")]


def defaulted(value: Any, schema: Schema) -> Any:
    """A copy of ``value`` with the schema's defaults filled in, nulls dropped where a default exists."""
    if isinstance(value, dict) and "properties" in schema:
        out = {}
        for key, item in value.items():
            sub = schema["properties"].get(key)
            if sub is not None and item is None and "default" in sub:
                continue
            out[key] = defaulted(item, sub) if sub is not None else item
        for key, sub in schema["properties"].items():
            if key not in out and "default" in sub:
                out[key] = defaulted(copy.deepcopy(sub["default"]), sub)
        return out
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {k: defaulted(v, schema["additionalProperties"]) for k, v in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [defaulted(v, schema["items"]) for v in value]
    return value


def _unknown(value: object, schema: Schema, path: str, top: bool = False) -> Iterator[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, dict):
        if "additionalProperties" in schema:
            for key, item in value.items():
                yield from _unknown(item, schema["additionalProperties"], f"{path}.{key}")
        else:
            for key, item in value.items():
                where = _join(path, key)
                if key not in schema.get("properties", {}):
                    yield where
                elif not (top and key == "metadata"):
                    yield from _unknown(item, schema["properties"][key], where)
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _unknown(item, schema.get("items", {}), f"{path}[{n}]")


def _type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _fits(value: object, kind: str) -> bool:
    kind_found = _type(value)
    if kind == "number":
        return kind_found in ("number", "integer")
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return kind_found == kind


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _structure(value: object, schema: Schema, path: str) -> Iterator[FieldError]:
    if schema.get("x-kubernetes-int-or-string"):
        kinds = ["integer", "string"]
    else:
        kinds = [schema["type"]] if "type" in schema else []
    if kinds and not any(_fits(value, k) for k in kinds):
        expected = kinds[0] if len(kinds) == 1 else "[" + " ".join(kinds) + "]"
        actual = _type(value)
        yield FieldError(
            f'{path}: Invalid value: "{actual}": {path} in body must be of type {expected}: "{actual}"', True
        )
        if kinds == ["integer"] and isinstance(value, float):
            yield FieldError(
                f'<nil>: Invalid value: "": Checked value must be of type integer (default format) in {path}'
            )
        return
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(_shown(v) for v in schema["enum"])
        yield FieldError(f"{path}: Unsupported value: {_shown(value)}: supported values: {supported}", True)
    if isinstance(value, str):
        yield from _string(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema, path)
    elif isinstance(value, list):
        yield from _array(value, schema, path)
    elif isinstance(value, dict):
        yield from _object(value, schema, path)


def _string(value: str, schema: Schema, path: str) -> Iterator[FieldError]:
    where = f"{path} in body"
    if len(value) > schema.get("maxLength", len(value)):
        yield FieldError(f"{path}: Too long: may not be more than {schema['maxLength']} bytes", True)
    if len(value) < schema.get("minLength", 0):
        yield FieldError(
            f"{path}: Invalid value: {_shown(value)}: {where} should be at least {schema['minLength']} chars long"
        )
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield FieldError(f"{path}: Invalid value: {_shown(value)}: {where} should match '{schema['pattern']}'")


def _number(value: float, schema: Schema, path: str) -> Iterator[FieldError]:
    if not isfinite(value):  # kubectl can't send it either: JSON has no word for it
        yield FieldError(f"{path}: Invalid value: {value}: {path} in body must be a finite number", True)
        return
    tests: list[tuple[str, Callable[[float, float], bool], str]] = [
        ("minimum", lambda v, b: v >= b, "greater than or equal to"),
        ("maximum", lambda v, b: v <= b, "less than or equal to"),
    ]
    for name, holds, words in tests:
        if name not in schema:
            continue
        bound = schema[name]
        exclusive = schema.get(f"exclusive{name.capitalize()}")
        if not holds(value, bound) or (exclusive and value == bound):
            text = words.removesuffix(" or equal to") if exclusive else words
            yield FieldError(f"{path}: Invalid value: {_shown(value)}: {path} in body should be {text} {_shown(bound)}")


def _array(value: list[object], schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) > schema.get("maxItems", len(value)):
        yield FieldError(f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items", True)
    if len(value) < schema.get("minItems", 0):
        yield FieldError(
            f"{path}: Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
        )
    for n, item in enumerate(value):
        yield from _structure(item, schema.get("items", {}), f"{path}[{n}]")


def _object(value: dict[str, object], schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) > schema.get("maxProperties", len(value)):
        yield FieldError(f"{path}: Too many: {len(value)}: must have at most {schema['maxProperties']} items", True)
    for name in schema.get("required", []):
        if name not in value:
            yield FieldError(f"{_join(path, name)}: Required value", True)
    for name, item in value.items():
        sub = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if isinstance(sub, dict) and not (path == "" and name == "metadata"):
            yield from _structure(item, sub, _join(path, name))


def _scale(body: Mapping[str, object]) -> list[FieldError]:
    """What the scale subresource says of the field that it reads."""
    path = generated.SCALE_PATH
    value: object = body
    for name in path.split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or (isinstance(value, int) and value >= 0):
        return []
    if isinstance(value, int):
        return [FieldError(f"{path}: Invalid value: {value}: should be a non-negative integer")]
    kind = {"number": "float64", "string": "string", "boolean": "bool"}.get(_type(value), _type(value))
    return [
        FieldError(f"{path}: Invalid value: 0: {path} accessor error: {value} is of the type {kind}, expected int64")
    ]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _list_maps(value: object, schema: Schema, path: str) -> list[FieldError]:
    findings: list[FieldError] = []
    if isinstance(value, dict):
        for name, item in value.items():
            sub = schema.get("properties", {}).get(name)
            if sub is not None:
                findings += _list_maps(item, sub, _join(path, name))
    elif isinstance(value, list) and "items" in schema:
        seen: list[dict[str, object]] = []
        for n, item in enumerate(value):
            findings += _list_maps(item, schema["items"], f"{path}[{n}]")
            if schema.get("x-kubernetes-list-type") == "map" and isinstance(item, dict):
                key = {k: item.get(k) for k in schema["x-kubernetes-list-map-keys"]}
                if key in seen:
                    findings.append(FieldError(f"{path}[{n}]: Duplicate value: {_shown(key)}"))
                seen.append(key)
    return findings


def _typed(value: object, schema: Schema) -> object:
    """JSON values as CEL sees them: ``number`` is always a double."""
    if isinstance(value, dict):
        props, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
        return {k: _typed(v, props.get(k, rest)) for k, v in value.items()}
    if isinstance(value, list):
        return [_typed(v, schema.get("items", {})) for v in value]
    if schema.get("type") == "number" and isinstance(value, int):
        return float(value)
    return value


def _compare(a: float, b: float) -> int:
    return int(a > b) - int(a < b)


def _rules(value: object, old: object, schema: Schema, path: str) -> Iterator[FieldError]:
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        context = cel.Context(variables={"self": _typed(value, schema), "oldSelf": _typed(old, schema)})
        context.add_function("isQuantity", lambda text: re.match(QUANTITY, text) is not None)
        context.add_function("quantity", lambda text: float(quantity(text)))
        context.add_function("compareTo", _compare)
        try:
            kept = cel.evaluate(rule["rule"], context)
        except RuntimeError as error:  # such as an expression that doesn't compile
            why = " ".join(str(error).split())
            yield FieldError(f'{path}: Invalid value: "{_type(value)}": {why} evaluating rule: {rule["message"]}')
            continue
        if not kept:
            yield FieldError(f"{(path + rule.get('fieldPath', '')) or '<nil>'}: Invalid value: {rule['message']}")
    if isinstance(value, dict):
        for name, item in value.items():
            sub = schema.get("properties", {}).get(name)
            if isinstance(sub, dict) and name != "metadata":
                yield from _rules(item, old.get(name) if isinstance(old, dict) else None, sub, _join(path, name))
    elif isinstance(value, list) and "items" in schema:
        for n, item in enumerate(value):
            yield from _rules(item, None, schema["items"], f"{path}[{n}]")
