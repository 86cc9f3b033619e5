"""The auditor's process: wires settings, keys, journal, threads and routes together; serves; drains."""

import asyncio
from pathlib import Path

from pydantic import ValidationError

from governed_api import runtime
from governed_api.evidence import ConformalEvaluation
from governed_api.governance import Bias
from governed_api.route_roles import AUDITOR_ROLES
from governed_api.verdict import VerdictWord
from governed_serving import artefact
from governed_serving.access.document import opened
from governed_serving.access.guard import CallerGuard
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.keysets import key_watch, model_keyring, subject_keys
from governed_serving.artefact import Artefact
from governed_serving.artefact.package import EVALUATION
from governed_serving.auditor.service.app import Dependencies, application
from governed_serving.auditor.service.checks import Checks
from governed_serving.auditor.service.decision_review import DecisionReview
from governed_serving.auditor.service.decisions import Decisions
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver
from governed_serving.auditor.service.lane import Runtime, decider
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.persons import Persons
from governed_serving.auditor.service.replicas import Replicas, group_of, replica_of
from governed_serving.auditor.service.scheduling import Scheduler, Worker
from governed_serving.auditor.service.settings import AuditorSettings
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.workers.check import CheckWorker
from governed_serving.auditor.service.workers.contest import ContestWorker
from governed_serving.auditor.service.workers.exchange import ExchangeWorker
from governed_serving.auditor.service.workers.fold import FoldWorker
from governed_serving.auditor.service.workers.judge import JudgeWorker
from governed_serving.auditor.service.workers.report import ReportWorker
from governed_serving.auditor.service.workers.ship import ShipWorker, backlog
from governed_serving.crypto import CryptoError, KeyWatch, SegmentCipher, Subjects, load_kek, rotate_due
from governed_serving.durable import replace_file
from governed_serving.environment import PodEnvironment
from governed_serving.fairness.metrics.coverage import Calibration, calibration_of
from governed_serving.fairness.monitoring.reference import read
from governed_serving.hosting import Door, DoorGuard, Guard, Host, listen, log, web_server
from governed_serving.journal import Journal, JournalError
from governed_serving.pod_token import PodToken, PodTokens
from governed_serving.report.writer import ReportWriter

__all__ = ["Service", "serve"]

DRAIN_SECONDS = 20.0
EXPECTED = (ArchiveError, JournalError, CryptoError, OSError)
"""What work on archive, journal and disk must expect: it is tried again, and the pod stays ready while the archive is
unreachable."""
FIND = "find their reasons in the ledger under type deadLetter, and report them: they are a fault of this software"
LOOK = "look for them in the ledger under type unreadable, and check the disk of the spool"
_CODES: dict[VerdictWord, int] = {"Pass": 1, "Fail": 0, "Unknown": -1}


