"""Reads a user's manifest file: YAML → validated GovernedModel. Errors are one line each and name file and field."""

from pathlib import Path
from typing import Any

import yaml

from governed_api.model import GovernedModel
from governed_api.validation import defaulted, model_schema, validate


class ManifestError(Exception):
    """The file can't be used; the message says what was expected, what was found and where."""


def documents(path: Path) -> list[Any]:
    """All YAML documents of a file. Raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}: expected a readable manifest file") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 at byte {error.start}: expected a YAML file") from error
    try:
        return [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ManifestError(f"{path}{where}: {problem}: expected YAML") from error


def findings(path: Path) -> list[str]:
    """What an API server would say of every document of the file, each line led by the file's name."""
    parsed = documents(path)
    if not parsed:
        return [f"{path}: empty: expected a GovernedModel"]
    return [f"{path}: {line}" for document in parsed for line in validate(document)]


def load_model(path: Path) -> GovernedModel:
    """The one GovernedModel of a file, valid. Raises ManifestError with one line per finding."""
    parsed = documents(path)
    if len(parsed) != 1:
        raise ManifestError(f"{path}: expected one GovernedModel, found {len(parsed)} documents")
    problems = validate(parsed[0])
    if problems:
        raise ManifestError("\n".join(f"{path}: {p}" for p in problems))
    return GovernedModel.model_validate(defaulted(parsed[0], model_schema()))
