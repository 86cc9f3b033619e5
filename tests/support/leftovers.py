"""What a bed could leave on a machine: processes, mounts, interfaces, packet-filter tables, containers."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.docker_client import docker_lines


@dataclass(frozen=True)
class Leftovers:
    """A snapshot; processes count when their command line names the bed's folder."""

    folder: Path
    processes: frozenset[str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    tables: frozenset[str]
    containers: frozenset[str]

    @classmethod
    def now(cls, folder: Path) -> "Leftovers":
        return cls(
            folder,
            processes=_processes(str(folder)),
            mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
            interfaces=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            tables=_tables(),
            containers=frozenset(docker_lines("ps", "--all", "--format", "{{.Names}}")),
        )

    def assert_same_now(self) -> None:
        """Raise AssertionError that names everything there is now and wasn't then."""
        now = Leftovers.now(self.folder)
        kinds = ("processes", "mounts", "interfaces", "tables", "containers")
        extra = {kind: sorted(getattr(now, kind) - getattr(self, kind)) for kind in kinds}
        left = {kind: names for kind, names in extra.items() if names}
        assert not left, f"the bed left behind: {left}"
        assert not self.folder.exists(), f"the bed left its folder {self.folder}"


def _processes(marker: str) -> frozenset[str]:
    processes = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker in text:
            processes.add(f"{path.parent.name}: {text[:120]}")
    return frozenset(processes)


def _tables() -> frozenset[str]:
    """nf_tables tables, which is also where Debian's iptables keeps its rules; needs root, else nothing can have
    changed."""
    try:
        result = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return frozenset()
    if result.returncode:
        return frozenset()
    tables = [entry["table"] for entry in json.loads(result.stdout)["nftables"] if "table" in entry]
    return frozenset(f"{table['family']} {table['name']}" for table in tables)
