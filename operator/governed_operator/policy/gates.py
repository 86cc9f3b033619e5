"""Gates in a chain, each named after its violation: the first one per condition becomes that condition."""

from collections.abc import Callable

from governed_api import conditions as c
from governed_api import object_names
from governed_api.reasons import Reason
from governed_api.storage import scheme_of
from governed_operator.desired.autoscaling import cannot_wake
from governed_operator.desired.decision import Violation
from governed_operator.desired.trainer import job_name
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import refusal, servers
from governed_operator.watch.cache import ChildKey
from governed_operator.watch.facts import FINAL, JobFacts, NeighbourFacts, PodFacts, PodProblem

Gate = Callable[[Observed], Violation | None]


def key_secret_missing(obs: Observed) -> Violation | None:
    problem = obs.outside.missing_secret
    return Violation(c.ENCRYPTION_READY, Reason.SECRET_NOT_FOUND, problem, blocking=True) if problem else None


def kek_lost(obs: Observed) -> Violation | None:
    """A key that was there and is gone must never be replaced by a fresh one: what it sealed would be lost silently."""
    ref = obs.model.spec.governance.encryption.key_ref
    sealed = obs.status.stable is not None or obs.status.artefact is not None
    if ref or not sealed or ("Secret", object_names.own_kek(obs.subject.name)) in obs.children:
        return None
    name = object_names.own_kek(obs.subject.name)
    message = f"Secret {name} is gone: restore it from a backup; without it artefact and journal can't be read"
    return Violation(c.ENCRYPTION_READY, Reason.KEY_LOST, message, blocking=True, stalled=True)


def storage_class_not_encrypted(obs: Observed) -> Violation | None:
    problem = obs.outside.unencrypted_class
    if not problem:
        return None
    return Violation(c.ENCRYPTION_READY, Reason.STORAGE_CLASS_NOT_ENCRYPTED, problem, blocking=True, stalled=True)


def cluster_rights_missing(obs: Observed) -> Violation | None:
    """quota.compute is scoped by a PriorityClass of the model's own, and those are in no namespace."""
    if not obs.model.spec.quota.compute or obs.subject.capabilities.cluster_scoped:
        return None
    message = (
        "spec.quota.compute needs a PriorityClass, which an operator of named namespaces (watch.namespaces) may not "
        "make: leave it out and limit the namespace by a ResourceQuota, or use an operator with cluster rights"
    )
    return Violation(c.QUOTA_ENFORCED, Reason.CLUSTER_RIGHTS_MISSING, message, blocking=True, stalled=True)


def source_claim_missing(obs: Observed) -> Violation | None:
    problem = obs.outside.missing_claim
    return Violation(c.READY, Reason.CLAIM_NOT_FOUND, problem, blocking=True) if problem else None


def source_secret_missing(obs: Observed) -> Violation | None:
    problem = obs.outside.missing_source
    return Violation(c.MODEL_VERIFIED, Reason.SECRET_NOT_FOUND, problem, blocking=True) if problem else None


def source_is_local(obs: Observed) -> Violation | None:
    background = obs.model.spec.explainer.background if obs.model.spec.explainer else None
    training = obs.model.spec.lifecycle.training
    uris = {
        "spec.lifecycle.training.data.uri": training.data.uri if training else None,
        "spec.predictor.model.storageUri": obs.model.spec.predictor.model.storage_uri,
        "spec.explainer.background.uri": background.uri if background else None,
    }
    for name, uri in uris.items():
        if uri and not scheme_of(uri).claim and not scheme_of(uri).remote:
            message = (
                f"{name}: {uri} works with governed run only: put the file on a volume and name it pvc://claim/path"
            )
            return Violation(c.READY, Reason.SOURCE_NOT_REACHABLE, message, blocking=True, stalled=True)
    return None


def scaled_to_zero_for_ever(obs: Observed) -> Violation | None:
    problem = cannot_wake(obs.subject)
    return Violation(c.READY, Reason.SCALE_TO_ZERO_UNAVAILABLE, problem, blocking=True) if problem else None


def report_not_readable(obs: Observed) -> Violation | None:
    return Violation(c.DEGRADED, Reason.REPORT_NOT_READABLE, obs.report_error, "True") if obs.report_error else None


def route_refused(obs: Observed) -> Violation | None:
    """Inside the cluster the model is served all the same; a canary would wait for its share for ever."""
    return _refused(obs, ("HTTPRoute", obs.subject.name))


def autoscaler_refused(obs: Observed) -> Violation | None:
    """What runs serves on, and stays as it is under any load."""
    return _refused(obs, ("ScaledObject", object_names.deployment(obs.subject.name)))


