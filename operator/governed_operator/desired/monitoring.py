"""ServiceMonitor, where Prometheus Operator's CRD is present."""

from governed_api import runtime as rt
from governed_api.names import LABEL_TRACK
from governed_operator.desired.inference import COMPONENT, selector
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import SERVICE_MONITOR


def service_monitor(subject: Subject) -> Manifest | None:
    """Scrapes the clients' port; the other containers listen on ports that no Service opens.

    Through the clients' Service alone: a pod that is scraped through its track's as well would count twice in every
    sum.
    """
    if not subject.capabilities.service_monitor or subject.model.spec.authenticates:
        return None  # who scrapes needs a key, and we have none to give
    return manifest(
        SERVICE_MONITOR,
        subject.name,
        subject,
        COMPONENT,
        spec={
            "selector": {
                "matchLabels": selector(subject),
                "matchExpressions": [{"key": LABEL_TRACK, "operator": "DoesNotExist"}],
            },
            "endpoints": [{"port": "http", "path": rt.METRICS_PATH, "interval": "30s"}],
        },
    )
