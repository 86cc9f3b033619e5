"""The rooms that prove things, and the tests that cover each (beyond ``tests/unit`` of the same name)."""

import ast
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["ROOMS", "Room", "chosen"]

SERVING, OPERATOR, UNIT = "serving_image/governed_serving", "operator/governed_operator", "tests/unit"


@dataclass(frozen=True)
class Room:
    """``sources``: a folder or a file below the repository; ``tests``: files and folders that run in one process, quick
    first; ``names``: files of the folder, where the room is a part of it."""

    sources: str
    tests: tuple[str, ...]
    names: tuple[str, ...] = ()

    def files(self, root: Path) -> list[str]:
        """The room's sources, by path below ``root``."""
        place = root / self.sources
        paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
        paths = [path for path in paths if not self.names or path.name in self.names]
        return [path.relative_to(root).as_posix() for path in paths]

    def test_files(self, root: Path) -> list[str]:
        """The room's test files, by path below ``root``, in their order."""
        places = [root / name for name in self.tests]
        paths = [path for place in places for path in (sorted(place.rglob("test_*.py")) if place.is_dir() else [place])]
        return list(dict.fromkeys(path.relative_to(root).as_posix() for path in paths if path.is_file()))


ROOMS = {
    "privacy": Room(f"{SERVING}/privacy", (f"{UNIT}/privacy", f"{UNIT}/trainer/test_masking.py")),
    "crypto": Room(f"{SERVING}/crypto", (f"{UNIT}/crypto", f"{UNIT}/archive/test_subjects.py")),
    "archive": Room(
        f"{SERVING}/archive",
        (f"{UNIT}/archive",),
    ),
    "fairness": Room(
        f"{SERVING}/fairness",
        (
            f"{UNIT}/fairness",
            *(
                f"{UNIT}/auditor/test_{name}.py"
                for name in ("measures", "monitors", "coverage", "corrections", "drift_alarms", "generated", "labels")
            ),
        ),
    ),
    "policy": Room(
        f"{OPERATOR}/policy",
        (
            f"{UNIT}/operator/test_consumers.py",
            *(
                f"{UNIT}/operator/test_policy{part}.py"
                for part in ("", "_canary", "_edges", "_errors", "_fetched", "_gates", "_memory", "_status")
            ),
        ),
    ),
    "journal": Room(f"{SERVING}/journal", (f"{UNIT}/journal",)),
    "access": Room(f"{SERVING}/access", (f"{UNIT}/access", f"{UNIT}/server/test_callers.py")),
    "admission": Room(
        f"{SERVING}/server",
        (f"{UNIT}/server/test_admission.py", f"{UNIT}/server/test_quota.py"),
        ("admission.py", "quota.py", "window_storage.py"),
    ),
    "artefact": Room(f"{SERVING}/artefact", (f"{UNIT}/artefact",)),
}


def chosen(name: str, root: Path, *, all_tests: bool = False) -> Room:
    """A room by name, or a part of one by path (``archive/ledger``, ``privacy/finder.py``), whose tests are those of
    the room that import it by name; all of them where none does, or with ``all_tests``. Raises ValueError."""
    top, _, rest = name.partition("/")
    if top not in ROOMS:
        raise ValueError(f"expected a room of {', '.join(ROOMS)} or a path in one, found {name!r}")
    if not rest:
        return ROOMS[top]
    part = Room(f"{ROOMS[top].sources}/{rest}".rstrip("/"), ROOMS[top].tests)
    if not (root / part.sources).exists():
        raise ValueError(f"expected a file or folder of the room {top}, found none at {part.sources}")
    modules = {path.removesuffix(".py").partition("/")[2].replace("/", ".") for path in part.files(root)}
    users = [file for file in part.test_files(root) if modules & _imported(root / file)]
    return replace(part, tests=tuple(users)) if users and not all_tests else part


def _imported(file: Path) -> set[str]:
    """Names of the modules, and of what may be modules, that a test file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
