"""The archive's process: environment in, HTTP server out; the ledger's checkpoint goes to the GovernanceReport."""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.lifetimes import Lifetimes
from governed_api.names import ANNOTATION_ACCEPT_LOSS, ANNOTATION_LIFETIMES, ARCHIVE
from governed_serving.archive.app import create_app, create_public_app
from governed_serving.archive.errors import ArchiveError, Busy, LedgerDamaged
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.mirror.copying import Copying
from governed_serving.archive.mirror.manifest import RECOVERED
from governed_serving.archive.mirror.mirror import Mirror
from governed_serving.archive.service import Archive
from governed_serving.archive.store.objects import Bucket, LedgerCopy, bucket_from_environment
from governed_serving.archive.tokens import Tokens, older_until
from governed_serving.archive.witness.asking import Witnessing
from governed_serving.archive.witness.policy import WitnessPolicy
from governed_serving.crypto import CryptoError, load_kek
from governed_serving.durable import fsync_folder
from governed_serving.environment import PodEnvironment
from governed_serving.hosting import Door, Host, listen, log, web_server
from governed_serving.hosting.supervision import kept_running
from governed_serving.records import timestamp
from governed_serving.report import ReportWriter

__all__ = ["serve"]

_REPORT_SECONDS = 15.0
_INSPECTION_SECONDS = 1.0
_STORAGE_SECONDS = 10.0
_MESSAGE = 1000


@dataclass(frozen=True)
class ArchiveSettings:
    """What the archive reads before it starts. Empty ``report``: nothing is told."""

    namespace: str
    port: int
    folder: Path
    kek_file: Path
    root: bytes
    """Secret that the models' tokens derive from."""
    report: str
    public_port: int
    """For whoever watches the log from outside; 0: none."""
    witnesses: WitnessPolicy
    bucket: Bucket | None = None
    """Where blobs are; None: in the folder."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "ArchiveSettings":
        """Raises InvalidSettings."""
        env = PodEnvironment(variables)
        return cls(
            namespace=env.text(runtime.NAMESPACE, "default"),
            port=env.port(runtime.HTTP_PORT, runtime.PORT_ARCHIVE),
            folder=env.required_path(runtime.ARCHIVE_DIR, "the archive's folder"),
            kek_file=env.required_path(runtime.KEK_FILE, "the path of the archive's key-encryption key"),
            root=env.content(runtime.ARCHIVE_ROOT_FILE, "the root of the models' tokens"),
            report=env.text(runtime.REPORT),
            public_port=env.port(runtime.LEDGER_PORT, 0),
            witnesses=WitnessPolicy.from_environment(env),
            bucket=bucket_from_environment(env),
        )


async def serve(address: str, *, accept_loss: bool = False) -> None:
    """Serve on ``address`` until SIGTERM; then finish what is in flight, snapshot and return.

    A ledger that has less than was signed is refused; ``accept_loss``: it goes on, and an entry says so. Raises
    Problem, InvalidSettings, ArchiveError, CryptoError, OSError.
    """
    settings = ArchiveSettings.from_environment()
    namespace, port = settings.namespace, settings.port
    host = Host()
    with closing(listen(address, port)) as sock:
        told = await asyncio.to_thread(_told, settings)
        archive = _opened(settings, told, accept_loss=accept_loss)
        _keep(settings.folder)
        archive.lifetimes = _lifetimes(settings.report)
        copying = _copying(archive, accept_loss=accept_loss or archive.ledger.lost is not None)
        if lost := archive.ledger.lost:
            log("error", "entries were let go", signed=lost.checkpoint.size, known=lost.place)
        for what in archive.finished:
            log("warning", "finished a replacement that a kill had interrupted: its entry was written", what=what)
        witnessing = Witnessing(archive, settings.witnesses)
        await witnessing.greet(accept_loss=accept_loss or archive.ledger.lost is not None)
        if archive.witnessed.contradiction:
            log("error", "the ledger is read only: its log has two histories", what=archive.witnessed.contradiction)
        log("info", "archiving", namespace=namespace, entries=archive.ledger.size, port=port)
        tokens = _tokens(settings)
        leaving = False

        def leave() -> None:
            nonlocal leaving
            leaving = True

        def beside() -> Awaitable[None]:
            return _beside(archive, settings.report, witnessing, copying)

        metrics = ArchiveMetrics(namespace)
        app = create_app(archive, tokens, metrics, beside, lambda: leaving, copying)
        server = web_server(Door(app, most=512), grace=20, lifespan="on", timeout_keep_alive=30)
        if settings.public_port:
            public = Door(create_public_app(archive, metrics), most=128)
            host.start(web_server(public, grace=5, timeout_keep_alive=30), listen(address, settings.public_port))
        await host.serve(server, sock, leave)
        log("info", "stopped")


def _keep(folder: Path) -> None:
    """No start fills the folder anew from object storage any more: durable before anything is appended, or a loss of
    power would bring the mark back, and the next start delete what was acknowledged since."""
    if (folder / RECOVERED).exists():
        (folder / RECOVERED).unlink()
        fsync_folder(folder)


def _lifetimes(report: str) -> Callable[[str], Lifetimes | None]:
    """What the operator says of a model's in the annotation of its report; without an API server, nothing."""
    writer = ReportWriter(report) if report else None
    if writer is None or writer.local:
        return lambda _: None

    def said(model: str) -> Lifetimes:
        try:
            return Lifetimes.parse(writer.annotation(ANNOTATION_LIFETIMES, report=model))
        except (OSError, ValueError) as error:
            what = "how long a model's payloads are kept couldn't be read: what is set stays"
            log("warning", what, model=model, error=str(error))
            raise OSError(str(error)) from None

    return said