class Service:
    """Everything that lives as long as the process."""

    def __init__(self, settings: AuditorSettings) -> None:
        self.settings = settings
        self.stopping = False
        self.documents = opened(settings.resolved, "auditor", settings.callers, settings.pod_tokens.auditor)
        self.metrics = AuditorMetrics(settings.namespace, settings.model)
        self.keyring = model_keyring(
            load_kek(settings.kek_file),
            settings.spool_dir,
            settings.model,
            settings.archive_url,
            settings.archive_token,
        )
        self.keyset = self.keyring.keyset("journal")
        self.subjects = self._subjects()
        self.cipher = SegmentCipher(self.keyset, self.subjects)
        self.client = _client(settings)
        self.journal = self._journal()
        if self.journal.damage:
            log("error", self.journal.damage)
        self.keys = self._key_watch()
        self.runtime = self._runtime(settings.bias)
        self._counted(settings.bias)
        subject = Subject(settings.model, settings.revision, settings.pod, settings.on_trial)
        self.state = AuditState(subject, self.journal, self.tail)
        self.shipper = self._shipper()
        self.contests = ContestWorker(self.client, settings.contest_seconds) if self.client is not None else None
        self.replicas = self._replicas()
        self.scheduler = Scheduler(self._stages(), EXPECTED)

    def _subjects(self) -> Subjects | None:
        settings = self.settings
        if settings.resolved.spec.governance.privacy.subject is None:
            return None
        kek = load_kek(settings.kek_file)
        return subject_keys(kek, settings.spool_dir, settings.model, settings.archive_url, settings.archive_token)

    def _journal(self) -> Journal:
        settings = self.settings
        durability = settings.resolved.spec.governance.audit.durability
        stream = f"auditor-{settings.pod}"
        return Journal(settings.spool_dir, stream, self.cipher, durability, settings.spool_bytes)

    def _counted(self, bias: Bias | None) -> None:
        """Counts, and what is watched beside them; none without bias rules."""
        self.tail: Tail | None = None
        self.live: Live | None = None
        self.checks: Checks | None = None
        if bias is None:
            return
        loaded = _artefact(self.settings.model_dir)
        manifest = loaded.manifest if loaded else None
        fold = Fold(bias, self.settings.revision, manifest)
        fold.calibration = _calibration(loaded)
        self.live = Live(fold, manifest, read(loaded.reference() if loaded else {}))
        self.tail = Tail(self.settings.spool_dir, self.keyset, self.cipher, fold, self.live)
        self.checks = self._checks(fold, self.live, loaded)
        if self.tail.restarted:
            log("warning", self.tail.restarted)

    def _stages(self) -> list[list[Worker]]:
        """In the order in which they end: counts are judged when they are complete, a last verdict is shipped, then
        reported."""
        state, settings = self.state, self.settings
        shipping: list[Worker] = []
        if self.shipper is not None:
            shipping.append(ShipWorker(state, settings.spool_dir, self.shipper))
        if self.contests is not None:
            shipping.append(self.contests)
        reporting = self._reporting()
        if self.tail is None:
            return [shipping, reporting]
        checking: list[Worker] = []
        if self.live is not None and self.checks is not None:
            checking.append(CheckWorker(state, self.live, self.checks, self.replicas))
        if self.replicas is not None:
            shipping.append(ExchangeWorker(state, self.replicas, self._resolver()))
        return [checking, [FoldWorker(state)], [JudgeWorker(state, self.replicas)], shipping, reporting]

    def _reporting(self) -> list[Worker]:
        settings = self.settings
        if not settings.report:
            return []
        writer = ReportWriter(settings.report, interval=5.0 if settings.on_trial else None)
        told = (self._dead_letters, self._unreadable, self._open_contests, self._refused)
        return [ReportWorker(self.state, writer, *told)]

    def _dead_letters(self) -> int:
        return self.shipper.dead_letters if self.shipper is not None else 0

    def _open_contests(self) -> tuple[int, int]:
        return self.contests.counts if self.contests is not None else (0, 0)

    def _unreadable(self) -> int:
        return self.shipper.unreadable if self.shipper is not None else 0

    def _refused(self) -> str:
        return self.shipper.refused if self.shipper is not None else ""

    def _shipper(self) -> Shipper | None:
        settings = self.settings
        if self.client is None:
            return None
        lifetimes = None if settings.on_trial else settings.lifetimes
        return Shipper(
            settings.spool_dir,
            self.client,
            SegmentCipher(self.keyset),  # what is sealed once more is shipped as it is
            settings.namespace,
            self.state.shipped,
            on_refused=self.state.refused,
            lifetimes=lifetimes,
        )

    def dependencies(self) -> Dependencies:
        """What the routes ask."""
        client = self.client
        persons = Persons.at(self.settings.archive_url, self.settings.model) if client else None
        review = self._review(client) if client else None
        return Dependencies(
            self.state, self.journal, self.metrics, self.why_not_ready, self.degraded, self.refresh,
            self.checks, client, review,
            persons, self.settings.contest_seconds, self._decisions(client) if client else None,
            self.subjects, self.documents.gate.text if self.documents else bytes,
        )  # fmt: skip

    def guard(self, persons: Persons | None) -> DoorGuard | None:
        """Who may ask the port."""
        token = self.settings.pod_tokens.auditor
        if self.documents is None:
            return Guard.of(token, self.metrics.turned_away)
        return CallerGuard(self.documents.gate, AUDITOR_ROLES, token, persons.known if persons else None)

    def _decisions(self, client: ArchiveClient) -> Decisions:
        settings = self.settings
        about = (settings.namespace, self.state.subject, settings.contest_seconds, self.subjects)
        return Decisions(client, self.cipher, *about)

    def _review(self, client: ArchiveClient) -> DecisionReview:
        settings = self.settings
        return DecisionReview(
            client, self.cipher, settings.explainer_url, self.runtime, token=settings.pod_tokens.explainer
        )

    def _runtime(self, bias: Bias | None) -> Runtime | None:
        """Who is asked again about what was generated; None where no outcome is generated text."""
        pattern = bias.favorable_outcome.pattern if bias else None
        settings = self.settings
        if pattern is None:
            return None
        timeout = settings.resolved.spec.predictor.timeout
        return Runtime(
            settings.predictor_url, settings.model, pattern, timeout=timeout, token=settings.pod_tokens.server
        )

    def _checks(self, fold: Fold, live: Live, loaded: Artefact | None) -> Checks:
        manifest = loaded.manifest if loaded else None
        settings = self.settings
        url, token = settings.predictor_url, settings.pod_tokens.server
        decide = decider(url, settings.model, fold.bias, manifest, token) if manifest else None
        background = loaded.background() if loaded else {}
        return Checks(live, fold.protected, manifest, background, decide, self.runtime.ask if self.runtime else None)

    def _replicas(self) -> Replicas | None:
        if self.client is None or self.tail is None:
            return None
        group = group_of(self.settings.revision, self.tail.fold.rules)
        return Replicas(self.client, self.keyset, group, replica_of(self.settings.spool_dir, self.settings.pod))

    def _resolver(self) -> CrossReplicaLabelResolver | None:
        if self.client is None or self.tail is None:
            return None
        return CrossReplicaLabelResolver(self.client, self.cipher, self.tail.fold, self.tail.folded)

    def _key_watch(self) -> KeyWatch | None:
        """The stable revision's auditors add the model's new keys."""
        period = self.settings.lifetimes.keys
        if period is None:
            return None

        def rotate() -> None:
            for event in rotate_due(self.keyring, period):
                log("info", "key rotated", purpose=event.purpose, key=event.keys[0])

        return key_watch(self.keyset, period, self.journal, (lambda: None) if self.settings.on_trial else rotate)

    def why_not_ready(self) -> str:
        """An archive that is unreachable is no reason: serving goes on until the spool is full."""
        if self.stopping:
            return "the auditor is shutting down"
        folding = self.scheduler.failing.get(FoldWorker.name)
        if folding is not None:
            return folding.text
        if why := self.scheduler.why_not_ready():
            return why
        return self.journal.obstacle()

    def degraded(self) -> dict[str, str]:
        """Worker → why it stalls; and ``deadLetters`` or ``unreadable`` when the ledger lacks entries."""
        why = {name: failure.text for name, failure in self.scheduler.failing.items()}
        if count := self._dead_letters():
            why["deadLetters"] = f"the archive refused {count} ledger entries for ever; {FIND}"
        if count := self._unreadable():
            why["unreadable"] = f"{count} frames of the journal were damaged before they were shipped; {LOOK}"
        return why

    def leave(self) -> None:
        """From now on not ready."""
        self.stopping = True

    def refresh(self) -> None:
        """Bring the metrics up to date."""
        failures = self.scheduler.failures
        values: dict[str, float] = {
            "journal_backlog_bytes": backlog(self.settings.spool_dir),
            "auditor_ship_failures_total": failures.get(ShipWorker.name, 0),
            "auditor_unrecorded_verdicts_total": self.state.unrecorded,
            "auditor_contests_open": self._open_contests()[0],
            "auditor_contests_overdue": self._open_contests()[1],
        }
        self.metrics.workers(failures, self.scheduler.failing)
        if self.tail is not None:
            values |= self._counts(self.tail)
        if self.shipper is not None:
            values |= {
                "auditor_shipped_entries_total": self.shipper.entries,
                "auditor_shipped_bytes_total": self.shipper.bytes,
                "auditor_dead_letters_total": self.shipper.dead_letters,
                "auditor_unreadable_frames_total": self.shipper.unreadable,
            }
        self.metrics.set(values)

    def _counts(self, tail: Tail) -> dict[str, float]:
        """Of a model with bias rules; what has labels of its own goes to the metrics at once."""
        fold, verdict = tail.fold, self.state.verdict
        values: dict[str, float] = {
            "auditor_rows": verdict.samples,
            "auditor_replicas": 1 + len(self.replicas.tallies) if self.replicas else 1,
            "auditor_records_total": tail.records,
            "auditor_unusable_rows_total": fold.unusable,
            "auditor_labels_joined_total": fold.labels.joined,
            "auditor_labels_corrected_total": fold.labels.corrected,
            "auditor_labels_waiting": fold.labels.waiting,
            "auditor_label_memory_requests": fold.labels.remembered,
            "auditor_bias_verdict": _CODES[verdict.verdict],
        }
        self.metrics.dropped(fold.labels.dropped)
        if self.state.door is not None:
            self.metrics.refused(self.state.door.refused)
        if self.checks is not None and self.live is not None:
            self.metrics.findings(self.checks.findings, self.live.alarms.raised)
            values["auditor_flip_failures_total"] = self.checks.flip_failures
            values["auditor_flip_passed_over_total"] = self.live.conversations.passed_over
            values["auditor_flip_prompts_total"] = self.checks.flip_prompts
        self.metrics.missing(verdict.missing)
        self.metrics.bias(verdict.metrics)
        self.metrics.coverage(verdict.coverage)
        return values

    def close(self) -> None:
        """Drain: fold and ship to the end of the journal."""
        if self.keys:
            self.keys.stop()
        if self.documents is not None:
            self.documents.stop()
        self.state.stopping.set()
        self.scheduler.stop(DRAIN_SECONDS)
        self.journal.close()
        if self.client is not None:
            self.client.close()


