"""The rooms that prove things, and the tests that cover each (beyond ``tests/unit`` of the same name)."""

from dataclasses import dataclass
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
        found = [place] if place.is_file() else sorted(place.rglob("*.py"))
        found = [path for path in found if not self.names or path.name in self.names]
        return [path.relative_to(root).as_posix() for path in found]


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
                for name in ("measures", "monitors", "coverage", "corrections", "drift_alarms", "generated")
            ),
        ),
    ),
    "policy": Room(
        f"{OPERATOR}/policy",
        tuple(
            f"{UNIT}/operator/test_policy{part}.py"
            for part in ("", "_canary", "_edges", "_errors", "_gates", "_memory", "_status")
        ),
    ),
    "journal": Room(f"{SERVING}/journal", (f"{UNIT}/journal",)),
    "access": Room(
        f"{SERVING}/server",
        (f"{UNIT}/server/test_admission.py", f"{UNIT}/server/test_quota.py"),
        ("admission.py", "quota.py", "window_storage.py"),
    ),
    "artefact": Room(f"{SERVING}/artefact", (f"{UNIT}/artefact",)),
}


def chosen(name: str, root: Path) -> Room:
    """A room by name, or a part of one by path (``archive/ledger``, ``privacy/finder.py``). Raises ValueError."""
    top, _, rest = name.partition("/")
    if top not in ROOMS:
        raise ValueError(f"expected a room of {', '.join(ROOMS)} or a path in one, found {name!r}")
    if not rest:
        return ROOMS[top]
    part = f"{ROOMS[top].sources}/{rest}".rstrip("/")
    if not (root / part).exists():
        raise ValueError(f"expected a file or folder of the room {top}, found none at {part}")
    return Room(part, ROOMS[top].tests)