def _copying(archive: Archive, *, accept_loss: bool) -> Copying | None:
    bucket = archive.blobs.bucket
    if bucket is None or bucket.place.ledger is LedgerCopy.VOLUME:
        return None
    return Copying(archive, Mirror(archive, bucket, accept_loss=accept_loss))


def _tokens(settings: ArchiveSettings) -> Tokens:
    """Raises OSError."""
    until = older_until(settings.folder, time.time())
    taken = "are taken until" if until > time.time() else "are not taken any more since"
    log("info", f"tokens of the older form, without a role, {taken} {timestamp(until)}", until=timestamp(until))
    return Tokens(settings.root, settings.namespace, older_until=until)


def _opened(settings: ArchiveSettings, told: dict[str, str], *, accept_loss: bool) -> Archive:
    """A loss is accepted by who serves, or by an annotation of the report that names this very one: what is lost later
    has another code. Raises ArchiveError, CryptoError, OSError."""
    kek = load_kek(settings.kek_file)

    def opened(accept: bool) -> Archive:
        bucket = settings.bucket
        return Archive(settings.folder, kek, settings.namespace, told=told, accept_loss=accept, bucket=bucket)

    try:
        return opened(accept_loss)
    except LedgerDamaged as error:
        if accept_loss or not settings.report:
            raise
        code = hashlib.sha256(str(error).encode()).hexdigest()[:12]
        if _accepted(settings.report) == code:
            log("error", "the loss is accepted by an annotation of the report", code=code, error=str(error))
            return opened(True)
        command = f"kubectl annotate --overwrite greport {ARCHIVE} {ANNOTATION_ACCEPT_LOSS}={code}"
        raise LedgerDamaged(f"{error}; in a cluster: {command}", error.index) from None


def _accepted(report: str) -> str:
    """The code of the loss that a person accepts; "" for none, or where that can't be known."""
    try:
        return ReportWriter(report).annotation(ANNOTATION_ACCEPT_LOSS)
    except OSError as error:
        log("warning", "whether a loss is accepted couldn't be read in the report", error=str(error))
        return ""


async def _beside(archive: Archive, report: str, witnessing: Witnessing, copying: Copying | None) -> None:
    """What runs beside the routes. An error that a loop doesn't know is told, and ends none of them."""
    more = [kept_running("copying", copying.run)] if copying else []
    await asyncio.gather(
        kept_running("report", lambda: _report(archive, report, copying)),
        kept_running("retention and rotation", lambda: _upkeep(archive)),
        kept_running("inspection", lambda: _inspection(archive)),
        kept_running("object storage", lambda: _storage(archive)),
        kept_running("witnesses", witnessing.run),
        *more,
    )


def _told(settings: ArchiveSettings) -> dict[str, str]:
    """The checkpoint that the report has: whoever took the ledger away, or put an older one back, would have to change
    that as well. A report that can't be read doesn't keep the archive from serving: the volume has a copy. One that was
    just filled from object storage has none that proves anything: raises ArchiveError."""
    url = settings.report
    if not url:
        return {}
    try:
        note = ReportWriter(url).read("archive").get("checkpoint")
    except OSError as error:
        if (settings.folder / RECOVERED).exists():
            raise ArchiveError(
                f"the ledger came from object storage, and the checkpoint in the report that it is to be held against "
                f"couldn't be read: {error}; start again"
            ) from None
        log(
            "warning",
            "the checkpoint in the report couldn't be read: the ledger isn't held against it",
            error=str(error),
        )
        return {}
    return {"GovernanceReport": note} if isinstance(note, str) and note else {}


async def _inspection(archive: Archive) -> None:
    """Read the ledger's files again and again, a little every second; say what was made anew, and what can't be."""
    place, faults = 0, dict[int, str]()
    while True:
        while archive.ledger.said:
            log("error", "a derived file of the ledger was damaged", what=archive.ledger.said.popleft())
        for problem in set(archive.ledger.faults.values()) - set(faults.values()):
            log("error", "the ledger's log is damaged", what=problem)
        faults = dict(archive.ledger.faults)
        await asyncio.sleep(_INSPECTION_SECONDS)
        try:
            place = await asyncio.to_thread(archive.ledger.inspect, place)
        except (ArchiveError, CryptoError, OSError) as error:
            log("error", "the ledger couldn't be looked at, retrying", error=str(error))


