"""Reads a user's manifest files: YAML → validated GovernedModel, ModelConsumers and policies. Errors name file, line
and field, and what to do."""

from pathlib import Path
from typing import Any

from governed_api.json_types import Json
from governed_api.model import GovernedModel
from governed_api.names import CONSUMER_KIND, KIND
from governed_api.validation import defaulted, expected_kinds, schema_of
from governed_api.yaml_loader import YamlFault
from governed_operator.local.manifest_findings import findings_of
from governed_operator.local.manifest_text import Document, parsed


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
    return [
        f"{path}:{document.line(finding.field)}: {finding.words}" if finding.field else f"{path}: {finding.words}"
        for finding in findings_of(document.value)
    ]
