"""The life of one server process: bind → load and verify → warm up → ready → drain → closed."""

import asyncio
import time
from typing import Any

import uvicorn

from governed_api import runtime
from governed_api.model import Runtime
from governed_api.quantities import seconds
from governed_api.resolved import ResolvedModel
from governed_serving.access.document import Documents, opened
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.keysets import key_watch
from governed_serving.artefact import TamperedArtefact
from governed_serving.crypto import Keyring, KeyWatch, Subjects
from governed_serving.environment import missing
from governed_serving.hosting import Door, Host, listen, log, start_is_over, web_server
from governed_serving.hosting.connection import BoundedConnection
from governed_serving.hosting.supervision import kept_running
from governed_serving.journal import PROBE_SECONDS, Journal
from governed_serving.server import composition
from governed_serving.server.app.connection import FastPathConnection
from governed_serving.server.app.fast_path import BodyRoom, FastPathApp
from governed_serving.server.app.internal import InternalApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.background.supervisor import Supervisor
from governed_serving.server.chat import ChatGateway
from governed_serving.server.pipeline import Pipeline
from governed_serving.server.predictors import Columns, Outputs
from governed_serving.server.predictors.loading import predictor_of
from governed_serving.server.promises import Promises
from governed_serving.server.receipts import ArchiveReceipts
from governed_serving.server.reporting import Reporting
from governed_serving.server.rows import Rows
from governed_serving.server.settings import ServerSettings

__all__ = ["Process"]


