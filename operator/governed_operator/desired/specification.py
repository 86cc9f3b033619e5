"""ConfigMaps of the resolved spec: the one configuration that a model's containers read."""

from governed_api import runtime as rt
from governed_api.names import component, short_hash
from governed_api.resolved import ResolvedModel
from governed_operator.desired.decision import Revision
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, Manifest, Subject, manifest


def serving_name(revision: Revision) -> str:
    """Name hashed over the content, so that a change rolls the pods."""
    return component(revision.model.name, f"spec-{short_hash(revision.document)}")


def training_name(model: ResolvedModel) -> str:
    return component(model.name, f"training-{model.training_hash()}")


def serving_config(subject: Subject, revision: Revision) -> Manifest:
    return manifest(
        "v1",
        "ConfigMap",
        serving_name(revision),
        subject,
        "predictor",
        immutable=True,
        data={rt.SPEC_FILE: revision.document.decode()},
    )


def training_config(subject: Subject) -> Manifest:
    """What the trainer Job reads: fixed when the Job is made, as the Job's template is."""
    return manifest(
        "v1",
        "ConfigMap",
        training_name(subject.model),
        subject,
        "trainer",
        annotations={ANNOTATION_CREATE_ONCE: "true"},
        immutable=True,
        data={rt.SPEC_FILE: subject.model.for_pods.document.decode()},
    )