def _refused(obs: Observed, place: ChildKey) -> Violation | None:
    child = obs.children.get(place)
    if child is None or child.deleting or not isinstance(child.facts, NeighbourFacts):
        return None
    refusal = child.facts.refusal
    return Violation(c.DEGRADED, refusal.reason, refusal.message, "True") if refusal else None


def training_failed(obs: Observed) -> Violation | None:
    fetched = obs.model.spec.predictor.model.is_fetched
    if obs.model.spec.lifecycle.training is None and not fetched:
        return None
    child = obs.children.get(("Job", job_name(obs.subject)))
    trainer = obs.report.trainer if obs.report else None
    answers = trainer is not None and trainer.training_hash == obs.model.training_hash()
    said = trainer.message if trainer and answers and trainer.phase == "Failed" else ""
    if child and isinstance(child.facts, JobFacts) and child.facts.failure:
        failure = child.facts.failure
        maker, condition = ("importer", c.MODEL_VERIFIED) if fetched else ("trainer", c.TRAINING_SUCCEEDED)
        words = next((p.last_words for p in obs.pods(maker) if p.last_words), "")
        message = f"{failure.message}; the {maker}'s last words: {words}" if words else failure.message
        return Violation(condition, failure.reason, said or message, stalled=True)
    return None


def training_pod_stuck(obs: Observed) -> Violation | None:
    for maker, condition in (("trainer", c.TRAINING_SUCCEEDED), ("importer", c.MODEL_VERIFIED)):
        for pod in obs.pods(maker):
            if pod.problem:
                return _stuck(condition, pod.problem)
    return None


def archive_missing(obs: Observed) -> Violation | None:
    """It can't be made, so there is none, or none that works."""
    if obs.archive_failure is None or (obs.archive and obs.archive.available >= 1):
        return None
    return Violation(c.ARCHIVE_READY, *obs.archive_failure[:2], stalled=obs.archive_failure.stalled)


def archive_not_as_wanted(obs: Observed) -> Violation | None:
    """Pods that already run keep running."""
    if obs.archive_failure is None:
        return None
    return Violation(c.DEGRADED, *obs.archive_failure[:2], "True", stalled=obs.archive_failure.stalled)


def ledger_contradicted(obs: Observed) -> Violation | None:
    """A witness has seen another history by the same key: the archive appends nothing until a person decides."""
    told = obs.archive_report.contradiction if obs.archive_report else ""
    return Violation(c.ARCHIVE_READY, Reason.LEDGER_CONTRADICTED, told, stalled=True) if told else None


def archive_pod_stuck(obs: Observed) -> Violation | None:
    for child in obs.shared.values():
        if isinstance(child.facts, PodFacts) and child.facts.problem:
            return _stuck(c.ARCHIVE_READY, child.facts.problem)
    return None


def predictor_pod_stuck(obs: Observed) -> Violation | None:
    """Any pod that is meant to serve: any unready replica makes the service not Ready."""
    workload = obs.workload()
    late = workload.problem if workload else None
    problem = next((p.problem for p in obs.pods("predictor", "stable") if p.problem), late)
    if problem is None:
        return None
    return _stuck(c.PREDICTOR_READY, problem, overdue=late is not None and late.reason in FINAL)


def _stuck(condition: str, problem: PodProblem, overdue: bool = False) -> Violation:
    return Violation(condition, problem.reason, problem.message, stalled=overdue or problem.reason in FINAL)


def artefact_refused(obs: Observed) -> Violation | None:
    """By a pod of the stable revision: a canary that refuses is rolled back, and unmakes nothing."""
    workload = obs.workload()
    revision = workload.revision if workload else None
    if refused := refusal(obs, revision):
        return Violation(c.MODEL_VERIFIED, Reason.IMPORT_REFUSED, refused, stalled=True)
    for server in servers(obs, revision):
        if server.verified is False:
            message = server.message or "the artefact differs from its digest"
            return Violation(c.MODEL_VERIFIED, Reason.DIGEST_MISMATCH, message, stalled=True)
    return None


GATES: tuple[Gate, ...] = (
    key_secret_missing,
    kek_lost,
    storage_class_not_encrypted,
    cluster_rights_missing,
    source_claim_missing,
    source_secret_missing,
    source_is_local,
    scaled_to_zero_for_ever,
    report_not_readable,
    route_refused,
    autoscaler_refused,
    training_failed,
    training_pod_stuck,
    archive_missing,
    archive_not_as_wanted,
    archive_pod_stuck,
    ledger_contradicted,
    predictor_pod_stuck,
    artefact_refused,
)


def violations(obs: Observed) -> tuple[Violation, ...]:
    """All violations, in the order of the chain."""
    return tuple(v for gate in GATES if (v := gate(obs)) is not None)
