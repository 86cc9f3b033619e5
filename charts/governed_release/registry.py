"""A client of a registry (OCI distribution specification 1.1): push and pull by digest, over httpx, which the
distribution has anyway."""

import base64
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx

from governed_release.errors import RegistryError
from governed_release.places import DIGEST

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
LARGEST_MANIFEST = 4 * 1024 * 1024
"""Bytes; what registries take at least (specification, "Pushing Manifests")."""
LARGEST_READ = 64 * 1024 * 1024
"""Bytes of an attestation or a chart."""
_CHUNK = 1024 * 1024
_ATTEMPTS = 4
_PASSING = (408, 429, 500, 502, 503, 504)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Blob:
    """Bytes to push: in memory, or a file."""

    digest: str
    size: int
    content: bytes | None = field(default=None, repr=False)
    path: Path | None = None

    @classmethod
    def of(cls, content: bytes) -> "Blob":
        return cls(sha256(content), len(content), content)

    def chunks(self) -> Iterator[bytes]:
        if self.content is not None:
            yield self.content
            return
        assert self.path is not None
        with self.path.open("rb") as file:
            yield from iter(lambda: file.read(_CHUNK), b"")

    def open(self) -> BinaryIO:
        assert self.path is not None
        return self.path.open("rb")


@dataclass(frozen=True)
class Manifest:
    """A manifest's own bytes."""

    digest: str
    media_type: str
    content: bytes = field(repr=False)


Credentials = Callable[[str], tuple[str, str] | None]


