"""Objects as YAML, in the order of application."""

from governed_api.callers import document_of
from governed_api.resolved import ResolvedModel
from governed_operator.desired import Subject, archive_objects, model_objects
from governed_operator.desired.callers import callers_config
from governed_operator.desired.decision import Decision, Revision
from governed_operator.local.yaml_writing import to_yaml
from governed_operator.policy.artefact import artefact_of
from governed_operator.policy.callers import NOBODY, Compiled
from governed_operator.settings import Capabilities, OperatorSettings

UNKNOWN = "sha256:unknown"
"""Stands for the digest of an artefact that training has yet to make."""

UNSEALED = b"0" * 64 + b"\n"
"""Stands for the tag of a document of callers."""


def render(
    model: ResolvedModel,
    artefact: str | None,
    settings: OperatorSettings,
    capabilities: Capabilities,
    callers: Compiled = NOBODY,
) -> str:
    """All objects of a model, those of before and after training together; an unknown digest reads sha256:unknown. The
    document of callers, where there is one, is not sealed: its key is the cluster's."""
    digest = artefact if artefact is not None else artefact_of(model, None)
    train = model.spec.lifecycle.training is not None or model.spec.predictor.model.is_fetched
    stable = Revision.of(model, UNKNOWN if digest is None else digest)
    decision = Decision(train=train, stable=None if model.spec.suspend else stable, stopped=model.spec.suspend)
    subject = Subject(model, settings=settings, capabilities=capabilities)
    document = callers.document(model.namespace, model.name, 0)
    first = [callers_config(subject, UNSEALED + document_of(document))] if model.spec.authenticates else []
    return to_yaml([*archive_objects(model.namespace, settings), *first, *model_objects(subject, decision)])