def _artefact(folder: Path) -> Artefact | None:
    """The model's own description, for bands of numeric attributes and what training looked like; None where the model
    isn't ours."""
    return artefact.load(folder) if (folder / "model.json").is_file() else None


def _calibration(loaded: Artefact | None) -> Calibration:
    """What the artefact's sets or intervals were calibrated on; empty where it doesn't say."""
    document = loaded.document(EVALUATION) if loaded else None
    conformal = document.get("conformal") if isinstance(document, dict) else None
    try:
        return calibration_of(ConformalEvaluation.model_validate(conformal) if conformal else None)
    except ValidationError:  # of another release: Fail is then below the promise itself
        return {}


def _client(settings: AuditorSettings) -> ArchiveClient | None:
    if not settings.archive_url:
        return None
    return ArchiveClient(settings.archive_url, settings.archive_token, settings.model, patience=5.0)


def make_pod_tokens() -> None:
    """The auditor is the first of a pod's containers that stays. One that comes back takes the tokens that are there:
    the others have read them. Raises OSError."""
    folder = PodEnvironment().path(runtime.POD_TOKENS)
    if folder is None:
        return
    for path in (folder / name for name in PodTokens._fields):
        if not path.exists():
            replace_file(path, PodToken.draw(), mode=0o400, durable=False)


async def serve() -> None:
    """Runs until SIGTERM. Raises Problem, InvalidSettings, ArchiveError, CryptoError, JournalError, OSError."""
    make_pod_tokens()
    settings = AuditorSettings.from_environment()
    host = Host()
    sock = listen(settings.host, settings.port)
    service = Service(settings)
    parts = service.dependencies()
    door = Door(application(parts), guard=service.guard(parts.persons))
    service.scheduler.start()
    if service.keys:
        service.keys.start()
    log("info", "auditing", model=settings.model, port=settings.port, revision=settings.revision)
    try:
        await host.serve(web_server(door, grace=10), sock, service.leave)
    finally:
        await asyncio.to_thread(service.close)
        log("info", "stopped", shipped=service.shipper.entries if service.shipper else 0)
