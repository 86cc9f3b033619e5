"""Makes a release: looks at everything first, then writes, each step so that the same command goes on after a break."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_release import attachments, manifest, sbom, signing
from governed_release import provenance as slsa
from governed_release.attachments import Attested
from governed_release.chart_package import NAME, ChartPackage, chart_package
from governed_release.errors import ReleaseError
from governed_release.images import Image
from governed_release.manifest import ReleasedChart, ReleasedImage, ReleaseManifest
from governed_release.places import Place
from governed_release.registry import Manifest, Registry, sha256
from governed_release.roles import REVISION, ROLES, Role
from governed_release.signing import Signer
from governed_release.source_tree import SourceTree

Say = Callable[[str], None]


@dataclass(frozen=True)
class Release:
    """What a release is to be."""

    place: Place
    version: str
    tree: SourceTree
    signer: Signer
    built_by: str


@dataclass(frozen=True)
class Prepared:
    """An image that was found fit to be released, with what will be said of it."""

    role: Role
    image: Image
    sbom: bytes
    provenance: bytes


def prepare(release: Release, images: Mapping[str, Image]) -> list[Prepared]:
    """Raises ReleaseError where a role is missing, or an image isn't this commit's."""
    missing = [role.name for role in ROLES if role.name not in images]
    if missing:
        raise ReleaseError(f"images: expected all {len(ROLES)} roles, found none of {', '.join(missing)}: build them")
    return [_prepared(release, role, images[role.name]) for role in ROLES]


def _prepared(release: Release, role: Role, image: Image) -> Prepared:
    commit = release.tree.commit
    told = image.labels.get(REVISION)
    if told != commit:
        raise ReleaseError(
            f"{role.name}: expected an image of commit {commit}, found one of {told or 'no known commit'} "
            f"(label {REVISION}): build it from this commit"
        )
    found = sbom.inventory(image, role.name)
    for lock in role.locks:
        astray = sbom.beside_the_lock(found, release.tree.read(lock).decode())
        if astray:
            raise ReleaseError(
                f"{role.name}: expected what {lock} pins, and the image hasn't {', '.join(astray[:5])}"
                f"{f' and {len(astray) - 5} more' if len(astray) > 5 else ''}: build it anew"
            )
    reference = release.place.reference(role.name)
    return Prepared(
        role,
        image,
        signing.statement(reference, image.digest, sbom.TYPE, sbom.document(role.name, release.version, found)),
        signing.statement(
            reference,
            image.digest,
            slsa.TYPE,
            slsa.provenance(role, release.version, image, release.tree, release.built_by),
        ),
    )


def refuse_moved_tags(release: Release, registry: Registry, wanted: Mapping[str, str]) -> list[str]:
    """Names whose tag is there already, with the wanted digest; ReleaseError where a tag names another one."""
    there = []
    for name, digest in wanted.items():
        held = registry.manifest(release.place.repository(name), release.version)
        if held is not None and held.digest != digest:
            raise ReleaseError(
                f"{release.place.reference(name)}:{release.version} is there with {held.digest}, expected "
                f"{digest}: a released version isn't moved; release another version"
            )
        if held is not None:
            there.append(name)
    return there


def plan(release: Release, registry: Registry, prepared: list[Prepared]) -> ChartPackage:
    """Looks at the registry, writes nothing."""
    chart = chart_package(release.tree, release.version)
    digests = {one.role.name: one.image.digest for one in prepared} | {NAME: chart.manifest.digest}
    refuse_moved_tags(release, registry, digests)
    return chart


def publish(release: Release, registry: Registry, prepared: list[Prepared], folder: Path, say: Say) -> ReleaseManifest:
    """Images, signatures, attestations, tags, the chart, and last the release's own manifest. Returns it; its files lie
    in `folder` as well."""
    chart = plan(release, registry, prepared)
    images = []
    for one in prepared:
        attested = _publish_image(release, registry, one, say)
        images.append(_released(release, one, attested))
    _push_chart(release, registry, chart, say)
    references = {one.role.name: release.place.reference(one.role.name) for one in prepared}
    values = manifest.values(references, {one.role.name: one.image.digest for one in prepared})
    made = ReleaseManifest(
        schema="governedmodels.io/release/v1",
        version=release.version,
        commit=release.tree.commit,
        images=tuple(images),
        chart=ReleasedChart(release.place.reference(NAME), chart.manifest.digest, chart.package.digest),
        values=sha256(values),
    )
    files = _push_manifest(release, registry, made, values)
    _keep(folder, files, chart)
    say(f"{release.place} {release.version}: released; files in {folder}")
    return made


def _released(release: Release, one: Prepared, attested: Attested) -> ReleasedImage:
    assert attested.sbom is not None
    assert attested.provenance is not None
    return ReleasedImage(
        role=one.role.name,
        repository=release.place.reference(one.role.name),
        digest=one.image.digest,
        sbom=sha256(attested.sbom),
        provenance=sha256(attested.provenance),
    )


def _publish_image(release: Release, registry: Registry, one: Prepared, say: Say) -> Attested:
    repository, image = release.place.repository(one.role.name), one.image
    sent = sum(registry.push_blob(repository, blob) for blob in (image.config, *(x.blob for x in image.layers)))
    registry.push_manifest(repository, image.digest, image.manifest.content, image.manifest.media_type)
    _sign(release, registry, one.role.name, image.manifest)
    attested = _attest(release, registry, one)
    # the tag comes last: it never names what isn't signed
    registry.push_manifest(repository, release.version, image.manifest.content, image.manifest.media_type)
    say(
        f"{release.place.reference(one.role.name)}@{image.digest}: {sent} of {len(image.layers) + 1} blobs sent, signed"
    )
    return attested


def _sign(release: Release, registry: Registry, name: str, subject: Manifest) -> None:
    repository, reference = release.place.repository(name), release.place.reference(name)
    try:
        if attachments.signed(registry, repository, subject.digest, release.signer.public):
            return
    except ReleaseError as error:
        raise ReleaseError(
            f"{reference}@{subject.digest} has a signature already, and {error}: nothing is "
            "overwritten; find out who signed it"
        ) from error
    attachments.push(registry, repository, attachments.signature(release.signer, reference, subject))


def _attest(release: Release, registry: Registry, one: Prepared) -> Attested:
    """What a run before attested is kept where it says the same: the builder may have been another run."""
    repository, subject = release.place.repository(one.role.name), one.image.manifest
    where = f"{release.place.reference(one.role.name)}@{subject.digest}"
    try:
        held = attachments.attested(registry, repository, subject.digest, release.signer.public)
    except ReleaseError as error:
        raise ReleaseError(f"{where} has attestations already, and {error}: nothing is overwritten") from error
    if held is None:
        made = attachments.attestations(release.signer, subject, [one.sbom, one.provenance])
        attachments.push(registry, repository, made)
        return Attested(one.sbom, one.provenance)
    if held.provenance is None or held.sbom != one.sbom or not _same_commit(held.provenance, release.tree.commit):
        raise ReleaseError(f"{where} has attestations already, which say something else: nothing is overwritten")
    return held


def _same_commit(provenance: bytes, commit: str) -> bool:
    try:
        return slsa.commit_of(json.loads(provenance)["predicate"]) == commit
    except (KeyError, TypeError):
        return False


def _push_chart(release: Release, registry: Registry, chart: ChartPackage, say: Say) -> None:
    repository = release.place.repository(NAME)
    for blob in (chart.config, chart.package):
        registry.push_blob(repository, blob)
    told = chart.manifest
    registry.push_manifest(repository, told.digest, told.content, told.media_type)
    _sign(release, registry, NAME, told)
    registry.push_manifest(repository, release.version, told.content, told.media_type)
    say(f"oci://{release.place.reference(NAME)} {release.version}@{told.digest}: signed")


def _push_manifest(release: Release, registry: Registry, made: ReleaseManifest, values: bytes) -> dict[str, bytes]:
    """The files; those of a run before, which are as good, where they are there."""
    content = manifest.encoded(made)
    held = held_files(registry, release.place, release.version)
    if held is not None:
        same = held.get(manifest.FILE) == content and held.get(manifest.VALUES) == values
        if not same or not signing.verifies(release.signer.public, content, _text(held.get(manifest.SIGNATURE))):
            raise ReleaseError(
                f"{release.place.reference(manifest.REPOSITORY)}:{release.version} is there and says "
                "something else: a released version isn't moved"
            )
        return held
    files = {
        manifest.FILE: content,
        manifest.SIGNATURE: release.signer.sign(content).encode(),
        manifest.VALUES: values,
        "cosign.pub": release.signer.public_pem(),
    }
    told, blobs = manifest.artifact(files, release.version)
    repository = release.place.repository(manifest.REPOSITORY)
    for blob in blobs:
        registry.push_blob(repository, blob)
    registry.push_manifest(repository, told.digest, told.content, told.media_type)
    _sign(release, registry, manifest.REPOSITORY, told)
    registry.push_manifest(repository, release.version, told.content, told.media_type)
    return files


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace").strip()


def held_files(registry: Registry, place: Place, version: str) -> dict[str, bytes] | None:
    """Files of a release's manifest in a registry, by name; None where there is no such release."""
    repository = place.repository(manifest.REPOSITORY)
    held = registry.manifest(repository, version)
    if held is None:
        return None
    files = {}
    try:
        for one in json.loads(held.content)["layers"]:
            content = registry.blob(repository, one["digest"])
            if content is not None:
                files[str(one["annotations"]["org.opencontainers.image.title"])] = content
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{place.reference(manifest.REPOSITORY)}:{version}: not a release's manifest") from error
    return files


def _keep(folder: Path, files: Mapping[str, bytes], chart: ChartPackage) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assert chart.package.content is not None
    version = json.loads(files[manifest.FILE])["version"]
    for name, content in {**files, f"{NAME}-{version}.tgz": chart.package.content}.items():
        (folder / Path(name).name).write_bytes(content)
