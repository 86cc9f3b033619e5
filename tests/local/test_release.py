"""`charts/release` as a person starts it, against a real registry (distribution); Helm reads the chart from there, and
cosign verifies what is signed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from governed_release.roles import ROLES
from support.oci_registry import OciRegistry, oci_registry
from support.places import ROOT
from support.programs import program
from support.release_images import clone, write_layouts

PATH = "team/governed-models"


class Bench:
    """A clean clone, images of all roles, a key, and the registry that they go to."""

    def __init__(self, folder: Path, registry: OciRegistry) -> None:
        self.folder, self.registry, self.tree = folder, registry, folder / "tree"
        self.digests = write_layouts(folder / "layouts", self.tree, clone(self.tree))
        key = ec.generate_private_key(ec.SECP256R1())
        none = serialization.NoEncryption()
        self.key, self.public = folder / "release.key", folder / "dist" / "cosign.pub"
        self.key.touch(0o600)
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
        self.released = folder / "dist"

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(ROOT / "charts" / "release"), *words]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300, cwd=self.folder)

    def release(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.command(
            f"--registry={self.registry.host}/{PATH}", "--version=0.1.0", f"--key={self.key}", f"--root={self.tree}",
            f"--layouts={self.folder / 'layouts'}", f"--output={self.released}", *words
        )  # fmt: skip

    def verify(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.command("verify", f"--key={self.public}", *words)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with oci_registry(tmp_path / "registry") as registry:
        yield Bench(tmp_path, registry)


def test_a_release_goes_to_a_registry_is_verified_and_installs_from_there(bench: Bench) -> None:
    place = f"{bench.registry.host}/{PATH}"
    dry = bench.release("--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"would push {place}/server@{bench.digests['server']}" in dry.stdout
    assert not bench.released.exists()
    done = bench.release()
    assert done.returncode == 0, done.stderr
    for found in (bench.verify(f"--registry={place}", "--version=0.1.0"), bench.verify(str(bench.released))):
        assert (found.returncode, "0 don't" in found.stdout) == (0, True), found.stdout + found.stderr
    values = bench.released / "values-release.yaml"
    line = [str(program("helm")), "template", "governed", f"oci://{place}/governed-models", "--version=0.1.0"]
    homes = {f"HELM_{name}_HOME": str(bench.folder / name) for name in ("CACHE", "CONFIG", "DATA")}
    done = subprocess.run(
        [*line, f"--values={values}", "--plain-http"], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **homes},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (deployment,) = [d for d in yaml.safe_load_all(done.stdout) if d and d["kind"] == "Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    named = {container["image"], *(e["value"] for e in container["env"] if "IMAGE_" in e["name"])}
    assert named == {f"{place}/{role.name}@{bench.digests[role.name]}" for role in ROLES}
    # what somebody with the registry's disk does is named
    (blob,) = bench.registry.files.glob(f"**/blobs/sha256/*/{bench.digests['auditor'][7:]}/data")
    blob.write_bytes(blob.read_bytes() + b" ")
    found = bench.verify(f"--registry={place}", "--version=0.1.0")
    assert found.returncode == 1
    assert "WRONG  auditor: manifest and blobs" in found.stdout


def test_a_registry_that_is_away_is_said_and_the_release_goes_on_when_it_is_back(bench: Bench) -> None:
    bench.registry.stop()
    done = bench.release()
    assert done.returncode == 1
    assert done.stderr.startswith(f"charts/release: {bench.registry.host}/{PATH}/operator")
    assert "no answer" in done.stderr
    assert "Traceback" not in done.stderr
    bench.registry.start()
    assert bench.release().returncode == 0
    again = bench.release()
    assert again.returncode == 0
    assert "0 of 2 blobs sent" in again.stdout
    assert bench.verify(f"--registry={bench.registry.host}/{PATH}", "--version=0.1.0").returncode == 0


COSIGN = os.environ.get("GOVERNED_COSIGN", "")


@pytest.mark.skipif(not COSIGN, reason="GOVERNED_COSIGN names no cosign (go install github.com/sigstore/cosign/v3/...)")
def test_cosign_verifies_signature_sbom_and_provenance(bench: Bench) -> None:
    assert bench.release().returncode == 0
    place = f"{bench.registry.host}/{PATH}"
    shared = [f"--key={bench.public}", "--insecure-ignore-tlog=true", "--allow-insecure-registry"]

    def cosign(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COSIGN, *words], capture_output=True, text=True, check=False, timeout=120)

    for name in (*(role.name for role in ROLES), "governed-models", "release"):
        done = cosign("verify", *shared, f"{place}/{name}:0.1.0")
        assert done.returncode == 0, done.stderr
    for kind in ("cyclonedx", "slsaprovenance1"):
        done = cosign("verify-attestation", *shared, f"--type={kind}", f"{place}/server@{bench.digests['server']}")
        assert done.returncode == 0, done.stderr
    files = [f"--signature={bench.released / 'release.json.sig'}", str(bench.released / "release.json")]
    done = cosign("verify-blob", f"--key={bench.public}", "--insecure-ignore-tlog=true", *files)
    assert done.returncode == 0, done.stderr
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    bench.public.write_bytes(other.public_bytes(serialization.Encoding.PEM, subject))
    assert cosign("verify", *shared, f"{place}/server:0.1.0").returncode != 0
