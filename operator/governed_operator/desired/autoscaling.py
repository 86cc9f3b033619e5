"""HorizontalPodAutoscaler, or a KEDA ScaledObject where KEDA is present and the metric calls for it."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.model import Predictor
from governed_operator.desired.inference import COMPONENT
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import AUTOSCALER, SCALED_OBJECT

METRICS = {"concurrency": rt.METRIC_IN_FLIGHT, "rps": rt.METRIC_RATE}
QUERIES = {
    "concurrency": f'sum({rt.METRIC_IN_FLIGHT}{{namespace="{{namespace}}",name="{{name}}"}})',
    "rps": f'sum(rate({rt.METRIC_REQUESTS}{{namespace="{{namespace}}",name="{{name}}"}}[1m]))',
}
NEVER = "1000000"
"""Threshold of a trigger that only wakes: it never asks for a second replica."""


def automatic(predictor: Predictor) -> bool:
    """True when an autoscaler owns the replicas."""
    return predictor.max_replicas > predictor.min_replicas


def by_keda(subject: Subject) -> bool:
    predictor = subject.model.spec.predictor
    available = subject.capabilities.keda and bool(subject.settings.prometheus)
    return automatic(predictor) and available and predictor.scale_metric in QUERIES


def cannot_wake(subject: Subject) -> str | None:
    """Why a model scaled to zero would never serve again: pods that don't run report no request."""
    predictor = subject.model.spec.predictor
    if predictor.min_replicas > 0:
        return None
    missing = [
        what
        for there, what in (
            (subject.capabilities.keda, "KEDA"),
            (subject.settings.prometheus, "Prometheus URL (chart value prometheusUrl)"),
            (
                subject.settings.activation_query,
                "query of requests that wait at the gateway (chart value activationQuery)",
            ),
        )
        if not there
    ]
    if not missing:
        return None
    return (
        f"spec.predictor.minReplicas: 0 needs KEDA and something that wakes the model, found no {' and no '.join(missing)}; "  # noqa: E501
        "set minReplicas to 1 or more, or have the operator's installation provide it"
    )


def horizontal_pod_autoscaler(subject: Subject) -> Manifest | None:
    predictor = subject.model.spec.predictor
    if not automatic(predictor) or by_keda(subject):
        return None
    return manifest(
        AUTOSCALER,
        object_names.deployment(subject.name),
        subject,
        COMPONENT,
        spec={
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": object_names.deployment(subject.name),
            },
            "minReplicas": max(predictor.min_replicas, 1),
            "maxReplicas": predictor.max_replicas,
            "metrics": [_metric(predictor)],
        },
    )


def _metric(predictor: Predictor) -> Manifest:
    """The server's own share for cpu and memory: other containers' requests must not dilute it."""
    if predictor.scale_metric in METRICS:
        target = {"type": "AverageValue", "averageValue": str(predictor.scale_target)}
        return {"type": "Pods", "pods": {"metric": {"name": METRICS[predictor.scale_metric]}, "target": target}}
    target = {"type": "Utilization", "averageUtilization": predictor.scale_target}  # type: ignore[dict-item]
    resource = {"name": predictor.scale_metric, "container": "server", "target": target}
    return {"type": "ContainerResource", "containerResource": resource}


def scaled_object(subject: Subject) -> Manifest | None:
    if not by_keda(subject):
        return None
    predictor = subject.model.spec.predictor
    triggers = [_trigger(subject, QUERIES[predictor.scale_metric], str(predictor.scale_target))]
    if predictor.min_replicas == 0 and subject.settings.activation_query:
        triggers.append(_trigger(subject, subject.settings.activation_query, NEVER, activationThreshold="0"))
    return manifest(
        SCALED_OBJECT,
        object_names.deployment(subject.name),
        subject,
        COMPONENT,
        spec={
            "scaleTargetRef": {"name": object_names.deployment(subject.name)},
            "minReplicaCount": predictor.min_replicas,
            "maxReplicaCount": predictor.max_replicas,
            "triggers": triggers,
        },
    )


def _trigger(subject: Subject, query: str, threshold: str, **more: str) -> Manifest:
    """``{namespace}`` and ``{name}`` in a query are the model's; other braces are PromQL's."""
    query = query.replace("{namespace}", subject.namespace).replace("{name}", subject.name)
    metadata = {"serverAddress": subject.settings.prometheus, "query": query, "threshold": threshold, **more}
    return {"type": "prometheus", "metricType": "AverageValue", "metadata": metadata}
