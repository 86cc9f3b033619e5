"""A release: what is in the registry afterwards, what goes on after a break, what is refused before anything is
written."""

import dataclasses
import json
import stat
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from governed_release import manifest
from governed_release.chart_package import NAME
from governed_release.errors import ReleaseError
from governed_release.images import from_layout
from governed_release.places import Place, attachment_tag, checked_version
from governed_release.provenance import SOMEBODY, builder
from governed_release.publish import plan, prepare, publish
from governed_release.registry import INDEX, docker_credentials, sha256
from governed_release.roles import REVISION, ROLES
from governed_release.signing import PASSWORD, Signer, load_public, load_signer
from governed_release.source_tree import source_tree
from support.damage import flipped
from support.images import IMAGES, OPTIONAL, revision
from support.places import ROOT
from support.release_images import clone, commit, git, layer, write_layout, write_layouts

from .conftest import PLACE, Bench
from .memory_registry import MemoryRegistry

DIGEST = "sha256:" + "ab" * 32


def test_everything_of_a_release_verifies(published: Bench) -> None:
    assert published.wrong() == []
    values = yaml.safe_load(published.files()[manifest.VALUES])
    digests = {one.role.name: one.image.digest for one in published.prepared}
    assert values["images"] == {"requireDigests": True}
    assert values["image"] == {"repository": PLACE.reference("operator"), "digest": digests["operator"]}
    for role in ROLES[1:]:
        assert values["roles"][role.value] == PLACE.reference(role.name)
        assert values["roles"]["digests"][role.value] == digests[role.name]


def test_values_of_a_release_are_values_of_the_chart() -> None:
    """All eight, at places that the chart has."""
    told = yaml.safe_load(manifest.values({r.name: "x/y" for r in ROLES}, {r.name: DIGEST for r in ROLES}))
    known = yaml.safe_load((ROOT / "charts" / NAME / "values.yaml").read_text())
    assert set(told["roles"]["digests"]) == set(known["roles"]["digests"])
    assert set(told["roles"]) - {"digests"} == set(known["roles"]["digests"])
    assert set(told) <= set(known)
    assert set(told["image"]) <= set(known["image"])


def test_what_is_attested_is_true(published: Bench) -> None:
    for one in published.prepared:
        said = json.loads(one.provenance)
        assert said["subject"] == [{"name": PLACE.reference(one.role.name), "digest": {"sha256": one.image.digest[7:]}}]
        definition = said["predicate"]["buildDefinition"]
        assert definition["externalParameters"]["target"] == one.role.name
        by_name = {dependency["name"]: dependency["digest"] for dependency in definition["resolvedDependencies"]}
        assert by_name.pop("source") == {"gitCommit": published.release.tree.commit}
        assert by_name == {
            path: {"sha256": sha256((published.release.tree.root / path).read_bytes())[7:]}
            for path in (one.role.dockerfile, *one.role.locks)
        }
        listed = {(c["name"], c["version"]) for c in json.loads(one.sbom)["predicate"]["components"]}
        assert ("libc6", "2.36-9") in listed
        assert len(listed) > 10


@pytest.mark.parametrize("referrers", [True, False], ids=["with the referrers API", "without it"])
def test_attachments_are_referrers_of_the_image(bench: Bench, referrers: bool) -> None:
    bench.registry.referrers = referrers
    bench.publish()
    repository = PLACE.repository("server")
    digest = next(one.image.digest for one in bench.prepared if one.role.name == "server")
    subjects = [bench.registry.manifests[repository, attachment_tag(digest, kind)][0] for kind in ("sig", "att")]
    assert {json.loads(content)["subject"]["digest"] for content in subjects} == {digest}
    listed = bench.registry.manifests.get((repository, attachment_tag(digest)))
    if referrers:
        assert listed is None
    else:
        assert listed is not None
        assert listed[1] == INDEX
        assert [one["digest"] for one in json.loads(listed[0])["manifests"]] == [
            sha256(content) for content in subjects
        ]


