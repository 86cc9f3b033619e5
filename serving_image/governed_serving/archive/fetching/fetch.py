"""The init container: the artefact by digest, from the archive or from spec.predictor.model.storageUri, verified and
unpacked.

Plaintext is written to GOVERNED_MODEL_DIR only, which is backed by memory, and only after every digest was right.
"""

from pathlib import Path

from governed_api import runtime
from governed_api.resolved import ResolvedModel
from governed_api.storage import claim_of, file_of
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused, Unverified
from governed_serving.archive.fetching.imported import packed_import, verified_tree
from governed_serving.artefact import ArtefactError, MalformedArtefact, TamperedArtefact, Untried, load, write
from governed_serving.crypto import Keyring, Tampered, load_kek
from governed_serving.environment import PodEnvironment
from governed_serving.records import artefact_reference
from governed_serving.report.writer import ReportWriter, of_pod

__all__ = ["fetch", "final"]


def fetch() -> str:
    """Bring the artefact into GOVERNED_MODEL_DIR and say what was done.

    Raises InvalidSettings, ArchiveError, ArtefactError, CryptoError, OSError: nothing is served then.
    """
    env = PodEnvironment()
    resolved = env.model()
    imported = resolved.spec.predictor.model.is_mounted
    try:
        return _fetched(resolved, env)
    except Untried as error:
        _report_refused({"ready": False, "refused": False, "message": str(error)}, env)
        raise
    except (Unverified, TamperedArtefact) as error:  # another file may be put in its place
        _report_refused({"ready": False, "refused": False, "verified": False, "message": str(error)}, env)
        raise
    except MalformedArtefact as error:
        _report_refused({"ready": False, "refused": imported, "message": str(error)}, env)
        raise


def final(error: Exception) -> bool:
    """Whether asking again is useless: what :func:`fetch` raised is true of the very bytes at storageUri, or it is a
    person's own file, who sits before it."""
    model = PodEnvironment().model().spec.predictor.model
    if not model.is_mounted:
        return False
    if not claim_of(model.storage_uri) and isinstance(error, Untried | FileNotFoundError):
        return True
    return isinstance(error, Unverified | TamperedArtefact | MalformedArtefact) and not isinstance(error, Untried)


def _report_refused(told: dict[str, object], env: PodEnvironment) -> None:
    """In the server's place, which never starts: what was brought is not what was asked for, or can't be served."""
    if url := env.text(runtime.REPORT):
        own = of_pod(env.text(runtime.REVISION), "server", env.text(runtime.POD_NAME))
        ReportWriter(url).update(own, told)


def _fetched(resolved: ResolvedModel, env: PodEnvironment) -> str:
    target = env.required_path(runtime.MODEL_DIR, "the folder to write the artefact to")
    source = resolved.spec.predictor.model.storage_uri
    if source and resolved.spec.predictor.model.is_mounted:
        expected = resolved.spec.predictor.model.digest or ""
        base = env.path(runtime.SOURCE_DIR) or Path()
        path = source_path(source, base)
        if not path.exists():
            where = "correct the path" if claim_of(source) else "a relative path begins at the manifest's folder"
            raise FileNotFoundError(f"{source}: expected a file or folder at {path}, found none: {where}")
        if resolved.spec.predictor.model.runtime is not None:
            return _weights(path, expected, source)
        write(packed_import(path, expected, resolved, base), target)
        return f"{path.name} ({expected}) is verified and in {target}"
    digest = env.required(runtime.ARTEFACT_DIGEST, "the artefact's digest")
    if _already(target, digest):
        return f"artefact {digest} is already in {target}, verified"
    url = env.required_url(runtime.ARCHIVE_URL, "the archive's address")
    kek_file = env.required_path(runtime.KEK_FILE, "the path of the model's key-encryption key")
    with ArchiveClient(url, env.token(), resolved.name, patience=120.0) as client:
        write(download(client, digest, kek_file), target, digest)
    return f"artefact {digest} is verified and in {target}"


def _weights(path: Path, expected: str, source: str) -> str:
    """A foreign runtime's: it reads them where they lie. Raises Unverified, MalformedArtefact."""
    try:
        tree = verified_tree(path, expected, source)
    except Unverified as error:
        raise Unverified(f"{error}: the runtime doesn't start") from None
    return f"{len(tree.files)} files of {source}, {tree.size >> 20} MiB ({expected}), are verified"


def download(client: ArchiveClient, digest: str, kek_file: Path) -> bytes:
    """The packed artefact with SHA-256 ``digest`` (``sha256:…``), opened with the model's artefact keyset.

    Raises :class:`Refused` when the archive has none, :class:`Unverified` when the archive's bytes are not what was
    sealed.
    """
    name = artefact_reference(digest)
    pointer = client.ref(name)
    if pointer is None:
        raise Refused(404, f"the archive knows no artefact {digest} of {client.model}: has its training succeeded?")
    keyset = Keyring(load_kek(kek_file), client.keysets()).keyset("artefact", create=False)
    try:
        return keyset.open(client.get_blob(pointer["blob"], ref=name), digest.encode())
    except Tampered as error:
        raise Unverified(f"artefact {digest}: {error}; it is not served") from None


def source_path(uri: str, base: Path) -> Path:
    """Where it lies: below ``base`` (GOVERNED_SAMPLES_DIR) unless absolute. Raises Unverified for a path out of its
    claim."""
    try:
        return file_of(uri, base)
    except ValueError as error:
        raise Unverified(str(error)) from None


def _already(target: Path, digest: str) -> bool:
    try:
        return load(target, digest).digest.removeprefix("sha256:") == digest.removeprefix("sha256:")
    except (ArtefactError, OSError):
        return False