def docker_credentials(host: str) -> tuple[str, str] | None:
    """User and password of `docker login`, from DOCKER_CONFIG's config.json or a credential helper."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RegistryError(f"{folder / 'config.json'}: expected docker's configuration, found {error}") from error
    helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
    entry = config.get("auths", {}).get(host) or {}
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return user, password
    if not helper:
        return None
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(command, input=host, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise RegistryError(f"{command[0]}: {error}; install it, or run docker login {host} without it") from error
    if done.returncode:
        return None
    told = json.loads(done.stdout)
    return told["Username"], told["Secret"]


class Registry:
    """One host. `sleep`: between attempts, seconds."""

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool = False,
        credentials: Credentials = docker_credentials,
        client: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        served = "registry-1.docker.io" if host in ("docker.io", "index.docker.io") else host
        self.host, self._base = host, f"{'http' if plain_http else 'https'}://{served}"
        self._client = client or httpx.Client(timeout=httpx.Timeout(120, connect=20))
        self._credentials, self._sleep = credentials, sleep
        self._authorizations: dict[str, str] = {}

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """None where there is none; the bytes are those of its digest, or RegistryError."""
        accepted = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST))
        answer = self._ask(
            "GET", repository, f"manifests/{quote(reference, safe=':')}", headers={"Accept": accepted}, missing=True
        )
        if answer is None:
            return None
        if len(answer.content) > LARGEST_MANIFEST:
            raise RegistryError(
                f"{self._named(repository, reference)}: a manifest of more than {LARGEST_MANIFEST} bytes"
            )
        found = Manifest(
            sha256(answer.content), answer.headers.get("Content-Type", "").partition(";")[0], answer.content
        )
        told = reference if DIGEST.fullmatch(reference) else answer.headers.get("Docker-Content-Digest", found.digest)
        if told != found.digest:
            raise RegistryError(f"{self._named(repository, reference)}: expected bytes of {told}, found {found.digest}")
        return found

    def blob(self, repository: str, digest: str) -> bytes | None:
        """A small blob, whole; None where there is none."""
        answer = self._ask("GET", repository, f"blobs/{digest}", missing=True)
        if answer is None:
            return None
        if len(answer.content) > LARGEST_READ or sha256(answer.content) != digest:
            raise RegistryError(f"{self._named(repository, digest)}: the blob's bytes aren't those of its digest")
        return answer.content

    def has_blob(self, repository: str, digest: str) -> bool:
        return self._ask("HEAD", repository, f"blobs/{digest}", missing=True) is not None

    def push_blob(self, repository: str, blob: Blob) -> bool:
        """Whether anything had to be sent."""
        if self.has_blob(repository, blob.digest):
            return False
        for attempt in range(_ATTEMPTS):
            begun = self._ask("POST", repository, "blobs/uploads/", writes=True)
            assert begun is not None
            target = begun.url.join(begun.headers.get("Location", ""))
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
            if (target.scheme, target.host, target.port) == (begun.url.scheme, begun.url.host, begun.url.port):
                headers |= self._authorization(repository)
            url = target.copy_merge_params({"digest": blob.digest})
            try:
                answer = self._client.put(url, content=blob.chunks(), headers=headers)
            except httpx.TransportError as error:
                problem = f"the upload broke off ({error or type(error).__name__})"
            else:
                if answer.status_code == 201:
                    return True
                problem = _refusal(answer)
                if answer.status_code not in _PASSING:
                    break
            self._sleep(2.0**attempt)
        raise RegistryError(f"{self._named(repository, blob.digest)}: {problem}; run the same command again to go on")

    def push_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> bool:
        """Whether the registry says that it processed the manifest's subject (the referrers API)."""
        path = f"manifests/{quote(reference, safe=':')}"
        answer = self._ask("PUT", repository, path, content=content, headers={"Content-Type": media_type}, writes=True)
        assert answer is not None
        told = answer.headers.get("Docker-Content-Digest")
        if told and told != sha256(content):
            raise RegistryError(f"{self._named(repository, reference)}: pushed {sha256(content)}, stored as {told}")
        return "OCI-Subject" in answer.headers

    def _ask(
        self,
        method: str,
        repository: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        missing: bool = False,
        writes: bool = False,
    ) -> httpx.Response | None:
        """None: 404 where `missing` is expected. Broken connections, 429 and 5xx are tried again."""
        url, where = f"{self._base}/v2/{repository}/{path}", self._named(repository, path)
        problem, asked = "", False
        for attempt in range(_ATTEMPTS):
            sent = {**(headers or {}), **self._authorization(repository)}
            try:
                answer = self._client.request(
                    method, url, content=content, headers=sent, follow_redirects=method in ("GET", "HEAD")
                )
            except httpx.TransportError as error:
                problem = f"no answer ({error or type(error).__name__})"
            else:
                if answer.is_success:
                    return answer
                if answer.status_code == 404 and missing:
                    return None
                problem = _refusal(answer)
                if answer.status_code == 401 and not asked:
                    asked = True
                    self._log_in(answer, repository)
                    continue
                if answer.status_code not in _PASSING:
                    break
            if attempt < _ATTEMPTS - 1:
                self._sleep(2.0**attempt)
        hint = "run the same command again to go on" if writes else "nothing was written by this step"
        raise RegistryError(f"{where}: {problem}; {hint}")

    def _named(self, repository: str, path: str) -> str:
        return f"{self.host}/{repository} ({path})"

    def _authorization(self, repository: str) -> dict[str, str]:
        held = self._authorizations.get(repository)
        return {"Authorization": held} if held else {}

    def _log_in(self, refused: httpx.Response, repository: str) -> None:
        """Basic, or a token of the service that the refusal names (distribution's token authentication)."""
        scheme, _, rest = refused.headers.get("WWW-Authenticate", "").partition(" ")
        known = self._credentials(self.host)
        if scheme.lower() == "basic":
            if known:
                self._authorizations[repository] = _basic(known)
            return
        told = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = told.get("realm", "")
        if scheme.lower() != "bearer" or not realm:
            return
        if httpx.URL(realm).scheme != "https" and not self._base.startswith("http:"):
            raise RegistryError(f"{self.host}: its token service {realm} isn't https: no password goes there")
        wanted = {"service": told.get("service", ""), "scope": f"repository:{repository}:pull,push"}
        for scope in (wanted["scope"], f"repository:{repository}:pull"):
            try:
                answer = self._client.get(
                    realm, params={**wanted, "scope": scope}, headers={"Authorization": _basic(known)} if known else {}
                )
            except httpx.TransportError as error:
                raise RegistryError(f"{self.host}: its token service {realm} gave no answer ({error})") from error
            if answer.is_success:
                body = answer.json()
                self._authorizations[repository] = f"Bearer {body.get('token') or body['access_token']}"
                return


def _basic(known: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(known).encode()).decode()


def _refusal(answer: httpx.Response) -> str:
    """Status and the registry's own words, in one line."""
    words = " ".join(answer.text.split())[:300] if answer.request.method != "HEAD" else ""
    meaning = {401: "not logged in: docker login", 403: "no right: the login must be allowed to push there"}
    hint = meaning.get(answer.status_code, "")
    return f"refused with {answer.status_code}{f' ({hint})' if hint else ''}{f': {words}' if words else ''}"
