"""Objects as YAML, in the order of application."""

import re

import yaml

from governed_api.callers import document_of
from governed_api.resolved import ResolvedModel
from governed_operator.desired import Manifest, Subject, archive_objects, model_objects
from governed_operator.desired.callers import callers_config
from governed_operator.desired.decision import Decision, Revision
from governed_operator.policy.artefact import artefact_of
from governed_operator.policy.callers import NOBODY, Compiled
from governed_operator.settings import Capabilities, OperatorSettings

UNKNOWN = "sha256:unknown"
"""Stands for the digest of an artefact that training has yet to make."""

UNSEALED = b"0" * 64 + b"\n"
"""Stands for the tag of a document of callers."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


# What kubectl's reader takes for a number or a boolean and PyYAML's writer doesn't: a label of hexadecimal digits such
# as 3591085e15 must be quoted, too (go.yaml.in/yaml/v2, resolve.go).
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?0o[0-7_]+$"), list("-+0"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def to_yaml(manifests: list[Manifest]) -> str:
    """A stream of documents; equal objects give equal bytes."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True, explicit_start=True)


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
