"""ConfigMaps of the resolved spec: the one configuration that a model's containers read."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_operator.desired.decision import Revision
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, Manifest, Subject, manifest
from governed_operator.kube.kinds import CONFIG_MAP


def serving_config(subject: Subject, revision: Revision) -> Manifest:
    return manifest(
        CONFIG_MAP,
        object_names.serving_config(revision.model.name, revision.document),
        subject,
        "predictor",
        immutable=True,
        data={rt.SPEC_FILE: revision.document.decode()},
    )


def training_config(subject: Subject) -> Manifest:
    """What the trainer Job reads: fixed when the Job is made, as the Job's template is."""
    return manifest(
        CONFIG_MAP,
        object_names.training_config(subject.name, subject.model.training_hash()),
        subject,
        "trainer",
        annotations={ANNOTATION_CREATE_ONCE: "true"},
        immutable=True,
        data={rt.SPEC_FILE: subject.model.for_pods.document.decode()},
    )
