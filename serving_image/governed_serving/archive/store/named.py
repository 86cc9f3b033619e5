"""Files under a model and a name, replaced in three steps, so that a kill leaves nothing that looks like tampering.

What is to lie there is written beside; then the ledger says so; then it is put in place. What was written beside and
not put in place is looked up in the ledger later: in place with it if its entry was written, away with it if not.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from governed_api.regular_files import read_regular
from governed_serving.archive.errors import Refused
from governed_serving.durable import fsync_folder, is_regular, put_in_place, write_new

__all__ = ["NamedFiles", "Prepared", "check_model", "check_name", "is_model"]

_MODEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PREPARED = re.compile(r"\.(?P<name>.+)\.(?P<digest>[0-9a-f]{64})")


def is_model(name: str) -> bool:
    """Whether a model can be called so: a DNS label."""
    return _MODEL.fullmatch(name) is not None


def check_model(model: str) -> str:
    """``model`` when it is a DNS label; raises :class:`Refused` (400)."""
    if not is_model(model):
        raise Refused(400, f"a model's name must be lower-case letters, digits and '-', found {model[:80]!r}")
    return model


def check_name(name: str) -> str:
    """``name`` when it may name a file; raises :class:`Refused` (400)."""
    if not _NAME.fullmatch(name):
        raise Refused(400, f"a name must be letters, digits, '.', '_' and '-', at most 128, found {name[:80]!r}")
    return name


class Prepared:
    """Bytes that lie durably beside the place they are for; ``digest`` is the one that the ledger is told."""

    def __init__(self, beside: Path, model: str, name: str, digest: str):
        self._beside = beside
        self.model, self.name, self.digest = model, name, digest

    def put_in_place(self) -> None:
        """Over what was there. Raises OSError."""
        put_in_place(self._beside, self._beside.with_name(self.name))

    def read(self) -> bytes | None:
        """The bytes, or None when they aren't there any more: put in place meanwhile."""
        try:
            return read_regular(self._beside)
        except FileNotFoundError:
            return None

    def discard(self) -> None:
        self._beside.unlink(missing_ok=True)


class NamedFiles:
    """``{root}/{model}/{name}``, mode 0600. What is no regular file, or has no name of ours, isn't there."""

    def __init__(self, root: Path):
        self.root = root

    def read(self, model: str, name: str) -> bytes | None:
        """What is there, or None."""
        try:
            return read_regular(self.root / check_model(model) / check_name(name))
        except FileNotFoundError:
            return None

    def models(self) -> list[str]:
        """Models that have a folder here."""
        folders = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(p.name for p in folders if _MODEL.fullmatch(p.name) and p.is_dir() and not p.is_symlink())

    def names(self, model: str) -> list[str]:
        """Names of all files of ``model``."""
        folder = self.root / check_model(model)
        files = folder.iterdir() if folder.is_dir() else ()
        return sorted(p.name for p in files if _NAME.fullmatch(p.name) and is_regular(p))

    def prepare(self, model: str, name: str, data: bytes, digest: str) -> Prepared:
        """Write ``data`` durably beside its place; ``digest`` (SHA-256, hex) is what its entry will say. Raises
        OSError."""
        folder = self.root / check_model(model)
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{check_name(name)}.{digest}"
        prepared = Prepared(beside, model, name, digest)
        prepared.discard()
        try:
            write_new(beside, data)
            fsync_folder(folder)
        except OSError:
            prepared.discard()
            raise
        return prepared

    def settle(
        self,
        last: Callable[[str, str], str],
        put_in_place: Callable[[Prepared], None],
        model: str = "*",
        name: str = "*",
    ) -> list[str]:
        """Finish or undo what was interrupted; what was put in place, in words.

        ``last``: (model, name) → digest that the newest entry about it says, "" when there is none. Raises OSError.
        """
        finished = []
        for prepared in list(self.prepared(model, name)):
            if last(prepared.model, prepared.name) == prepared.digest:
                put_in_place(prepared)
                finished.append(f"{prepared.name} of {prepared.model}")
            else:
                prepared.discard()
        return finished

    def prepared(self, model: str = "*", name: str = "*") -> Iterator[Prepared]:
        """What lies beside its place."""
        for path in sorted(self.root.glob(f"{model}/.{name}.*")):
            match = _PREPARED.fullmatch(path.name)
            if match is None or not (_MODEL.fullmatch(path.parent.name) and is_regular(path)):
                continue
            if _NAME.fullmatch(match["name"]) and name in ("*", match["name"]):
                yield Prepared(path, path.parent.name, match["name"], match["digest"])
