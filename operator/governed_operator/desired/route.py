"""HTTPRoute (Gateway API): canary by weight, where the CRD and a Gateway are present.

What the CRD would default is written out: its lists are owned whole, and a filled-in field would look like drift.
"""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.runtime import TRACK_CANARY, TRACK_STABLE
from governed_operator.desired.decision import Decision
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import ROUTE

GROUP = "gateway.networking.k8s.io"


def shares(decision: Decision) -> dict[str, int]:
    """Percent by track. A backend without a pod that answers costs its share in refused requests, so a canary has none
    until one does."""
    if decision.canary is None or not decision.canary_serves:
        return {TRACK_STABLE: 100}
    if decision.stable_gone:
        return {TRACK_CANARY: 100}
    return {TRACK_STABLE: 100 - decision.canary.percent, TRACK_CANARY: decision.canary.percent}


def http_route(subject: Subject, decision: Decision) -> Manifest | None:
    if not (subject.settings.gateway and subject.capabilities.gateway_api):
        return None
    namespace, name = subject.settings.gateway.split("/", 1)
    backends = [
        {
            "group": "",
            "kind": "Service",
            "name": object_names.service(subject.name, track),
            "port": rt.PORT_HTTP,
            "weight": weight,
        }
        for track, weight in shares(decision).items()
    ]
    prefix = f"/{subject.namespace}/{subject.name}/"
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
    }
    return manifest(
        ROUTE,
        subject.name,
        subject,
        "predictor",
        spec={
            "parentRefs": [{"group": GROUP, "kind": "Gateway", "name": name, "namespace": namespace}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                    "filters": [rewrite],
                    "backendRefs": backends,
                }
            ],
        },
    )
