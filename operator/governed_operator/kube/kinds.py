"""The kinds that the operator owns or looks at."""

from dataclasses import dataclass
from typing import Any

from governed_api.names import (
    API_VERSION,
    CLUSTER_POLICY_KIND,
    CLUSTER_POLICY_PLURAL,
    CONSUMER_KIND,
    CONSUMER_PLURAL,
    KIND,
    PLURAL,
    POLICY_KIND,
    POLICY_PLURAL,
    REPORT_KIND,
    REPORT_PLURAL,
)

Object = dict[str, Any]
"""An object of Kubernetes, or a part of one, as JSON has it."""


@dataclass(frozen=True)
class Kind:
    """How a kind is addressed."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    capability: str = ""
    """Name of the Capabilities flag without which the kind isn't watched."""
    metadata_only: bool = False
    """Lists, watches and what was written are asked for without content: it is nothing that the operator must know."""

    @property
    def root(self) -> str:
        return f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = f"/{name}" if name else ""
        return f"{self.root}{scope}/{self.plural}{tail}" + (f"/{subresource}" if subresource else "")


MODEL = Kind(API_VERSION, KIND, PLURAL)
REPORT = Kind(API_VERSION, REPORT_KIND, REPORT_PLURAL)
CONSUMER = Kind(API_VERSION, CONSUMER_KIND, CONSUMER_PLURAL)
POLICY = Kind(API_VERSION, POLICY_KIND, POLICY_PLURAL)
CLUSTER_POLICY = Kind(API_VERSION, CLUSTER_POLICY_KIND, CLUSTER_POLICY_PLURAL, namespaced=False)
SECRET = Kind("v1", "Secret", "secrets", metadata_only=True)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
POD = Kind("v1", "Pod", "pods")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
JOB = Kind("batch/v1", "Job", "jobs")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
PRIORITY_CLASS = Kind(
    "scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", namespaced=False, capability="cluster_scoped"
)
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", capability="keda")
ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", capability="gateway_api")
SERVICE_MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", capability="service_monitor")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

OWNED = (
    REPORT, SECRET, CONFIG_MAP, SERVICE, SERVICE_ACCOUNT, CLAIM, RESOURCE_QUOTA, DEPLOYMENT, STATEFUL_SET, JOB, AUTOSCALER,  # noqa: E501
    BUDGET, NETWORK_POLICY, ROLE, ROLE_BINDING, PRIORITY_CLASS, SCALED_OBJECT, ROUTE, SERVICE_MONITOR,
)  # fmt: skip
"""Applied, watched by label, pruned."""

WATCHED = (*OWNED, POD)
BY_NAME = {k.kind: k for k in (*WATCHED, MODEL, CONSUMER, STORAGE_CLASS, EVENT, LEASE)}
