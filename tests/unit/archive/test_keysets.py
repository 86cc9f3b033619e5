"""Keysets of the archive with a copy in the spool: used while the archive is away, gone when the key is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from governed_serving.archive import keysets
from governed_serving.archive.errors import Unreachable
from governed_serving.archive.keysets import CachedStore, key_watch, model_keyring
from governed_serving.crypto import DirectoryStore, Kek, KeyDestroyed, Keyring

KEK = Kek(bytes(range(32)))


class Store:
    """An archive's, with the answer that a test wants."""

    def __init__(self) -> None:
        self.answer: bytes | Exception | None = b"document"
        self.asked: list[tuple[object, ...]] = []

    def get(self, purpose: str) -> bytes | None:
        self.asked.append(("get", purpose))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def create(self, purpose: str, document: bytes) -> bytes:
        self.asked.append(("create", purpose, document))
        return b"another's"

    def replace(self, purpose: str, expected: bytes, document: bytes) -> None:
        self.asked.append(("replace", purpose, expected, document))

    def destroy(self, purpose: str, receipt: bytes) -> None:
        self.asked.append(("destroy", purpose, receipt))

    def purposes(self) -> list[str]:
        return ["data", "journal"]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def cached(store: Store, tmp_path: Path) -> CachedStore:
    return CachedStore(store, tmp_path / "cache")


def copies(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*")}


def test_a_copy_is_kept_and_used_while_the_archive_is_away(
    store: Store, cached: CachedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.answer = Unreachable("no answer")
    with pytest.raises(Unreachable, match="no answer"):
        cached.get("journal")
    store.answer = b"document"
    assert cached.get("journal") == b"document"
    assert copies(tmp_path) == {"journal.json": b"document"}
    assert not caplog.records
    store.answer = Unreachable("no answer")
    assert cached.get("journal") == b"document"
    (record,) = caplog.records
    assert record.getMessage() == "archive unreachable; using the keyset's copy in the spool"
    assert (record.levelname, record.fields) == ("WARNING", {"purpose": "journal"})  # type: ignore[attr-defined]
    with pytest.raises(Unreachable):
        cached.get("data")
    store.answer = b"newer"
    assert cached.get("journal") == b"newer"
    assert copies(tmp_path) == {"journal.json": b"newer"}


def test_nothing_is_kept_of_a_keyset_that_isnt_there(store: Store, cached: CachedStore, tmp_path: Path) -> None:
    store.answer = None
    assert cached.get("journal") is None
    assert copies(tmp_path) == {}


@pytest.mark.parametrize("problem", [KeyDestroyed("destroyed"), ValueError("whatever else")])
def test_a_copy_goes_with_its_key(store: Store, cached: CachedStore, tmp_path: Path, problem: Exception) -> None:
    cached.get("journal")
    store.answer = problem
    for _ in range(2):
        with pytest.raises(type(problem)):
            cached.get("journal")
        assert copies(tmp_path) == {}


def test_what_is_stored_is_kept_and_what_is_destroyed_is_not(store: Store, cached: CachedStore, tmp_path: Path) -> None:
    assert cached.create("journal", b"own") == b"another's"
    assert copies(tmp_path) == {"journal.json": b"another's"}
    cached.replace("journal", b"old", b"new")
    assert copies(tmp_path) == {"journal.json": b"another's"}, "read again by whoever needs it"
    for _ in range(2):
        cached.destroy("journal", b"receipt")
        assert copies(tmp_path) == {}
    assert cached.purposes() == ["data", "journal"]
    assert store.asked == [
        ("create", "journal", b"own"), ("replace", "journal", b"old", b"new"),
        ("destroy", "journal", b"receipt"), ("destroy", "journal", b"receipt"),
    ]  # fmt: skip


def test_without_an_archive_keysets_lie_in_the_spool(tmp_path: Path) -> None:
    box = model_keyring(KEK, tmp_path, "credit", "", "").keyset("journal").seal(b"x")
    kept = DirectoryStore(tmp_path / "keysets")
    assert kept.purposes() == ["journal"]
    assert Keyring(KEK, kept).keyset("journal", create=False).open(box) == b"x"


def test_with_an_archive_they_are_its_own_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    spool, archive = tmp_path / "spool", DirectoryStore(tmp_path / "archive")

    def client(url: str, token: str, model: str, *, patience: float) -> Any:
        made.append((url, token, model, patience))
        return SimpleNamespace(keysets=lambda: archive)

    monkeypatch.setattr(keysets, "ArchiveClient", client)
    model_keyring(KEK, spool, "credit", "http://archive", "token").keyset("journal")
    assert made == [("http://archive", "token", "credit", 20.0)]
    assert archive.purposes() == ["journal"]
    assert [p.relative_to(spool).as_posix() for p in spool.rglob("*.json")] == ["keyset-cache/journal.json"]


def test_a_new_key_begins_a_new_segment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rings = [Keyring(KEK, DirectoryStore(tmp_path)) for _ in range(2)]
    keyset = rings[0].keyset("journal")
    done: list[str] = []
    journal: Any = SimpleNamespace(roll=lambda: done.append("roll"))
    watch = key_watch(keyset, 60.0, journal, lambda: done.append("rotate"))
    watch.look()
    assert done == ["rotate"]
    rings[1].rotate("journal")
    watch.look()
    assert done == ["rotate", "rotate", "roll"]
    (record,) = caplog.records
    assert record.getMessage() == "the journal continues under a new key"
    assert (record.levelname, record.fields) == ("INFO", {"key": keyset.primary_key_id})  # type: ignore[attr-defined]
    watch._on_trouble(OSError("full"))
    assert caplog.records[-1].getMessage() == "key maintenance failed, retrying"
    assert (caplog.records[-1].levelname, caplog.records[-1].fields) == ("WARNING", {"error": "full"})  # type: ignore[attr-defined]
    key_watch(keyset, 60.0, journal).look()
    assert watch.pause == 6.0
