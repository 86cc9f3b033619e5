"""The archive's process: environment in, HTTP server out; the ledger's checkpoint goes to the GovernanceReport."""

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from governed_api import runtime
from governed_serving.archive.app import create_app
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.note import Checkpoint
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import Tokens
from governed_serving.crypto import load_kek
from governed_serving.reporting import ReportWriter

__all__ = ["serve"]

_REPORT_SECONDS = 15.0


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"level": record.levelname.lower(), "time": time, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = repr(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def serve(host: str) -> None:
    """Serve until SIGTERM; then finish what is in flight, snapshot and return. Raises KeyError, ArchiveError, CryptoError, OSError."""
    namespace = os.environ.get(runtime.NAMESPACE, "default")
    port = int(os.environ.get(runtime.HTTP_PORT, str(runtime.PORT_ARCHIVE)))
    root = Path(os.environ[runtime.ARCHIVE_ROOT_FILE]).read_bytes()
    tokens = Tokens(root, namespace)
    with closing(_listen(host, port)) as listener:
        archive = Archive(Path(os.environ[runtime.ARCHIVE_DIR]), load_kek(os.environ[runtime.KEK_FILE]), namespace)
        _log_json()
        log = logging.getLogger("governed.archive")
        log.info("archive of %s: %d entries, port %d", namespace, archive.ledger.size, port)
        app = create_app(archive, tokens, ArchiveMetrics(namespace), lambda: _report(archive))
        # uvicorn raises the signal again once it has stopped; ours has done its work by then, and the exit code is to be 0.
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: None)
        uvicorn.Server(_settings(app)).run(sockets=[listener])


def _settings(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=20,
        timeout_keep_alive=30,
        limit_concurrency=512,
    )


async def _report(archive: Archive) -> None:
    """Tell the report about the first checkpoint at once, and about later ones as often as its writer lets through."""
    url = os.environ.get(runtime.REPORT)
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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ArchiveError(
            f"port {port} can't be had ({error.strerror}): stop what holds it, or set {runtime.HTTP_PORT}"
        ) from None
    return listener


def _log_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("governed").setLevel(logging.INFO)