async def _storage(archive: Archive) -> None:
    """Ask again and again whether object storage answers, and move there what is still on the volume."""
    while archive.blobs.bucket is not None:
        problem = await asyncio.to_thread(archive.blobs.bucket.problem)
        if problem != archive.blobs.away:
            log("error" if problem else "info", "object storage", problem=problem or "it answers again")
        archive.blobs.away = problem
        try:
            if not problem and (moved := await asyncio.to_thread(archive.blobs.move_out)):
                log("info", "blobs of the volume moved to object storage", blobs=moved)
                continue
        except (ArchiveError, OSError) as error:
            log("error", "blobs couldn't be moved to object storage, retrying", error=str(error))
        await asyncio.sleep(_STORAGE_SECONDS)


async def _upkeep(archive: Archive) -> None:
    """Delete payloads that are past their window, rotate keys that are due; trouble is logged, and tried again."""
    lagging = ""
    while True:
        if (said := archive.pace.problem()) != lagging and not (said and lagging):
            log("error" if said else "info", "retention's moment", problem=said or "it is that of the clock again")
            lagging = said
        try:
            if deleted := await asyncio.to_thread(archive.sweep):
                log("info", "payloads deleted under retention", blobs=deleted)
            if rotated := await asyncio.to_thread(archive.rotate):
                log("info", "keys rotated", purposes=rotated)
        except (ArchiveError, CryptoError, OSError, TimeoutError) as error:
            log("error", "retention or rotation failed, retrying", error=str(error))
        await asyncio.sleep(await asyncio.to_thread(archive.pause))


def _may_report(writer: ReportWriter, archive: Archive) -> bool:
    """Whether the report has no checkpoint over more entries than there are: it is the evidence, and stays."""
    try:
        size = writer.read("archive").get("size", 0)
    except OSError as error:
        log("warning", "the report couldn't be read, retrying", error=str(error))
        return False
    if not isinstance(size, int) or size <= archive.ledger.size or archive.ledger.lost is not None:
        return True
    log(
        "error",
        "the report has a checkpoint over more entries than the ledger",
        report=size,
        ledger=archive.ledger.size,
    )
    return False


async def _report(archive: Archive, url: str, copying: Copying | None) -> None:
    """Tell the report about the first checkpoint at once, and about later ones as often as its writer lets through."""
    if not url:
        return
    writer, told = ReportWriter(url), ""
    allowed, judged = False, frozenset[tuple[str, ...]]()
    while True:
        allowed = allowed or await asyncio.to_thread(_may_report, writer, archive)
        values = await asyncio.to_thread(_values, archive, copying) if allowed else {}
        said = repr(values)
        alarm = bool(values.get("message") or values.get("contradiction") or values.get("unstored"))
        words = _words(values)
        urgent = alarm or words != judged
        if values and said != told and await asyncio.to_thread(writer.update, "archive", values, at_once=urgent):
            told, judged = said, words
        await asyncio.sleep(_REPORT_SECONDS)


def _words(values: Mapping[str, object]) -> frozenset[tuple[str, ...]]:
    """What of the verdicts decides: a change of it goes at once."""
    verdicts = values.get("verdicts")
    names = ("model", "revision", "verdict", "inForce")
    told = verdicts if isinstance(verdicts, list) else []
    return frozenset(tuple(str(v.get(name, "")) for name in names) for v in told if isinstance(v, dict))


def _values(archive: Archive, copying: Copying | None) -> dict[str, object]:
    """The archive's section of the report; None takes a field away."""
    unstored = (copying.problem[:_MESSAGE] if copying else "") or None
    try:
        note = archive.show()
    except Busy:
        return {"unstored": unstored}
    checkpoint = Checkpoint.unverified(note)
    witnessed = archive.witnessed
    told = [*archive.ledger.faults.values(), *filter(None, [archive.pace.problem()])]
    return {
        "size": checkpoint.size,
        "checkpoint": note,
        "rootHash": base64.b64encode(checkpoint.root).decode(),
        "message": "; ".join(told)[:_MESSAGE] or None,
        "cosigned": witnessed.size or None,
        "lagging": witnessed.lagging[:_MESSAGE] or None,
        "contradiction": witnessed.contradiction[:_MESSAGE] or None,
        "unstored": unstored,
        **_verdicts(archive, checkpoint.size),
    }


def _verdicts(archive: Archive, size: int) -> dict[str, object]:
    """The newest verdicts under the checkpoint; nothing new of them while the ledger can't be read."""
    try:
        newest = archive.verdicts.newest(size)
    except (ArchiveError, OSError) as error:
        log("error", "the ledger's verdicts couldn't be read, retrying", error=str(error))
        return {}
    left_out = archive.verdicts.left_out or None
    return {"verdicts": [verdict.plain() for verdict in newest], "verdictsLeftOut": left_out}
