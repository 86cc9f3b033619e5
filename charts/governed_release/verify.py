"""Looks at a release: its files alone, or everything in the registry; every finding is named, none stops the rest."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from governed_release import attachments, manifest, signing
from governed_release import provenance as slsa
from governed_release.chart_package import NAME
from governed_release.errors import ReleaseError
from governed_release.manifest import ReleasedImage, ReleaseManifest
from governed_release.places import Place
from governed_release.registry import Manifest, Registry, sha256
from governed_release.roles import ROLES


@dataclass
class Findings:
    """``checked``: what was looked at and held; ``wrong``: what didn't."""

    checked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def hold(self, name: str, check: Callable[[], None]) -> bool:
        """Run a check, which raises ReleaseError with what is wrong; whether it held."""
        try:
            check()
        except ReleaseError as error:
            self.wrong.append(f"{name}: {error}")
            return False
        self.checked.append(name)
        return True


def verify_files(
    files: Mapping[str, bytes], key: ec.EllipticCurvePublicKey, version: str | None, findings: Findings
) -> ReleaseManifest | None:
    """release.json's signature, and the other files by its digests; no network. The manifest where it can be
    trusted."""
    content = files.get(manifest.FILE)
    told = files.get(manifest.SIGNATURE, b"").decode(errors="replace").strip()

    def signature() -> None:
        if content is None:
            raise ReleaseError("missing")
        if not told:
            raise ReleaseError(f"its signature {manifest.SIGNATURE} is missing")
        if not signing.verifies(key, content, told):
            raise ReleaseError("not signed by this key, or changed since")

    if not findings.hold(manifest.FILE, signature) or content is None:
        return None
    try:
        made = manifest.decoded(content)
    except ReleaseError as error:
        findings.wrong.append(str(error))
        return None

    def complete() -> None:
        if version is not None and made.version != version:
            raise ReleaseError(f"expected version {version}, found {made.version}")
        wanted, found = [role.name for role in ROLES], [image.role for image in made.images]
        if sorted(wanted) != sorted(found):
            raise ReleaseError(f"expected the roles {', '.join(wanted)}, found {', '.join(found)}")

    findings.hold(f"{manifest.FILE}, version and roles", complete)
    findings.hold(manifest.VALUES, lambda: _same(files.get(manifest.VALUES), made.values))
    package = f"{NAME}-{made.version}.tgz"
    if package in files:
        findings.hold(package, lambda: _same(files[package], made.chart.package))
    return made


def _same(content: bytes | None, digest: str) -> None:
    if content is None:
        raise ReleaseError("missing")
    if sha256(content) != digest:
        raise ReleaseError(f"expected {digest}, found {sha256(content)}: it was changed")


@dataclass(frozen=True)
class Verifier:
    """A release in a registry; `place` may be a mirror's."""

    registry: Registry
    place: Place
    made: ReleaseManifest
    key: ec.EllipticCurvePublicKey

    def everything(self, findings: Findings) -> None:
        for image in self.made.images:
            self._thing(findings, image.role, image.digest)
            findings.hold(f"{image.role}: SBOM and provenance", lambda image=image: self._attestations(image))  # type: ignore[misc]
        self._thing(findings, NAME, self.made.chart.digest)

    def _thing(self, findings: Findings, name: str, digest: str) -> None:
        findings.hold(f"{name}: manifest and blobs", lambda: self._there(name, digest))
        findings.hold(f"{name}: tag {self.made.version}", lambda: self._tag(name, digest))
        findings.hold(f"{name}: signature", lambda: self._signature(name, digest))

    def _there(self, name: str, digest: str) -> None:
        repository = self.place.repository(name)
        held = self._manifest(repository, digest)
        read = json.loads(held.content)
        wanted = [one["digest"] for one in (read["config"], *read["layers"])]
        lacking = [one for one in wanted if not self.registry.has_blob(repository, one)]
        if lacking:
            raise ReleaseError(f"blobs are missing: {', '.join(lacking)}")

    def _manifest(self, repository: str, digest: str) -> Manifest:
        held = self.registry.manifest(repository, digest)
        if held is None:
            raise ReleaseError(f"{digest} isn't in {self.registry.host}/{repository}")
        return held

    def _tag(self, name: str, digest: str) -> None:
        held = self.registry.manifest(self.place.repository(name), self.made.version)
        if held is None:
            raise ReleaseError("missing")
        if held.digest != digest:
            raise ReleaseError(f"it names {held.digest}, expected {digest}: it was moved")

    def _signature(self, name: str, digest: str) -> None:
        if not attachments.signed(self.registry, self.place.repository(name), digest, self.key):
            raise ReleaseError("missing")

    def _attestations(self, image: ReleasedImage) -> None:
        held = attachments.attested(self.registry, self.place.repository(image.role), image.digest, self.key)
        if held is None or held.sbom is None or held.provenance is None:
            raise ReleaseError("missing")
        for name, payload, digest in (
            ("SBOM", held.sbom, image.sbom),
            ("provenance", held.provenance, image.provenance),
        ):
            if sha256(payload) != digest:
                raise ReleaseError(f"{name}: another than the one released")
        commit = slsa.commit_of(json.loads(held.provenance)["predicate"])
        if commit != self.made.commit:
            raise ReleaseError(f"provenance: expected commit {self.made.commit}, found {commit}")
