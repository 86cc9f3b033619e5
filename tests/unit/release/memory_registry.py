"""A registry in memory (OCI distribution specification 1.1), with faults that a test sets."""

import json
import re
from collections.abc import Callable

import httpx

from governed_release.registry import Registry, sha256

PASSWORD = ("releaser", "let-me-in")


class MemoryRegistry:
    """``referrers``: whether it knows subjects. ``fault``: asked before each request; an answer or an exception ends
    it. ``protected``: asks for a token."""

    def __init__(self, referrers: bool = False, protected: bool = False) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.referrers, self.protected = referrers, protected
        self.fault: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.requests: list[tuple[str, str]] = []

    def client(self, credentials: tuple[str, str] | None = PASSWORD) -> Registry:
        return Registry(
            "registry.example:5000",
            credentials=lambda _: credentials,
            client=httpx.Client(transport=httpx.MockTransport(self.answer)),
            sleep=lambda _: None,
        )

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.path))
        if request.url.host == "tokens.example":
            allowed = request.headers.get("Authorization") == httpx.BasicAuth(*PASSWORD)._auth_header
            return httpx.Response(200, json={"token": "T"}) if allowed else httpx.Response(401)
        if (told := self.fault(request)) is not None:
            return told
        if self.protected and request.headers.get("Authorization") != "Bearer T":
            asks = 'Bearer realm="https://tokens.example/token",service="registry"'
            return httpx.Response(401, headers={"WWW-Authenticate": asks}, json={"errors": []})
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+?)/?", request.url.path)
        assert found is not None, request.url
        repository, kind, reference = found.groups()
        return self._manifest(request, repository, reference) if kind == "manifests" else self._blob(
            request, repository, reference
        )  # fmt: skip

    def _manifest(self, request: httpx.Request, repository: str, reference: str) -> httpx.Response:
        if request.method == "PUT":
            content = request.read()
            told = json.loads(content)
            described = [told["config"], *told["layers"]] if "layers" in told else []
            if any((repository, one["digest"]) not in self.blobs for one in described):
                return httpx.Response(404, json={"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]})
            for name in (reference, sha256(content)):
                self.manifests[repository, name] = (content, request.headers["Content-Type"])
            subject = {"OCI-Subject": told["subject"]["digest"]} if self.referrers and "subject" in told else {}
            return httpx.Response(201, headers={"Docker-Content-Digest": sha256(content), **subject})
        held = self.manifests.get((repository, reference))
        if held is None:
            return httpx.Response(404)
        content, media_type = held
        return httpx.Response(
            200, content=content, headers={"Content-Type": media_type, "Docker-Content-Digest": sha256(content)}
        )

    def _blob(self, request: httpx.Request, repository: str, reference: str) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, headers={"Location": f"/v2/{repository}/blobs/uploads/1?state=x"})
        if request.method == "PUT":
            content, digest = request.read(), request.url.params["digest"]
            assert request.url.params["state"] == "x"
            if sha256(content) != digest:
                return httpx.Response(400, json={"errors": [{"code": "DIGEST_INVALID"}]})
            self.blobs[repository, digest] = content
            return httpx.Response(201)
        held = self.blobs.get((repository, reference))
        return httpx.Response(404) if held is None else httpx.Response(200, content=held)
