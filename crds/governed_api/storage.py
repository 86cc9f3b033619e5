"""Where models and data may come from: the schemes of ``storageUri`` and ``data.uri``, and what each one means."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["SCHEMES", "Scheme", "claim_of", "file_of", "scheme_of", "uri_pattern"]


@dataclass(frozen=True)
class Scheme:
    """``prefix`` begins a URI. ``claim``: what follows is a PersistentVolumeClaim of the model's namespace and a path
    in it; else a path, which only ``governed run`` can reach."""

    prefix: str
    claim: bool


SCHEMES = (Scheme("file:", claim=False), Scheme("pvc://", claim=True))


def uri_pattern(ending: str = "") -> str:
    """Regular expression (RE2) of the URIs that are known; ``ending``: how the path must end."""
    return f"^({'|'.join(scheme.prefix for scheme in SCHEMES)}).+{ending}$"


def scheme_of(uri: str) -> Scheme:
    """Raises ValueError."""
    for scheme in SCHEMES:
        if uri.startswith(scheme.prefix):
            return scheme
    raise ValueError(f"{uri}: expected a URI that begins with {' or '.join(scheme.prefix for scheme in SCHEMES)}")


def claim_of(uri: str | None) -> str | None:
    """Name of the claim that ``uri`` lies on; None for what lies on none."""
    if not uri or not scheme_of(uri).claim:
        return None
    return uri.removeprefix(scheme_of(uri).prefix).partition("/")[0]


def file_of(uri: str, base: Path) -> Path:
    """The file, where ``base`` is the mounted claim, or what a relative path begins at. Raises ValueError for a path
    that leaves its claim, through a symbolic link too."""
    scheme = scheme_of(uri)
    rest = uri.removeprefix(scheme.prefix)
    if not scheme.claim:
        return base / rest.removeprefix("//")
    claim, _, inside = rest.partition("/")
    path = (base / inside.lstrip("/")).resolve()
    if not path.is_relative_to(base.resolve()):
        raise ValueError(f"{uri}: the path leaves the volume of claim {claim}")
    return path
