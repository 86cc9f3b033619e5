"""From a URI to files that are as pinned."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from governed_api.storage import file_of, scheme_of
from governed_serving.sources.download import Bounds, Download, Progress
from governed_serving.sources.errors import NoRoom, Refused
from governed_serving.sources.hub import Hub
from governed_serving.sources.layers import unpack
from governed_serving.sources.names import safe, together
from governed_serving.sources.objects import Objects
from governed_serving.sources.page import Page
from governed_serving.sources.pickles import REMEDY, is_pickle_name
from governed_serving.sources.registry import Registry
from governed_serving.sources.source import Access, Listed, Source
from governed_serving.sources.tree import Tree

__all__ = ["Wanted", "fetch", "opened"]

_KINDS: Mapping[str, Callable[[str, Access], Source]] = {
    "https": Page, "http": Page, "s3": Objects, "gs": Objects, "az": Objects, "hf": Hub, "oci": Registry,
}  # fmt: skip
"""By the scheme's name."""


@dataclass(frozen=True)
class Wanted:
    """Which files: ``digest`` of them all (empty: any), and, where not all are meant, names or patterns (``*.json``)
    → ``sha256:…`` or "" for any content."""

    digest: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a file is meant."""
        return not self.files or any(fnmatchcase(name, pattern) for pattern in self.files)

    @property
    def pinned(self) -> dict[str, str]:
        """Files by name with the digest that each must have."""
        return {name: digest for name, digest in self.files.items() if digest}

    def lacking(self, names: Sequence[str]) -> list[str]:
        """What was named and isn't there."""
        return [pattern for pattern in self.files if not any(fnmatchcase(name, pattern) for name in names)]


def opened(uri: str, access: Access) -> Source:
    """What a remote URI names; nothing is asked yet. Raises Refused."""
    try:
        return _KINDS[scheme_of(uri).name](uri, access)
    except ValueError as error:
        raise Refused(str(error)) from None


def fetch(
    uri: str,
    folder: Path,
    access: Access,
    wanted: Wanted,
    bounds: Bounds,
    progress: Progress,
) -> Tree:
    """The files behind ``uri``, verified: where they are, or below ``folder``, fetched. An earlier, interrupted fetch
    into the same folder is gone on with. ``folder`` is also where relative ``file:`` paths and ``pvc:`` paths begin.

    Raises SourceError, OSError.
    """
    try:
        scheme = scheme_of(uri)
        if not scheme.remote:
            tree = Tree.of(file_of(uri, folder), wanted=wanted.has)
            return _checked(tree, uri, wanted)
    except ValueError as error:
        raise Refused(str(error)) from None
    with closing(opened(uri, access)) as source:
        download = Download(source, uri, folder, bounds, progress)
        listed = download.listed(wanted.has)
        _refuse_names(listed, wanted, uri)
        _refuse_size(listed, uri, folder, bounds)
        shutil.rmtree(download.files, ignore_errors=True)
        download.files.mkdir(parents=True, mode=0o700)
        for file in listed:
            _place(download.fetch(file), file, download, uri, bounds)
        place = download.files / listed[0].path if source.single else download.files
    tree = _checked(Tree.of(place, wanted=wanted.has), uri, wanted)
    shutil.rmtree(folder / "parts")
    return tree


def _checked(tree: Tree, uri: str, wanted: Wanted) -> Tree:
    if lacking := wanted.lacking([file.path for file in tree.files]):
        raise Refused(f"{uri}: expected the file {lacking[0]!r} of storage.files, found none")
    tree.check(wanted.digest, wanted.pinned, uri)
    return tree


def _refuse_names(listed: Sequence[Listed], wanted: Wanted, uri: str) -> None:
    names = [safe(file.path) for file in listed]
    together(names)
    archives = any(file.archive for file in listed)
    if not archives and (lacking := wanted.lacking(names)):
        raise Refused(f"{uri}: expected the file {lacking[0]!r} of storage.files, found none")
    for file in listed:
        if not file.archive and is_pickle_name(file.path):
            raise Refused(f"{uri}: {file.path} is a pickle, whose reading runs code; {REMEDY}")


def _refuse_size(listed: Sequence[Listed], uri: str, folder: Path, bounds: Bounds) -> None:
    total = sum(file.size or 0 for file in listed)
    if total > bounds.most:
        raise Refused(
            f"{uri}: has {total} bytes in {len(listed)} files, at most {bounds.most} are taken; raise volumeSize, or "
            "name the files that are needed in storage.files"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    free = shutil.disk_usage(folder).free
    begun = sum(part.stat().st_size for part in (folder / "parts").glob("*"))
    if total > free + begun:
        raise NoRoom(f"{uri}: has {total} bytes, and {free} are free on the volume; raise volumeSize")


def _place(part: Path, file: Listed, download: Download, uri: str, bounds: Bounds) -> None:
    """Parts stay until all is verified, so that a process that starts again has them."""
    if file.archive:
        unpack(part, download.files, file.below, bounds.most, f"{uri}, {file.path}")
        return
    target = download.files / file.path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.unlink(missing_ok=True)
    os.link(part, target)
