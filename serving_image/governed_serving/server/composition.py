"""From spec and settings to a data plane: the one place that knows all parts."""

from governed_api import runtime
from governed_api.governance import Audit
from governed_api.quantities import seconds, whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.archive.keysets import model_keyring, subject_keys
from governed_serving.artefact import Artefact, load
from governed_serving.crypto import Keyring, SegmentCipher, Subjects, load_kek
from governed_serving.environment import missing
from governed_serving.journal import Journal
from governed_serving.privacy import masker
from governed_serving.server.accounts import Accounts
from governed_serving.server.admission import Admission
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.chat import ChatGateway
from governed_serving.server.chat.attributes import Attributes
from governed_serving.server.chat.runtime import Runtime
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.explainer_client import ExplainerClient
from governed_serving.server.identity import Identity
from governed_serving.server.masking import Masking
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline, Stages
from governed_serving.server.predictors import Predictor
from governed_serving.server.promises import Promises
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import quota_gate
from governed_serving.server.receipts import Receipts
from governed_serving.server.settings import ServerSettings

__all__ = ["chat_gateway", "http_service", "load_artefact", "open_journal", "open_keyring", "open_promises", "pipeline"]


def load_artefact(settings: ServerSettings, resolved: ResolvedModel) -> Artefact:
    """The verified artefact. Raises ArtefactError, InvalidSettings."""
    if settings.model_dir is None:
        raise missing(runtime.MODEL_DIR, "the folder of the artefact")
    # a mounted model is packed in the pod: its digest is that of the file, and fetch has checked it
    expected = "" if resolved.spec.predictor.model.is_mounted else settings.artefact_digest
    return load(settings.model_dir, expected)


def open_keyring(settings: ServerSettings, model: str) -> Keyring:
    """The model's keysets. Raises KekError, InvalidSettings, OSError."""
    if settings.kek_file is None:
        raise missing(runtime.KEK_FILE, "the key-encryption key's file")
    kek = load_kek(settings.kek_file)
    if settings.spool_dir is None:
        raise missing(runtime.SPOOL_DIR, "the spool's folder")
    return model_keyring(kek, settings.spool_dir, model, settings.archive_url, settings.archive_token)


def open_subjects(settings: ServerSettings, resolved: ResolvedModel) -> Subjects | None:
    """Keys of those whom the model's requests are about; None where no input says so. Raises KekError."""
    if not resolved.spec.governance.privacy.subject or settings.kek_file is None or settings.spool_dir is None:
        return None
    kek = load_kek(settings.kek_file)
    return subject_keys(kek, settings.spool_dir, resolved.name, settings.archive_url, settings.archive_token)


def open_journal(settings: ServerSettings, audit: Audit, keyring: Keyring) -> Journal:
    """The server's own stream. Raises JournalError, CryptoError, OSError, InvalidSettings."""
    if settings.spool_dir is None:
        raise missing(runtime.SPOOL_DIR, "the spool's folder, without which nothing is served")
    cipher = SegmentCipher(keyring.keyset("journal"))
    return Journal(
        settings.spool_dir, f"server-{settings.pod}", cipher, audit.durability, whole_bytes(audit.spool_size)
    )


def open_promises(
    settings: ServerSettings, resolved: ResolvedModel, journal: Journal | None, receipts: Receipts | None
) -> Promises | None:
    """Who signs answers; None where the spec asks for no promises, or there is no ledger that could keep them."""
    rules = resolved.spec.governance.audit.promises
    if rules is None or journal is None or receipts is None:
        return None
    identity = Identity(resolved.name, resolved.namespace, settings.revision)
    return Promises(identity, journal, receipts, seconds(rules.maximum_delay), always=rules.given == "Always")


def pipeline(
    settings: ServerSettings,
    resolved: ResolvedModel,
    gateway: Gateway,
    *,
    artefact: str = "",
    keyring: Keyring | None = None,
    journal: Journal | None = None,
    promises: Promises | None = None,
) -> Pipeline:
    """What the spec asks for above any kind of payload. Raises ValueError, CryptoError."""
    spec = resolved.spec
    gateway.metrics = metrics = ServerMetrics(resolved.namespace, resolved.name)
    masking, rules = None, spec.governance.privacy.masking
    if rules:
        made = masker(rules, keyring)
        answers = rules.masks_answers(generated=spec.generates)
        masking, metrics.masked = Masking(made, requests=rules.masks_requests(), answers=answers), made.counts
        if (names := made.names) is not None:
            metrics.names = names.failures
            metrics.gauges["names_waiting"] = ("Texts that wait for the model of names.", lambda: float(names.waiting))
    if journal is not None:
        text = "Bytes of this server's journal stream on disk."
        metrics.gauges["spool_bytes"] = (text, lambda: float(journal.stats.spool_bytes))
    key = f"{resolved.namespace}/{resolved.name}"
    quota = quota_gate(spec.quota, key)
    accounts, explainer = None, None
    if gateway.gate is not None:
        accounts = Accounts(key, gateway.gate.pseudonym, metrics, spec.quota.store)
    if settings.explainer_url:
        timeout, token = spec.predictor.timeout, settings.pod_tokens.explainer
        explainer = ExplainerClient(settings.explainer_url, resolved.name, timeout=timeout, token=token)
    return Pipeline(
        Identity(resolved.name, resolved.namespace, settings.revision, artefact),
        Admission(gateway.refusal, metrics, quota=quota, max_concurrent=spec.quota.max_concurrent),
        PathRules(
            journal_policy=spec.governance.audit.failure_policy,
            timeout=spec.predictor.timeout,
            concurrency=spec.predictor.container_concurrency,
        ),
        Stages(masking=masking, journal=journal, explainer=explainer, promises=promises, accounts=accounts),
    )


def http_service(
    path: Pipeline, resolved: ResolvedModel, predictor: Predictor, subjects: Subjects | None = None
) -> HttpService:
    """Columns through ``predictor``; ``subjects``: keys of those whom requests are about. Raises ValueError for a spec
    that doesn't fit the model."""
    masking, field = resolved.spec.governance.privacy.masking, resolved.spec.governance.privacy.subject
    names = [spec.name for spec in predictor.signature.inputs]
    if field and field not in names:
        raise ValueError(
            f"governance.privacy.subject: expected an input of the model ({', '.join(names)}), found {field}"
        )
    about = (field, subjects) if field and subjects else None
    bias, fields = resolved.spec.governance.bias, masking.fields if masking else ()
    audited = [*(attribute.name for attribute in bias.protected_attributes), *bias.strata] if bias else []
    plane = DataPlane(path, predictor, masked=fields, about=about, audited=audited)
    return HttpService(plane, V2Codec(predictor.signature, path.identity.model, path.identity.revision))


def chat_gateway(path: Pipeline, resolved: ResolvedModel, upstream_url: str) -> ChatGateway:
    """Conversations with the runtime at ``upstream_url``, which speaks OpenAI's protocol. Raises PatternRefused."""
    import httpx

    foreign, bias = resolved.spec.predictor.model.runtime, resolved.spec.governance.bias
    assert foreign is not None, "only a runtime speaks OpenAI's protocol"
    times = httpx.Timeout(path.rules.timeout, connect=2.0)
    client = httpx.AsyncClient(base_url=upstream_url, timeout=times, trust_env=False)
    return ChatGateway(
        path,
        Runtime(client, foreign.model or resolved.name, path.rules.timeout),
        Attributes(bias, path.metrics) if bias else None,
        labelling=resolved.spec.governance.labelling,
    )
