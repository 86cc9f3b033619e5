"""The importer Job: what storageUri names over a network → fetched, as pinned, tried → the artefact, sealed, in the
archive, where each pod of the model takes it by its digest. What is there already is not fetched again.

Exit codes: 0 the artefact is in the archive; 65 (EX_DATAERR) retrying cannot succeed; 2 the environment is wrong; 1
anything else. The operator knows 2 and 65 as final.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.printable import printable
from governed_api.quantities import whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Unverified
from governed_serving.archive.fetching.imported import packed_import
from governed_serving.artefact import ArtefactError, MalformedArtefact, Untried, digest
from governed_serving.artefact.package import MANIFEST
from governed_serving.crypto import CryptoError, Keyring, load_kek
from governed_serving.environment import InvalidSettings, PodEnvironment
from governed_serving.formats import is_text_folder
from governed_serving.records import (
    LedgerEntry,
    artefact_reference,
    canonical,
    making_reference,
    timestamp,
    within_limit,
)
from governed_serving.report import ReportWriter
from governed_serving.sources import (
    Access,
    Bounds,
    File,
    Keys,
    NoRoom,
    Refused,
    SourceError,
    Tree,
    Wanted,
    fetch,
)

__all__ = ["run"]

RETRY, INVALID = 1, 2
SAID_EVERY = 5.0
"""Seconds between two words about progress."""
MOST_LISTED = 64
"""Files that the ledger's entry lists; the digest over all is there in any case."""


@dataclass(frozen=True)
class _Neighbours:
    archive: ArchiveClient
    keyring: Keyring
    report: Callable[[dict[str, object]], object]


def run() -> int:
    """Run the Job; what goes wrong becomes one line, phase Failed in the report, and an exit code."""
    env = PodEnvironment()
    try:
        resolved = env.model()
        writer = ReportWriter(env.required(runtime.REPORT, "the address of the GovernanceReport"))
    except InvalidSettings as error:
        _say(f"error: {error}")
        return INVALID

    def report(values: dict[str, object]) -> None:
        writer.update("trainer", {"trainingHash": resolved.training_hash(), **values})

    try:
        _run(resolved, env, report)
    except (SourceError, ArtefactError, ArchiveError, CryptoError, InvalidSettings, OSError) as error:
        line = " ".join(str(error).split())
        _say(f"error: {line}")
        report({"phase": "Failed", "message": line[:1000]})
        writer.flush()
        return _code(error)
    return 0 if writer.flush() else RETRY


def _code(error: Exception) -> int:
    if isinstance(error, InvalidSettings):
        return INVALID
    final = isinstance(error, Refused | NoRoom | Unverified | ArtefactError) and not isinstance(error, Untried)
    return runtime.EXIT_REFUSED if final else RETRY


def _run(resolved: ResolvedModel, env: PodEnvironment, report: Callable[[dict[str, object]], None]) -> None:
    kek = load_kek(env.required_path(runtime.KEK_FILE, "the path of the model's key-encryption key"))
    url = env.required_url(runtime.ARCHIVE_URL, "the archive's address")
    with ArchiveClient(url, env.token(), resolved.name, awaits_token=True) as archive:
        rooms = _Neighbours(archive, Keyring(kek, archive.keysets()), report)
        key = resolved.training_hash()
        name = making_reference(key)
        if (kept := archive.ref(name)) and archive.has_blob(kept["artefact"]["blob"], ref=name):
            report({"phase": "Succeeded", "message": "the archive has it already", "progress": 1.0, **kept})
            _say(f"artefact {kept['artefact']['digest']} is in the archive already")
            return
        report({"phase": "Running", "message": "fetching", "progress": 0.0})
        tree = _fetched(resolved, env, report)
        report({"phase": "Running", "message": f"trying {tree.size} bytes in {len(tree.files)} files"})
        _keep(_packed(tree, resolved, env), tree, resolved, rooms)


