"""What an installation decides once for all models: images, endpoints of neighbours, sizes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from governed_api.version import __version__

REGISTRY = "ghcr.io/governed-models"


@dataclass(frozen=True)
class Images:
    """One image per role, and one of the explainer for each engine that isn't ours."""

    server: str = f"{REGISTRY}/server:{__version__}"
    explainer: str = f"{REGISTRY}/explainer:{__version__}"
    explainer_alibi: str = f"{REGISTRY}/explainer-alibi:{__version__}"
    explainer_captum: str = f"{REGISTRY}/explainer-captum:{__version__}"
    auditor: str = f"{REGISTRY}/auditor:{__version__}"
    archive: str = f"{REGISTRY}/archive:{__version__}"
    trainer: str = f"{REGISTRY}/trainer:{__version__}"


@dataclass(frozen=True)
class OperatorSettings:
    """Read from the environment of the operator (GOVERNED_OPERATOR_…), set by the chart's values."""

    images: Images = field(default_factory=Images)
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    """Whose models are looked after, with rights in these alone; empty: all."""
    archive_size: str = "10Gi"
    archive_storage_class: str | None = None
    witnesses: tuple[str, ...] = ()
    """Witnesses of every namespace's ledger: "VKEY URL" each."""
    witness_quorum: int = 0
    """How many of them must have cosigned a checkpoint; 0: all."""
    objects: str | None = None
    """s3://BUCKET/PREFIX?endpoint=URL&region=NAME for the archives' blobs, below it a prefix for each namespace;
    absent: on the archives' volumes."""
    objects_secret: str | None = None
    """Secret of each namespace with access-key-id and secret-access-key; absent: the pod's own identity."""
    objects_ca_secret: str | None = None
    """Secret of each namespace whose ca.crt the storage's certificate is checked by; absent: the image's."""
    ledger_readers: str | None = None
    """Namespace whose pods (an ingress controller's) may reach the ledgers' public port; absent: there is none."""
    api_servers: tuple[tuple[str, int], ...] = ()
    """(CIDR, port) of the API server's endpoints; empty: pods may reach 443 and 6443 anywhere."""
    metrics_namespace: str | None = None
    """Namespace whose pods may scrape the explainer and the auditor."""
    gateway: str | None = None
    """namespace/name of the Gateway that HTTPRoutes attach to; absent: no HTTPRoutes."""
    prometheus: str | None = None
    """URL that KEDA's triggers query; absent: no ScaledObjects."""
    activation_query: str | None = None
    """PromQL that is above 0 while requests for a model wait where no pod of it is needed ({namespace}, {name});
    absent: no scale to zero."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "OperatorSettings":
        """Settings with every GOVERNED_OPERATOR_… variable that is set and not empty applied."""

        def get(name: str) -> str | None:
            return environment.get(f"GOVERNED_OPERATOR_{name}") or None

        images = {f.name: get(f"IMAGE_{f.name.upper()}") for f in fields(Images)}
        servers = (s.rsplit(":", 1) for s in (get("API_SERVERS") or "").split(",") if s)
        return cls(
            images=Images(**{k: v for k, v in images.items() if v}),
            pull_policy=get("PULL_POLICY") or "IfNotPresent",
            pull_secrets=tuple(s for s in (get("PULL_SECRETS") or "").split(",") if s),
            namespaces=tuple(dict.fromkeys(n for n in (get("NAMESPACES") or "").split(",") if n)),
            archive_size=get("ARCHIVE_SIZE") or "10Gi",
            archive_storage_class=get("ARCHIVE_STORAGE_CLASS"),
            witnesses=tuple(w for w in (get("WITNESSES") or "").splitlines() if w.strip()),
            witness_quorum=int(get("WITNESS_QUORUM") or 0),
            objects=get("OBJECTS"),
            objects_secret=get("OBJECTS_SECRET"),
            objects_ca_secret=get("OBJECTS_CA_SECRET"),
            ledger_readers=get("LEDGER_READERS"),
            api_servers=tuple((cidr, int(port)) for cidr, port in servers),
            metrics_namespace=get("METRICS_NAMESPACE"),
            gateway=get("GATEWAY"),
            prometheus=get("PROMETHEUS"),
            activation_query=get("ACTIVATION_QUERY"),
        )


@dataclass(frozen=True)
class Capabilities:
    """Neighbours found in the cluster by their CRDs, and what the operator's rights reach."""

    keda: bool = False
    service_monitor: bool = False
    gateway_api: bool = False
    cluster_scoped: bool = True
    """PriorityClasses and StorageClasses; an operator of named namespaces has no right to them."""
