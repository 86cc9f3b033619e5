"""What every source does: say what there is, and give it from an offset on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from governed_api.regular_files import KEY_BYTES, read_regular
from governed_serving.sources.errors import Refused

__all__ = ["Access", "Keys", "Listed", "Part", "Source"]


@dataclass(frozen=True)
class Listed:
    """A file that a source says it has. ``size`` None: it doesn't say. ``version``: its strong ETag, where the
    list has it. ``archive``: a tar of files that lie ``below`` this folder of it."""

    path: str
    size: int | None
    sha256: str = ""
    version: str = ""
    archive: bool = False
    below: str = ""


class Part(NamedTuple):
    """Bytes from ``offset`` on, of a file of ``size`` bytes as the source says now."""

    offset: int
    size: int | None
    version: str
    chunks: Iterator[bytes]


class Source(Protocol):
    """Every method raises Refused and Unavailable."""

    single: bool
    """The URI names one file; known once :meth:`files` has answered."""

    def files(self, wanted: Callable[[str], bool]) -> list[Listed]:
        """What there is, of the wanted paths."""

    def read(self, file: Listed, offset: int, version: str) -> AbstractContextManager[Part]:
        """The file, from ``offset`` on if the source can, else from its start. Raises Changed where it isn't
        ``version`` any more (empty: any)."""

    def close(self) -> None:
        """Give connections back."""


class Keys:
    """Credentials: files of a mounted Secret, under our names or those of the providers' own tools."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, *names: str) -> str:
        """The first one that is there and not empty, or "". Raises Refused, OSError."""
        for name in names if self._folder else ():
            path = Path(self._folder or "") / name
            try:
                text = read_regular(path, KEY_BYTES, follow=True).decode().strip() if path.is_file() else ""
            except UnicodeDecodeError as error:
                raise Refused(f"{name}: expected text in the Secret, found byte {error.start} that is none") from None
            if text:
                return text
        return ""


@dataclass(frozen=True)
class Access:
    """How a source is reached. ``ca``: certificates to trust beside the usual ones, for one's own service."""

    keys: Keys = field(default_factory=lambda: Keys(None))
    endpoint: str = ""
    region: str = ""
    ca: Path | None = None
