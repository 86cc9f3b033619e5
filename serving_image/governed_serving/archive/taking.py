"""Whom to ask for a backup: the running archive, or the folder of a stopped one."""

import errno
import fcntl
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.names import ARCHIVE
from governed_api.roles import Role, bearer_token
from governed_serving.archive.backup.members import Manifest, is_backup
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Verifier
from governed_serving.archive.restore import checked
from governed_serving.archive.service import Archive
from governed_serving.archive.store.objects import kept_in
from governed_serving.archive.verify.derived import is_running
from governed_serving.crypto import load_kek
from governed_serving.durable import is_regular, open_new, put_in_place
from governed_serving.environment import PodEnvironment

__all__ = ["Asked", "take", "take_file"]

_PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Asked:
    """``url``: where the archive answers whose folder is named. What is None or "" comes from the environment."""

    url: str = ""
    key_file: Path | None = None
    token_file: Path | None = None
    namespace: str = ""


def take(source: str, write: Callable[[bytes], object], asked: Asked) -> None:
    """Give a backup of ``source``, a URL or a folder, to ``write``. Raises ArchiveError, CryptoError, InvalidSettings,
    OSError."""
    with _chunks(source, asked) as chunks:
        for chunk in chunks:
            write(chunk)


def take_file(source: str, target: Path, asked: Asked) -> Manifest:
    """As :func:`take`; nothing takes the place of an older backup at ``target`` before it was read again and is
    whole."""
    _refuse_other(source, target)
    _discard_killed(target)
    partial = target.with_name(f"{_begun(target)}{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with open_new(partial) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            take(source, file.write, asked)
            file.flush()
            os.fsync(file.fileno())
            manifest = checked(partial)
            put_in_place(partial, target)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        full = f"{target}: {error.strerror}: nothing was written. Free space on its disk, or name another place"
        raise ArchiveError(full) from None
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def _begun(target: Path) -> str:
    return f".{target.name}."


def _refuse_other(source: str, target: Path) -> None:
    """Only an older backup is replaced. Raises ArchiveError for anything else that is there."""
    folder = target.parent
    if not folder.is_dir():
        raise ArchiveError(f"{folder}: no such folder: expected one to write {target.name} into")
    root = Path(source).resolve()
    if "://" not in source and folder.resolve().is_relative_to(root):
        raise ArchiveError(f"{target} lies in the archive itself: name a file elsewhere, best on another disk")
    if not os.path.lexists(target) or (is_regular(target) and is_backup(target)):
        return
    kind = "a file that is no backup" if is_regular(target) else "a folder" if target.is_dir() else "no regular file"
    kind = "a link" if target.is_symlink() else kind
    raise ArchiveError(
        f"{target} is {kind}: expected a new file, or an older backup to replace; name another one. Into a pipe: -"
    )


def _discard_killed(target: Path) -> None:
    """What backups that were killed left; one that is being written is locked."""
    for path in target.parent.glob(f"{glob.escape(_begun(target))}*{_PARTIAL}"):
        if not is_regular(path):
            continue
        with path.open("rb") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


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
    with (
        closing(Archive(root, kek, namespace, bucket=kept_in(root))) as archive,
        closing(Snapshot(archive)) as snapshot,
    ):
        yield snapshot.chunks()


def _client(url: str, asked: Asked, namespace: str) -> ArchiveClient:
    if asked.token_file:
        token = asked.token_file.read_text()
    else:
        root = PodEnvironment().content(runtime.ARCHIVE_ROOT_FILE, "the root of the tokens, or --token-file")
        token = bearer_token(root, namespace, ARCHIVE, Role.READER)
    return ArchiveClient(url, token, patience=10.0)
