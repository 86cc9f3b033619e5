"""Names of files that others chose: only what means one place below a folder, on any file system."""

import unicodedata
from collections.abc import Iterable

from governed_api.printable import printable
from governed_serving.sources.errors import Refused

__all__ = ["MAX_FILES", "MOST_LISTED", "safe", "together"]

MAX_FILES = 10_000
"""In a folder."""
MOST_LISTED = 20 * MAX_FILES
"""In a list, those that aren't wanted counted too."""
MAX_DEPTH, MAX_PART, MAX_PATH = 32, 255, 1024


def safe(name: str) -> str:
    """``name``, a relative path with ``/``. Raises Refused for what leaves its folder or has two readings."""
    parts = name.split("/")
    wrong = ""
    if not name or name.startswith("/") or "\\" in name:
        wrong = "a relative path with /"
    elif any(part in ("", ".", "..") for part in parts):
        wrong = "a path without '.', '..' and empty parts"
    elif not name.isprintable():
        wrong = "printable characters"
    elif name != unicodedata.normalize("NFC", name):
        wrong = "characters in Unicode's composed form (NFC)"
    elif len(parts) > MAX_DEPTH or len(name.encode()) > MAX_PATH or any(len(p.encode()) > MAX_PART for p in parts):
        wrong = f"at most {MAX_DEPTH} folders deep and {MAX_PATH} bytes"
    if wrong:
        raise Refused(f"file name {printable(name)[:200]!r}: expected {wrong}; nothing is taken from there")
    return name


def together(names: Iterable[str]) -> None:
    """Raises Refused for names that would lie on one another: twice, in other letter case, a file where others need a
    folder; and for more than MAX_FILES."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in seen:
            raise Refused(f"files {seen[folded]!r} and {name!r} have one name where letter case doesn't count")
        seen[folded] = name
        parts = folded.split("/")
        folders.update({"/".join(parts[:n]): name for n in range(1, len(parts))})
        if len(seen) > MAX_FILES:
            raise Refused(f"expected at most {MAX_FILES} files, found more: name those that are needed in files")
    for folder, name in folders.items():
        if folder in seen:
            raise Refused(f"{seen[folder]!r} is a file, and {name!r} needs a folder of that name")