def _fetched(resolved: ResolvedModel, env: PodEnvironment, report: Callable[[dict[str, object]], None]) -> Tree:
    model = resolved.spec.predictor.model
    storage = model.storage
    access = Access(
        Keys(env.path(runtime.SOURCE_KEYS)),
        (storage.endpoint or "") if storage else "",
        (storage.region or "") if storage else "",
        env.path(runtime.SOURCE_CA),
    )
    files = {file.path: file.digest or "" for file in storage.files} if storage else {}
    bounds = Bounds(whole_bytes(model.room))
    folder = env.required_path(runtime.FETCH_DIR, "the folder to fetch to")
    wanted = Wanted(model.digest or "", files)
    return fetch(model.storage_uri or "", folder, access, wanted, bounds, _Told(report))


class _Told:
    """Progress in the log and the report, now and then."""

    def __init__(self, report: Callable[[dict[str, object]], None]) -> None:
        self._report, self._last = report, time.monotonic()

    def __call__(self, path: str, have: int, size: int) -> None:
        if time.monotonic() - self._last < SAID_EVERY:
            return
        self._last = time.monotonic()
        message = f"fetching {path}: {have >> 20}{f' of {size >> 20}' if size else ''} MiB"
        _say(message)
        self._report({"phase": "Running", "message": message[:1000], **({"progress": have / size} if size else {})})


def _packed(tree: Tree, resolved: ResolvedModel, env: PodEnvironment) -> bytes:
    """What was fetched is as pinned; from here on a file's own digest is what must not change."""
    base = env.path(runtime.SOURCE_DIR) or Path()
    if not tree.single and (tree.place / MANIFEST).is_file():
        return packed_import(tree.place, "", resolved, base)
    if not tree.single and is_text_folder(tree.place):
        return packed_import(tree.place, tree.digest, resolved, base)
    models = [file for file in tree.files if file.path.endswith(".onnx")]
    if tree.single:
        models = list(tree.files)
    if len(models) != 1:
        raise MalformedArtefact(
            f"{resolved.spec.predictor.model.storage_uri}: expected one ONNX file, or the folder of an artefact "
            f"({MANIFEST}), found {_listed(models) or _listed(tree.files)}; name the file in the URI or in "
            "storage.files"
        )
    path = tree.place if tree.single else tree.place / models[0].path
    return packed_import(path, f"sha256:{models[0].sha256}", resolved, base)


def _listed(files: "list[File] | tuple[File, ...]") -> str:
    shown = ", ".join(file.path for file in files[:10])
    return f"{shown} and {len(files) - 10} more" if len(files) > 10 else shown


def _keep(packed: bytes, tree: Tree, resolved: ResolvedModel, rooms: _Neighbours) -> None:
    artefact_digest, key = digest(packed), resolved.training_hash()
    blob = rooms.archive.put_blob(rooms.keyring.keyset("artefact").seal(packed, artefact_digest.encode()))
    artefact = {"digest": artefact_digest, "blob": blob, "variant": "float"}
    said = {
        "imported": resolved.spec.predictor.model.storage_uri,
        "pinned": tree.digest,
        "files": [[file.path, file.size, file.sha256] for file in tree.files[:MOST_LISTED]],
    }
    now = timestamp(time.time())
    entry = LedgerEntry(
        "artefact",
        resolved.namespace,
        resolved.name,
        artefact_digest,
        now,
        digest=artefact_digest,
        blob=blob,
        summary=dict(said),
    )
    rooms.archive.append(f"importer-{key}", [canonical(within_limit(entry))])
    rooms.archive.put_ref(artefact_reference(artefact_digest), {"blob": blob, "training": key})
    rooms.archive.put_ref(making_reference(key), {"artefact": artefact})
    message = f"{len(tree.files)} files, {tree.size} bytes, {tree.digest}"
    rooms.report({"phase": "Succeeded", "message": message, "progress": 1.0, "artefact": artefact})
    _say(f"imported as artefact {artefact_digest}: {message}")


def _say(message: str) -> None:
    print(printable(f"importer: {message}"), file=sys.stderr, flush=True)
