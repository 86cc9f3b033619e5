"""A built image as a registry takes it: from a folder in OCI image layout, or from docker (`docker save`)."""

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governed_release.errors import ReleaseError
from governed_release.places import DIGEST
from governed_release.registry import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    LARGEST_MANIFEST,
    MANIFEST,
    Blob,
    Manifest,
    sha256,
)

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_GZIP = b"\x1f\x8b"
_LEVEL = 6


@dataclass(frozen=True)
class Layer:
    """One layer: its descriptor's media type, and its bytes."""

    media_type: str
    blob: Blob


@dataclass(frozen=True)
class Image:
    """One platform's image."""

    manifest: Manifest
    config: Blob
    layers: tuple[Layer, ...]
    labels: dict[str, str]
    platform: str

    @property
    def digest(self) -> str:
        return self.manifest.digest


def from_layout(folder: Path, name: str) -> Image:
    """The one image of an OCI image layout (image specification 1.1, "OCI Image Layout")."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{name}: expected an OCI image layout in {folder}, found {error}") from error
    for _ in range(3):  # an index may hold one index more
        chosen = _only(index, name)
        content = _blob_bytes(folder, chosen["digest"], name)
        if chosen.get("mediaType") not in (INDEX, DOCKER_LIST):
            return _from_manifest(folder, name, Manifest(chosen["digest"], chosen["mediaType"], content))
        index = json.loads(content)
    raise ReleaseError(f"{name}: indexes within indexes in {folder}")


def _only(index: dict[str, Any], name: str) -> dict[str, Any]:
    """The one manifest of an index; what buildx attests about it (platform unknown) is none."""
    found = [m for m in index.get("manifests", ()) if m.get("platform", {}).get("os") != "unknown"]
    if len(found) != 1 or not DIGEST.fullmatch(str(found[0].get("digest"))):
        platforms = ", ".join(
            f"{m.get('platform', {}).get('os')}/{m.get('platform', {}).get('architecture')}" for m in found
        )
        raise ReleaseError(
            f"{name}: expected one image, found a list of {len(found)} ({platforms or 'none'}); its SBOM and "
            "provenance are one platform's: build for one (--platform linux/amd64)"
        )
    one: dict[str, Any] = found[0]
    return one


def _from_manifest(folder: Path, name: str, manifest: Manifest) -> Image:
    if manifest.media_type not in (MANIFEST, DOCKER_MANIFEST):
        raise ReleaseError(f"{name}: expected an image's manifest, found {manifest.media_type!r}")
    read = json.loads(manifest.content)
    config = _blob_bytes(folder, read["config"]["digest"], name)
    layers = []
    for one in read["layers"]:
        if one.get("urls") or "nondistributable" in one["mediaType"] or "foreign" in one["mediaType"]:
            raise ReleaseError(f"{name}: layer {one['digest']} lies elsewhere (urls): it can't be released")
        path = _blob_path(folder, one["digest"], name)
        if path.stat().st_size != one["size"] or _digest_of(path) != one["digest"]:
            raise ReleaseError(f"{name}: {path} isn't what its digest says: build the image again")
        layers.append(Layer(one["mediaType"], Blob(one["digest"], one["size"], path=path)))
    return _image(manifest, config, layers)


def from_docker(reference: str, scratch: Path) -> Image:
    """An image of the local docker; its layers lie in `scratch`, compressed the same way each time."""
    client = shutil.which("docker")
    if client is None:
        raise ReleaseError("no `docker` on PATH: give --layout FOLDER with an OCI image layout for each role")
    scratch.mkdir(parents=True)
    tar = scratch / "saved.tar"
    done = subprocess.run([client, "save", "-o", str(tar), reference], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(
            f"docker save {reference}: {done.stderr.strip()[-500:]}; build it: tests/cluster build-images"
        )
    try:
        return _from_saved(tar, reference, scratch)
    finally:
        tar.unlink(missing_ok=True)


def _from_saved(tar: Path, reference: str, scratch: Path) -> Image:
    with tarfile.open(tar) as saved:

        def content(path: str) -> bytes:
            file = saved.extractfile(path)
            if file is None:
                raise ReleaseError(f"{reference}: docker save gave no {path}")
            return file.read()

        described = json.loads(content("manifest.json"))[0]
        config = content(described["Config"])
        layers = []
        for number, path in enumerate(described["Layers"]):
            packed = scratch / f"layer-{number}"
            with packed.open("wb") as out:
                source = saved.extractfile(path)
                if source is None:
                    raise ReleaseError(f"{reference}: docker save gave no {path}")
                if source.read(2) == _GZIP:
                    source.seek(0)
                    shutil.copyfileobj(source, out, 1 << 20)
                else:
                    source.seek(0)
                    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0) as into:
                        shutil.copyfileobj(source, into, 1 << 20)
            layers.append(Layer(LAYER, Blob(_digest_of(packed), packed.stat().st_size, path=packed)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": o.media_type, "digest": o.blob.digest, "size": o.blob.size} for o in layers],
    }
    text = json.dumps(manifest, separators=(",", ":")).encode()
    return _image(Manifest(sha256(text), MANIFEST, text), config, layers)


def _image(manifest: Manifest, config: bytes, layers: list[Layer]) -> Image:
    read = json.loads(config)
    labels = {str(k): str(v) for k, v in (read.get("config", {}).get("Labels") or {}).items()}
    platform = f"{read.get('os', 'unknown')}/{read.get('architecture', 'unknown')}"
    return Image(manifest, Blob.of(config), tuple(layers), labels, platform)


def _blob_path(folder: Path, digest: str, name: str) -> Path:
    path = folder / "blobs" / "sha256" / str(digest).removeprefix("sha256:")
    if not DIGEST.fullmatch(str(digest)) or not path.is_file():
        raise ReleaseError(f"{name}: {folder} lacks the blob {str(digest)[:100]}")
    return path


def _blob_bytes(folder: Path, digest: str, name: str) -> bytes:
    path = _blob_path(folder, digest, name)
    content = path.read_bytes() if path.stat().st_size <= LARGEST_MANIFEST else b""
    if sha256(content) != digest:
        raise ReleaseError(f"{name}: {path} isn't what its digest says: build the image again")
    return content


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
