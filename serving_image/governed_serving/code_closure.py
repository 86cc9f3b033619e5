"""Which of our own code stands behind a result: the import closure of the modules that produce it, and a digest over
their sources.

Read from the sources, not from ``sys.modules``: an import inside a function counts before the function has run, so that
the digest is the same at every moment of a process. Followed are ``import`` statements of any depth over the
distribution's own packages; what a module of ours reads beside its sources (data files of its package) belongs to the
closure as well. Imports under ``if TYPE_CHECKING`` shape nothing and are left out.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import governed_api
import governed_serving

__all__ = ["closure", "code_digest", "digest"]

PACKAGES: Mapping[str, Path] = {
    package.__name__: Path(str(package.__file__)).parent for package in (governed_api, governed_serving)
}
"""The distribution's packages on the serving side, and where they are installed."""

NOT_DATA = frozenset({".py", ".pyc", ".pyi", ".md", ".typed"})
"""Suffixes of files beside the sources that no running code reads (README, marker files) or that are followed
already."""


@functools.cache
def code_digest(*entries: str) -> str:
    """SHA-256 (hexadecimal) over everything of ours that the modules ``entries`` can import. Once per process."""
    return digest(closure(entries))


def digest(files: Mapping[str, Path]) -> str:
    """SHA-256 (hexadecimal) over names and contents of ``files``, in order of their names."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest())
    return total.hexdigest()


def closure(entries: Iterable[str], packages: Mapping[str, Path] = PACKAGES) -> dict[str, Path]:
    """Modules (dotted name → source) that ``entries`` lead to, and their packages' data files (``package/file`` →
    path).

    Raises ModuleNotFoundError where an entry has no source below ``packages`` (name of a top-level package → its
    folder).
    """
    files: dict[str, Path] = {}
    ahead = list(entries)
    for entry in ahead:
        if source(entry, packages) is None:
            raise ModuleNotFoundError(
                f"expected the source of {entry} in {', '.join(packages)}, found none", name=entry
            )
    while ahead:
        module = ahead.pop()
        if module in files or (path := source(module, packages)) is None:
            continue
        files[module] = path
        ahead += [module.rpartition(".")[0], *imported(module, path)]
        if path.name == "__init__.py":
            files |= {f"{module.replace('.', '/')}/{data.name}": data for data in data_files(path.parent)}
    return files


def source(module: str, packages: Mapping[str, Path]) -> Path | None:
    """The file of a module of ours; None for a foreign module, or a name that is no module (``from module import
    function``)."""
    top, _, rest = module.partition(".")
    if top not in packages:
        return None
    path = packages[top].joinpath(*rest.split(".")) if rest else packages[top]
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def data_files(folder: Path) -> Iterator[Path]:
    """Files of a package that are no code: templates, tables, style sheets."""
    return (path for path in folder.iterdir() if path.is_file() and path.suffix not in NOT_DATA)


def imported(module: str, path: Path) -> Iterator[str]:
    """Absolute names that a module's import statements mention, at any depth; ``from a import b`` mentions a and
    a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """``ast.walk`` without what stands under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from (below for other in node.orelse for below in statements(ast.Module([other], [])))
            continue
        yield node
        yield from statements(node)
