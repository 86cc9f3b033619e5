"""A repository of a Hugging Face hub: ``hf://ORG/NAME@REVISION[/FILE]``.

By the hub's documented HTTP API (three GETs: revision, tree, resolve), not by huggingface_hub: that one follows
redirects by its own rules, keeps a cache of its own, and downloads outside the bounds that hold here for every source.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urljoin

from governed_api.json_types import Json
from governed_api.storage import HubPlace
from governed_serving.sources.errors import Refused
from governed_serving.sources.names import MAX_FILES, safe
from governed_serving.sources.page import bearer, ranged
from governed_serving.sources.source import Access, Listed, Part
from governed_serving.sources.web import Origin, Web, part_of

__all__ = ["Hub"]

ENDPOINT = "https://huggingface.co"
MOST_PAGES = 100
"""Of a list of files; the hub has a thousand in each."""


class Hub:
    """``access.keys``: token (or HF_TOKEN)."""

    def __init__(self, uri: str, access: Access, web: Web | None = None) -> None:
        self.uri, self._place = uri, HubPlace.parse(uri)
        self._endpoint = (access.endpoint or ENDPOINT).rstrip("/")
        self._keys, self._web = access.keys, web or Web(self._endpoint, ca=access.ca)
        self._commit = ""
        self.single = bool(self._place.file)

    def files(self, wanted: Callable[[str], bool]) -> list[Listed]:
        """Of the commit that the revision names now: a branch that moves meanwhile changes nothing."""
        place = self._place
        about, _ = self._web.json(
            f"{self._endpoint}/api/models/{place.repository}/revision/{quote(place.revision, safe='')}",
            {},
            self._authorise,
        )
        self._commit = _text(about, "sha")
        if not self._commit.isalnum():
            raise Refused(f"{self.uri}: expected the commit of revision {place.revision}, found {self._commit[:80]!r}")
        listed = [_listed(file) for file in self._tree() if isinstance(file, dict) and file.get("type") == "file"]
        if self.single:
            listed = [file for file in listed if file.path == place.file]
        listed = [file for file in listed if self.single or wanted(safe(file.path))]
        if not listed:
            raise Refused(f"{self.uri}: expected {place.file or 'files'}, found none at commit {self._commit}")
        return listed

    def _tree(self) -> list[Json]:
        url = f"{self._endpoint}/api/models/{self._place.repository}/tree/{self._commit}?recursive=true"
        out: list[Json] = []
        for _ in range(MOST_PAGES):
            page, headers = self._web.json(url, {}, self._authorise)
            if not isinstance(page, list):
                raise Refused(f"{self.uri}: expected a list of files, found other JSON")
            out += page
            if len(out) > 2 * MAX_FILES or not page:
                return out
            following = _following(headers.get("link", ""))
            url = urljoin(url, following) if following else ""
            if url and Origin.of(url) != Origin.of(self._endpoint):
                raise Refused(f"{self.uri}: expected the list's next page at {self._endpoint}, found {url[:200]}")
            if not url:
                return out
        raise Refused(f"{self.uri}: expected a list of files of at most {MOST_PAGES} pages, found more")

    @contextmanager
    def read(self, file: Listed, offset: int, version: str) -> Iterator[Part]:
        """The hub redirects large files to a host of its own, which isn't shown the token."""
        name = f"{self._place.repository}/resolve/{self._commit}/{quote(file.path)}"
        with self._web.get(f"{self._endpoint}/{name}", ranged(offset, version), self._authorise) as answer:
            yield part_of(answer, offset, version)

    def close(self) -> None:
        self._web.close()

    def _authorise(self, _: str) -> Mapping[str, str]:
        return bearer(self._keys.get("token", "HF_TOKEN"))


def _text(value: Json, key: str) -> str:
    text = value.get(key) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""


def _listed(entry: dict[str, Json]) -> Listed:
    large, size = entry.get("lfs"), entry.get("size")
    sha256 = _text(large, "oid") or _text(large, "sha256")
    bytes_told = size if isinstance(size, int) and size >= 0 else None
    return Listed(_text(entry, "path"), bytes_told, sha256.removeprefix("sha256:").lower())


def _following(link: str) -> str:
    """RFC 8288."""
    for part in link.split(","):
        target, _, rest = part.strip().partition(">")
        if 'rel="next"' in rest and target.startswith("<"):
            return target[1:]
    return ""
