"""Everything that should exist for one model, in the order of application."""

import math
from collections.abc import Iterable

from governed_api.runtime import TRACK_CANARY, TRACK_STABLE
from governed_operator.desired import (
    access,
    archive,
    autoscaling,
    disruption,
    importer,
    inference,
    keys,
    monitoring,
    network,
    quota,
    route,
    service,
    specification,
    storage,
    trainer,
)
from governed_operator.desired.decision import Decision
from governed_operator.desired.manifest import Manifest, Subject
from governed_operator.settings import OperatorSettings


def archive_objects(namespace: str, settings: OperatorSettings) -> list[Manifest]:
    """The namespace's archive: shared by its models, owned by none."""
    return [
        archive.archive_keys(namespace),
        *archive.archive_access(namespace),
        network.archive_policy(namespace, settings),
        archive.archive_service(namespace, settings),
        archive.archive_stateful_set(namespace, settings),
    ]


def model_objects(subject: Subject, decision: Decision) -> list[Manifest]:
    """The model's own objects."""
    wanted: list[Manifest | None] = [
        access.governance_report(subject),
        None if decision.key_lost else keys.model_kek(subject),
        keys.model_tokens(subject),
        keys.callers_key(subject),
        keys.operator_token(subject),
        quota.priority_class(subject),
        quota.resource_quota(subject),
        storage.data_claim(subject),
    ]
    if not decision.stopped:
        role = access.role(subject, earlier=decision.withheld and decision.held)
        wanted += [access.service_account(subject), role, access.role_binding(subject)]
        wanted += [network.model_policy(subject), network.importer_policy(subject)]
        if decision.train:
            wanted += [specification.training_config(subject), trainer.trainer_job(subject)]
            wanted += [importer.importer_job(subject)]
        if decision.stable or decision.held:
            wanted += _serving(subject, decision)
    return [m for m in wanted if m is not None]


def _serving(subject: Subject, decision: Decision) -> Iterable[Manifest | None]:
    stable, canary = decision.stable, decision.canary
    configs = [specification.serving_config(subject, r) for r in (stable, canary) if r]
    yield from {c["metadata"]["name"]: c for c in configs}.values()
    predictor = subject.model.spec.predictor
    fixed = None if autoscaling.automatic(predictor) else predictor.min_replicas
    yield from service.services(subject, canary=canary is not None)
    if stable:
        yield inference.deployment(subject, stable, TRACK_STABLE, fixed)
    if canary:
        yield inference.deployment(
            subject, canary, TRACK_CANARY, canary_replicas(predictor.min_replicas, canary.percent)
        )
    yield autoscaling.horizontal_pod_autoscaler(subject)
    yield autoscaling.scaled_object(subject)
    yield disruption.pod_disruption_budget(subject)
    yield route.http_route(subject, decision)
    yield monitoring.service_monitor(subject)


def canary_replicas(stable: int, percent: int) -> int:
    """Fewest pods that give the canary at least its share beside ``stable`` pods: c/(c+s) ≥ percent/100."""
    return max(1, math.ceil(max(stable, 1) * percent / (100 - percent)))


def objects(subject: Subject, decision: Decision) -> list[Manifest]:
    """All objects, the archive's first."""
    return [*archive_objects(subject.namespace, subject.settings), *model_objects(subject, decision)]
