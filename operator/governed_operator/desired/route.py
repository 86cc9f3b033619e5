"""HTTPRoute (Gateway API): canary by weight, where the CRD and a Gateway are present."""

from governed_api import runtime as rt
from governed_operator.decision import Decision
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.desired.service import service_name
from governed_operator.desired.track import CANARY, STABLE


def http_route(subject: Subject, decision: Decision) -> Manifest | None:
    if not (subject.settings.gateway and subject.capabilities.gateway_api):
        return None
    namespace, name = subject.settings.gateway.split("/", 1)
    shares = [(STABLE, 100 - (decision.canary.percent if decision.canary else 0))]
    if decision.canary:
        shares.append((CANARY, decision.canary.percent))
    backends = [
        {"name": service_name(subject.name, track), "port": rt.PORT_HTTP, "weight": weight} for track, weight in shares
    ]
    prefix = f"/{subject.namespace}/{subject.name}/"
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }
    return manifest(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        subject.name,
        subject,
        "predictor",
        spec={
            "parentRefs": [{"name": name, "namespace": namespace}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                    "filters": [rewrite],
                    "backendRefs": backends,
                }
            ],
        },
    )
