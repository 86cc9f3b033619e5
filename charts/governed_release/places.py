"""Names in a registry (OCI distribution specification 1.1, "Pulling manifests")."""

import re
from dataclasses import dataclass

from governed_release.errors import ReleaseError

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{1,5}))?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z][0-9A-Za-z.-]*)?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LONGEST = 255
"""Characters of host and path together, which many clients refuse beyond."""
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Place:
    """HOST[:PORT]/PATH: where the repositories of a release lie, one below it for each role."""

    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises ReleaseError with what is wrong with `text`."""
        wanted = f"registry: expected HOST[:PORT]/PATH in lower case, found {text[:300]!r}"
        if "://" in text:
            raise ReleaseError(f"{wanted}: leave the scheme out")
        host, _, path = text.partition("/")
        found = _HOST.fullmatch(host)
        if found is None or not (0 < int(found.group("port") or 443) < 65536):
            raise ReleaseError(f"{wanted}: {host!r} is no host")
        if not ("." in host or ":" in host or host == "localhost"):
            raise ReleaseError(f"{wanted}: {host!r} has neither a dot nor a port, so clients would take it for a path")
        if not _PATH.fullmatch(path):
            raise ReleaseError(f"{wanted}: {path!r} is no path of a repository (a-z, 0-9, single . _ - between, /)")
        if len(text) + len("/explainer-captum") > LONGEST:
            raise ReleaseError(f"{wanted}: with a role's name it is longer than {LONGEST} characters")
        return cls(host, path)

    @property
    def loopback(self) -> bool:
        return self.host.rpartition(":")[0] in _LOOPBACK or self.host in _LOOPBACK

    def repository(self, name: str) -> str:
        return f"{self.path}/{name}"

    def reference(self, name: str) -> str:
        """As the chart and a container runtime write it."""
        return f"{self.host}/{self.path}/{name}"

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"


def checked_version(text: str) -> str:
    """A version that is a semantic version (Helm asks for one) and a tag."""
    if not _VERSION.fullmatch(text) or not _TAG.fullmatch(text):
        raise ReleaseError(f"version: expected MAJOR.MINOR.PATCH[-PRERELEASE] without `v` or `+`, found {text[:200]!r}")
    return text


def attachment_tag(digest: str, kind: str = "") -> str:
    """cosign's tag for what is attached to a digest (``sig``, ``att``); without a kind the fallback tag of the
    referrers API (OCI distribution specification 1.1, "Referrers Tag Schema")."""
    return digest.replace(":", "-") + (f".{kind}" if kind else "")
