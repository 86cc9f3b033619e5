"""Models in an OCI registry: a registry in process that answers as the distribution spec says, and hostile ones. What
is pushed and pulled by other people's programs is for tests/local."""

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from governed_serving.sources import Differs, Refused

from .conftest import Fetcher
from .servers import Answer, Asked, Bed, ranged, sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
TAR_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REPOSITORY = "/v2/team/model"


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue())


def layer(server: Bed, data: bytes, kind: str, **annotations: str) -> dict[str, Any]:
    digest = f"sha256:{sha256(data)}"
    server.at(f"{REPOSITORY}/blobs/{digest}", ranged(data, f'"{digest}"'))
    return {"mediaType": kind, "digest": digest, "size": len(data), "annotations": annotations}


def push(server: Bed, *layers: dict[str, Any], tag: str = "v1", **more: Any) -> str:
    """Digest of the manifest."""
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, **more}).encode()
    digest = f"sha256:{sha256(body)}"
    for reference in (tag, digest):
        server.at(f"{REPOSITORY}/manifests/{reference}", Answer(body, headers={"content-type": MANIFEST}))
    return digest


def uri(server: Bed, rest: str = ":v1") -> str:
    return f"oci://{server.url.removeprefix('http://')}/team/model{rest}"


def model_pack(server: Bed) -> list[dict[str, Any]]:
    named = "org.cncf.model.filepath"
    return [
        layer(server, b"weights" * 99, WEIGHT, **{named: "model.onnx"}),
        layer(server, b"{}", "application/vnd.cncf.model.weight.config.v1.raw", **{named: "conf/config.json"}),
        layer(server, tar(**{"doc/README.md": b"hi"}), "application/vnd.cncf.model.doc.v1.tar+gzip"),
    ]


def test_a_model_pack(server: Bed, fetched: Fetcher) -> None:
    digest = push(server, *model_pack(server))
    tree = fetched(uri(server))
    assert [f.path for f in tree.files] == ["conf/config.json", "doc/README.md", "model.onnx"]
    assert fetched(uri(server, f":v1@{digest}"), tree.digest).digest == tree.digest
    assert fetched(uri(server, f"@{digest}"), files={"*.onnx": ""}).files[0].sha256 == sha256(b"weights" * 99)


def test_a_modelcar(server: Bed, fetched: Fetcher) -> None:
    base = layer(server, tar(**{"etc/passwd": b"root", "bin/sh": b"x"}), TAR_LAYER)
    models = layer(server, tar(**{"models/m.onnx": b"graph", "models/card.md": b"old"}), TAR_LAYER)
    later = layer(server, tar(**{"models/card.md": b"new"}), TAR_LAYER)
    push(server, base, models, later)
    tree = fetched(uri(server))
    assert {f.path: f.sha256 for f in tree.files} == {"m.onnx": sha256(b"graph"), "card.md": sha256(b"new")}


def test_an_index_gives_the_one_of_this_platform(server: Bed, fetched: Fetcher) -> None:
    arm = push(server, layer(server, b"arm", WEIGHT, **{"org.opencontainers.image.title": "m"}))
    amd = push(server, layer(server, b"amd", WEIGHT, **{"org.opencontainers.image.title": "m"}))
    listed = [
        {"digest": d, "platform": {"os": "linux", "architecture": a}} for d, a in ((arm, "arm64"), (amd, "amd64"))
    ]
    server.at(f"{REPOSITORY}/manifests/v2", Answer(json.dumps({"manifests": listed}).encode()))
    assert fetched(uri(server, ":v2")).files[0].sha256 == sha256(b"amd")
    server.at(f"{REPOSITORY}/manifests/v2", Answer(json.dumps({"manifests": listed[:1] * 2}).encode()))
    with pytest.raises(Refused, match="found 0; name one by its digest"):
        fetched(uri(server, ":v2"))


def test_a_tag_that_moved_is_noticed_by_its_digest(server: Bed, fetched: Fetcher) -> None:
    digest = push(server, *model_pack(server))
    server.at(f"{REPOSITORY}/manifests/{digest}", Answer(json.dumps({"layers": []}).encode()))
    with pytest.raises(Differs, match="expected the manifest sha256:"):
        fetched(uri(server, f":v1@{digest}"))


def test_a_blob_of_other_bytes_is_refused(server: Bed, fetched: Fetcher) -> None:
    one = layer(server, b"good", WEIGHT, **{"org.cncf.model.filepath": "m.onnx"})
    push(server, one)
    server.at(f"{REPOSITORY}/blobs/{one['digest']}", Answer(b"evil"))
    with pytest.raises(Differs, match=r"m.onnx has SHA-256"):
        fetched(uri(server))


