"""Cache → Observed: the only place that reads clocks and, for objects of others that a manifest names, the API
server."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from pydantic import ValidationError

from governed_api.model import CaKey, GovernedModelSpec, GovernedModelStatus
from governed_api.names import ARCHIVE
from governed_api.report import ArchiveReport, GovernanceReportStatus
from governed_api.resolved import ResolvedModel
from governed_api.storage import claim_of
from governed_operator.desired.manifest import Subject
from governed_operator.kube.cluster import Cluster
from governed_operator.kube.kinds import CLAIM, PRIORITY_CLASS, SECRET, STORAGE_CLASS, Object
from governed_operator.loop.failures import SpecNotReadable
from governed_operator.loop.policies import in_force
from governed_operator.policy.observed import Observed, Outside, Refusal
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch.cache import Cache, Child, ChildKey, ModelEntry, ModelKey
from governed_operator.watch.facts import PodFacts, PodProblem, WorkloadFacts
from governed_operator.watch.policies import Policies

PASSED_ON = ("kueue.x-k8s.io/",)
CLAIM_SECONDS = 30.0
"""How long a claim that was there is taken to be there: many models read from the same one."""
ENCRYPTED_LABEL = "governedmodels.io/encrypted"


READINGS = 2048
"""Models whose reading is kept: one is looked at several times before it changes."""


class Reading(NamedTuple):
    """A model as it is stored, taken apart."""

    entry: ModelEntry
    model: ResolvedModel
    labels: tuple[tuple[str, str], ...]
    """Those that are passed on."""
    stored: Object
    """The status, as JSON has it."""
    status: GovernedModelStatus


class Observer:
    """Takes snapshots."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        settings: OperatorSettings,
        capabilities: Capabilities,
        *,
        policies: Policies,
    ) -> None:
        self._policies = policies
        self._cluster = cluster
        self._cache = cache
        self._settings = settings
        self._capabilities = capabilities
        self._readings: dict[ModelKey, Reading] = {}
        self._claims: dict[tuple[str, str], float] = {}

    async def observe(self, key: ModelKey, entry: ModelEntry, archive_failure: Refusal | None = None) -> Observed:
        """``archive_failure``: why the namespace's archive can't be made as it should be. Raises ApiError,
        SpecNotReadable."""
        namespace, name = key
        reading = self._reading(key, entry)
        model = reading.model
        report, error = _report(self._cache.report(namespace, name))
        subject = Subject(
            model=model,
            uid=entry.uid,
            settings=self._settings,
            capabilities=self._capabilities,
            priority=await self._priority(model),
            labels=reading.labels,
        )
        return Observed(
            subject=subject,
            generation=entry.generation,
            status=reading.status,
            stored=reading.stored,
            now=datetime.now(UTC).replace(microsecond=0),
            report=report,
            report_error=error,
            archive_report=_archive_report(self._cache.report(namespace, ARCHIVE), name),
            children=self._cache.children(key),
            shared=self._cache.children((namespace, "")),
            outside=await self._outside(model),
            archive_failure=archive_failure,
            labels=dict(entry.labels),
            policies=in_force(self._policies, namespace),
        )

    def _reading(self, key: ModelKey, entry: ModelEntry) -> Reading:
        """The same for the same entry; for a generation the same model, with what was derived from it."""
        previous = self._readings.get(key)
        if previous and previous.entry is entry:
            return previous
        content: Object = msgspec.json.decode(entry.content)
        same = previous is not None and (previous.entry.generation, previous.entry.uid) == (entry.generation, entry.uid)
        labels = content["metadata"].get("labels") or {}
        if len(self._readings) >= READINGS:
            self._readings.clear()
        self._readings[key] = reading = Reading(
            entry=entry,
            model=previous.model if previous and same else _resolved(key, content["spec"]),
            labels=tuple(sorted((k, v) for k, v in labels.items() if k.startswith(PASSED_ON))),
            stored=content["status"],
            status=_status(content["status"]),
        )
        return reading

    async def _priority(self, model: ResolvedModel) -> int:
        name = model.spec.predictor.priority_class_name
        if not name or not model.spec.quota.compute or not self._capabilities.cluster_scoped:
            return 0
        priority_class = await self._cluster.get(PRIORITY_CLASS, None, name)
        return int(priority_class.get("value", 0)) if priority_class else 0

    async def _outside(self, model: ResolvedModel) -> Outside:
        encryption = model.spec.governance.encryption
        training = model.spec.lifecycle.training
        background = model.spec.explainer.background if model.spec.explainer else None
        uris = (
            training.data.uri if training else None,
            model.spec.predictor.model.storage_uri,
            background.uri if background else None,
        )
        claims = [claim for uri in uris if (claim := claim_of(uri))]
        storage = model.spec.predictor.model.storage
        if not (claims or storage or encryption.key_ref or encryption.mode == "storageClass"):
            return Outside()
        return Outside(
            missing_secret=await self._secret_problem(model),
            missing_claim=await self._claim_problem(model.namespace, claims),
            missing_source=await self._source_problem(model),
            unencrypted_class=await self._class_problem(model),
        )

    async def _secret_problem(self, model: ResolvedModel) -> str | None:
        ref = model.spec.governance.encryption.key_ref
        if ref is None:
            return None
        where = "governance.encryption.keyRef"
        return await self._named_secret_problem(where, model.namespace, ref.secret_name, ref.key)

    async def _named_secret_problem(self, where: str, namespace: str, name: str, key: str = "") -> str | None:
        """Content is read only where metadata don't show that the key is there."""
        head = await self._cluster.head(SECRET, namespace, name)
        if head is None:
            return f"{where}: there is no Secret {name} in namespace {namespace}"
        if not key or key in _keys_of(head):
            return None
        secret = await self._cluster.get(SECRET, namespace, name)
        if secret is not None and key not in (secret.get("data") or {}):
            return f"{where}: Secret {name} has no key {key}"
        return None

    async def _source_problem(self, model: ResolvedModel) -> str | None:
        storage = model.spec.predictor.model.storage
        named = {"secretRef": storage.secret_ref, "caSecretRef": storage.ca_secret_ref} if storage else {}
        for field, ref in named.items():
            if ref is None:
                continue
            where = f"predictor.model.storage.{field}"
            key = ref.key if isinstance(ref, CaKey) else ""
            if problem := await self._named_secret_problem(where, model.namespace, ref.name, key):
                return problem
        return None

    async def _claim_problem(self, namespace: str, claims: list[str]) -> str | None:
        for name in claims:
            if time.monotonic() - self._claims.get((namespace, name), float("-inf")) < CLAIM_SECONDS:
                continue
            if await self._cluster.get(CLAIM, namespace, name) is None:
                return f"pvc://{name}: there is no PersistentVolumeClaim {name} in namespace {namespace}"
            if len(self._claims) > 2048:
                self._claims.clear()
            self._claims[namespace, name] = time.monotonic()
        return None

    async def _class_problem(self, model: ResolvedModel) -> str | None:
        encryption = model.spec.governance.encryption
        if encryption.mode != "storageClass" or not encryption.storage_class_name:
            return None
        name = encryption.storage_class_name
        if not self._capabilities.cluster_scoped:
            return (
                f"an operator of named namespaces (watch.namespaces) may not look whether StorageClass {name} declares "
                "encryption; use encryption.mode envelope, or an operator with cluster rights"
            )
        storage_class = await self._cluster.get(STORAGE_CLASS, None, name)
        if storage_class is None:
            return f"governance.encryption.storageClassName: there is no StorageClass {name}"
        declared = {
            **(storage_class["metadata"].get("labels") or {}),
            **(storage_class["metadata"].get("annotations") or {}),
        }
        parameters = {k.lower(): str(v).lower() for k, v in (storage_class.get("parameters") or {}).items()}
        if declared.get(ENCRYPTED_LABEL) == "true" or parameters.get("encrypted") == "true":
            return None
        return (
            f'StorageClass {name} does not declare encryption: expected parameter encrypted: "true" '
            f'or label {ENCRYPTED_LABEL}: "true"'
        )


