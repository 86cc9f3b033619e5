"""What a release says of itself: every digest in one signed file, and the chart's values."""

from typing import Literal

import msgspec
import yaml

from governed_release.errors import ReleaseError
from governed_release.images import CONFIG
from governed_release.registry import MANIFEST, Blob, Manifest, sha256
from governed_release.roles import ROLES
from governed_release.signing import compact

REPOSITORY = "release"
"""Below the release's path: the manifest itself, by version."""
FILE, SIGNATURE, VALUES = "release.json", "release.json.sig", "values-release.yaml"
_TYPE = "application/vnd.governedmodels.release.v1+json"


class ReleasedImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``sbom`` and ``provenance``: digests of the attested in-toto Statements, whoever signs them anew."""

    role: str
    repository: str
    digest: str
    sbom: str
    provenance: str


class ReleasedChart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``package``: digest of the .tgz."""

    repository: str
    digest: str
    package: str


class ReleaseManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``values``: digest of values-release.yaml."""

    schema: Literal["governedmodels.io/release/v1"]
    version: str
    commit: str
    images: tuple[ReleasedImage, ...]
    chart: ReleasedChart
    values: str


def encoded(manifest: ReleaseManifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decoded(content: bytes) -> ReleaseManifest:
    try:
        return msgspec.json.decode(content, type=ReleaseManifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{FILE}: expected a release manifest, found another thing ({error})") from error


def values(references: dict[str, str], digests: dict[str, str]) -> bytes:
    """The chart's values that name each image by digest; both dictionaries by role's name."""
    roles: dict[str, object] = {role.value: references[role.name] for role in ROLES if role.value}
    roles["digests"] = {role.value: digests[role.name] for role in ROLES if role.value}
    told = {
        "image": {"repository": references["operator"], "digest": digests["operator"]},
        "images": {"requireDigests": True},
        "roles": roles,
    }
    return (
        b"# Images of a release by digest: helm install -f. Written and signed by charts/release.\n"
        + yaml.safe_dump(told, sort_keys=True, width=400).encode()
    )


def artifact(files: dict[str, bytes], version: str) -> tuple[Manifest, tuple[Blob, ...]]:
    """The release's files as one manifest of a registry."""
    blobs = {name: Blob.of(content) for name, content in files.items()}
    config = Blob.of(compact({}))
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": blob.digest,
            "size": blob.size,
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, blob in blobs.items()
    ]
    told = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": _TYPE,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": layers,
        "annotations": {"org.opencontainers.image.version": version},
    }
    text = compact(told)
    return Manifest(sha256(text), MANIFEST, text), (config, *blobs.values())
