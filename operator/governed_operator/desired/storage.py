"""PersistentVolumeClaims: the trainer's data volume, ciphertext only (its files are sealed by our keysets)."""

from governed_api import object_names
from governed_operator.desired.canonical import canonical
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, Manifest, Subject, manifest
from governed_operator.kube.kinds import CLAIM


def data_claim(subject: Subject) -> Manifest | None:
    training = subject.model.spec.lifecycle.training
    if training is None:
        return None
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": canonical(training.volume_size)}},
    }
    storage_class = subject.model.spec.governance.encryption.storage_class_name
    if storage_class:
        spec["storageClassName"] = storage_class
    return manifest(
        CLAIM,
        object_names.data_claim(subject.name),
        subject,
        "trainer",
        annotations={ANNOTATION_CREATE_ONCE: "true"},
        spec=spec,
    )
