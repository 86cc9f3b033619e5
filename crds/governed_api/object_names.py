"""Names of the objects that derive from a model, and of those that a namespace's models share. Pure functions of the
model."""

from governed_api.model import GovernedModelSpec
from governed_api.names import ARCHIVE, component, short_hash
from governed_api.runtime import KEK_NAME, TRACK_STABLE

ARCHIVE_KEYS = f"{ARCHIVE}-keys"
"""Secret: the archive's key-encryption key and the root that tokens derive from."""
ARCHIVE_POD = f"{ARCHIVE}-0"
"""The one pod of the archive's StatefulSet."""
ARCHIVE_VOLUME = "archive"
"""The archive's volume claim template."""
ARCHIVE_CLAIM = f"{ARCHIVE_VOLUME}-{ARCHIVE_POD}"
"""PersistentVolumeClaim of that pod."""
POD_TOKENS = "pod-tokens"
"""Volume of a pod with a foreign runtime, shared by ours alone."""


def key_encryption_key(model: str, spec: GovernedModelSpec) -> tuple[str, str]:
    """(Secret, key in it) of the key-encryption key: the one that the manifest names, or the model's own."""
    ref = spec.governance.encryption.key_ref
    return (ref.secret_name, ref.key) if ref else (own_kek(model), KEK_NAME)


def own_kek(model: str) -> str:
    """Secret that is made where the manifest names none."""
    return component(model, "kek")


def tokens(model: str) -> str:
    """Secret of the bearer tokens for the archive, one for each of the model's containers."""
    return component(model, "tokens")


def operator_token(model: str) -> str:
    """Secret of the token of whoever answers for the model, which no container mounts."""
    return component(model, "operator")


def callers(model: str) -> str:
    """ConfigMap of who may call it, and Secret of the key that authenticates that document."""
    return component(model, "callers")


def account(model: str) -> str:
    """ServiceAccount of the model's pods, its Role and RoleBinding."""
    return component(model, "pods")


def deployment(model: str, track: str = TRACK_STABLE) -> str:
    """Deployment of a track; its autoscaler and disruption budget bear the same name."""
    return component(model, "predictor" if track == TRACK_STABLE else track)


def local_pod(model: str) -> str:
    """The one serving pod of a local run, where no ReplicaSet gives a name."""
    return f"{deployment(model)}-0"


def service(model: str, track: str | None = None) -> str:
    """The clients' Service, or a track's."""
    return component(model, track) if track else model


def serving_config(model: str, document: bytes) -> str:
    """ConfigMap; hashed over the content, so that a change rolls the pods."""
    return component(model, f"spec-{short_hash(document)}")


def training_config(model: str, training_hash: str) -> str:
    """ConfigMap that the trainer Job reads."""
    return component(model, f"training-{training_hash}")


def training_job(model: str, training_hash: str) -> str:
    """Job; hashed over the training spec, so that the same training is never run twice."""
    return component(model, f"train-{training_hash[:10]}")


def data_claim(model: str) -> str:
    """PersistentVolumeClaim of the trainer's data volume."""
    return component(model, "data")


def importer_policy(model: str) -> str:
    """NetworkPolicy of the importer Job's pod."""
    return component(model, "importer")


def compute_quota(model: str) -> str:
    """ResourceQuota of quota.compute."""
    return component(model, "compute")


def priority_class(namespace: str, model: str, priority: int) -> str:
    """Cluster-scoped PriorityClass that ties the model's pods to its ResourceQuota.

    At most 63 characters, since a quota's scope takes no more; the hash keeps models of different namespaces apart, and
    classes of different value, which is immutable.
    """
    told_apart = f"{namespace}/{model}/{priority}".encode()
    return f"governed-{model}-{short_hash(told_apart)}"