def test_a_body_beyond_the_size_that_the_manifest_says(server: Bed, fetched: Fetcher) -> None:
    one = layer(server, b"good", WEIGHT, **{"org.cncf.model.filepath": "m.onnx"})
    push(server, one)
    server.at(f"{REPOSITORY}/blobs/{one['digest']}", Answer(b"good" * 50_000))
    with pytest.raises(Refused, match="goes on after the 4 bytes"):
        fetched(uri(server))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annotations": {"org.cncf.model.filepath": "../../x"}}, "file name"),
        ({"annotations": {}}, "expected a file name"),
        ({"annotations": None}, "expected a file name"),
        ({"digest": "sha256:../../x"}, "expected layers with sha256 digest"),
        ({"digest": "md5:1"}, "expected layers with sha256 digest"),
        ({"size": -1}, "expected layers with sha256 digest"),
        ({"size": 1 << 50}, "raise volumeSize"),
        ({"mediaType": "application/vnd.cncf.model.weight.v1.tar+zstd"}, "push it with gzip"),
        ({"annotations": {"org.cncf.model.filepath": "m.pkl"}}, "pickle"),
    ],
)
def test_layers_that_are_not_taken(change: dict[str, Any], words: str, server: Bed, fetched: Fetcher) -> None:
    one = layer(server, b"good", WEIGHT, **{"org.cncf.model.filepath": "m.onnx"})
    push(server, {**one, **change})
    with pytest.raises(Refused, match=words):
        fetched(uri(server))


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"layers": {}}', b'{"layers": [1]}', b'{"manifests": 3}', b"x"])
def test_manifests_that_are_none(body: bytes, server: Bed, fetched: Fetcher) -> None:
    server.at(f"{REPOSITORY}/manifests/v1", Answer(body))
    with pytest.raises(Refused, match="expected"):
        fetched(uri(server))


def asks(challenge: str, answer: Answer) -> Any:
    def route(asked: Asked) -> Answer:
        if asked.headers.get("authorization") == "Bearer t0ken":
            return answer
        return Answer(status=401, headers={"www-authenticate": challenge})

    return route


def guarded(server: Bed, realm: str) -> None:
    push(server, layer(server, b"good", WEIGHT, **{"org.cncf.model.filepath": "m.onnx"}))
    challenge = f'Bearer realm="{realm}",service="reg",scope="repository:team/model:pull"'
    for path, (answer, *_) in list(server.routes.items()):
        if isinstance(answer, Answer):
            server.at(path, asks(challenge, answer))


def test_a_token_is_asked_for_where_the_registry_says(server: Bed, fetched: Fetcher, keys: Any) -> None:
    guarded(server, f"{server.url}/token")
    server.at("/token", Answer(b'{"token": "t0ken"}'))
    fetched(uri(server), keys=keys(username="u", password="p"))
    asked = next(a for a in server.asked if a.path.startswith("/token"))
    assert "service=reg&scope=repository%3Ateam%2Fmodel%3Apull" in asked.path
    assert asked.headers["authorization"] == "Basic dTpw"


@pytest.mark.parametrize("realm", ["https://evil.example/token", "file:///etc/passwd", "http://example.com/x"])
def test_credentials_are_sent_to_no_realm_elsewhere(realm: str, server: Bed, fetched: Fetcher, keys: Any) -> None:
    guarded(server, realm)
    with pytest.raises(Refused, match=r"isn't beside|expected an address https|expected https"):
        fetched(uri(server), keys=keys(username="u", password="p"))


def test_wrong_credentials_are_final(server: Bed, fetched: Fetcher, keys: Any) -> None:
    push(server, layer(server, b"good", WEIGHT, **{"org.cncf.model.filepath": "m.onnx"}))
    server.at(f"{REPOSITORY}/manifests/v1", Answer(status=401, headers={"www-authenticate": "Basic realm=x"}))
    with pytest.raises(Refused, match="401"):
        fetched(uri(server), keys=keys(username="u", password="p"))
    assert len(server.asked) == 2


def test_a_layer_behind_a_redirect_is_not_shown_the_token(server: Bed, other: Bed, fetched: Fetcher, keys: Any) -> None:
    one = layer(server, b"good", WEIGHT, **{"org.cncf.model.filepath": "m.onnx"})
    push(server, one)
    manifest = server.routes[f"{REPOSITORY}/manifests/v1"][0]
    assert isinstance(manifest, Answer)
    server.at(f"{REPOSITORY}/manifests/v1", asks("Bearer realm=x", manifest))
    moved = other.at("/blob", Answer(b"good"))
    server.at(f"{REPOSITORY}/blobs/{one['digest']}", Answer(status=307, headers={"location": moved}))
    assert fetched(uri(server), keys=keys(token="t0ken")).files[0].size == 4
    assert "authorization" not in other.asked[0].headers


def test_a_manifest_without_end_is_refused(server: Bed, fetched: Fetcher) -> None:
    server.at(f"{REPOSITORY}/manifests/v1", Answer(json.dumps({"layers": [], "x": "y" * (17 << 20)}).encode()))
    with pytest.raises(Refused, match="at most 16 MiB"):
        fetched(uri(server))
