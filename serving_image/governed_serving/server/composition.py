"""From spec and settings to a data plane: the one place that knows all parts."""

from dataclasses import dataclass

from governed_api import runtime
from governed_api.governance import Audit
from governed_api.quantities import whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.archive.keysets import model_keyring
from governed_serving.artefact import Artefact, load
from governed_serving.crypto import Keyring, SegmentCipher, load_kek
from governed_serving.environment import missing
from governed_serving.journal import Journal
from governed_serving.privacy import masker
from governed_serving.server.admission import Admission
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.batch import BatchPlan
from governed_serving.server.chat import ChatGateway
from governed_serving.server.chat.attributes import Attributes
from governed_serving.server.dataplane import DataPlane, Identity
from governed_serving.server.explanation import ExplainerClient, ExplainerProxy
from governed_serving.server.masking import Masking
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.predictors import Predictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import quota_gate
from governed_serving.server.recording import Recorder
from governed_serving.server.settings import Settings

__all__ = ["Rules", "chat_gateway", "http_service", "load_artefact", "open_journal", "open_keyring"]


def load_artefact(settings: Settings, resolved: ResolvedModel) -> Artefact:
    """The verified artefact. Raises ArtefactError, InvalidSettings."""
    if settings.model_dir is None:
        raise missing(runtime.MODEL_DIR, "the folder of the artefact")
    # an imported model is packed where it is fetched: its digest is that of the file, and fetch has checked it
    expected = "" if resolved.spec.predictor.model.storage_uri else settings.artefact_digest
    return load(settings.model_dir, expected)


def open_keyring(settings: Settings, model: str) -> Keyring:
    """The model's keysets. Raises KekError, InvalidSettings, OSError."""
    if settings.kek_file is None:
        raise missing(runtime.KEK_FILE, "the key-encryption key's file")
    kek = load_kek(settings.kek_file)
    if settings.spool_dir is None:
        raise missing(runtime.SPOOL_DIR, "the spool's folder")
    return model_keyring(kek, settings.spool_dir, model, settings.archive_url, settings.archive_token)


def open_journal(settings: Settings, audit: Audit, keyring: Keyring) -> Journal:
    """The server's own stream. Raises JournalError, CryptoError, OSError, InvalidSettings."""
    if settings.spool_dir is None:
        raise missing(runtime.SPOOL_DIR, "the spool's folder, without which nothing is served")
    cipher = SegmentCipher(keyring.keyset("journal"))
    return Journal(
        settings.spool_dir, f"server-{settings.pod}", cipher, audit.durability, whole_bytes(audit.spool_size)
    )


@dataclass(frozen=True)
class Rules:
    """What the spec asks for above any kind of predictor."""

    metrics: ServerMetrics
    masking: Masking | None
    admission: Admission

    @classmethod
    def of(cls, resolved: ResolvedModel, gateway: Gateway, keyring: Keyring | None) -> "Rules":
        """Raises ValueError, CryptoError."""
        spec = resolved.spec
        gateway.metrics = metrics = ServerMetrics(resolved.namespace, resolved.name)
        masking, rules = None, spec.governance.privacy.masking
        if rules:
            made = masker(rules, keyring)
            masking, metrics.masked = Masking(made), made.counts
        quota = quota_gate(spec.quota, f"{resolved.namespace}/{resolved.name}")
        admission = Admission(gateway.refusal, metrics, quota=quota, max_concurrent=spec.quota.max_concurrent)
        return cls(metrics, masking, admission)


def _watch(metrics: ServerMetrics, journal: Journal | None) -> None:
    if journal is not None:
        text = "Bytes of this server's journal stream on disk."
        metrics.gauges["spool_bytes"] = (text, lambda: float(journal.stats.spool_bytes))


def http_service(
    settings: Settings,
    resolved: ResolvedModel,
    gateway: Gateway,
    predictor: Predictor,
    artefact: str,
    keyring: Keyring | None,
    journal: Journal | None,
) -> HttpService:
    """Everything above ``predictor``, as the spec wants it. Raises ValueError for a spec that doesn't fit the model."""
    spec, signature = resolved.spec, predictor.signature
    revision = settings.revision or "local"
    rules = Rules.of(resolved, gateway, keyring)
    fields = spec.governance.privacy.masking.fields if spec.governance.privacy.masking else ()
    recorder = Recorder(signature, resolved.name, revision, artefact) if journal else None
    codec = V2Codec(signature, resolved.name, revision)
    explainer = None
    if settings.explainer_url:
        explainer = ExplainerProxy(settings.explainer_url, resolved.name, codec, timeout=spec.predictor.timeout)
    plane = DataPlane(
        Identity(resolved.name, resolved.namespace, revision, artefact),
        predictor,
        BatchPlan(signature, rules.masking, recorder, tuple(fields)),
        rules.admission,
        rules.metrics,
        journal=journal,
        journal_policy=spec.governance.audit.failure_policy,
        timeout=spec.predictor.timeout,
        concurrency=spec.predictor.container_concurrency,
        explainer=explainer,
    )
    _watch(rules.metrics, journal)
    return HttpService(plane, codec)


def chat_gateway(
    settings: Settings, resolved: ResolvedModel, gateway: Gateway, keyring: Keyring | None, journal: Journal | None
) -> ChatGateway:
    """The way to a runtime that speaks OpenAI's protocol. Raises ValueError, CryptoError."""
    import httpx

    foreign, bias = resolved.spec.predictor.model.runtime, resolved.spec.governance.bias
    assert foreign is not None, "only a runtime speaks OpenAI's protocol"
    rules = Rules.of(resolved, gateway, keyring)
    times = httpx.Timeout(resolved.spec.predictor.timeout, connect=2.0)
    explainer = None
    if settings.explainer_url:
        explainer = ExplainerClient(settings.explainer_url, resolved.name, timeout=resolved.spec.predictor.timeout)
    made = ChatGateway(
        resolved.name,
        foreign.model or resolved.name,
        settings.revision or "local",
        httpx.AsyncClient(base_url=settings.upstream_url, timeout=times, trust_env=False),
        rules.admission,
        rules.metrics,
        masking=rules.masking,
        journal=journal,
        journal_policy=resolved.spec.governance.audit.failure_policy,
        timeout=resolved.spec.predictor.timeout,
        concurrency=resolved.spec.predictor.container_concurrency,
        explainer=explainer,
        attributes=Attributes(bias, rules.metrics) if bias else None,
    )
    _watch(rules.metrics, journal)
    gateway.extra_metrics.append(rules.metrics.text)
    return made
