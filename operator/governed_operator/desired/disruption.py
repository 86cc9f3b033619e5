"""PodDisruptionBudget: a drained node never takes the last replica."""

from governed_api import object_names
from governed_operator.desired.inference import COMPONENT, selector
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import BUDGET


def pod_disruption_budget(subject: Subject) -> Manifest | None:
    """None for a single replica: a budget on it would block every drain for ever."""
    if subject.model.spec.predictor.min_replicas < 2:
        return None
    return manifest(
        BUDGET,
        object_names.deployment(subject.name),
        subject,
        COMPONENT,
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(subject)},
        },
    )
