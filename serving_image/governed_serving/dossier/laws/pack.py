"""Law packs: YAML files that say what a law asks, of whom and since when, and what counts as evidence for it."""

import errno
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from governed_api.base import Part
from governed_api.regular_files import read_regular
from governed_api.supervision import Day
from governed_api.yaml_loader import Loader, YamlFault, value_of
from governed_serving.dossier.laws.facts import Kind
from governed_serving.dossier.laws.predicates import Item

__all__ = ["MOST_BYTES", "Pack", "PackError", "Row", "packs", "read_pack"]

MOST_BYTES = 1 << 20
"""Of a pack that a user brings."""

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class PackError(ValueError):
    """A pack that can't be read: which file, which field, what is wrong."""


class Since(Part):
    """The day from which, or until which, something applies."""

    day: Day
    verified: bool
    """Held against the official text; one that isn't is marked on the page."""


class Row(Part):
    """What one clause asks, and what counts as evidence for it: all of ``evidence``."""

    id: Identifier
    clause: str
    asks: str
    applies_to: list[Kind] = []
    """Empty: to any model."""
    applies_from: Since | None = None
    """Absent: as the pack's."""
    evidence: list[Item] = Field(min_length=1)


class Pack(Part):
    """A law, a standard or a guideline, in one version of its text."""

    id: Identifier
    title: str
    text: str
    """Version of the text that the rows cite."""
    jurisdiction: str
    applies_from: Since
    applies_to_day: Since | None = None
    """First day on which it no longer applies; absent: in force."""
    note: str = ""
    """What a reader must know of the pack as a whole."""
    rows: list[Row] = Field(min_length=1)


def read_pack(text: str, name: str) -> Pack:
    """Read one pack; ``name`` is for messages. Raises PackError."""
    try:
        node = yaml.compose(text, Loader=Loader)
        pack = Pack.model_validate(None if node is None else value_of(node))
    except YamlFault as error:
        raise PackError(f"{name}: line {error.line}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PackError(f"{name}: {_first(error)}") from error
    repeated = {id for id, times in Counter(row.id for row in pack.rows).items() if times > 1}
    if repeated:
        raise PackError(f"{name}: rows: the id {sorted(repeated)[0]} is given twice")
    return pack


def packs(own: Path | None = None) -> list[Pack]:
    """The packs that come with the project and those in the folder ``own`` (``*.yaml``), which replace any of the same
    id. Raises PackError, OSError."""
    shipped = resources.files(__package__).joinpath("packs")
    by_id = {
        p.id: p for p in _read((f.name, f.read_text("utf-8")) for f in shipped.iterdir() if f.name.endswith(".yaml"))
    }
    if own is not None:
        files = sorted(own.glob("*.yaml"))
        if not files:
            raise PackError(f"{own}: no law pack: expected *.yaml files")
        by_id |= {p.id: p for p in _read((str(f), _bounded(f)) for f in files)}
    return sorted(by_id.values(), key=lambda p: (p.jurisdiction, p.id))


def _read(files: Iterable[tuple[str, str]]) -> list[Pack]:
    return [read_pack(text, name) for name, text in files]


def _bounded(path: Path) -> str:
    try:
        return read_regular(path, MOST_BYTES, follow=True).decode()
    except UnicodeDecodeError as error:
        raise PackError(f"{path}: not UTF-8") from error
    except FileNotFoundError as error:
        raise PackError(f"{path}: expected a file, found none, or something else of this name") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise PackError(f"{path}: larger than {MOST_BYTES >> 20} MiB") from error
        raise


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the pack'}: {first['msg']}"
    return " ".join(str(error).split())
