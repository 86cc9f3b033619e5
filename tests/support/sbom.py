"""A CycloneDX SBOM of an image, read from the image itself: its Python distributions and its Debian packages."""

import json
from pathlib import Path

from governed_release.sbom import Inventory, document
from support.docker_client import run_docker

# Runs inside the image: what is truly installed, not what a lock file promised.
_INVENTORY = """
import importlib.metadata as m, json, re
python = [[d.metadata["Name"], d.version] for d in m.distributions()]
try:
    status = open("/var/lib/dpkg/status").read().split("\\n\\n")
except FileNotFoundError:
    status = []
field = lambda block, name: next((line.split(": ", 1)[1] for line in block.splitlines() if line.startswith(name + ": ")), "")
debian = [[field(b, "Package"), field(b, "Version"), field(b, "Architecture")] for b in status if " installed" in field(b, "Status")]
print(json.dumps({"python": python, "debian": debian}))
"""  # noqa: E501


def write_sbom(image: str, role: str, version: str, folder: Path) -> Path:
    """Write `<role>.cdx.json` (CycloneDX 1.6) into `folder`. The same image gives the same bytes: no time, no random
    number."""
    entry = ["run", "--rm", "--network=none", "--read-only", "--entrypoint=python", image]
    inventory = json.loads(run_docker(*entry, "-c", _INVENTORY))
    found = Inventory(
        tuple(sorted((name, release) for name, release in inventory["python"])),
        tuple(sorted((name, release, architecture) for name, release, architecture in inventory["debian"])),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{role}.cdx.json"
    path.write_text(json.dumps(document(role, version, found), indent=1, sort_keys=True) + "\n")
    return path
