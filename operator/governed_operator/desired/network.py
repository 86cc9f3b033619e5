"""NetworkPolicies: default deny by selecting the pods; clients → server, pod → archive, DNS and the API server, nothing
else."""

from urllib.parse import parse_qsl, urlsplit

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.names import ARCHIVE, LABEL_COMPONENT, LABEL_MODEL, PART_OF
from governed_api.storage import default_endpoint
from governed_operator.desired import importer
from governed_operator.desired.inference import serves_grpc
from governed_operator.desired.manifest import Manifest, Subject, manifest, shared
from governed_operator.kube.kinds import NETWORK_POLICY
from governed_operator.settings import OperatorSettings

ARCHIVE_PODS = {"app.kubernetes.io/part-of": PART_OF, LABEL_COMPONENT: "archive"}


def _ports(*ports: int, protocol: str = "TCP") -> list[Manifest]:
    return [{"port": p, "protocol": protocol} for p in ports]


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _dns() -> Manifest:
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    return {"to": [{"namespaceSelector": namespace}], "ports": _ports(53, protocol="UDP") + _ports(53)}


def _api_server(settings: OperatorSettings) -> list[Manifest]:
    if not settings.api_servers:
        return [{"ports": _ports(443, 6443)}]
    return [{"to": [{"ipBlock": {"cidr": cidr}}], "ports": _ports(port)} for cidr, port in settings.api_servers]


def _scrape(settings: OperatorSettings, *ports: int) -> list[Manifest]:
    return _from_namespace(settings.metrics_namespace, *ports)


def _from_namespace(name: str | None, *ports: int) -> list[Manifest]:
    if not name:
        return []
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    return [{"from": [{"namespaceSelector": namespace}], "ports": _ports(*ports)}]


def model_policy(subject: Subject) -> Manifest:
    """One policy for all pods of the model: the trainer listens on nothing, so the server's port opens nothing
    there."""
    egress = [
        _dns(),
        {"to": [{"podSelector": {"matchLabels": ARCHIVE_PODS}}], "ports": _ports(rt.PORT_ARCHIVE)},
        *_api_server(subject.settings),
    ]
    store = subject.model.spec.quota.store
    if store:
        egress.append({"ports": _ports(urlsplit(store).port or 6379)})
    if hooks := subject.model.spec.explainer and subject.model.spec.explainer.webhooks:
        egress.append({"ports": _ports(*sorted({_port(url) for url in hooks}))})
    return manifest(
        NETWORK_POLICY,
        subject.name,
        subject,
        "network",
        spec={
            "podSelector": {"matchLabels": {LABEL_MODEL: subject.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"ports": _ports(rt.PORT_HTTP, *([rt.PORT_GRPC] if serves_grpc(subject.model.spec) else []))},
                *_scrape(subject.settings, rt.PORT_EXPLAINER, rt.PORT_AUDITOR),
            ],
            "egress": egress,
        },
    )


def importer_policy(subject: Subject) -> Manifest | None:
    """Beside the model's: the importer's way out, by port as a NetworkPolicy knows no names. Which addresses are called
    there, the importer itself judges. A redirect leads to https, or to the same host."""
    model = subject.model.spec.predictor.model
    if not model.is_fetched:
        return None
    named = (model.storage and model.storage.endpoint) or default_endpoint(model.storage_uri or "")
    labels = {LABEL_MODEL: subject.name, LABEL_COMPONENT: importer.COMPONENT}
    return manifest(
        NETWORK_POLICY,
        object_names.importer_policy(subject.name),
        subject,
        "network",
        spec={
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Egress"],
            "egress": [_dns(), {"ports": _ports(*sorted({443, _port(named)}))}],
        },
    )


def _witnesses(settings: OperatorSettings) -> list[Manifest]:
    """By port: a NetworkPolicy knows no names. Which addresses are called there, the archive itself judges."""
    ports = {_port(witness.partition(" ")[2].strip()) for witness in settings.witnesses}
    return [{"ports": _ports(*sorted(ports))}] if ports else []


def _objects(settings: OperatorSettings) -> list[Manifest]:
    """By port as well; 443 where no endpoint is named."""
    if not settings.objects:
        return []
    endpoint = dict(parse_qsl(urlsplit(settings.objects).query)).get("endpoint", "https:")
    return [{"ports": _ports(_port(endpoint))}]


def archive_policy(namespace: str, settings: OperatorSettings) -> Manifest:
    models = {"matchExpressions": [{"key": LABEL_MODEL, "operator": "Exists"}]}
    return shared(
        NETWORK_POLICY,
        ARCHIVE,
        namespace,
        "archive",
        spec={
            "podSelector": {"matchLabels": ARCHIVE_PODS},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": models}], "ports": _ports(rt.PORT_ARCHIVE)},
                *_scrape(settings, rt.PORT_ARCHIVE),
                *_from_namespace(settings.ledger_readers, rt.PUBLIC_LEDGER_PORT),
            ],
            "egress": [_dns(), *_api_server(settings), *_witnesses(settings), *_objects(settings)],
        },
    )
