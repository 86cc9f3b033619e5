"""A CycloneDX 1.6 SBOM of an image, read from its layers: Python distributions and Debian packages."""

import gzip
import json
import re
import tarfile
import uuid
import zlib
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from governed_release.errors import ReleaseError
from governed_release.images import Image, Layer

TYPE = "https://cyclonedx.org/bom"
"""The predicate's type (what cosign calls ``cyclonedx``)."""
_METADATA = re.compile(r"(?:.*/)?(?:site|dist)-packages/[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO)")
_DPKG = re.compile(r"var/lib/dpkg/status(?:\.d/[^/]+)?")
_LARGEST = 64 * 1024 * 1024
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)\s*(;)?", re.MULTILINE)


@dataclass(frozen=True)
class Inventory:
    """What is installed: (name, version) of Python, (name, version, architecture) of Debian."""

    python: tuple[tuple[str, str], ...]
    debian: tuple[tuple[str, str, str], ...]


def inventory(image: Image, name: str) -> Inventory:
    """Files that tell what is installed, as the layers leave them (image specification 1.1, "Whiteouts")."""
    held: dict[str, bytes] = {}
    for layer in image.layers:
        try:
            _apply(layer, held)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise ReleaseError(f"{name}: layer {layer.blob.digest} can't be read as a tar ({error})") from error
    python, debian = set(), set()
    for path, content in held.items():
        if _DPKG.fullmatch(path):
            for block in content.decode(errors="replace").split("\n\n"):
                fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", block, re.MULTILINE))
                if "Package" in fields and " installed" in fields.get("Status", " installed"):
                    debian.add((fields["Package"], fields.get("Version", ""), fields.get("Architecture", "")))
        else:
            told = BytesHeaderParser().parsebytes(content)
            if told["Name"] and told["Version"]:
                python.add((str(told["Name"]), str(told["Version"])))
    return Inventory(tuple(sorted(python)), tuple(sorted(debian)))


def _apply(layer: Layer, held: dict[str, bytes]) -> None:
    if "zstd" in layer.media_type:
        raise ReleaseError(f"layer {layer.blob.digest} is compressed with zstd, which isn't read here: use gzip")
    fresh: dict[str, bytes] = {}
    with layer.blob.open() as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                path = PurePosixPath("/", member.name).relative_to("/")
                if path.name == ".wh..wh..opq":
                    _forget(held, f"{path.parent}/", "")
                elif path.name.startswith(".wh."):
                    gone = str(path.parent / path.name.removeprefix(".wh."))
                    _forget(held, f"{gone}/", gone)
                elif not member.isdir():
                    _forget(held, f"{path}/", str(path))
                    wanted = _METADATA.fullmatch(str(path)) or _DPKG.fullmatch(str(path))
                    if wanted and member.isfile() and member.size <= _LARGEST:
                        file = tar.extractfile(member)
                        fresh[str(path)] = file.read() if file else b""
    held.update(fresh)


def _forget(held: dict[str, bytes], below: str, path: str) -> None:
    for one in [p for p in held if p == path or p.startswith(below)]:
        del held[one]


def document(role: str, version: str, found: Inventory) -> dict[str, Any]:
    """The same inventory gives the same document: no time, no random number."""
    main = Component(name=f"governed-models/{role}", version=version, type=ComponentType.CONTAINER, bom_ref=role)
    bom = Bom(components=[*(_python(*row) for row in found.python), *(_debian(*row) for row in found.debian)])
    bom.metadata.component = main
    bom.register_dependency(main, bom.components)
    told: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    told["metadata"].pop("timestamp", None)
    told["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([role, version, found.python, found.debian])).urn
    return told


def _python(name: str, version: str) -> Component:
    purl = PackageURL("pypi", name=_normal(name), version=version)
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), type=ComponentType.LIBRARY)


def _debian(name: str, version: str, architecture: str) -> Component:
    purl = PackageURL("deb", "debian", name, version, qualifiers={"arch": architecture})
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), type=ComponentType.LIBRARY)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def beside_the_lock(found: Inventory, lock: str) -> list[str]:
    """Pins of a lock that an image doesn't hold: it was built from another one."""
    held = {(_normal(name), version.partition("+")[0]) for name, version in found.python}
    return [
        f"{name}=={version}"
        for name, version, conditional in PIN.findall(lock)
        if not conditional and (_normal(name), version.partition("+")[0]) not in held
    ]