class Process:
    """``started``: reading of time.monotonic() at the process's beginning."""

    def __init__(self, settings: ServerSettings, resolved: ResolvedModel, started: float) -> None:
        self._settings, self._resolved, self._started = settings, resolved, started
        self._gateway = Gateway(resolved.name)
        self._journal: Journal | None = None
        self._keyring: Keyring | None = None
        self._keys: KeyWatch | None = None
        self._chat: ChatGateway | None = None
        self._background_process: Supervisor | None = None
        self._artefact = ""
        self._verified: bool | None = None
        self._reporting = Reporting(settings, lambda: self._gateway.metrics)
        self._rpc: Any = None
        self._receipts: ArchiveReceipts | None = None
        self._promises: Promises | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._documents: Documents | None = None
        if settings.archive_url:
            self._receipts = ArchiveReceipts(settings.archive_url, settings.archive_token, resolved.name)
        self._gateway.receipts = self._receipts

    async def run(self) -> None:
        """Until SIGTERM. Raises what keeps it from serving: Problem, InvalidSettings, ArtefactError, CryptoError,
        JournalError, ValueError, OSError."""
        settings, host = self._settings, Host()
        self._documents = self._open_gate()
        app = FastPathApp(self._gateway, application(self._gateway), settings.max_body)
        servers = {listen(settings.host, settings.http_port): self._http(app, http=FastPathConnection)}
        if settings.internal_port:
            lane = listen("127.0.0.1", settings.internal_port, runtime.INTERNAL_PORT)
            if self._resolved.spec.predictor.model.runtime is None:
                self._background_process = Supervisor(lane, self._count)
            else:
                servers[lane] = self._http(
                    InternalApp(self._gateway, settings.max_body, self._count, settings.pod_tokens.server)
                )
        if settings.grpc_port:
            await self._start_rpc(settings.grpc_port, app.room)
        for sock, server in servers.items():
            host.start(server, sock)
        loading = asyncio.create_task(self._load())
        reporting = asyncio.create_task(kept_running("reporting", self._reporting.run))
        watching = asyncio.create_task(kept_running("journal's watch", self._watch_journal))
        stopping = asyncio.create_task(host.stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        try:
            if loading.done():
                loading.result()
                await stopping
        except Exception as error:
            verified = False if isinstance(error, TamperedArtefact) else self._verified
            await asyncio.to_thread(self._reporting.say, ready=False, verified=verified, message=str(error))
            raise
        finally:
            self._gateway.why, self._gateway.leaving = "the server is shutting down", True
            for task in (loading, stopping, reporting, watching):
                task.cancel()
            await self._stop(host)

    def _open_gate(self) -> Documents | None:
        """Where the spec asks who calls. Raises InvalidSettings."""
        settings = self._settings
        documents = opened(self._resolved, "server", settings.callers, settings.pod_tokens.server)
        if documents is not None:
            self._gateway.gate = documents.gate
            self._gateway.extra_metrics.append(documents.gate.text)
        return documents

    def _http(self, app: Door, http: Any = BoundedConnection) -> uvicorn.Server:
        grace = self._resolved.spec.predictor.timeout
        return web_server(app, grace=grace, http=http, timeout_keep_alive=75, backlog=2048)

    def _count(self, name: str, number: int) -> None:
        if self._gateway.metrics is not None:
            self._gateway.metrics.count[name] += number

    async def _start_rpc(self, port: int, room: BodyRoom) -> None:
        # here, since importing grpcio takes a while
        from governed_serving.server.rpc.service import RpcServer

        self._rpc = RpcServer(self._gateway, self._settings.max_body, room)
        await self._rpc.start(self._settings.host, port)

    async def _load(self) -> None:
        """Off the loop, so that liveness answers meanwhile."""
        runtime_spec = self._resolved.spec.predictor.model.runtime
        if runtime_spec is None:
            self._gateway.service = await asyncio.to_thread(self._own)
        else:
            await self._foreign(runtime_spec)
        if self._gateway.service is not None:
            await self._gateway.service.plane.warm_up()
        if self._background_process is not None:
            self._background_process.start()
        if self._promises is not None:
            self._announcing = asyncio.create_task(kept_running("promises", self._promises.run))
        start_is_over()
        self._gateway.why = ""
        seconds = round(time.monotonic() - self._started, 3)
        log(
            "info",
            "ready",
            model=self._resolved.name,
            revision=self._settings.revision,
            artefact=self._artefact,
            seconds=seconds,
        )
        await asyncio.to_thread(self._reporting.say, ready=True, verified=self._verified)

    def _own(self) -> HttpService:
        """Verify the artefact, load the model, open the journal."""
        settings, resolved = self._settings, self._resolved
        artefact = composition.load_artefact(settings, resolved)
        self._artefact, self._verified = artefact.digest, True
        predictor = predictor_of(artefact, threads=settings.threads, seconds=resolved.spec.predictor.timeout)
        if not predictor.independence.independent:
            log("warning", "each row is computed alone: no independence shown", found=predictor.independence.first)
        self._open()
        return composition.http_service(self._pipeline(artefact.digest), resolved, predictor, self._subjects())

    def _subjects(self) -> Subjects | None:
        return composition.open_subjects(self._settings, self._resolved)

    def _pipeline(self, artefact: str = "") -> Pipeline:
        return composition.pipeline(
            self._settings,
            self._resolved,
            self._gateway,
            artefact=artefact,
            keyring=self._keyring,
            journal=self._journal,
            promises=self._promises,
        )

    async def _foreign(self, runtime_spec: Runtime) -> None:
        """Wait for the runtime, as long as it takes: its own probes decide when it has failed."""
        settings, resolved = self._settings, self._resolved
        if not settings.upstream_url:
            raise missing(runtime.UPSTREAM_URL, "the runtime's address")
        await asyncio.to_thread(self._open)
        if runtime_spec.protocol == "openai":
            from governed_serving.server.predictors.waiting import healthy

            await healthy(settings.upstream_url, runtime_spec.health_path, self._wait)
            pipeline = self._pipeline()
            self._gateway.chat = self._chat = composition.chat_gateway(pipeline, resolved, settings.upstream_url)
            self._gateway.extra_metrics.append(pipeline.metrics.text)
            return
        from governed_serving.server.predictors.waiting import connected

        name = runtime_spec.model or resolved.name
        predictor = await connected(settings.upstream_url, name, resolved.spec.predictor.timeout, self._wait)
        self._gateway.service = service = composition.http_service(
            self._pipeline(), resolved, predictor, self._subjects()
        )

        async def compute(columns: Columns) -> Outputs:
            return await predictor.predict(lambda: columns, lambda outputs: outputs, 0)

        self._gateway.rows = Rows(service.v2, predictor.signature, compute, self._count)

    def _wait(self, why: str) -> None:
        self._gateway.why = why

    async def _watch_journal(self) -> None:
        """Not ready while each request would be refused since its record can't be kept; until cancelled."""
        if self._resolved.spec.governance.audit.failure_policy == "Open":
            return
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if self._journal is None or self._gateway.why:
                continue
            obstacle = await asyncio.to_thread(self._journal.obstacle)
            if obstacle != self._gateway.stalled:
                self._gateway.stalled = obstacle
                log("error" if obstacle else "info", "not ready" if obstacle else "ready again", why=obstacle)
                await asyncio.to_thread(
                    self._reporting.say, ready=not obstacle, verified=self._verified, message=obstacle
                )

    def _open(self) -> None:
        settings, resolved = self._settings, self._resolved
        try:
            self._keyring = composition.open_keyring(settings, resolved.name)
            self._journal = composition.open_journal(settings, resolved.spec.governance.audit, self._keyring)
            self._promises = composition.open_promises(settings, resolved, self._journal, self._receipts)
            if self._journal.damage:
                log("error", self._journal.damage)
            if period := resolved.spec.governance.encryption.rotation:
                self._keys = key_watch(self._keyring.keyset("journal"), seconds(period), self._journal)
                self._keys.start()
        except ArchiveError as error:
            raise OSError(f"archive at {settings.archive_url}: {error}") from error

    async def _stop(self, host: Host) -> None:
        """Requests that still come, and those in flight, are answered and journalled; then the journal is flushed."""
        if self._documents is not None:
            self._documents.stop()
        if self._settings.drain:
            await asyncio.sleep(self._settings.drain)
        ended = [] if self._rpc is None else [self._rpc.stop(self._resolved.spec.predictor.timeout)]
        await asyncio.gather(host.drain(), *ended)
        if self._announcing is not None:
            self._announcing.cancel()
        if self._background_process is not None:
            await self._background_process.stop()
        if self._gateway.service is not None:
            await self._gateway.service.plane.close()
        if self._chat is not None:
            await self._chat.close()
        if self._receipts is not None:
            await self._receipts.close()
        if self._keys is not None:
            self._keys.stop()
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)
        log("info", "stopped")
