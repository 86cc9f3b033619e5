"""One clean clone with images of all roles; each test has its own registry."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from governed_release.images import from_layout
from governed_release.manifest import ReleaseManifest
from governed_release.places import Place
from governed_release.publish import Prepared, Release, prepare, publish
from governed_release.roles import ROLES
from governed_release.signing import Signer
from governed_release.source_tree import SourceTree, source_tree
from governed_release.verify import Findings, Verifier, verify_files
from support.release_images import clone, write_layouts

from .memory_registry import MemoryRegistry

PLACE = Place("registry.example:5000", "team/governed-models")
BUILDER = "https://ci.example/builder"


@dataclass
class Bench:
    """A release that is ready to be published, and the registry it goes to."""

    release: Release
    prepared: list[Prepared]
    folder: Path
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)

    def publish(self) -> ReleaseManifest:
        return publish(self.release, self.registry.client(), self.prepared, self.folder, lambda _: None)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def wrong(self, key: ec.EllipticCurvePublicKey | None = None) -> list[str]:
        """What `verify` finds wrong in files and registry."""
        public, findings = key or self.release.signer.public, Findings()
        made = verify_files(self.files(), public, self.release.version, findings)
        if made is not None:
            Verifier(self.registry.client(), PLACE, made, public).everything(findings)
        assert made is None or findings.checked
        return findings.wrong


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceTree, list[Prepared], Release]:
    root, layouts = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("layouts")
    write_layouts(layouts, root, clone(root))
    found = source_tree(root)
    release = Release(PLACE, "0.1.0", found, Signer(ec.generate_private_key(ec.SECP256R1())), BUILDER)
    return found, prepare(release, {r.name: from_layout(layouts / r.name, r.name) for r in ROLES}), release


@pytest.fixture
def bench(tree: tuple[SourceTree, list[Prepared], Release], tmp_path: Path) -> Bench:
    _, prepared, release = tree
    return Bench(release, prepared, tmp_path / "released")


@pytest.fixture
def published(bench: Bench) -> Bench:
    bench.publish()
    return bench


Damage = Callable[[Bench], None]
