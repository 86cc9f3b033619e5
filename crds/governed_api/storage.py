"""Where models and data may come from: the schemes of ``storageUri`` and ``data.uri``, and what each one means."""

import re
from dataclasses import dataclass
from pathlib import Path

from governed_api.rules import Rule

__all__ = [
    "SCHEMES",
    "HubPlace",
    "RegistryPlace",
    "Scheme",
    "any_uri_pattern",
    "claim_of",
    "default_endpoint",
    "file_of",
    "form_rule",
    "inside_of",
    "is_remote",
    "local_rule",
    "remote_rule",
    "scheme_of",
    "uri_pattern",
]

_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}/[^\s?#]+"
_HUB = (
    r"(?P<repository>[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*)@(?P<revision>[A-Za-z0-9][A-Za-z0-9_.-]*)"
    r"(/(?P<file>[^\s?#]+))?"
)
_TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REGISTRY = (
    r"(?P<registry>[A-Za-z0-9.-]+(:[0-9]+)?)/(?P<repository>[a-z0-9]+([._/-]+[a-z0-9]+)*)"
    rf"((:(?P<tag>{_TAG}))?@(?P<digest>sha256:[0-9a-f]{{64}})|:(?P<only>{_TAG}))"
)


@dataclass(frozen=True)
class Scheme:
    """``prefix`` begins a URI, ``rest`` (regular expression) goes on. ``claim``: what follows is a
    PersistentVolumeClaim of the model's namespace and a path in it. ``remote``: files are fetched over the network.
    Neither: a path, which only ``governed run`` can reach. ``form``: as people are told."""

    prefix: str
    rest: str
    form: str
    claim: bool = False
    remote: bool = False

    @property
    def name(self) -> str:
        """Without punctuation: ``https``."""
        return self.prefix.partition(":")[0]


SCHEMES = (
    Scheme("file:", r".+", "file:PATH"),
    Scheme("pvc://", r".+", "pvc://CLAIM/PATH", claim=True),
    Scheme("https://", r"[^\s/?#@]+/[^\s#]*[^\s#/]", "https://HOST/PATH", remote=True),
    Scheme("http://", r"[^\s/?#@]+/[^\s#]*[^\s#/]", "http://HOST/PATH (HOST of the cluster)", remote=True),
    Scheme("s3://", _BUCKET, "s3://BUCKET/KEY", remote=True),
    Scheme("gs://", _BUCKET, "gs://BUCKET/KEY", remote=True),
    Scheme("az://", _BUCKET, "az://CONTAINER/KEY", remote=True),
    Scheme("hf://", _HUB, "hf://ORG/NAME@REVISION[/FILE]", remote=True),
    Scheme("oci://", _REGISTRY, "oci://REGISTRY/REPOSITORY:TAG[@sha256:…]", remote=True),
)


def uri_pattern(ending: str = "") -> str:
    """Regular expression (RE2) of the URIs on this machine and on volumes; ``ending``: how the path must end."""
    return f"^({'|'.join(scheme.prefix for scheme in SCHEMES if not scheme.remote)}).+{ending}$"


def any_uri_pattern() -> str:
    """Regular expression (RE2) of the beginnings of all URIs."""
    return f"^({'|'.join(scheme.prefix for scheme in SCHEMES)}).+$"


def form_rule(field: str) -> Rule:
    """CEL: the URI in ``field`` has the form of its scheme, which the message says."""
    forms = "|".join(scheme.prefix + re.sub(r"\?P<\w+>", "", scheme.rest) for scheme in SCHEMES)
    told = ", ".join(scheme.form for scheme in SCHEMES)
    return Rule(f"!has(self.{field}) || self.{field}.matches(r'^({forms})$')", f"expected one of {told}", f".{field}")


def remote_rule(field: str, uri: str, message: str) -> Rule:
    """CEL: ``field`` is set only where the URI in ``uri`` is fetched over the network."""
    local = " && ".join(f"!self.{uri}.startsWith('{s.prefix}')" for s in SCHEMES if not s.remote)
    return Rule(f"!has(self.{field}) || (has(self.{uri}) && {local})", message, f".{field}")


def local_rule(uri: str, beside: str, message: str) -> Rule:
    """CEL: where ``beside`` is set, the URI in ``uri`` lies on this machine or on a volume."""
    local = " || ".join(f"self.{uri}.startsWith('{s.prefix}')" for s in SCHEMES if not s.remote)
    return Rule(f"!has(self.{beside}) || !has(self.{uri}) || {local}", message, f".{uri}")


def scheme_of(uri: str) -> Scheme:
    """Raises ValueError, saying what was expected, for a URI that has none of the forms."""
    for scheme in SCHEMES:
        if uri.startswith(scheme.prefix):
            if re.fullmatch(scheme.rest, uri.removeprefix(scheme.prefix)) is None:
                raise ValueError(f"{uri[:300]}: expected {scheme.form}")
            return scheme
    raise ValueError(f"{uri[:300]}: expected one of {', '.join(scheme.form for scheme in SCHEMES)}")


def is_remote(uri: str | None) -> bool:
    """Whether its files are fetched over the network. Raises ValueError."""
    return bool(uri) and scheme_of(uri or "").remote


def default_endpoint(uri: str) -> str:
    """Address that a URI itself leads to: host and port of a page or registry, https of a provider otherwise. Raises
    ValueError."""
    scheme = scheme_of(uri)
    if scheme.name in ("http", "https"):
        return uri
    return f"https://{RegistryPlace.parse(uri).registry}" if scheme.name == "oci" else "https:"


def claim_of(uri: str | None) -> str | None:
    """Name of the claim that ``uri`` lies on; None for what lies on none."""
    return _claimed(uri)[0] if uri and scheme_of(uri).claim else None


def inside_of(uri: str) -> str:
    """Path within the claim that ``uri`` lies on; "" for all of it, and for what lies on none."""
    return _claimed(uri)[1].strip("/") if scheme_of(uri).claim else ""


def _claimed(uri: str) -> tuple[str, str]:
    """(claim, path within it) of a URI that lies on one."""
    claim, _, inside = uri.removeprefix(scheme_of(uri).prefix).partition("/")
    return claim, inside


def file_of(uri: str, base: Path) -> Path:
    """The file, where ``base`` is the mounted claim, or what a relative path begins at. Raises ValueError for a path
    that leaves its claim, through a symbolic link too, and for what lies elsewhere."""
    scheme = scheme_of(uri)
    rest = uri.removeprefix(scheme.prefix)
    if scheme.remote:
        raise ValueError(f"{uri}: expected a file of this machine or of a volume")
    if not scheme.claim:
        return base / rest.removeprefix("//")
    claim, inside = _claimed(uri)
    path = (base / inside.lstrip("/")).resolve()
    if not path.is_relative_to(base.resolve()):
        raise ValueError(f"{uri}: the path leaves the volume of claim {claim}")
    return path


@dataclass(frozen=True)
class HubPlace:
    """``hf://ORG/NAME@REVISION[/FILE]``; the revision is a commit, tag or branch."""

    repository: str
    revision: str
    file: str

    @classmethod
    def parse(cls, uri: str) -> "HubPlace":
        """Raises ValueError."""
        match = re.fullmatch(f"hf://{_HUB}", uri)
        if match is None:
            raise ValueError(f"{uri}: expected hf://ORG/NAME@REVISION[/FILE]")
        return cls(match["repository"], match["revision"], match["file"] or "")


@dataclass(frozen=True)
class RegistryPlace:
    """``oci://REGISTRY/REPOSITORY[:TAG][@sha256:…]``; the digest counts where there is one."""

    registry: str
    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, uri: str) -> "RegistryPlace":
        """Raises ValueError."""
        match = re.fullmatch(f"oci://{_REGISTRY}", uri)
        if match is None:
            raise ValueError(f"{uri}: expected oci://REGISTRY/REPOSITORY:TAG[@sha256:…]")
        return cls(match["registry"], match["repository"], match["tag"] or match["only"] or "", match["digest"] or "")