def test_a_second_run_changes_nothing(published: Bench) -> None:
    before = (dict(published.registry.blobs), dict(published.registry.manifests), published.files())
    published.publish()
    assert (published.registry.blobs, published.registry.manifests, published.files()) == before


def test_a_release_that_breaks_off_anywhere_goes_on(bench: Bench) -> None:
    """The registry goes away after each number of requests in turn; the run after it finishes the release."""
    bench.publish()
    needed = len(bench.registry.requests)
    for allowed in range(0, needed, max(1, needed // 40)):
        bench.registry = MemoryRegistry()

        def away(_: httpx.Request, allowed: int = allowed) -> httpx.Response | None:
            if len(bench.registry.requests) > allowed:
                raise httpx.ConnectError("connection refused")
            return None

        bench.registry.fault = away
        with pytest.raises(ReleaseError, match="connection refused"):
            bench.publish()
        tagged = [name for (name, tag) in bench.registry.manifests if tag == bench.release.version]
        signed = {name for (name, tag) in bench.registry.manifests if tag.endswith(".sig")}
        assert set(tagged) <= signed, "a tag never names what isn't signed"
        bench.registry.fault = lambda _: None
        bench.publish()
        assert bench.wrong() == []


def test_a_registry_that_stumbles_is_asked_again(bench: Bench) -> None:
    answers = iter([503, 429, 502])

    def stumbles(request: httpx.Request) -> httpx.Response | None:
        code = next(answers, None) if request.method != "GET" else None
        return httpx.Response(code) if code else None

    bench.registry.fault = stumbles
    bench.publish()
    assert bench.wrong() == []


def test_a_registry_that_asks_for_a_token_gets_the_login(bench: Bench) -> None:
    bench.registry.protected = True
    bench.publish()
    assert bench.wrong() == []
    with pytest.raises(ReleaseError, match=r"refused with 401 \(not logged in: docker login"):
        publish(bench.release, bench.registry.client(None), bench.prepared, bench.folder, lambda _: None)


def test_no_right_to_push_is_said(bench: Bench) -> None:
    denied = {"errors": [{"code": "DENIED", "message": "push denied"}]}
    bench.registry.fault = lambda request: httpx.Response(403, json=denied) if request.method == "POST" else None
    with pytest.raises(ReleaseError, match=r"team/governed-models/operator .*403 .*no right.*push denied"):
        bench.publish()


def test_a_dry_run_writes_nothing(bench: Bench) -> None:
    plan(bench.release, bench.registry.client(), bench.prepared)
    assert {method for method, _ in bench.registry.requests} <= {"GET", "HEAD"}


@pytest.mark.parametrize("name", ["auditor", NAME, manifest.REPOSITORY])
def test_a_version_that_is_there_with_another_digest_is_never_moved(bench: Bench, name: str) -> None:
    other = b'{"schemaVersion":2,"layers":[]}'
    bench.registry.manifests[PLACE.repository(name), bench.release.version] = (other, "x/y")
    with pytest.raises(ReleaseError, match=r"isn't moved"):
        bench.publish()
    assert bench.registry.manifests[PLACE.repository(name), bench.release.version][0] == other
    if name != manifest.REPOSITORY:
        assert not bench.registry.blobs, "seen before anything is written"


def test_another_key_goes_not_on_with_a_release(published: Bench) -> None:
    published.release = dataclasses.replace(published.release, signer=Signer(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(ReleaseError, match="has a signature already, and signature: not by this key"):
        published.publish()


def test_a_registry_that_stores_other_bytes_is_found_out(bench: Bench) -> None:
    def lies(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/manifests/" in request.url.path:
            return httpx.Response(201, headers={"Docker-Content-Digest": DIGEST})
        return None

    bench.registry.fault = lies
    with pytest.raises(ReleaseError, match=f"stored as {DIGEST}"):
        bench.publish()


# ---------------------------------------------------------------- the tree and the images


def test_a_dirty_tree_is_refused(tmp_path: Path) -> None:
    clone(tmp_path)
    assert source_tree(tmp_path).source is None
    (tmp_path / "operator" / "new.py").write_text("")
    with pytest.raises(ReleaseError, match=r"expected a clean tree, found changes \(\?\? operator/new.py\)"):
        source_tree(tmp_path)


def test_a_password_in_the_origin_stays_out_of_the_provenance(tmp_path: Path) -> None:
    clone(tmp_path)
    git(tmp_path, "remote", "add", "origin", "https://me:secret@example.org/team/models.git")
    assert source_tree(tmp_path).source == "git+https://example.org/team/models.git"


def test_an_image_of_another_commit_and_a_missing_role_are_refused(tmp_path: Path, bench: Bench) -> None:
    first = clone(tmp_path / "tree")
    write_layouts(tmp_path / "layouts", tmp_path / "tree", first)
    second = commit(tmp_path / "tree", "Go on")
    release = dataclasses.replace(bench.release, tree=source_tree(tmp_path / "tree"))
    images = {r.name: from_layout(tmp_path / "layouts" / r.name, r.name) for r in ROLES}
    with pytest.raises(ReleaseError, match=f"operator: expected an image of commit {second}, found one of {first}"):
        prepare(release, images)
    del images["explainer-captum"]
    with pytest.raises(ReleaseError, match="expected all 8 roles, found none of explainer-captum"):
        prepare(release, images)


def test_an_image_beside_its_lock_is_refused(tmp_path: Path, bench: Bench) -> None:
    """Labelled with the commit, and yet built from another lock."""
    tree = bench.release.tree
    layouts = {one.role.name: one.image for one in bench.prepared}
    write_layout(tmp_path, [layer({"var/lib/dpkg/status": b""})], {REVISION: tree.commit})
    with pytest.raises(
        ReleaseError, match=r"archive: expected what serving_image/locks/serving.txt pins, and the image"
    ):
        prepare(bench.release, {**layouts, "archive": from_layout(tmp_path, "archive")})


def test_a_manifest_list_is_refused_by_its_platforms(tmp_path: Path) -> None:
    write_layout(tmp_path, [layer({"a": b"b"})], {}, platforms=2)
    with pytest.raises(
        ReleaseError, match=r"server: expected one image, found a list of 2 \(linux/amd64, linux/arm64\)"
    ):
        from_layout(tmp_path, "server")


def test_what_buildx_attests_beside_an_image_is_no_image(tmp_path: Path) -> None:
    digest = write_layout(tmp_path, [layer({"a": b"b"})], {})
    index = json.loads((tmp_path / "index.json").read_text())
    index["manifests"].append({"digest": DIGEST, "platform": {"os": "unknown", "architecture": "unknown"}})
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert from_layout(tmp_path, "server").digest == digest


def test_a_layout_with_a_changed_or_missing_blob_is_refused(tmp_path: Path) -> None:
    write_layout(tmp_path, [layer({"a": b"b"})], {})
    (index,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    blobs = tmp_path / "blobs" / "sha256"
    described = json.loads((blobs / index["digest"][7:]).read_text())
    path = blobs / described["layers"][0]["digest"][7:]
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(ReleaseError, match="isn't what its digest says"):
        from_layout(tmp_path, "server")
    path.unlink()
    with pytest.raises(ReleaseError, match="lacks the blob sha256:"):
        from_layout(tmp_path, "server")


def test_a_chart_of_another_version_is_refused(bench: Bench) -> None:
    release = dataclasses.replace(bench.release, version="0.2.0")
    with pytest.raises(ReleaseError, match=r"Chart.yaml: expected version 0.2.0, found 0.1.0"):
        plan(release, bench.registry.client(), bench.prepared)


def test_roles_are_built_from_what_their_provenance_says() -> None:
    built = {one.role: (one.dockerfile, one.locks) for one in (*IMAGES, *OPTIONAL)}
    assert {role.name: (role.dockerfile, role.locks) for role in ROLES} == built


def test_images_are_labelled_with_the_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    commit_made = clone(tmp_path)
    assert revision(tmp_path) == commit_made
    (tmp_path / "new").write_text("")
    assert revision(tmp_path) == f"{commit_made}-dirty"


# ---------------------------------------------------------------- keys, names, credentials


def pem(key: object, password: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)  # type: ignore[attr-defined,no-any-return]


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "release.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, pem(ec.generate_private_key(ec.SECP256R1())), mode)
    with pytest.raises(ReleaseError, match=f"only its owner can read, found mode {stat.S_IMODE(mode):04o}"):
        load_signer(path)


def test_a_key_with_a_password_opens_with_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path, pem(ec.generate_private_key(ec.SECP256R1()), b"sesame"))
    with pytest.raises(ReleaseError, match=PASSWORD):
        load_signer(path)
    monkeypatch.setenv(PASSWORD, "sesame")
    signer = load_signer(path)
    public = tmp_path / "cosign.pub"
    public.write_bytes(signer.public_pem())
    assert load_public(public).public_numbers() == signer.public.public_numbers()


KEYS = {
    "another curve": (pem(ec.generate_private_key(ec.SECP384R1())), "ECDSA key on P-256"),
    "no key": (b"hello", "expected a private key in PEM"),
    "cosign's own form": (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "cosign import-key-pair"),
    "empty": (b"", "expected a private key in PEM"),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_that_cannot_sign_are_refused(tmp_path: Path, name: str) -> None:
    content, expected = KEYS[name]
    with pytest.raises(ReleaseError, match=expected):
        load_signer(key_file(tmp_path, content))


def test_no_key_file_and_a_folder_for_it_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ReleaseError, match="expected a file with a key"):
            load_signer(path)


WEIRD = (
    "ghcr.io", "ghcr.io/", "https://ghcr.io/team", "oci://ghcr.io/team", "ghcr.io/Team", "team/models", "ghcr.io/a//b",
    "ghcr.io/a:1", "ghcr.io/a@sha256:1", "ghcr.io/-a", "ghcr.io/a..b", "host:99999/a", "ghcr.io/../a", "/a", "",
    "ghcr.io/a b", "ghcr.io/a\n", "ghcr.io/ä", "user:pw@ghcr.io/a", "ghcr.io/" + "a" * 260,
)  # fmt: skip


@pytest.mark.parametrize("text", WEIRD)
def test_names_that_are_no_place_in_a_registry_are_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="registry: expected HOST"):
        Place.parse(text)


@pytest.mark.parametrize("text", ["ghcr.io/team", "localhost/a", "[::1]:5000/a/b__c", "127.0.0.1:5000/a-b/c.d"])
def test_names_that_are_a_place_in_a_registry_are_taken(text: str) -> None:
    assert str(Place.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["v1.0.0", "1.0", "latest", "1.0.0+build", "1.0.0/..", "1.0.0 ", "", "1.0.0-" + "a" * 130]
)
def test_versions_that_are_no_version_and_tag_are_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="version: expected"):
        checked_version(text)


def test_credentials_are_those_of_docker_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_credentials("ghcr.io") is None
    (tmp_path / "config.json").write_text('{"auths": {"ghcr.io": {"auth": "bWU6cDp3"}}}')
    assert docker_credentials("ghcr.io") == ("me", "p:w")
    assert docker_credentials("quay.io") is None
    helper = tmp_path / "docker-credential-here"
    helper.write_text("""#!/bin/sh\nread host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}"\n""")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "config.json").write_text('{"credsStore": "here"}')
    assert docker_credentials("ghcr.io") == ("ghcr.io", "s")


def test_the_builder_is_the_workflow_on_github_and_nobody_elsewhere() -> None:
    told = {"GITHUB_ACTIONS": "true", "GITHUB_WORKFLOW_REF": "o/r/.github/workflows/release.yaml@refs/tags/v1"}
    assert builder(told) == "https://github.com/o/r/.github/workflows/release.yaml@refs/tags/v1"
    assert builder({}) == SOMEBODY
