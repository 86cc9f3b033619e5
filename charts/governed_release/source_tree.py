"""The tree that a release is made from: git's commit, clean, at the version that it says it has."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from governed_release.errors import ReleaseError


@dataclass(frozen=True)
class SourceTree:
    """``commit``: 40 or 64 hex digits; ``time``: the commit's, seconds; ``source``: where it is cloned from, if that is
    known."""

    root: Path
    commit: str
    time: int
    source: str | None

    def tracked(self, folder: str) -> list[str]:
        """Files of a folder as git knows them, sorted."""
        return sorted(name for name in _git(self.root, "ls-files", "-z", "--", folder).split("\0") if name)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {' '.join(args)}: {done.stderr.strip()}; a release is made from a clone")
    return done.stdout


def source_tree(root: Path, source: str | None = None) -> SourceTree:
    """Raises ReleaseError where a file differs from the commit, or isn't known to git: nobody could build it again."""
    changed = _git(root, "status", "--porcelain", "--untracked-files=all").splitlines()
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ReleaseError(
            f"expected a clean tree, found changes ({'; '.join(changed[:5])}{more}): commit or remove them"
        )
    commit, time = _git(root, "log", "-1", "--format=%H %ct").split()
    return SourceTree(root, commit, int(time), source or _origin(root))


def _origin(root: Path) -> str | None:
    """The origin without anybody's password; none where it isn't the world's."""
    done = subprocess.run(
        ["git", "-C", str(root), "config", "remote.origin.url"], capture_output=True, text=True, check=False
    )
    parts = urlsplit(done.stdout.strip())
    if parts.scheme != "https" or not parts.hostname:
        return None
    return "git+" + urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
