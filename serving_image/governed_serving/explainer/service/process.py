"""The explainer's process: wires settings, keys, journal and engine together, serves, drains."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from governed_api.governance import Explainer
from governed_api.quantities import seconds, whole_bytes
from governed_api.route_roles import EXPLAINER_ROLES
from governed_serving.access.document import opened
from governed_serving.access.guard import CallerGuard
from governed_serving.archive.keysets import key_watch, model_keyring
from governed_serving.blackbox.client import PredictorClient
from governed_serving.crypto import SegmentCipher, load_kek
from governed_serving.explainer.engines.alibi import alibi_methods, alibi_overall, alibi_worker
from governed_serving.explainer.engines.captum import captum_methods, captum_worker
from governed_serving.explainer.engines.worker import Bounds, Worker
from governed_serving.explainer.service.app import Dependencies, Explanations, application
from governed_serving.explainer.service.engine import Engine, Limits
from governed_serving.explainer.service.jobs import JobQueue, JobStore
from governed_serving.explainer.service.lanes import Lane
from governed_serving.explainer.service.language import MAX_ROWS_PER_CALL, completions_in, language_model
from governed_serving.explainer.service.live import LiveSampler, SampledStreams, requests_in
from governed_serving.explainer.service.methods import LANGUAGE_METHODS, METHODS, Method
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.explainer.service.overview import Overall
from governed_serving.explainer.service.recorder import ExplanationRecorder
from governed_serving.explainer.service.settings import ExplainerSettings
from governed_serving.explainer.service.watch import Counted, Watch
from governed_serving.explainer.service.webhooks import Poster
from governed_serving.explainer.text.completion import CompletionScorer
from governed_serving.hosting import Door, DoorGuard, Guard, Host, listen, log, web_server
from governed_serving.hosting.supervision import kept_running
from governed_serving.journal import Journal, JournalReader, streams

__all__ = ["engine_bounds", "serve"]

OURS = 384 << 20
"""Bytes of the container's memory that stay the explainer's own beside another's engine."""
ENGINE_LEAST = 512 << 20
"""Bytes without which an engine can't load its libraries and explain anything."""
TIMEOUT_SHARE = 0.8
"""Of the predictor's timeout: the time that an explanation of a language model gets where nothing else bounds it."""


