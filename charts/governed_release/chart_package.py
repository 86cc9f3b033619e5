"""The chart as Helm packs it and a registry holds it: the same tree gives the same bytes."""

import gzip
import io
import json
import tarfile
from dataclasses import dataclass

import yaml

from governed_release.errors import ReleaseError
from governed_release.registry import MANIFEST, Blob, Manifest, sha256
from governed_release.source_tree import SourceTree

NAME = "governed-models"
FOLDER = f"charts/{NAME}"
_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


@dataclass(frozen=True)
class ChartPackage:
    """``package``: what `helm package` writes."""

    manifest: Manifest
    config: Blob
    package: Blob


def chart_package(tree: SourceTree, version: str) -> ChartPackage:
    """Raises ReleaseError where Chart.yaml says another version."""
    described = yaml.safe_load(tree.read(f"{FOLDER}/Chart.yaml"))
    for key in ("version", "appVersion"):
        if str(described[key]) != version:
            raise ReleaseError(
                f"{FOLDER}/Chart.yaml: expected {key} {version}, found {described[key]}: set and commit it"
            )
    packed = _packed(tree)
    config = json.dumps(described, sort_keys=True).encode()
    annotations = {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": tree.commit,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": _CONTENT, "digest": sha256(packed), "size": len(packed)}],
        "annotations": annotations,
    }
    text = json.dumps(manifest, separators=(",", ":")).encode()
    return ChartPackage(Manifest(sha256(text), MANIFEST, text), Blob.of(config), Blob.of(packed))


def _packed(tree: SourceTree) -> bytes:
    out = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        paths = tree.tracked(FOLDER)
        paths.sort(key=lambda path: (path != f"{FOLDER}/Chart.yaml", path))  # Helm reads Chart.yaml first
        for path in paths:
            content = tree.read(path)
            member = tarfile.TarInfo(f"{NAME}{path.removeprefix(FOLDER)}")
            member.size, member.mtime, member.mode = len(content), tree.time, 0o644
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()
