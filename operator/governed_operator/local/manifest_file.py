"""Reads a user's manifest files: YAML → validated GovernedModel, ModelConsumers and policies. Errors name file, line
and field, and what to do."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from governed_api.consumer import unusable_keys
from governed_api.json_types import Json
from governed_api.model import GovernedModel
from governed_api.names import CONSUMER_KIND, KIND
from governed_api.patterns import too_wide
from governed_api.schema import Schema
from governed_api.validation import defaulted, expected_kinds, schema_of, validate
from governed_api.yaml_loader import YamlFault
from governed_operator.local.manifest_text import Document, parsed

_UNKNOWN = re.compile(r'unknown field "(?P<path>[^"]+)"')
_AT = re.compile(r"(?P<path>[A-Za-z][\w.\[\]-]*): ")


class ManifestError(Exception):
    """The file can't be used; the message says what was expected, what was found and where."""


def documents(path: Path) -> list[Any]:
    """All YAML documents of a file. Raises ManifestError."""
    return [document.value for document in _documents(path)]


def findings(path: Path) -> list[str]:
    """What an API server would say of every document of the file, each line led by the file's name and the field's
    line, and followed by what may help."""
    documents = _documents(path)
    if not documents:
        return [f"{path}: empty: expected a {expected_kinds()}"]
    return [line for document in documents for line in _told(path, document)]


def load_model(path: Path) -> GovernedModel:
    """The one GovernedModel of a file, valid; ModelConsumers may be there too. Raises ManifestError, a line per
    finding."""
    valid = _valid(path)
    models = [document for document in valid if document.kind == KIND]
    if len(models) != 1:
        raise ManifestError(f"{path}: expected one GovernedModel, found {len(models)} in {len(valid)} documents")
    return GovernedModel.model_validate(defaulted(models[0].value, schema_of(KIND)))


def load_consumers(path: Path) -> list[dict[str, Json]]:
    """The ModelConsumers among the documents of a file, valid and with their defaults. Raises ManifestError with a line
    per finding."""
    return load_of_kind(path, CONSUMER_KIND)


def load_models(path: Path) -> list[GovernedModel]:
    """The GovernedModels among the documents of a file, valid. Raises ManifestError with a line per finding."""
    return [GovernedModel.model_validate(document) for document in load_of_kind(path, KIND)]


def load_of_kind(path: Path, *kinds: str) -> list[dict[str, Json]]:
    """The documents of these kinds in a file, all of which is valid, with their defaults. Raises ManifestError with a
    line per finding."""
    found = [document for document in _valid(path) if document.kind in kinds]
    return [defaulted(document.value, schema_of(document.kind)) for document in found]


def _valid(path: Path) -> list[Document]:
    """Raises ManifestError."""
    documents = _documents(path)
    if problems := [line for document in documents for line in _told(path, document)]:
        raise ManifestError("\n".join(problems))
    return documents


def _documents(path: Path) -> list[Document]:
    try:
        return parsed(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}: expected a readable manifest file") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 at byte {error.start}: expected a YAML file") from error
    except YamlFault as fault:
        where = f":{fault.line}:{fault.column}" if fault.line else ""
        raise ManifestError(f"{path}{where}: {fault}: expected YAML") from fault


def _told(path: Path, document: Document) -> list[str]:
    found = validate(document.value)
    if not found and document.kind == KIND:  # what no CEL rule can say
        model = GovernedModel.model_validate(defaulted(document.value, schema_of(KIND)))
        found = list(too_wide(model.spec.governance.privacy.masking))
    if not found and document.kind == CONSUMER_KIND:
        found = list(unusable_keys(defaulted(document.value, schema_of(CONSUMER_KIND))["spec"]))
    return [_with_help(path, document, finding) for finding in found]


def _with_help(path: Path, document: Document, finding: str) -> str:
    """The API server's words between the place and what may help."""
    words = finding.removeprefix("<nil>: ")  # how the API server names the whole object
    if unknown := _UNKNOWN.match(words):
        field = unknown["path"]
        return f"{path}:{document.line(field)}: {words}{_nearest(document.kind, field)}"
    named = _AT.match(words)
    if named is None:
        return f"{path}: {words}"
    about = _described(document.kind, named["path"]) if "should match" in words else ""
    return f"{path}:{document.line(named['path'])}: {words}{about}"


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
