"""HorizontalPodAutoscaler, or a KEDA ScaledObject where KEDA is present and the metric calls for it."""

from governed_api.model import Predictor
from governed_operator.desired.inference import COMPONENT, deployment_name
from governed_operator.desired.manifest import Manifest, Subject, manifest

METRICS = {"concurrency": "governed_requests_in_flight", "rps": "governed_requests_per_second"}
QUERIES = {
    "concurrency": 'sum(governed_requests_in_flight{{namespace="{namespace}",name="{name}"}})',
    "rps": 'sum(rate(governed_requests_total{{namespace="{namespace}",name="{name}"}}[1m]))',
}


def automatic(predictor: Predictor) -> bool:
    """True when an autoscaler owns the replicas."""
    return predictor.max_replicas > predictor.min_replicas


def by_keda(subject: Subject) -> bool:
    predictor = subject.model.spec.predictor
    available = subject.capabilities.keda and bool(subject.settings.prometheus)
    return automatic(predictor) and available and predictor.scale_metric in QUERIES


def horizontal_pod_autoscaler(subject: Subject) -> Manifest | None:
    predictor = subject.model.spec.predictor
    if not automatic(predictor) or by_keda(subject):
        return None
    return manifest(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        deployment_name(subject.name),
        subject,
        COMPONENT,
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment_name(subject.name)},
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
    query = QUERIES[predictor.scale_metric].format(namespace=subject.namespace, name=subject.name)
    trigger = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": subject.settings.prometheus,
            "query": query,
            "threshold": str(predictor.scale_target),
        },
    }
    return manifest(
        "keda.sh/v1alpha1",
        "ScaledObject",
        deployment_name(subject.name),
        subject,
        COMPONENT,
        spec={
            "scaleTargetRef": {"name": deployment_name(subject.name)},
            "minReplicaCount": predictor.min_replicas,
            "maxReplicaCount": predictor.max_replicas,
            "triggers": [trigger],
        },
    )
