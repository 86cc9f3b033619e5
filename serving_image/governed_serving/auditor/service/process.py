"""The auditor's process: wires settings, keys, journal, threads and routes together; serves; drains."""

import asyncio
from pathlib import Path
from typing import Any

from governed_api.governance import Bias
from governed_serving import artefact
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.keysets import key_watch, model_keyring
from governed_serving.artefact import Artefact
from governed_serving.auditor.service.app import application
from governed_serving.auditor.service.checks import Checks
from governed_serving.auditor.service.decision_review import DecisionReview
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver
from governed_serving.auditor.service.lane import Runtime, decider
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.metrics import Metrics
from governed_serving.auditor.service.replicas import Replicas, group_of, replica_of
from governed_serving.auditor.service.settings import Settings
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.watch import Watch
from governed_serving.crypto import Keyring, Keyset, KeyWatch, SegmentCipher, load_kek, rotate_due
from governed_serving.fairness.monitoring.reference import read
from governed_serving.hosting import Door, Host, listen, log, web_server
from governed_serving.journal import Journal
from governed_serving.report.writer import ReportWriter

__all__ = ["Service", "serve"]

DRAIN_SECONDS = 20.0
_CODES = {"Pass": 1, "Fail": 0}


class Service:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = False
        self.metrics = Metrics(settings.namespace, settings.model)
        keyring = model_keyring(
            load_kek(settings.kek_file),
            settings.spool_dir,
            settings.model,
            settings.archive_url,
            settings.archive_token,
        )
        keyset = keyring.keyset("journal")
        cipher = SegmentCipher(keyset)
        audit = settings.resolved.spec.governance.audit
        self.journal = Journal(
            settings.spool_dir, f"auditor-{settings.pod}", cipher, audit.durability, settings.spool_bytes
        )
        bias = settings.bias
        loaded = _artefact(settings.model_dir)
        manifest = loaded.manifest if loaded else None
        fold = Fold(bias, settings.revision, manifest) if bias else None
        live = Live(fold, manifest, read(loaded.reference() if loaded else {})) if fold else None
        self.tail = Tail(settings.spool_dir, keyset, cipher, fold, live) if fold else None
        self.runtime = self._runtime(bias)
        self.checks = self._checks(fold, live, loaded) if fold and live else None
        if self.tail is not None and self.tail.restarted:
            log("warning", self.tail.restarted)
        self.keys = self._key_watch(keyring, keyset)
        self.client = _client(settings)
        self.shipper = (
            Shipper(
                settings.spool_dir,
                self.client,
                cipher,
                settings.namespace,
                self._shipped,
                retention=settings.retention,
                rotation=settings.rotation,
                tells=not settings.on_trial,
            )
            if self.client
            else None
        )
        self.why = DecisionReview(self.client, cipher, settings.explainer_url, self.runtime) if self.client else None
        self.watch = Watch(
            settings.model,
            settings.revision,
            settings.spool_dir,
            self.journal,
            self.tail,
            self.shipper,
            ReportWriter(settings.report, interval=5.0 if settings.on_trial else None)
            if settings.report and bias
            else None,
            pod=settings.pod,
            on_trial=settings.on_trial,
            replicas=self._replicas(keyset),
            elsewhere=self._elsewhere(cipher),
            checks=self.checks,
        )

    def _runtime(self, bias: Bias | None) -> Runtime | None:
        """Who is asked again about what was generated; None where no outcome is generated text."""
        pattern = bias.favorable_outcome.pattern if bias else None
        settings = self.settings
        if pattern is None:
            return None
        return Runtime(
            settings.predictor_url, settings.model, pattern, timeout=settings.resolved.spec.predictor.timeout
        )

    def _checks(self, fold: Fold, live: Live, loaded: Artefact | None) -> Checks:
        manifest = loaded.manifest if loaded else None
        settings = self.settings
        decide = decider(settings.predictor_url, settings.model, fold.bias, manifest) if manifest else None
        background = loaded.background() if loaded else {}
        return Checks(live, fold.protected, manifest, background, decide, self.runtime.ask if self.runtime else None)

    def _replicas(self, keyset: Keyset) -> Replicas | None:
        if self.client is None or self.tail is None:
            return None
        group = group_of(self.settings.revision, self.tail.fold.rules)
        return Replicas(self.client, keyset, group, replica_of(self.settings.spool_dir, self.settings.pod))

    def _elsewhere(self, cipher: SegmentCipher) -> CrossReplicaLabelResolver | None:
        if self.client is None or self.tail is None:
            return None
        return CrossReplicaLabelResolver(
            self.client, cipher, self.settings.revision, self.tail.fold.rows_of, self.tail.folded
        )

    def _key_watch(self, keyring: Keyring, keyset: Keyset) -> KeyWatch | None:
        """The stable revision's auditors add the model's new keys."""
        period = self.settings.rotation
        if period is None:
            return None

        def rotate() -> None:
            for event in rotate_due(keyring, period):
                log("info", "key rotated", purpose=event.purpose, key=event.keys[0])

        return key_watch(keyset, period, self.journal, (lambda: None) if self.settings.on_trial else rotate)

    def _shipped(self, record: Any, index: int) -> None:
        self.watch.shipped(record, index)

    def why_not_ready(self) -> str:
        """An archive that is away is no reason: serving goes on until the spool is full."""
        if self.stopping:
            return "the auditor is shutting down"
        if "folding" in self.watch.trouble:
            return self.watch.trouble["folding"]
        return "" if self.journal.writable else "the journal can't be written; free space on the spool volume"

    def leave(self) -> None:
        """From now on not ready."""
        self.stopping = True

    def refresh(self) -> None:
        """Bring the metrics up to date."""
        watch = self.watch
        values: dict[str, float] = {
            "journal_backlog_bytes": watch.backlog,
            "auditor_ship_failures_total": watch.ship_failures,
            "auditor_unrecorded_verdicts_total": watch.unrecorded,
        }
        if self.tail is not None:
            fold = self.tail.fold
            values |= {
                "auditor_rows": watch.verdict.samples,
                "auditor_replicas": 1 + len(watch.replicas.tallies) if watch.replicas else 1,
                "auditor_records_total": self.tail.records,
                "auditor_unusable_rows_total": fold.unusable,
                "auditor_labels_joined_total": fold.labels.joined,
                "auditor_labels_waiting": fold.labels.waiting,
                "auditor_bias_verdict": _CODES.get(watch.verdict.verdict, -1),
            }
            self.metrics.dropped(fold.labels.dropped)
            if self.checks is not None and self.tail.live is not None:
                self.metrics.findings(self.checks.findings, self.tail.live.alarms.raised)
                values["auditor_flip_failures_total"] = self.checks.flip_failures
                values["auditor_flip_passed_over_total"] = self.tail.live.conversations.passed_over
                values["auditor_flip_prompts_total"] = self.checks.flip_prompts
            self.metrics.missing(watch.verdict.missing)
            self.metrics.bias(watch.verdict.metrics)
        if self.shipper is not None:
            values |= {
                "auditor_shipped_entries_total": self.shipper.entries,
                "auditor_shipped_bytes_total": self.shipper.bytes,
            }
        self.metrics.set(values)

    def close(self) -> None:
        """Drain: fold and ship to the end of the journal."""
        if self.keys:
            self.keys.stop()
        self.watch.stop(DRAIN_SECONDS)
        self.journal.close()
        if self.client is not None:
            self.client.close()


def _artefact(folder: Path) -> Artefact | None:
    """The model's own description, for bands of numeric attributes and what training looked like; None where the model isn't ours."""
    return artefact.load(folder) if (folder / "model.json").is_file() else None


def _client(settings: Settings) -> ArchiveClient | None:
    if not settings.archive_url:
        return None
    return ArchiveClient(settings.archive_url, settings.archive_token, settings.model, patience=5.0)


async def serve() -> None:
    """Runs until SIGTERM. Raises Problem, InvalidSettings, ArchiveError, CryptoError, JournalError, OSError."""
    settings = Settings.from_environment()
    host = Host()
    sock = listen(settings.host, settings.port)
    service = Service(settings)
    app = application(
        service.watch,
        service.journal,
        service.metrics,
        service.why_not_ready,
        service.refresh,
        service.client,
        service.why,
    )
    service.watch.start()
    if service.keys:
        service.keys.start()
    log("info", "auditing", model=settings.model, port=settings.port, revision=settings.revision)
    try:
        await host.serve(web_server(Door(app), grace=10), sock, service.leave)
    finally:
        await asyncio.to_thread(service.close)
        log("info", "stopped", shipped=service.shipper.entries if service.shipper else 0)
