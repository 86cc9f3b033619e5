"""Services: one for clients, and one per track where an HTTPRoute shares the traffic."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.names import LABEL_TRACK
from governed_api.runtime import TRACK_CANARY, TRACK_STABLE
from governed_operator.desired.inference import selector, serves_grpc
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import SERVICE


def service_url(subject: Subject) -> str:
    """Address inside the cluster."""
    return f"http://{object_names.service(subject.name)}.{subject.namespace}.svc:{rt.PORT_HTTP}"


def service(subject: Subject, track: str | None = None) -> Manifest:
    ports: list[Manifest] = [{"name": "http", "port": rt.PORT_HTTP, "targetPort": "http", "protocol": "TCP"}]
    if serves_grpc(subject.model.spec):
        own = {"name": "grpc", "port": rt.PORT_GRPC, "targetPort": "grpc", "protocol": "TCP"}
        ports.append({**own, "appProtocol": "kubernetes.io/h2c"})
    out = manifest(
        SERVICE,
        object_names.service(subject.name, track),
        subject,
        "predictor",
        spec={"selector": selector(subject, track), "ports": ports},
    )
    out["metadata"]["labels"] |= {LABEL_TRACK: track} if track else {}
    return out


def services(subject: Subject, *, canary: bool) -> list[Manifest]:
    """The clients' Service selects all tracks, so that shares follow replicas where no Gateway is."""
    out = [service(subject)]
    if subject.settings.gateway and subject.capabilities.gateway_api:
        out += [service(subject, track) for track in (TRACK_STABLE, TRACK_CANARY) if canary or track == TRACK_STABLE]
    return out
