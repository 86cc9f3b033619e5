"""``python -m governed_serving.sources pin URI``: fetch, and print what pins it: each file with its size and SHA-256,
the digest over all, and what a manifest says."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from governed_api.printable import printable
from governed_api.quantities import whole_bytes
from governed_api.storage import scheme_of
from governed_serving.sources.download import Bounds
from governed_serving.sources.errors import SourceError
from governed_serving.sources.fetching import Wanted, fetch
from governed_serving.sources.source import Access, Keys
from governed_serving.sources.tree import Tree

MOST_NAMED = 256
"""Files that a manifest may name."""
_STEP = 32 << 20
"""Bytes between two words about progress."""


class _Told:
    """Progress as lines on the standard error, now and then."""

    def __init__(self) -> None:
        self._path, self._last = "", 0

    def __call__(self, path: str, have: int, size: int) -> None:
        if path != self._path:
            self._path, self._last = path, 0
        if have - self._last >= _STEP:
            self._last = have
            of = f" of {size >> 20}" if size else ""
            print(printable(f"{path}: {have >> 20}{of} MiB"), file=sys.stderr, flush=True)


def _pin(options: argparse.Namespace) -> Tree:
    access = Access(Keys(options.keys), options.endpoint, options.region, options.ca)
    wanted = Wanted(files=dict.fromkeys(options.file, ""))
    bounds = Bounds(whole_bytes(options.size))
    scheme = scheme_of(options.uri)
    with tempfile.TemporaryDirectory(prefix="governed-pin-") as scratch:
        folder = options.keep or Path(scratch) if scheme.remote else Path()
        return fetch(options.uri, folder, access, wanted, bounds, _Told())


def _print(tree: Tree, uri: str) -> None:
    for file in tree.files:
        print(printable(f"sha256:{file.sha256} {file.size:>12} {file.path}"))
    print(f"{len(tree.files)} {'file' if len(tree.files) == 1 else 'files'}, {tree.size} bytes; in a manifest:")
    lines = [f"      storageUri: {json.dumps(uri, ensure_ascii=False)}", f"      digest: {tree.digest}"]
    if not tree.single and scheme_of(uri).remote and len(tree.files) <= MOST_NAMED:
        lines += ["      storage:", "        files:  # so that one that differs is named"]
        lines += [
            f"          - {{path: {json.dumps(file.path, ensure_ascii=False)}, digest: 'sha256:{file.sha256}'}}"
            for file in tree.files
        ]
    print(printable("\n".join(lines), keep="\n"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="governed_serving.sources", description="Where a model's files come from.")
    verbs = parser.add_subparsers(required=True)
    pin = verbs.add_parser("pin", help="print the files behind a URI and the digest that pins them")
    pin.add_argument("uri")
    pin.add_argument("--file", action="append", default=[], help="only these names or patterns")
    pin.add_argument("--endpoint", default="", help="of one's own object storage, hub or registry")
    pin.add_argument("--region", default="", help="of object storage")
    pin.add_argument("--keys", type=Path, help="folder with the credentials, as the Secret has them")
    pin.add_argument("--ca", type=Path, help="certificates to trust, PEM")
    pin.add_argument("--size", default="16Gi", help="most bytes to fetch")
    pin.add_argument("--keep", type=Path, help="folder that keeps the files; an interrupted fetch goes on there")
    options = parser.parse_args()
    try:
        tree = _pin(options)
    except (SourceError, OSError, ValueError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    _print(tree, options.uri)
    return 0


if __name__ == "__main__":
    sys.exit(main())
