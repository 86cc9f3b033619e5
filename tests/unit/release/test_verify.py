"""What `charts/release verify` says of a release that somebody damaged: each change is named."""

import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from governed_release import manifest, sbom, signing
from governed_release import provenance as slsa
from governed_release.attachments import SIGNATURE, _attachment, attestations, push, signature
from governed_release.chart_package import NAME
from governed_release.places import attachment_tag
from governed_release.registry import Blob, Manifest
from governed_release.signing import Signer

from .conftest import PLACE, Bench

STRANGER = Signer(ec.generate_private_key(ec.SECP256R1()))
SERVER = PLACE.repository("server")


def server(bench: Bench) -> Manifest:
    return next(one.image.manifest for one in bench.prepared if one.role.name == "server")


def other(bench: Bench) -> Manifest:
    return next(one.image.manifest for one in bench.prepared if one.role.name == "trainer")


def replaced(bench: Bench, kind: str, change: Callable[[bytes], bytes]) -> None:
    """The blobs of an attachment changed, and its manifest made to fit, as somebody who may push could."""
    registry, tag = bench.registry, attachment_tag(server(bench).digest, kind)
    content, media_type = registry.manifests[SERVER, tag]
    read = json.loads(content)
    for one in read["layers"]:
        blob = Blob.of(change(registry.blobs[SERVER, one["digest"]]))
        assert blob.content is not None
        registry.blobs[SERVER, blob.digest] = blob.content
        one["digest"], one["size"] = blob.digest, blob.size
    registry.manifests[SERVER, tag] = (json.dumps(read).encode(), media_type)


def edited_payload(content: bytes) -> bytes:
    read = json.loads(content)
    payload = base64.b64decode(read["payload"]).replace(b"libc6", b"libc7").replace(b"gitCommit", b"gitcommit")
    return json.dumps({**read, "payload": base64.b64encode(payload).decode()}).encode()


def move_tag(bench: Bench) -> None:
    one = other(bench)
    bench.registry.manifests[SERVER, "0.1.0"] = (one.content, one.media_type)


def sign_by_stranger(bench: Bench) -> None:
    push(bench.registry.client(), SERVER, signature(STRANGER, PLACE.reference("server"), server(bench)))


def reuse_signature(bench: Bench) -> None:
    """The true key's signature, of another image."""
    payload = signing.claim(PLACE.reference("trainer"), other(bench).digest)
    layers = [(Blob.of(payload), "x/y", {SIGNATURE: bench.release.signer.sign(payload)})]
    push(bench.registry.client(), SERVER, _attachment("sig", server(bench), layers))


def attest(bench: Bench, statements: list[bytes], signer: Signer | None = None) -> None:
    made = attestations(signer or bench.release.signer, server(bench), statements)
    push(bench.registry.client(), SERVER, made)


def statements(bench: Bench, role: str = "server") -> list[bytes]:
    return next([one.sbom, one.provenance] for one in bench.prepared if one.role.name == role)


def about_another_commit(bench: Bench) -> None:
    """By the true key: an SBOM that is right, a provenance of another commit."""
    true, other_one = statements(bench)
    changed = other_one.replace(bench.release.tree.commit.encode(), b"0" * 40)
    assert changed != other_one
    attest(bench, [true, changed])


def lose(repository: str, tag: str) -> Callable[[Bench], None]:
    def lose(bench: Bench) -> None:
        del bench.registry.manifests[repository, tag.replace("DIGEST", attachment_tag(server(bench).digest))]

    return lose


def lose_layer(bench: Bench) -> None:
    digest = json.loads(server(bench).content)["layers"][0]["digest"]
    del bench.registry.blobs[SERVER, digest]


def swap_bytes(bench: Bench) -> None:
    content, media_type = bench.registry.manifests[SERVER, server(bench).digest]
    bench.registry.manifests[SERVER, server(bench).digest] = (content + b" ", media_type)


def in_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Bench], None]:
    def change_it(bench: Bench) -> None:
        path = bench.folder / name
        path.write_bytes(change(path.read_bytes()))

    return change_it


