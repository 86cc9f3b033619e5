"""A CycloneDX SBOM of an image, read from the image itself: its Python distributions and its Debian packages."""

import json
import uuid
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

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
    main = Component(name=f"governed-models/{role}", version=version, type=ComponentType.CONTAINER, bom_ref=role)
    bom = Bom(components=[*map(_python, inventory["python"]), *map(_debian, inventory["debian"])])
    bom.metadata.component = main
    bom.register_dependency(main, bom.components)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(inventory)).urn
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{role}.cdx.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return path


def _python(row: list[str]) -> Component:
    name, version = row
    purl = PackageURL("pypi", name=name.lower().replace("_", "-"), version=version)
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), type=ComponentType.LIBRARY)


def _debian(row: list[str]) -> Component:
    name, version, architecture = row
    purl = PackageURL("deb", "debian", name, version, qualifiers={"arch": architecture})
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), type=ComponentType.LIBRARY)
