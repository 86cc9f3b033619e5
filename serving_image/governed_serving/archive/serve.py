"""The archive's process: environment in, HTTP server out; the ledger's checkpoint goes to the GovernanceReport."""

import asyncio
import base64
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_serving.archive.app import create_app
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import Tokens
from governed_serving.crypto import CryptoError, load_kek
from governed_serving.environment import PodEnvironment
from governed_serving.hosting import Door, Host, listen, log, web_server
from governed_serving.report import ReportWriter

__all__ = ["serve"]

_REPORT_SECONDS = 15.0


@dataclass(frozen=True)
class Settings:
    """What the archive reads before it starts. Empty ``report``: nothing is told."""

    namespace: str
    port: int
    folder: Path
    kek_file: Path
    root: bytes
    """Secret that the models' tokens derive from."""
    report: str

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "Settings":
        """Raises InvalidSettings."""
        env = PodEnvironment(variables)
        return cls(
            namespace=env.text(runtime.NAMESPACE, "default"),
            port=env.port(runtime.HTTP_PORT, runtime.PORT_ARCHIVE),
            folder=env.required_path(runtime.ARCHIVE_DIR, "the archive's folder"),
            kek_file=env.required_path(runtime.KEK_FILE, "the path of the archive's key-encryption key"),
            root=env.content(runtime.ARCHIVE_ROOT_FILE, "the root of the models' tokens"),
            report=env.text(runtime.REPORT),
        )


async def serve(address: str) -> None:
    """Serve on ``address`` until SIGTERM; then finish what is in flight, snapshot and return.

    Raises Problem, InvalidSettings, ArchiveError, CryptoError, OSError.
    """
    settings = Settings.from_environment()
    namespace, port = settings.namespace, settings.port
    tokens = Tokens(settings.root, namespace)
    host = Host()
    with closing(listen(address, port)) as sock:
        archive = Archive(settings.folder, load_kek(settings.kek_file), namespace)
        for what in archive.finished:
            log("warning", "finished a replacement that a kill had interrupted: its entry was written", what=what)
        log("info", "archiving", namespace=namespace, entries=archive.ledger.size, port=port)
        leaving = False

        def leave() -> None:
            nonlocal leaving
            leaving = True

        app = create_app(
            archive, tokens, ArchiveMetrics(namespace), lambda: _beside(archive, settings.report), lambda: leaving
        )
        server = web_server(Door(app), grace=20, lifespan="on", timeout_keep_alive=30, limit_concurrency=512)
        await host.serve(server, sock, leave)
        log("info", "stopped")


async def _beside(archive: Archive, report: str) -> None:
    """What runs beside the routes."""
    await asyncio.gather(_report(archive, report), _upkeep(archive))


async def _upkeep(archive: Archive) -> None:
    """Delete payloads that are past their window, rotate keys that are due; trouble is logged, and tried again."""
    while True:
        try:
            if deleted := await asyncio.to_thread(archive.sweep):
                log("info", "payloads deleted under retention", blobs=deleted)
            if rotated := await asyncio.to_thread(archive.rotate):
                log("info", "keys rotated", purposes=rotated)
        except (ArchiveError, CryptoError, OSError, TimeoutError) as error:
            log("error", "retention or rotation failed, retrying", error=str(error))
        await asyncio.sleep(await asyncio.to_thread(archive.pause))


async def _report(archive: Archive, url: str) -> None:
    """Tell the report about the first checkpoint at once, and about later ones as often as its writer lets through."""
    if not url:
        return
    writer, told = ReportWriter(url), -1
    while True:
        if archive.ledger.size != told:
            note = await asyncio.to_thread(archive.ledger.checkpoint)
            checkpoint = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
            values = {
                "size": checkpoint.size,
                "checkpoint": note,
                "rootHash": base64.b64encode(checkpoint.root).decode(),
            }
            if await asyncio.to_thread(writer.update, "archive", values):
                told = checkpoint.size
        await asyncio.sleep(_REPORT_SECONDS)