DAMAGE: dict[str, tuple[Callable[[Bench], None], str]] = {
    "a tag that was moved": (move_tag, "server: tag 0.1.0: it names sha256:"),
    "a tag that is gone": (lose(SERVER, "0.1.0"), "server: tag 0.1.0: missing"),
    "a signature that is gone": (lose(SERVER, "DIGEST.sig"), "server: signature: missing"),
    "a stranger's signature": (sign_by_stranger, "server: signature: signature: not by this key"),
    "another image's signature": (reuse_signature, "server: signature: signature: it is sha256:"),
    "a payload that was edited": (
        lambda bench: replaced(bench, "sig", lambda content: content.replace(b"null", b"{}")),
        "server: signature: signature: not by this key, or changed since",
    ),
    "a signature that is rubbish": (
        lambda bench: replaced(bench, "sig", lambda _: b"\xff\x00"),
        "server: signature: signature: not by this key, or changed since",
    ),
    "attestations that are gone": (lose(SERVER, "DIGEST.att"), "server: SBOM and provenance: missing"),
    "attestations that were edited": (
        lambda bench: replaced(bench, "att", edited_payload),
        "server: SBOM and provenance: attestation: not signed by this key, or changed since",
    ),
    "attestations that are rubbish": (
        lambda bench: replaced(bench, "att", lambda _: b"[" * 5000),
        "server: SBOM and provenance: attestation: expected a DSSE envelope",
    ),
    "a stranger's attestations": (
        lambda bench: attest(bench, statements(bench), STRANGER),
        "server: SBOM and provenance: attestation: not signed by this key",
    ),
    "another image's attestations": (
        lambda bench: attest(bench, statements(bench, "trainer")),
        "server: SBOM and provenance: attestation https://",
    ),
    "no provenance": (lambda bench: attest(bench, statements(bench)[:1]), "server: SBOM and provenance: missing"),
    "provenance of another commit": (about_another_commit, "server: SBOM and provenance: provenance: another than"),
    "a layer that is gone": (lose_layer, "server: manifest and blobs: blobs are missing: sha256:"),
    "a manifest with other bytes": (swap_bytes, "server: manifest and blobs: registry.example:5000/"),
    "an image that is gone": (
        lambda bench: bench.registry.manifests.pop((SERVER, server(bench).digest)) and None,
        "server: manifest and blobs: sha256:",
    ),
    "a chart without a signature": (
        lambda bench: (
            [
                bench.registry.manifests.pop(key)
                for key in list(bench.registry.manifests)
                if key[0] == PLACE.repository(NAME) and key[1].endswith(".sig")
            ]
            and None
        ),
        f"{NAME}: signature: missing",
    ),
    "values that were edited": (
        in_file(manifest.VALUES, lambda content: content.replace(b"requireDigests: true", b"requireDigests: false")),
        f"{manifest.VALUES}: expected sha256:",
    ),
    "another package of the chart": (in_file(f"{NAME}-0.1.0.tgz", lambda c: c + b"\0"), f"{NAME}-0.1.0.tgz: expected"),
    "a release manifest that was edited": (
        in_file(manifest.FILE, lambda content: content.replace(b"0.1.0", b"0.1.1")),
        f"{manifest.FILE}: not signed by this key, or changed since",
    ),
    "a signature file that is empty": (in_file(manifest.SIGNATURE, lambda _: b""), f"{manifest.FILE}: its signature"),
    "no values": (lambda bench: (bench.folder / manifest.VALUES).unlink(), f"{manifest.VALUES}: missing"),
    "no release manifest": (lambda bench: (bench.folder / manifest.FILE).unlink(), f"{manifest.FILE}: missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, published: Bench) -> None:
    damage, expected = DAMAGE[name]
    damage(published)
    wrong = published.wrong()
    assert [line for line in wrong if line.startswith(expected)], wrong
    assert len(wrong) == 1, "and nothing else is"


def test_the_wrong_key_verifies_nothing(published: Bench) -> None:
    assert published.wrong(STRANGER.public) == [f"{manifest.FILE}: not signed by this key, or changed since"]


@pytest.mark.parametrize("text", [b"null", b"[]", b"{}", b'{"images": 1}', b"\xff", b"[" * 100_000])
def test_a_signed_file_that_is_no_release_manifest_is_named(published: Bench, text: bytes) -> None:
    (published.folder / manifest.FILE).write_bytes(text)
    (published.folder / manifest.SIGNATURE).write_text(published.release.signer.sign(text))
    (only,) = published.wrong()
    assert only.startswith(f"{manifest.FILE}: expected a release manifest")


def test_types_of_attestations_are_those_that_cosign_names() -> None:
    assert (sbom.TYPE, slsa.TYPE) == ("https://cyclonedx.org/bom", "https://slsa.dev/provenance/v1")
