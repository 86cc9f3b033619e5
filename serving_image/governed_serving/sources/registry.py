"""A model in an OCI registry: ``oci://REGISTRY/REPOSITORY[:TAG][@sha256:…]``, by the OCI distribution spec 1.1.

Three layouts are known: ModelPack and ORAS artefacts, whose layers are files named by an annotation (or tars of such),
and a modelcar, a container image with the files below ``/models``. A small client of our own: oras (Python) follows
redirects and token realms wherever a registry points, with the credentials, and can't go on with half a layer.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlencode, urljoin

import httpx

from governed_api.json_types import Json
from governed_api.storage import RegistryPlace
from governed_serving.outbound import is_internal
from governed_serving.sources.errors import Differs, Refused, Unavailable
from governed_serving.sources.names import MAX_FILES, safe
from governed_serving.sources.page import basic, bearer, ranged
from governed_serving.sources.source import Access, Listed, Part
from governed_serving.sources.web import Origin, Web, body_of, json_of, part_of

__all__ = ["Registry"]

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_TITLES = ("org.cncf.model.filepath", "org.opencontainers.image.title")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PLATFORM = ("linux", "amd64")
MODELS = "models"
"""A modelcar's folder (KServe)."""
MOST_LAYERS = 512
_API = "v2"


class Registry:
    """``access.keys``: username and password, or token."""

    single = False

    def __init__(self, uri: str, access: Access, web: Web | None = None) -> None:
        self.uri, self._place = uri, RegistryPlace.parse(uri)
        host = self._place.registry
        scheme = "http" if access.endpoint.startswith("http:") or _plain(host) else "https"
        self._base = (access.endpoint.rstrip("/") or f"{scheme}://{host}") + "/".join(
            ("", _API, self._place.repository)
        )
        self._keys, self._web = access.keys, web or Web(self._base, ca=access.ca)
        self._shown: dict[str, str] = {}

    def files(self, wanted: Callable[[str], bool]) -> list[Listed]:
        """Layers of the manifest; a tar's files are known once it is unpacked."""
        manifest = self._manifest(self._place.digest or self._place.tag)
        layers = [layer for layer in _list(manifest, "layers") if isinstance(layer, dict)]
        if len(layers) > MOST_LAYERS:
            raise Refused(f"{self.uri}: expected at most {MOST_LAYERS} layers, found {len(layers)}")
        listed = [self._listed(layer, number) for number, layer in enumerate(layers)]
        listed = [file for file in listed if file.archive or wanted(safe(file.path))]
        if not listed or len(listed) > MAX_FILES:
            raise Refused(f"{self.uri}: expected layers with files, found none that is wanted")
        return listed

    @contextmanager
    def read(self, file: Listed, offset: int, version: str) -> Iterator[Part]:
        """A layer by its digest: no tag that moves changes it."""
        with self._get(f"{self._base}/blobs/sha256:{file.sha256}", ranged(offset, version)) as answer:
            yield part_of(answer, offset, version)

    def close(self) -> None:
        self._web.close()

    def _manifest(self, reference: str, depth: int = 0) -> dict[str, Json]:
        url = f"{self._base}/manifests/{reference}"
        with self._get(url, {"accept": ", ".join((*_MANIFESTS, *_INDEXES))}) as answer:
            data = body_of(answer, url)
        manifest_digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.startswith("sha256:") and manifest_digest != reference:
            raise Differs(f"{self.uri}: expected the manifest {reference}, found {manifest_digest}: it is not served")
        manifest = json_of(data, url)
        if not isinstance(manifest, dict):
            raise Refused(f"{self.uri}: expected a manifest, found other JSON")
        if "manifests" not in manifest:
            return manifest
        if depth:
            raise Refused(f"{self.uri}: expected a manifest in the index, found another index")
        return self._manifest(self._chosen(_list(manifest, "manifests")), depth + 1)

    def _chosen(self, listed: list[Json]) -> str:
        """Of an index: the one there is, else that of Linux on amd64, which every modelcar's files are the same of."""
        real = [m for m in listed if isinstance(m, dict) and _DIGEST.fullmatch(str(m.get("digest")))]
        if len(real) > 1:
            real = [m for m in real if _platform(m) == _PLATFORM]
        if len(real) != 1:
            raise Refused(f"{self.uri}: expected one manifest, or one for {'/'.join(_PLATFORM)}, found {len(real)}; "
                          "name one by its digest")  # fmt: skip
        return str(real[0]["digest"])

    def _listed(self, layer: dict[str, Json], number: int) -> Listed:
        digest, size, kind = str(layer.get("digest")), layer.get("size"), str(layer.get("mediaType", ""))
        if not _DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
            raise Refused(f"{self.uri}: expected layers with sha256 digest and size, found {digest[:80]!r}")
        notes = layer.get("annotations")
        named = next((str(notes[t]) for t in _TITLES if notes.get(t)), "") if isinstance(notes, dict) else ""
        image = "image.rootfs" in kind or "image.layer" in kind
        packed = ".tar" in kind or kind.endswith(("+gzip", "+zstd"))
        if kind.endswith("zstd"):
            raise Refused(f"{self.uri}: expected layers that are plain or by gzip, found {kind}; push it with gzip")
        if named and not (image and packed) and not packed:
            return Listed(safe(named), size, digest.removeprefix("sha256:"))
        if not packed:
            raise Refused(f"{self.uri}: expected a file name ({_TITLES[0]}) at layer {number} ({kind}), found none")
        return Listed(f"layer-{number}", size, digest.removeprefix("sha256:"), archive=True, below=MODELS * image)

    @contextmanager
    def _get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Asked once more with a token where the registry wants one (distribution spec, "Token Authentication")."""
        with self._web.get(url, headers, self._authorise, statuses=(HTTPStatus.UNAUTHORIZED,)) as answer:
            if answer.status_code != HTTPStatus.UNAUTHORIZED:
                yield answer
                return
            challenge = answer.headers.get("www-authenticate", "")
        self._answer_challenge(challenge)
        with self._web.get(url, headers, self._authorise) as answer:
            yield answer

    def _authorise(self, _: str) -> Mapping[str, str]:
        return self._shown

    def _answer_challenge(self, challenge: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        said = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() == "basic":
            self._shown = basic(self._keys)
        if scheme.lower() != "bearer":
            return
        if token := self._keys.get("token"):
            self._shown = bearer(token)
            return
        realm = urljoin(self._base, said.get("realm", ""))
        query = {k: said[k] for k in ("service", "scope") if said.get(k)}
        about, _ = self._web.json(
            f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", {}, lambda _: self._for_realm(realm)
        )
        token = str(about.get("token") or about.get("access_token") or "") if isinstance(about, dict) else ""
        if not token:
            raise Unavailable(f"{self.uri}: expected a token of {realm[:200]}, found none")
        self._shown = bearer(token)

    def _for_realm(self, realm: str) -> dict[str, str]:
        """Credentials go to the registry's own host, or to one beside it (registry-1.docker.io, auth.docker.io)."""
        own, asked = Origin.of(self._base), Origin.of(realm)
        shown = basic(self._keys)
        beside = own.host.partition(".")[2]
        near = asked.host == own.host or (
            asked.scheme == "https" and beside.count(".") >= 1 and asked.host.endswith(f".{beside}")
        )
        if shown and not near:
            raise Refused(
                f"{self.uri}: the registry asks for the credentials to be sent to {asked.host}, which isn't beside "
                f"{own.host}; put a token into the Secret instead, under the key token"
            )
        return shown


def _plain(host: str) -> bool:
    """http for this machine's own registries, as container engines do."""
    name = host.rpartition(":")[0] or host
    return name in ("localhost", "127.0.0.1", "[::1]") and is_internal(name.strip("[]"))


def _list(value: dict[str, Json], key: str) -> list[Json]:
    listed = value.get(key)
    return listed if isinstance(listed, list) else []


def _platform(manifest: dict[str, Json]) -> tuple[str, str]:
    told = manifest.get("platform")
    return (str(told.get("os")), str(told.get("architecture"))) if isinstance(told, dict) else ("", "")
