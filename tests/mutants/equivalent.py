"""Mutants that were shown to change nothing: ``equivalent.yaml``, each with its reason."""

from dataclasses import dataclass
from pathlib import Path

import yaml

__all__ = ["Equivalent", "equivalents"]

FILE = Path(__file__).with_name("equivalent.yaml")


@dataclass(frozen=True)
class Equivalent:
    """``source`` is the line's text without indentation, ``change`` is ``before → after``."""

    path: str
    source: str
    change: str
    reason: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.path, self.source, self.change


def equivalents(file: Path = FILE) -> list[Equivalent]:
    """Raises TypeError where an entry lacks a field or has another one."""
    return [Equivalent(**entry) for entry in yaml.safe_load(file.read_text())]
