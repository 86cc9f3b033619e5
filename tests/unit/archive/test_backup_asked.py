"""Whom a backup is asked of, and by which token: the running archive by its address, a stopped one by its folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api import runtime
from governed_api.names import ARCHIVE
from governed_api.roles import Role, bearer_token
from governed_serving.archive import taking
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.taking import Asked, take
from governed_serving.environment import InvalidSettings

from .ledgers import batch, opened

ROOT = bytes(range(32))
URL = "http://archive.team.svc:8085"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stopped archive's folder."""
    ledger = opened(tmp_path / "archive" / "ledger")
    ledger.append(batch(0, 3))
    (tmp_path / "archive" / "ledger" / "vkey").write_text(f"{ledger.vkey}\n")
    ledger.close()
    return tmp_path / "archive"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[httpx.Request]:
    """Requests to an archive whose backup is "whole", and whose key is in the file vkey."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        key = (tmp_path / "vkey").read_bytes() if request.url.path == "/v1/ledger/key" else b"whole"
        return httpx.Response(200, content=key)

    def client(url: str, token: Any, **options: Any) -> ArchiveClient:
        return ArchiveClient(url, token, transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(taking, "ArchiveClient", client)
    (tmp_path / "root").write_bytes(ROOT)
    monkeypatch.setenv(runtime.ARCHIVE_ROOT_FILE, str(tmp_path / "root"))
    return requests


def taken(source: str | Path, **options: Any) -> bytes:
    parts: list[bytes] = []
    take(str(source), parts.append, Asked(**options))
    return b"".join(parts)


def said(requests: list[httpx.Request]) -> tuple[str, str]:
    return str(requests[-1].url), requests[-1].headers["authorization"]


def reader(namespace: str) -> str:
    return f"Bearer {bearer_token(ROOT, namespace, ARCHIVE, Role.READER)}"


@pytest.mark.parametrize(
    ("set_to", "named", "namespace"), [("", "", "default"), ("team", "", "team"), ("team", "other", "other")]
)
def test_an_address_is_asked_by_the_readers_token_of_its_namespace(
    asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch, set_to: str, named: str, namespace: str
) -> None:
    monkeypatch.setenv(runtime.NAMESPACE, set_to)
    assert taken(URL, namespace=named) == b"whole"
    assert said(asked) == (f"{URL}/v1/backup", reader(namespace))


def test_a_token_that_is_given_counts(asked: list[httpx.Request], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("given\n")
    assert taken(URL, token_file=tmp_path / "token") == b"whole"
    assert said(asked)[1] == "Bearer given"


def test_without_any_token_it_says_what_is_needed(asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(runtime.ARCHIVE_ROOT_FILE)
    with pytest.raises(InvalidSettings, match="the root of the tokens, or --token-file"):
        taken(URL)
    assert not asked


def test_a_running_archives_folder_is_asked_by_its_address(
    asked: list[httpx.Request], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "vkey").write_bytes((folder / "ledger" / "vkey").read_bytes())
    with running(folder):
        assert taken(folder, url=URL) == b"whole"
        assert said(asked) == (f"{URL}/v1/backup", reader("default"))
        with pytest.raises(ArchiveError, match="in use by a running archive: name its address"):
            taken(folder)
        (tmp_path / "vkey").write_bytes(b"log.example+1234+AAAA\n")
        with pytest.raises(ArchiveError, match=f"{URL} is another archive than that of {folder}"):
            taken(folder, url=URL)


def test_a_stopped_archive_needs_its_own_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(runtime.KEK_FILE, raising=False)
    with pytest.raises(InvalidSettings, match="the archive's key, or --key-file"):
        taken(folder, url=URL)


def test_what_is_no_archive_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no archive, or one without entries"):
        taken(tmp_path)
