"""The resolved spec, the one configuration that a model's containers read: ConfigMaps, and a Secret where rows of
training data stand in it."""

import base64

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.resolved import ResolvedModel
from governed_operator.desired import pod
from governed_operator.desired.decision import Revision
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, Manifest, Subject, manifest
from governed_operator.kube.kinds import CONFIG_MAP, SECRET


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
    """What the trainer Job reads: fixed when the Job is made, as the Job's template is. Rows in it make it a Secret,
    which goes with the model: no right to delete Secrets is held."""
    name = object_names.training_config(subject.name, subject.model.training_hash())
    document = subject.model.for_pods.document
    once = {ANNOTATION_CREATE_ONCE: "true"}
    if holds_rows(subject.model):
        data = {rt.SPEC_FILE: base64.b64encode(document).decode()}
        return manifest(SECRET, name, subject, "trainer", annotations=once, immutable=True, type="Opaque", data=data)
    data = {rt.SPEC_FILE: document.decode()}
    return manifest(CONFIG_MAP, name, subject, "trainer", annotations=once, immutable=True, data=data)


def training_volume(subject: Subject) -> Manifest:
    """The volume of the trainer's `training_config`."""
    name = object_names.training_config(subject.name, subject.model.training_hash())
    if holds_rows(subject.model):
        return pod.secret_volume("spec", name)
    return pod.spec_volume(name)


def holds_rows(model: ResolvedModel) -> bool:
    """Whether training data stands in the manifest itself."""
    training = model.spec.lifecycle.training
    return training is not None and training.data.inline is not None
