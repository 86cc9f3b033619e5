"""quota.compute: a ResourceQuota scoped by a PriorityClass of the model's own, so that the API server refuses more, not
only we."""

from governed_api import object_names
from governed_operator.desired.canonical import canonical
from governed_operator.desired.manifest import Manifest, Subject, manifest, model_labels
from governed_operator.desired.pod import quota_class
from governed_operator.kube.kinds import RESOURCE_QUOTA


def priority_class(subject: Subject) -> Manifest | None:
    """Cluster-scoped, so never owned: the operator removes it with the model."""
    if not subject.model.spec.quota.compute or not subject.capabilities.cluster_scoped:
        return None
    labels = {**model_labels(subject, "quota", owned=False), "governedmodels.io/namespace": subject.namespace}
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": quota_class(subject), "labels": labels},
        "value": subject.priority,
        "description": f"Pods of GovernedModel {subject.namespace}/{subject.name}; ties them to its ResourceQuota.",
    }


def resource_quota(subject: Subject) -> Manifest | None:
    compute = subject.model.spec.quota.compute
    if not compute or not subject.capabilities.cluster_scoped:
        return None
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": [quota_class(subject)]}
    return manifest(
        RESOURCE_QUOTA,
        object_names.compute_quota(subject.name),
        subject,
        "quota",
        spec={
            "hard": {f"requests.{name}": canonical(value) for name, value in sorted(compute.items())},
            "scopeSelector": {"matchExpressions": [scope]},
        },
    )