class _Service:
    """Everything that lives as long as the process."""

    def __init__(self, settings: ExplainerSettings) -> None:
        self.settings = settings
        spec, config = settings.resolved.spec, settings.explainer.config
        runtime_spec = spec.predictor.model.runtime
        # a mounted model is packed in the pod: its digest is that of the file, and fetch has checked it
        expected = "" if spec.predictor.model.is_mounted else settings.artefact_digest
        self.model = (
            ExplainedModel.read(settings.model_dir, expected, config.groups, config.background_rows, settings.protected)
            if runtime_spec is None
            else language_model(settings.model, runtime_spec)
        )
        self.keyset = model_keyring(
            load_kek(settings.kek_file),
            settings.spool_dir,
            settings.model,
            settings.archive_url,
            settings.archive_token,
        ).keyset("journal")
        self.cipher = SegmentCipher(self.keyset)
        self.metrics = ExplainerMetrics(settings.resolved.namespace, settings.model)
        self.documents = opened(settings.resolved, "explainer", settings.callers, settings.pod_tokens.explainer)
        self.journal = Journal(
            settings.spool_dir,
            f"explainer-{settings.pod}",
            self.cipher,
            spec.governance.audit.durability,
            settings.spool_bytes,
        )
        if self.journal.damage:
            log("error", self.journal.damage)
        lost = (
            None if spec.governance.audit.failure_policy == "Closed" else lambda: self.metrics.dropped("unrecorded", 1)
        )
        period = spec.governance.encryption.rotation
        self.keys = key_watch(self.keyset, seconds(period), self.journal) if period else None
        self.recorder = ExplanationRecorder(self.journal, settings.model, settings.revision, lost=lost)
        self.predictor = PredictorClient(
            settings.predictor_url, settings.model, self.model.output, token=settings.pod_tokens.server
        )
        self.foreign: Worker | None = None
        self.overall: Overall | None = None
        self.engine = self._engine()
        self.lane, self.slow = Lane("request", 2, 64), Lane("slow", 1, 8)
        kept = settings.spool_dir / "explanations"
        counted = Counted(config.scale, config.hierarchy)
        self.watch = Watch(
            self.model.players(None).names, self.recorder, self.metrics, kept, self.keyset, counted=counted
        )
        self.explanations = Explanations(
            self.engine,
            self.recorder,
            self.metrics,
            self.lane,
            observe=self.watch.observe,
            overall=self.overall,
        )
        store = JobStore(kept, self.keyset)
        self.jobs = JobQueue(store, self._work, Poster())
        self.stopping = False

    def _engine(self) -> Engine:
        spec = self.settings.resolved.spec
        if spec.predictor.model.runtime is None:
            engine = Engine(self.model, self.predictor, self.settings.explainer, methods=self._methods())
            engine.check()
            return engine
        return Engine(
            self.model,
            CompletionScorer(self.predictor.json),
            self.settings.explainer,
            limits=Limits(MAX_ROWS_PER_CALL, spec.predictor.timeout * 1000 * TIMEOUT_SHARE),
            methods=LANGUAGE_METHODS,
        )

    def _methods(self) -> Mapping[str, Method]:
        """Of the engine that the manifest names; another's environment must be there from the start."""
        if self.model.manifest.text is not None:
            return LANGUAGE_METHODS
        settings, ended = self.settings, self.metrics.engine_ended
        bounds = engine_bounds(settings.explainer)
        if settings.explainer.engine == "alibi":
            self.foreign = alibi_worker(settings.alibi_python, bounds, ended)
            self.overall = alibi_overall(self.foreign)
            return alibi_methods(self.foreign)
        if settings.explainer.engine == "captum":
            self.foreign = captum_worker(settings.captum_python, bounds, ended)
            return captum_methods(self.foreign, self.model)
        return METHODS

    def why_not_ready(self) -> str:
        if self.stopping:
            return "the explainer is shutting down"
        return self.journal.obstacle()

    def leave(self) -> None:
        """From now on not ready; what is in flight finishes."""
        self.stopping = True

    def guard(self) -> DoorGuard | None:
        """Who may ask the port."""
        token = self.settings.pod_tokens.explainer
        if self.documents is None:
            return Guard.of(token, lambda: self.metrics.refused(401))
        return CallerGuard(self.documents.gate, EXPLAINER_ROLES, token)

    def sampler(self) -> LiveSampler:
        spool, share = self.settings.spool_dir, self.settings.explainer.sampling
        foreign = self.settings.resolved.spec.predictor.model.runtime is not None
        return LiveSampler(
            SampledStreams(
                lambda: streams(spool),
                lambda name: JournalReader(spool, name, self.cipher),
                spool / "cursors" / "explainer",
            ),
            (lambda frame: completions_in(frame, share))
            if foreign
            else (lambda frame: requests_in(frame, self.model.features, share)),
            self.explanations.compute,
            self.slow,
            self.metrics,
        )

    async def _work(self, body: bytes, request_id: str) -> bytes:
        return await self.explanations.explain(body, request_id, self.slow)

    def close(self) -> None:
        if self.keys:
            self.keys.stop()
        if self.documents is not None:
            self.documents.stop()
        if self.foreign:
            self.foreign.close()  # first: what waits for it is answered at once
        self.lane.close()
        self.slow.close()
        self.watch.save()
        self.journal.close()
        self.predictor.close()


def engine_bounds(explainer: Explainer) -> Bounds:
    """Of another's engine: of the container's memory what we don't need."""
    usual, limit = Bounds(), explainer.resources.limits.get("memory")
    if limit is None:
        return usual
    return replace(usual, memory=min(usual.memory, max(ENGINE_LEAST, whole_bytes(limit) - OURS)))


async def serve() -> None:
    """Runs until SIGTERM. Raises Problem, InvalidSettings, ExplainerError, ArchiveError, CryptoError, JournalError,
    OSError."""
    settings = ExplainerSettings.from_environment()
    host = Host()
    sock = listen(settings.host, settings.port)
    service = _Service(settings)
    app = application(
        Dependencies(
            service.explanations,
            service.jobs,
            service.why_not_ready,
            service.slow,
            webhooks=tuple(settings.explainer.webhooks),
            importances=service.watch.importances,
            quality=service.watch.windows.report,
            access_metrics=service.documents.gate.text if service.documents else bytes,
        )
    )
    if service.keys:
        service.keys.start()
    lives = {"jobs": service.jobs.run, "webhooks": service.jobs.run_deliveries}
    if settings.explainer.sampling > 0:
        lives["sampling"] = service.sampler().run
    tasks = [asyncio.create_task(kept_running(name, run)) for name, run in lives.items()]
    log(
        "info",
        "explaining",
        model=settings.model,
        port=settings.port,
        restored_jobs=service.jobs.restored,
        digests=service.engine.digests(),
    )
    door = Door(app, lambda: service.metrics.refused(500), guard=service.guard())
    try:
        await host.serve(web_server(door, grace=20), sock, service.leave)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        service.close()
        log("info", "stopped")
