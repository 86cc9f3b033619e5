"""What this host has: root or not, capabilities, Debian packages (installed by us only as root, and said aloud)."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.places import locked
from support.progress import BedError, Say, say


def is_root() -> bool:
    return os.geteuid() == 0


def has_capability(number: int) -> bool:
    """Whether the bounding set of this process holds a capability (capabilities(7) numbers)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd"))
    return bool(mask >> number & 1)


def require_packages(commands: Mapping[str, str], tell: Say = say) -> None:
    """Have the commands (name → Debian package). As root on Debian the packages are installed; else the error names
    them."""
    missing = _missing(commands)
    if not missing:
        return
    line = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if not (is_root() and shutil.which("apt-get")):
        raise BedError(f"these Debian packages are missing: {', '.join(missing)}; as root run: {line}")
    with locked("apt"):
        missing = _missing(commands)
        if missing:
            tell(f"installing Debian packages: {line}")
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (
                ["apt-get", "update", "-qq"],
                ["apt-get", "install", "-qq", "--no-install-recommends", *missing],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                if done.returncode:
                    raise BedError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def _missing(commands: Mapping[str, str]) -> list[str]:
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return sorted({package for command, package in commands.items() if not shutil.which(command, path=path)})
