"""The frame of every manifest: kind, name, labels, owner."""

from dataclasses import dataclass, field

from governed_api.names import API_VERSION, FIELD_MANAGER, GROUP, KIND, LABEL_COMPONENT, LABEL_MODEL, PART_OF
from governed_api.resolved import ResolvedModel
from governed_operator.kube.kinds import Kind, Object
from governed_operator.settings import Capabilities, OperatorSettings

Manifest = Object

ANNOTATION_CREATE_ONCE = f"{GROUP}/create-once"
"""Made when absent, never changed after: keys, and Jobs, whose template is immutable."""
ANNOTATION_GENERATE = f"{GROUP}/generate"
"""Which keys a Secret's data consists of; they are drawn when it is made."""


@dataclass(frozen=True)
class Subject:
    """The model that objects are built for, with what the builders may know of its surroundings."""

    model: ResolvedModel
    uid: str = ""
    """Of the GovernedModel; empty outside a cluster: no owner references."""
    settings: OperatorSettings = field(default_factory=OperatorSettings)
    capabilities: Capabilities = field(default_factory=Capabilities)
    priority: int = 0
    """Value of spec.predictor.priorityClassName, for the class that scopes quota.compute."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels of the GovernedModel that pods inherit (kueue.x-k8s.io/…)."""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def namespace(self) -> str:
        return self.model.namespace


def common_labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
        LABEL_COMPONENT: component,
    }


def model_labels(subject: Subject, component: str, *, owned: bool = True) -> dict[str, str]:
    """Without an owner no instance label: Argo CD's label tracking would take the object for one of an application
    that bears the model's name, and prune it (gitops-engine: managed = tracking label and no owner reference)."""
    instance = {"app.kubernetes.io/instance": subject.name} if owned else {}
    return {**instance, **common_labels(component), LABEL_MODEL: subject.name}


def owner(subject: Subject) -> list[Manifest]:
    if not subject.uid:
        return []
    return [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": subject.name,
            "uid": subject.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def manifest(
    kind: Kind,
    name: str,
    subject: Subject,
    component: str,
    *,
    owned: bool = True,
    annotations: dict[str, str] | None = None,
    **body: object,
) -> Manifest:
    """A namespaced object of the model; ``owned=False`` for what must outlive it."""
    labels = model_labels(subject, component, owned=owned)
    metadata: Manifest = {"name": name, "namespace": subject.namespace, "labels": labels}
    if annotations:
        metadata["annotations"] = annotations
    owners = owner(subject) if owned else []
    if owners:
        metadata["ownerReferences"] = owners
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}


def shared(
    kind: Kind,
    name: str,
    namespace: str,
    component: str,
    *,
    annotations: dict[str, str] | None = None,
    **body: object,
) -> Manifest:
    """An object that all models of a namespace share, owned by none of them."""
    metadata: Manifest = {"name": name, "namespace": namespace, "labels": common_labels(component)}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}
