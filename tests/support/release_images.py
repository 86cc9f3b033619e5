"""Small images of all roles in OCI image layout, as `charts/release` takes them, from a clean clone of the tree."""

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from governed_release.images import CONFIG, LAYER
from governed_release.registry import MANIFEST, sha256
from governed_release.roles import REVISION, ROLES, Role
from governed_release.sbom import PIN
from support.places import ROOT

DEBIAN = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nArchitecture: amd64\n"


def clone(folder: Path) -> str:
    """What a release reads of the tree, committed; answers the commit."""
    for part in ("charts/governed-models", "operator/locks", "serving_image/locks"):
        shutil.copytree(ROOT / part, folder / part)
    for file in ("operator/Dockerfile", "serving_image/Dockerfile"):
        shutil.copy(ROOT / file, folder / file)
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("dist/\n")
    return commit(folder, "Begin")


def commit(folder: Path, subject: str) -> str:
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", subject)
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *args: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, check=True).stdout.strip()


def layer(files: Mapping[str, bytes]) -> bytes:
    """A tar of files, gzipped."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w") as tar,
    ):
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def installed(root: Path, role: Role) -> dict[str, bytes]:
    """Metadata files of all that a role's locks pin."""
    pins = [pin for lock in role.locks for pin in PIN.findall((root / lock).read_text())]
    return {
        f"opt/governed/lib/python3.12/site-packages/{name}-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nAbout it.\n".encode()
        )
        for name, version, _ in pins
    }


def write_layout(folder: Path, layers: list[bytes], labels: Mapping[str, str], platforms: int = 1) -> str:
    """An OCI image layout; several platforms make it a manifest list. Answers the last manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes) -> str:
        (blobs / sha256(content).removeprefix("sha256:")).write_bytes(content)
        return sha256(content)

    described = []
    for number in range(platforms):
        config = json.dumps({"os": "linux", "architecture": ("amd64", "arm64")[number], "config": {"Labels": labels},
                             "rootfs": {"type": "layers", "diff_ids": [sha256(gzip.decompress(x)) for x in layers]}}).encode()  # noqa: E501  # fmt: skip
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": put(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": put(x), "size": len(x)} for x in layers],
        }).encode()  # fmt: skip
        platform = {"os": "linux", "architecture": ("amd64", "arm64")[number]}
        described.append({"mediaType": MANIFEST, "digest": put(manifest), "size": len(manifest), "platform": platform})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": described}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(described[-1]["digest"])


def write_layouts(folder: Path, root: Path, revision: str) -> dict[str, str]:
    """A layout for each role, built "from" a commit of `root`; digests by role."""
    digests = {}
    for role in ROLES:
        files = {"var/lib/dpkg/status": DEBIAN.encode(), "etc/role": role.name.encode(), **installed(root, role)}
        digests[role.name] = write_layout(folder / role.name, [layer(files)], {REVISION: revision})
    return digests
