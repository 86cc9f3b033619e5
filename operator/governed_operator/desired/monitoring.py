"""ServiceMonitor, where Prometheus Operator's CRD is present."""

from governed_api import runtime as rt
from governed_operator.desired.inference import COMPONENT, selector
from governed_operator.desired.manifest import Manifest, Subject, manifest


def service_monitor(subject: Subject) -> Manifest | None:
    """Scrapes the clients' port; the other containers listen on ports that no Service opens."""
    if not subject.capabilities.service_monitor:
        return None
    return manifest(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        subject.name,
        subject,
        COMPONENT,
        spec={
            "selector": {"matchLabels": selector(subject)},
            "endpoints": [{"port": "http", "path": rt.METRICS_PATH, "interval": "30s"}],
        },
    )
