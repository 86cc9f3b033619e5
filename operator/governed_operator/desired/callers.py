"""The ConfigMap of who may call a model, which its ports read."""

from governed_api import object_names
from governed_api.callers import CALLERS_FILE
from governed_operator.desired.manifest import Manifest, Subject, manifest
from governed_operator.kube.kinds import CONFIG_MAP

COMPONENT = "predictor"
"""Like the other ConfigMaps of serving pods it stays while some are left that read it."""


def callers_config(subject: Subject, sealed: bytes) -> Manifest:
    """``sealed``: of governed_api.callers.seal_callers. Of the subject only its name, namespace and uid count."""
    data = {CALLERS_FILE: sealed.decode()}
    return manifest(CONFIG_MAP, object_names.callers(subject.name), subject, COMPONENT, data=data)


def callers_place(model: str) -> tuple[str, str]:
    """Kind and name of a model's document of callers."""
    return CONFIG_MAP.kind, object_names.callers(model)
