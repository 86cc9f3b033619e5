"""ModelConsumers in files: a folder with one for each (of a local run), or one file, as Git has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from governed_api.json_types import Json
from governed_api.names import CONSUMER_KIND
from governed_api.validation import validate
from governed_operator.local.consumer_keys import Document
from governed_operator.local.manifest_file import ManifestError, documents
from governed_operator.local.workdir import replace_content
from governed_operator.local.yaml_writing import to_yaml

__all__ = ["ConsumerFile", "ConsumerFolder", "StoreError", "checked"]


class StoreError(Exception):
    """What was asked can't be done there; the message says why, and what to do."""


def checked(document: Document) -> Document:
    """The same; raises StoreError with what an API server would say of it."""
    if told := validate(document):
        raise StoreError("\n".join(line.removeprefix("<nil>: ") for line in told))
    return document


def _name(document: Json) -> str:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _read(path: Path) -> list[Document]:
    """All documents of a file. Raises StoreError."""
    try:
        listed = documents(path)
    except ManifestError as error:
        raise StoreError(str(error)) from error
    return [document for document in listed if isinstance(document, dict)]


@dataclass(frozen=True)
class ConsumerFile:
    """One file; other documents in it stay, comments don't."""

    path: Path

    @property
    def place(self) -> str:
        return str(self.path)

    def all(self) -> list[Document]:
        """Raises StoreError."""
        return [document for document in _read(self.path) if document.get("kind") == CONSUMER_KIND]

    def get(self, name: str) -> Document:
        """Raises StoreError where it isn't there."""
        named = next((document for document in self.all() if _name(document) == name), None)
        if named is None:
            names = ", ".join(_name(document) for document in self.all()) or "none"
            raise StoreError(f"{self.path}: expected ModelConsumer {name}, found {names}")
        return named

    def create(self, document: Document) -> None:
        """Behind what the file holds. Raises StoreError where it has one of that name."""
        present = _read(self.path) if self.path.exists() else []
        if any(_name(d) == _name(document) and d.get("kind") == CONSUMER_KIND for d in present):
            raise StoreError(f"{self.path}: ModelConsumer {_name(document)} is there already: governed consumer rotate")
        self._write([*present, checked(document)])

    def replace(self, document: Document) -> None:
        """Raises StoreError."""
        same = (CONSUMER_KIND, _name(document))
        self._write([checked(document) if (d.get("kind"), _name(d)) == same else d for d in _read(self.path)])

    def _write(self, written: list[Document]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_content(self.path, to_yaml(written).encode())
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}: expected a file that can be written") from error


@dataclass(frozen=True)
class ConsumerFolder:
    """A folder of files, each named for its consumer."""

    folder: Path

    @property
    def place(self) -> str:
        return str(self.folder)

    def file(self, name: str) -> ConsumerFile:
        """Where a new one is put."""
        return ConsumerFile(self.folder / f"{name}.yaml")

    def files(self) -> Iterator[ConsumerFile]:
        """By name."""
        yield from (ConsumerFile(path) for path in sorted(self.folder.glob("*.yaml")))

    def all(self) -> list[Document]:
        """Raises StoreError."""
        return [document for file in self.files() for document in file.all()]

    def get(self, name: str) -> Document:
        """Raises StoreError where it isn't there."""
        return self._holding(name).get(name)

    def create(self, document: Document) -> None:
        """Raises StoreError where there is one of that name."""
        name = _name(document)
        if any(_name(present) == name for present in self.all()):
            raise StoreError(f"{self.folder}: ModelConsumer {name} is there already: governed consumer rotate {name}")
        checked(document)  # its name too, before a file is called so
        self.file(name).create(document)

    def replace(self, document: Document) -> None:
        """Raises StoreError."""
        self._holding(_name(document)).replace(document)

    def _holding(self, name: str) -> ConsumerFile:
        for file in self.files():
            if any(_name(document) == name for document in file.all()):
                return file
        names = ", ".join(_name(document) for document in self.all()) or "none"
        raise StoreError(f"{self.folder}: expected ModelConsumer {name}, found {names}")