def _resolved(key: ModelKey, spec: Object) -> ResolvedModel:
    try:
        taken = GovernedModelSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecNotReadable(f"spec.{'.'.join(str(p) for p in first['loc'])}: {first['msg']}") from error
    return ResolvedModel(name=key[1], namespace=key[0], spec=taken)


def stored_status(entry: ModelEntry) -> GovernedModelStatus:
    """The status that a model was last seen with."""
    return _status(msgspec.json.decode(entry.content)["status"])


def _status(raw: Object) -> GovernedModelStatus:
    try:
        return GovernedModelStatus.model_validate(raw)
    except ValidationError:
        return GovernedModelStatus()  # written by another version: what is said there is found out anew


def _report(raw: Object | None) -> tuple[GovernanceReportStatus | None, str | None]:
    if not raw:
        return None, None
    try:
        return GovernanceReportStatus.model_validate(raw), None
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"GovernanceReport: {'.'.join(str(p) for p in first['loc'])}: {first['msg']}"


def recorded_words(raw: Object | None) -> dict[str, set[tuple[str, str, str]]]:
    """Of an archive's report: by model what decides of its verdicts, (revision, verdict, action in force)."""
    words: dict[str, set[tuple[str, str, str]]] = {}
    for said in ((raw or {}).get("archive") or {}).get("verdicts", ()):
        words.setdefault(said["model"], set()).add(
            (said.get("revision", ""), said.get("verdict", ""), said.get("inForce", ""))
        )
    return words


_FIGURES = frozenset({"size", "checkpoint", "rootHash", "cosigned", "verdicts", "verdictsLeftOut", "observedAt"})
"""Of an archive's report: what moves with each entry, and what is said of one model alone."""


class ArchiveStanding(NamedTuple):
    """All that the status of every model in a namespace is told of its archive: whatever of it changes is news."""

    available: bool
    problems: frozenset[PodProblem]
    said: Mapping[str, object]

    @classmethod
    def of(cls, shared: Mapping[ChildKey, Child], raw: Object | None) -> "ArchiveStanding":
        facts = [child.facts for child in shared.values()]
        reported = (raw or {}).get("archive") or {}
        return cls(
            any(isinstance(f, WorkloadFacts) and f.available for f in facts),
            frozenset(f.problem for f in facts if isinstance(f, PodFacts) and f.problem),
            {name: value for name, value in reported.items() if name not in _FIGURES},
        )


def _archive_report(raw: Object | None, model: str) -> ArchiveReport | None:
    """With the verdicts of ``model`` alone: of a namespace's many, the others are nobody's to look at here."""
    if not raw or "archive" not in raw:
        return None
    own = [v for v in raw["archive"].get("verdicts", ()) if v["model"] == model]
    try:
        return ArchiveReport.model_validate({**raw["archive"], "verdicts": own})
    except ValidationError:
        return None


def _keys_of(head: Object) -> set[str]:
    """Names of a Secret's data, as far as its managedFields tell them: whoever strips those hides some, and what a
    manager has let go of may be gone."""
    keys: set[str] = set()
    for entry in head["metadata"].get("managedFields", ()):
        for section in ("f:data", "f:stringData"):
            keys |= {name.removeprefix("f:") for name in entry.get("fieldsV1", {}).get(section) or {}}
    return keys
