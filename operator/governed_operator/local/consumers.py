"""ModelConsumers of a local run → the document of callers that its processes read, kept up to date while they run."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from governed_api import object_names
from governed_api.callers import CALLERS_FILE, CALLERS_KEY, TokenIssuer, seal_callers
from governed_api.json_types import Json
from governed_api.resolved import ResolvedModel
from governed_api.token_identity import IssuerSource
from governed_operator.local.errors import LocalError
from governed_operator.local.manifest_file import ManifestError, load_consumers
from governed_operator.local.volumes import Secrets, write_private
from governed_operator.local.workdir import Workdir, replace_content
from governed_operator.policy.callers import Compiled, compiled
from governed_operator.watch.consumers import Consumers
from governed_operator.watch.https import NotFetched
from governed_operator.watch.issuer_keys import Found, IssuerKeys, published

__all__ = ["LocalConsumers", "callers_in"]

POLL = 0.2
"""Seconds between looks at the files."""
VOLUME = "callers"
"""Of a serving pod."""


def callers_in(
    model: ResolvedModel,
    labels: Mapping[str, str],
    documents: Sequence[Mapping[str, Json]],
    issuer_of: Callable[[IssuerSource], TokenIssuer] = IssuerSource.given,
) -> Compiled:
    """Who may call a model, of valid ModelConsumers in the order of their age."""
    return _callers_of(_book(model.namespace, documents), model, labels, issuer_of)


def _callers_of(
    book: Consumers, model: ResolvedModel, labels: Mapping[str, str], issuer_of: Callable[[IssuerSource], TokenIssuer]
) -> Compiled:
    selecting = book.selecting(model.namespace, model.name, labels)
    return compiled(selecting, lambda key: book.holder(model.namespace, key), issuer_of)


def _book(namespace: str, documents: Sequence[Mapping[str, Json]]) -> Consumers:
    book = Consumers()
    for number, document in enumerate(documents):
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else ""
        head = {"name": name, "namespace": namespace, "uid": str(number), "resourceVersion": "1"}
        created = {"creationTimestamp": f"{number:09d}"}
        book.put("", json.dumps({"metadata": head | created, "spec": document.get("spec")}).encode())
    return book


class LocalConsumers:
    """Of ``files`` and of the folder ``consumers`` of the work directory; where two have a name, the first file's
    counts. A file that can't be read, or isn't valid, is told, and what it last held goes on: but for one that is
    gone."""

    def __init__(
        self,
        model: ResolvedModel,
        labels: Mapping[str, str],
        workdir: Workdir,
        files: Sequence[Path],
        note: Callable[[str], None],
    ) -> None:
        self._model, self._labels, self._workdir, self._files, self._note = model, labels, workdir, files, note
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._held: dict[Path, list[dict[str, Json]]] = {}
        self._written: Compiled | None = None
        self._secret = ""
        self._sources: set[IssuerSource] = set()
        self._keys = IssuerKeys(_published, lambda: self._sources, self._keys_changed)
        self._keys_moved = False

    def begin(self, secrets: Secrets) -> None:
        """Write the first document, before any process looks for it. Raises LocalError for a file that isn't valid."""
        if wrong := self._look()[1]:
            raise LocalError("\n".join(wrong))
        number = len(self._documents())
        if not self._model.spec.authenticates:
            if number:
                self._note(f"spec.access.authentication isn't Required: no key of {number} ModelConsumers is asked for")
            return
        self._secret = secrets.value(object_names.callers(self._model.name), CALLERS_KEY).decode()
        self._write()
        known = len(self._written.callers) if self._written else 0
        self._note(f"{known} of {number} ModelConsumers may call {self._model.name}")

    async def follow(self) -> None:
        """Until cancelled: write the document anew when what it is made of has changed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keys.run())
            await self._follow()

    async def _follow(self) -> None:
        unwritten = False
        while self._secret:
            await asyncio.sleep(POLL)
            try:
                changed, wrong = self._look()
            except Exception as error:  # whatever it is: a revoked consumer must not go on for want of a look
                self._note(f"who may call can't be looked at, retrying: {type(error).__name__}: {error}")
                continue
            for told in wrong:
                self._note(f"{told}; what it held before goes on")
            moved, self._keys_moved = self._keys_moved, False
            if changed or moved or unwritten:
                unwritten = not self._could_write()

    def _keys_changed(self, source: IssuerSource) -> None:
        self._keys_moved = True
        if why := self._keys.fault(source):
            self._note(f"keys of {source.named} can't be had: {why}; until they can, its tokens are refused")

    def _could_write(self) -> bool:
        try:
            self._write()
        except OSError as error:
            self._note(f"who may call can't be written: {error.strerror or error}; free space on that disk")
            return False
        return True

    def _paths(self) -> list[Path]:
        return [*self._files, *sorted(self._workdir.consumers.glob("*.yaml"))]

    def _look(self) -> tuple[bool, list[str]]:
        """Whether anything has changed, and what is wrong, once for each state of a file."""
        marks = {path: mark for path in self._paths() if (mark := _mark(path)) is not None}
        gone = [path for path in self._seen if path not in marks]
        for path in gone:
            del self._seen[path]
            self._held.pop(path, None)
        changed, wrong = bool(gone), list[str]()
        for path, mark in marks.items():
            if self._seen.get(path) == mark:
                continue
            self._seen[path] = mark
            try:
                self._held[path] = load_consumers(path)
                changed = True
            except ManifestError as error:
                wrong.append(str(error))
        return changed, wrong

    def _documents(self) -> list[dict[str, Json]]:
        by_name: dict[str, dict[str, Json]] = {}
        for path in self._paths():
            for document in self._held.get(path, ()):
                metadata = document.get("metadata")
                by_name.setdefault(str(metadata.get("name") if isinstance(metadata, dict) else ""), document)
        return list(by_name.values())

    def _write(self) -> None:
        book = _book(self._model.namespace, self._documents())
        self._sources = book.sources()
        compiled = _callers_of(book, self._model, self._labels, self._keys.issuer)
        if compiled == self._written:
            return
        folder = self._workdir.memory / object_names.local_pod(self._model.name) / VOLUME
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = compiled.document(self._model.namespace, self._model.name, self._next_sequence())
        staged = folder / f".{CALLERS_FILE}"
        write_private(staged, seal_callers(document, self._secret))
        staged.replace(folder / CALLERS_FILE)
        self._written = compiled

    def _next_sequence(self) -> int:
        """Kept from run to run: a process takes no document that is older than one that it has seen."""
        path = self._workdir.root / "callers-sequence"
        try:
            sequence = int(path.read_text()) + 1
        except (FileNotFoundError, ValueError):
            sequence = 1
        replace_content(path, str(sequence).encode())
        return sequence


async def _published(source: IssuerSource) -> Found:
    """Raises NotFetched."""
    if source.cluster:
        raise NotFetched("a local run has no cluster, and no service accounts")
    return await published(source)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
