"""ServiceAccount, Role, RoleBinding and the GovernanceReport that they open to the model's own pods."""

from governed_api import object_names
from governed_api.lifetimes import Lifetimes
from governed_api.names import ANNOTATION_LIFETIMES, GROUP, REPORT_PLURAL
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import REPORT, ROLE, ROLE_BINDING, SERVICE_ACCOUNT

RBAC = "rbac.authorization.k8s.io"


def governance_report(subject: Subject) -> Manifest:
    """Made empty; the pods write its status. Its annotation, which they may not write, is what the archive goes by."""
    lifetimes = {ANNOTATION_LIFETIMES: Lifetimes.of(subject.model.spec).annotation()}
    return manifest(REPORT, subject.name, subject, "report", annotations=lifetimes)


def service_account(subject: Subject) -> Manifest:
    return manifest(SERVICE_ACCOUNT, object_names.account(subject.name), subject, "access")


def role(subject: Subject, *, earlier: bool = False) -> Manifest:
    """Read one report, by name, and patch its status; and hear who may call, where callers must be known.

    ``earlier``: pods of an earlier spec serve, which may have asked who calls.
    """
    rules = report_rules(subject.name)
    if earlier or subject.model.spec.authenticates:
        name = object_names.callers(subject.name)
        verbs = ["get", "list", "watch"]
        rules.append({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": verbs})
    return manifest(ROLE, object_names.account(subject.name), subject, "access", rules=rules)


def report_rules(name: str) -> list[Manifest]:
    """For whoever writes a report: its status alone; what the operator and persons say in its metadata stays theirs."""
    rule: Manifest = {"apiGroups": [GROUP], "resourceNames": [name]}
    return [
        rule | {"resources": [REPORT_PLURAL], "verbs": ["get"]},
        rule | {"resources": [f"{REPORT_PLURAL}/status"], "verbs": ["get", "patch"]},
    ]


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
