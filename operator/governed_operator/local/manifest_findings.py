"""What a person is told of a manifest, wherever it was written: the API server's words, followed by what may help."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import NamedTuple

from governed_api.consumer import unusable_keys
from governed_api.model import GovernedModel
from governed_api.names import CONSUMER_KIND, KIND
from governed_api.patterns import too_wide
from governed_api.schema import Schema
from governed_api.validation import defaulted, schema_of, validate

__all__ = ["Finding", "findings_of"]

_UNKNOWN = re.compile(r'unknown field "(?P<path>[^"]+)"')
_AT = re.compile(r"(?P<path>[A-Za-z][\w.\[\]-]*): ")


class Finding(NamedTuple):
    """``field``: the path that ``words`` are about (``spec.quota.requests[0].limit``); "" for the whole manifest."""

    field: str
    words: str


def findings_of(manifest: object) -> list[Finding]:
    """All that is wrong with a manifest; empty when a cluster and a local run would take it."""
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    found = validate(manifest)
    if not found and kind == KIND:  # what no CEL rule can say
        model = GovernedModel.model_validate(defaulted(manifest, schema_of(KIND)))
        found = list(too_wide(model.spec.governance.privacy.masking))
    if not found and kind == CONSUMER_KIND:
        found = list(unusable_keys(defaulted(manifest, schema_of(CONSUMER_KIND))["spec"]))
    return [_with_help(kind if isinstance(kind, str) else "", finding) for finding in found]


def _with_help(kind: str, finding: str) -> Finding:
    words = finding.removeprefix("<nil>: ")  # how the API server names the whole object
    if unknown := _UNKNOWN.match(words):
        field = unknown["path"]
        return Finding(field, f"{words}{_nearest(kind, field)}")
    named = _AT.match(words)
    if named is None:
        return Finding("", words)
    about = _described(kind, named["path"]) if "should match" in words else ""
    return Finding(named["path"], f"{words}{about}")


def _nearest(kind: str, path: str) -> str:
    """A field of nearly that name in the same place, else a field of that name elsewhere."""
    where, _, name = path.rpartition(".")
    schema = _schema(kind, where)
    near = get_close_matches(name, schema.get("properties", {}) if schema else (), n=1, cutoff=0.7)
    if near:
        return f'; did you mean "{near[0]}"?'
    spec = schema_of(kind)["properties"]["spec"]
    elsewhere = [place for place in ("spec", *_fields(spec, "spec")) if place.rpartition(".")[2] == name]
    elsewhere = sorted(elsewhere, key=lambda place: place.count(".") + place.count("[]"))[:2]  # shallow ones first
    return f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""


def _described(kind: str, path: str) -> str:
    """First sentence of what the field is for: a pattern alone tells nobody."""
    schema = _schema(kind, path)
    first = " ".join(schema.get("description", "").split()).partition(". ")[0].rstrip(".") if schema else ""
    return f" ({first})" if first else ""


def _schema(kind: str, path: str) -> Schema | None:
    """Of the field at ``path``; None where the schema knows none."""
    schema: Schema | None = schema_of(kind)
    for name in filter(None, re.sub(r"\[\d+\]", ".[]", path).split(".")):
        if schema is None:
            return None
        schema = (
            schema.get("items")
            if name == "[]"
            else schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        )
    return schema


def _fields(schema: Schema, path: str) -> Iterator[str]:
    """Paths of all fields below ``path``."""
    for name, sub in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from _fields(sub, f"{path}.{name}")
    if "items" in schema:
        yield from _fields(schema["items"], f"{path}[]")
