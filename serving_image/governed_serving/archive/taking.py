"""Whom to ask for a backup: the running archive, or the folder of a stopped one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from governed_api import runtime
from governed_api.names import ARCHIVE
from governed_api.roles import Role, bearer_token
from governed_serving.archive.backup.members import Manifest
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Verifier
from governed_serving.archive.restore import checked
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.derived import is_running
from governed_serving.crypto import load_kek
from governed_serving.durable import open_new, put_in_place
from governed_serving.environment import PodEnvironment

__all__ = ["Asked", "take", "take_file"]


@dataclass(frozen=True)
class Asked:
    """``url``: where the archive answers whose folder is named. What is None or "" comes from the environment."""

    url: str = ""
    key_file: Path | None = None
    token_file: Path | None = None
    namespace: str = ""


def take(source: str, file: BinaryIO, asked: Asked) -> None:
    """Write a backup of ``source``, a URL or a folder. Raises ArchiveError, CryptoError, InvalidSettings, OSError."""
    with _chunks(source, asked) as chunks:
        for chunk in chunks:
            file.write(chunk)


def take_file(source: str, target: Path, asked: Asked) -> Manifest:
    """As :func:`take`; nothing takes the place of an older ``target`` before it was read again and is whole."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open_new(partial) as file:
            take(source, file, asked)
            file.flush()
            os.fsync(file.fileno())
        manifest = checked(partial)
        put_in_place(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return manifest


@contextmanager
def _chunks(source: str, asked: Asked) -> Iterator[Iterator[bytes]]:
    if "://" in source:
        with _client(source, asked, asked.namespace or PodEnvironment().text(runtime.NAMESPACE, "default")) as client:
            yield client.backup()
        return
    root = Path(source)
    vkey = root / "ledger" / "vkey"
    if not vkey.is_file():
        raise ArchiveError(f"{root} is no archive, or one without entries: expected ledger/vkey")
    namespace = Verifier.parse(vkey.read_text()).name.rpartition("/")[2]
    if is_running(root):
        if not asked.url:
            raise ArchiveError(
                f"{root} is in use by a running archive: name its address, which takes the backup (--url)"
            )
        with _client(asked.url, asked, namespace) as client:
            if client.vkey() != vkey.read_text().strip():
                raise ArchiveError(
                    f"{asked.url} is another archive than that of {root}: expected the same verifier key"
                )
            yield client.backup()
        return
    kek = load_kek(
        asked.key_file or PodEnvironment().required_path(runtime.KEK_FILE, "the archive's key, or --key-file")
    )
    with closing(Archive(root, kek, namespace)) as archive, closing(Snapshot(archive)) as snapshot:
        yield snapshot.chunks()


def _client(url: str, asked: Asked, namespace: str) -> ArchiveClient:
    if asked.token_file:
        token = asked.token_file.read_text()
    else:
        root = PodEnvironment().content(runtime.ARCHIVE_ROOT_FILE, "the root of the tokens, or --token-file")
        token = bearer_token(root, namespace, ARCHIVE, Role.READER)
    return ArchiveClient(url, token, patience=10.0)
