"""Parts of pods: restricted security, probes, volumes, scheduling."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.model import GovernedModelSpec
from governed_api.resources import Resources
from governed_api.roles import Role, token_key
from governed_api.storage import claim_of
from governed_operator.desired.canonical import canonical
from governed_operator.desired.manifest import Manifest, Subject

USER = 65532
ACCOUNT = "account"
SOURCE = "source"
WEIGHTS = "weights"
"""The same files, for a foreign runtime."""


def security_context() -> Manifest:
    """Pod level, restricted Pod Security Standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container(name: str, image: str, command: list[str], pull_policy: str, **rest: object) -> Manifest:
    """A container that may write to its mounts alone and gains no privilege."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        **({"command": command} if command else {}),
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that a condition can tell a crash's last words
        **rest,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def python_module(*words: str) -> list[str]:
    return ["python", "-m", *words]


def http_probe(path: str, port: str, *, period: int, failures: int, timeout: int = 5) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def probes(port: str) -> Manifest:
    """Startup (2 minutes), readiness and liveness; liveness never asks for dependencies."""
    return {
        "startupProbe": http_probe(rt.LIVE_PATH, port, period=1, failures=120),
        "readinessProbe": http_probe(rt.READY_PATH, port, period=2, failures=2),
        "livenessProbe": http_probe(rt.LIVE_PATH, port, period=10, failures=3),
    }


def patient_probes(port: str, *, start: int = 300) -> Manifest:
    """Of a container that no client waits for: ``start`` seconds at least to start, and slow is not dead.

    A process that is ended since it was slow begins with all its imports again, on a node that is short of CPU; and a
    pod whose auditor isn't ready gets no requests, so an answer that is late must not count as one that is missing.
    """
    return {
        "startupProbe": http_probe(rt.LIVE_PATH, port, period=1, failures=start),
        "readinessProbe": http_probe(rt.READY_PATH, port, period=5, failures=3, timeout=10),
        "livenessProbe": http_probe(rt.LIVE_PATH, port, period=10, failures=6, timeout=10),
    }


def resources(asked: Resources, cpu: str, memory: str) -> Manifest:
    """What the manifest asks for; a request that it leaves open is its limit, or a modest default."""
    limits = dict(asked.limits)
    defaults = {"cpu": limits.get("cpu", cpu), "memory": limits.get("memory", memory)}
    out: Manifest = {"requests": {k: canonical(v) for k, v in {**defaults, **asked.requests}.items()}}
    if limits:
        out["limits"] = {k: canonical(v) for k, v in limits.items()}
    return out


def mount(name: str, path: str, *, read_only: bool = False) -> Manifest:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def memory_volume(name: str, limit: str) -> Manifest:
    """Plaintext lives only here: a volume that never touches a disk."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def account(name: str) -> Manifest:
    """A pod's identity: its token is mounted into those containers alone that write a report, and no Service's address
    is told."""
    return {"serviceAccountName": name, "automountServiceAccountToken": False, "enableServiceLinks": False}


def account_volume() -> Manifest:
    """Token, certificate authority and namespace as kubelet would mount them into every container."""
    root = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": root},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": ACCOUNT, "projected": {"defaultMode": 0o644, "sources": sources}}


def account_mount() -> Manifest:
    return mount(ACCOUNT, "/var/run/secrets/kubernetes.io/serviceaccount", read_only=True)


def secret_volume(name: str, secret: str, **more: object) -> Manifest:
    """Files that the pod's group alone reads; ``more``: of the volume's source, such as items."""
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440, **more}}


def spec_volume(config_map: str) -> Manifest:
    return {"name": "spec", "configMap": {"name": config_map}}


def keys_volume(model: str, spec: GovernedModelSpec, role: Role) -> Manifest:
    """The model's key and the token of one container, which no other one mounts."""
    secret, key = object_names.key_encryption_key(model, spec)
    return {
        "name": f"keys-{role}",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"secret": {"name": secret, "items": [{"key": key, "path": rt.KEK_NAME}]}},
                {
                    "secret": {
                        "name": object_names.tokens(model),
                        "items": [{"key": token_key(role), "path": rt.TOKEN_NAME}],
                    }
                },
            ],
        },
    }


def keys_mount(role: Role) -> Manifest:
    return mount(f"keys-{role}", rt.MOUNT_KEYS, read_only=True)


def source_volume(uri: str | None, name: str = SOURCE) -> Manifest:
    """Where a relative file: URI or pvc://claim/path is read from; the local runner puts the manifest's folder here,
    and the very files in the place of ``WEIGHTS``."""
    if claim := claim_of(uri):
        return {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def scheduling(subject: Subject) -> Manifest:
    """Node selection and priority as asked for; quota.compute needs a priority class of the model's own."""
    predictor = subject.model.spec.predictor
    out: Manifest = {}
    if predictor.node_selector:
        out["nodeSelector"] = dict(predictor.node_selector)
    if predictor.tolerations:
        out["tolerations"] = [t.plain() for t in predictor.tolerations]
    priority = quota_class(subject) if subject.model.spec.quota.compute else predictor.priority_class_name
    if priority:
        out["priorityClassName"] = priority
    if subject.settings.pull_secrets:
        out["imagePullSecrets"] = [{"name": s} for s in subject.settings.pull_secrets]
    return out


def quota_class(subject: Subject) -> str:
    return object_names.priority_class(subject.namespace, subject.name, subject.priority)
