"""Reads a user's manifest file: YAML → validated GovernedModel. Errors name file, line and field, and what to do."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from governed_api.model import GovernedModel
from governed_api.schema import Schema
from governed_api.validation import defaulted, model_schema, validate
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
    found = _documents(path)
    if not found:
        return [f"{path}: empty: expected a GovernedModel"]
    return [line for document in found for line in _told(path, document)]


def load_model(path: Path) -> GovernedModel:
    """The one GovernedModel of a file, valid. Raises ManifestError with one line per finding."""
    found = _documents(path)
    if len(found) != 1:
        raise ManifestError(f"{path}: expected one GovernedModel, found {len(found)} documents")
    if problems := _told(path, found[0]):
        raise ManifestError("\n".join(problems))
    return GovernedModel.model_validate(defaulted(found[0].value, model_schema()))


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
    return [_with_help(path, document, finding) for finding in validate(document.value)]


def _with_help(path: Path, document: Document, finding: str) -> str:
    """The API server's words between the place and what may help."""
    words = finding.removeprefix("<nil>: ")  # how the API server names the whole object
    if unknown := _UNKNOWN.match(words):
        field = unknown["path"]
        return f"{path}:{document.line(field)}: {words}{_nearest(field)}"
    named = _AT.match(words)
    if named is None:
        return f"{path}: {words}"
    about = _described(named["path"]) if "should match" in words else ""
    return f"{path}:{document.line(named['path'])}: {words}{about}"


def _nearest(path: str) -> str:
    """A field of nearly that name in the same place, else a field of that name elsewhere."""
    where, _, name = path.rpartition(".")
    schema = _schema(where)
    near = get_close_matches(name, schema.get("properties", {}) if schema else (), n=1, cutoff=0.7)
    if near:
        return f'; did you mean "{near[0]}"?'
    spec = model_schema()["properties"]["spec"]
    elsewhere = [found for found in ("spec", *_fields(spec, "spec")) if found.rpartition(".")[2] == name]
    elsewhere = sorted(elsewhere, key=lambda found: found.count(".") + found.count("[]"))[:2]  # shallow ones first
    return f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""


def _described(path: str) -> str:
    """First sentence of what the field is for: a pattern alone tells nobody."""
    schema = _schema(path)
    first = " ".join(schema.get("description", "").split()).partition(". ")[0].rstrip(".") if schema else ""
    return f" ({first})" if first else ""


def _schema(path: str) -> Schema | None:
    """Of the field at ``path``; None where the schema knows none."""
    schema: Schema | None = model_schema()
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
