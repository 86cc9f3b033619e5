import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from governed_serving.sources import Access, Bounds, Keys, Tree, Wanted, fetch

from .servers import Bed, bed


@pytest.fixture
def server() -> Iterator[Bed]:
    with bed() as running:
        yield running


@pytest.fixture
def other() -> Iterator[Bed]:
    """Another host, for all that a client can tell: another port."""
    with bed() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Fetcher:
    """Fetches into one folder; ``slept`` is what it waited for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.slept, self.told = folder / "fetched", list[float](), list[tuple[str, int, int]]()

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __call__(self, uri: str, digest: str = "", most: int = 1 << 20, files: Any = None, **access: Any) -> Tree:
        return fetch(
            uri,
            self.folder,
            Access(**access),
            Wanted(digest, files or {}),
            Bounds(most, sleep=self.slept.append, clock=self.clock),
            lambda *told: self.told.append(told),
        )


@pytest.fixture
def fetched(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)


@pytest.fixture
def keys(tmp_path: Path) -> Any:
    """Makes a Secret's folder."""

    def make(**files: str) -> Keys:
        folder = tmp_path / "keys"
        folder.mkdir()
        for name, text in files.items():
            (folder / name.replace("_", "-")).write_text(text + "\n")
        return Keys(folder)

    return make
