"""From spec and settings to a data plane: the one place that knows all parts."""

from governed_api.governance import Audit
from governed_api.resolved import ResolvedModel
from governed_serving.artefact import Artefact, load
from governed_serving.crypto import Keyring, SegmentCipher, load_kek
from governed_serving.journal import Journal
from governed_serving.server.admission import Admission
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.batch import BatchPlan
from governed_serving.server.dataplane import DataPlane, Identity
from governed_serving.server.explanation import ExplainerProxy
from governed_serving.server.keys import keyset_store
from governed_serving.server.masking import Masking
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.predictors import Predictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import quota_gate
from governed_serving.server.recording import Recorder
from governed_serving.server.settings import InvalidSettings, Settings
from governed_serving.server.text_masker import text_masker

__all__ = ["http_service", "load_artefact", "open_journal", "open_keyring"]


def load_artefact(settings: Settings, resolved: ResolvedModel) -> Artefact:
    """The verified artefact. Raises ArtefactError, InvalidSettings."""
    if settings.model_dir is None:
        raise InvalidSettings("GOVERNED_MODEL_DIR: expected the folder of the artefact, found nothing; set it")
    # an imported model is packed where it is fetched: its digest is that of the file, and fetch has checked it
    expected = "" if resolved.spec.predictor.model.storage_uri else settings.artefact_digest
    return load(settings.model_dir, expected)


def open_keyring(settings: Settings, model: str) -> Keyring:
    """The model's keysets. Raises KekError, InvalidSettings."""
    if settings.kek_file is None:
        raise InvalidSettings("GOVERNED_KEK_FILE: expected the key-encryption key's file, found nothing; set it")
    return Keyring(load_kek(settings.kek_file), keyset_store(settings, model))


def open_journal(settings: Settings, audit: Audit, keyring: Keyring) -> Journal:
    """The server's own stream. Raises JournalError, CryptoError, OSError, InvalidSettings."""
    if settings.spool_dir is None:
        raise InvalidSettings(
            "GOVERNED_SPOOL_DIR: expected the spool's folder, found nothing; set it: nothing is served unrecorded"
        )
    size = int(audit.spool_size[:-2]) * (2**20 if audit.spool_size.endswith("Mi") else 2**30)
    cipher = SegmentCipher(keyring.keyset("journal"))
    return Journal(settings.spool_dir, f"server-{settings.pod}", cipher, audit.durability, size)


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
    identity = Identity(resolved.name, resolved.namespace, revision, artefact)
    metrics = ServerMetrics(resolved.namespace, resolved.name)
    rules = spec.governance.privacy.masking
    masking = None
    if rules:
        masker = text_masker(rules, keyring)
        masking, metrics.masked = Masking(masker, rules.failure_policy), masker.counts
    recorder = Recorder(signature, resolved.name, revision, artefact) if journal else None
    plan = BatchPlan(signature, masking, recorder, tuple(rules.fields) if rules else ())
    quota = quota_gate(spec.quota, f"{resolved.namespace}/{resolved.name}")
    admission = Admission(lambda: gateway.why, metrics, quota=quota, max_concurrent=spec.quota.max_concurrent)
    codec = V2Codec(signature, resolved.name, revision)
    explainer = None
    if settings.explainer_url:
        explainer = ExplainerProxy(settings.explainer_url, resolved.name, codec, timeout=spec.predictor.timeout)
    plane = DataPlane(
        identity,
        predictor,
        plan,
        admission,
        metrics,
        journal=journal,
        journal_policy=spec.governance.audit.failure_policy,
        timeout=spec.predictor.timeout,
        concurrency=spec.predictor.container_concurrency,
        explainer=explainer,
    )
    if journal is not None:
        metrics.gauges["spool_bytes"] = (
            "Bytes of this server's journal stream on disk.",
            lambda: float(journal.stats.spool_bytes),
        )
    return HttpService(plane, codec)
