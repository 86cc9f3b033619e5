"""ServiceAccount, Role, RoleBinding and the GovernanceReport that they open to the model's own pods."""

from governed_api import object_names
from governed_api.names import GROUP, REPORT_PLURAL
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import REPORT, ROLE, ROLE_BINDING, SERVICE_ACCOUNT

RBAC = "rbac.authorization.k8s.io"


def governance_report(subject: Subject) -> Manifest:
    """Made empty; the pods write its status."""
    return manifest(REPORT, subject.name, subject, "report")


def service_account(subject: Subject) -> Manifest:
    return manifest(SERVICE_ACCOUNT, object_names.account(subject.name), subject, "access")


def role(subject: Subject) -> Manifest:
    """Read and patch one report, by name."""
    rule = {
        "apiGroups": [GROUP],
        "resources": [REPORT_PLURAL, f"{REPORT_PLURAL}/status"],
        "resourceNames": [subject.name],
        "verbs": ["get", "patch"],
    }
    return manifest(ROLE, object_names.account(subject.name), subject, "access", rules=[rule])


def role_binding(subject: Subject) -> Manifest:
    name = object_names.account(subject.name)
    return manifest(
        ROLE_BINDING,
        name,
        subject,
        "access",
        roleRef={"apiGroup": RBAC, "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": subject.namespace}],
    )
