"""What is attached to a digest: cosign's signature and its attestations, each one manifest that bears cosign's tag and
names its subject, so that the referrers API (OCI distribution specification 1.1) lists it as well."""

import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from governed_release import sbom, signing
from governed_release.errors import ReleaseError
from governed_release.images import CONFIG
from governed_release.places import attachment_tag
from governed_release.provenance import TYPE as PROVENANCE
from governed_release.registry import INDEX, MANIFEST, Blob, Manifest, Registry, sha256
from governed_release.signing import Signer

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
ARTIFACTS = {
    "sig": "application/vnd.dev.cosign.artifact.sig.v1+json",
    "att": "application/vnd.dev.cosign.artifact.att.v1+json",
}


@dataclass(frozen=True)
class Attachment:
    """``kind``: sig or att."""

    kind: str
    subject: Manifest
    blobs: tuple[Blob, ...]
    manifest: Manifest


def signature(signer: Signer, reference: str, subject: Manifest) -> Attachment:
    payload = signing.claim(reference, subject.digest)
    return _attachment("sig", subject, [(Blob.of(payload), SIMPLE, {SIGNATURE: signer.sign(payload)})])


def attestations(signer: Signer, subject: Manifest, statements: list[bytes]) -> Attachment:
    """Of in-toto Statements."""
    layers = []
    for payload in statements:
        kind = json.loads(payload)["predicateType"]
        layers.append((Blob.of(signing.envelope(signer, payload)), DSSE, {SIGNATURE: "", "predicateType": kind}))
    return _attachment("att", subject, layers)


def _attachment(kind: str, subject: Manifest, layers: list[tuple[Blob, str, dict[str, str]]]) -> Attachment:
    # go-containerregistry, which cosign reads with, looks for an image's configuration
    about = {
        "architecture": "",
        "config": {},
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob, _, _ in layers]},
    }
    config = Blob.of(signing.compact(about))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACTS[kind],
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [
            {"mediaType": media_type, "digest": blob.digest, "size": blob.size, "annotations": annotations}
            for blob, media_type, annotations in layers
        ],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.content)},
    }
    text = signing.compact(manifest)
    blobs = (config, *(blob for blob, _, _ in layers))
    return Attachment(kind, subject, blobs, Manifest(sha256(text), MANIFEST, text))


def push(registry: Registry, repository: str, attached: Attachment) -> None:
    for blob in attached.blobs:
        registry.push_blob(repository, blob)
    tag = attachment_tag(attached.subject.digest, attached.kind)
    if not registry.push_manifest(repository, tag, attached.manifest.content, MANIFEST):
        _list_as_referrer(registry, repository, attached)


def _list_as_referrer(registry: Registry, repository: str, attached: Attachment) -> None:
    """A registry without the referrers API: the client keeps the list under a tag (specification, "Referrers Tag
    Schema")."""
    tag = attachment_tag(attached.subject.digest)
    held = registry.manifest(repository, tag)
    listed = json.loads(held.content).get("manifests", []) if held else []
    if any(one.get("digest") == attached.manifest.digest for one in listed):
        return
    listed.append(
        {
            "mediaType": MANIFEST,
            "digest": attached.manifest.digest,
            "size": len(attached.manifest.content),
            "artifactType": ARTIFACTS[attached.kind],
        }
    )
    index = signing.compact({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
    registry.push_manifest(repository, tag, index, INDEX)


def _attached(registry: Registry, repository: str, digest: str, kind: str) -> list[tuple[dict[str, Any], bytes]] | None:
    """Descriptors and bytes of what bears cosign's tag; None where nothing does."""
    tag = attachment_tag(digest, kind)
    found = registry.manifest(repository, tag)
    if found is None:
        return None
    layers = []
    try:
        for one in json.loads(found.content)["layers"]:
            content = registry.blob(repository, one["digest"])
            if content is None:
                raise ReleaseError(f"{tag}: its blob {one['digest']} is missing")
            layers.append((one, content))
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{tag}: expected a manifest with layers, found something else") from error
    return layers


def signed(registry: Registry, repository: str, digest: str, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether the digest is signed by `key`; False where nothing is attached; ReleaseError where what is attached is
    another's, or another digest's."""
    layers = _attached(registry, repository, digest, "sig")
    if layers is None:
        return False
    for one, payload in layers:
        if signing.verifies(key, payload, str((one.get("annotations") or {}).get(SIGNATURE, ""))):
            if named(payload) != digest:
                raise ReleaseError(f"signature: it is {named(payload)}'s")
            return True
    raise ReleaseError("signature: not by this key, or changed since")


def named(payload: bytes) -> str:
    """The digest that a simple-signing payload is about."""
    try:
        return str(json.loads(payload)["critical"]["image"]["docker-manifest-digest"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "nothing"


@dataclass(frozen=True)
class Attested:
    """Payloads (in-toto Statements), whose signatures hold; absent: there is none of that type."""

    sbom: bytes | None
    provenance: bytes | None


def attested(registry: Registry, repository: str, digest: str, key: ec.EllipticCurvePublicKey) -> Attested | None:
    """None where nothing is attached; ReleaseError where something is and doesn't hold."""
    layers = _attached(registry, repository, digest, "att")
    if layers is None:
        return None
    return of_envelopes([content for _, content in layers], digest, key)


def of_envelopes(envelopes: list[bytes], digest: str, key: ec.EllipticCurvePublicKey) -> Attested:
    found: dict[str, bytes] = {}
    for content in envelopes:
        try:
            payload = signing.opened(key, content)
            read = json.loads(payload)
            about = {f"sha256:{one['digest']['sha256']}" for one in read["subject"]}
            kind = str(read["predicateType"])
        except ReleaseError as error:
            raise ReleaseError(f"attestation: {error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ReleaseError("attestation: expected an in-toto Statement, found something else") from error
        if about != {digest}:
            raise ReleaseError(f"attestation {kind}: it is about {', '.join(sorted(about)) or 'nothing'}")
        found[kind] = payload
    return Attested(found.get(sbom.TYPE), found.get(PROVENANCE))
