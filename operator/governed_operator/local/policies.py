"""Policies in files → what they say of models in files."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from governed_api.json_types import Json
from governed_api.model import GovernedModel
from governed_api.names import CLUSTER_POLICY_KIND, POLICY_KIND
from governed_api.policy import ClusterGovernancePolicySpec, GovernancePolicySpec
from governed_operator.local.manifest_file import ManifestError, load_of_kind
from governed_operator.policy.floor import Floor, Judgement, Subject, judge

__all__ = ["judgements", "policies_of"]


def policies_of(files: Iterable[Path], given: Iterable[Path]) -> list[Floor]:
    """Policies among the documents of ``files``, and those of ``given``, each of which must have one. Raises
    ManifestError: a policy that can't be read is none that is met."""
    found = [floor for path in files for floor in _policies(path)]
    for path in given:
        policies = _policies(path)
        if not policies:
            raise ManifestError(f"{path}: expected a {POLICY_KIND} or {CLUSTER_POLICY_KIND}, found none")
        found += policies
    return found


def judgements(model: GovernedModel, floors: Iterable[Floor], now: datetime) -> list[Judgement]:
    """What the model of a manifest lacks."""
    namespace = model.metadata.get("namespace")
    subject = Subject(model.name, str(namespace) if namespace else None, model.labels, model.spec)
    return judge(subject, floors, now)


def _policies(path: Path) -> list[Floor]:
    return [_floor(document) for document in load_of_kind(path, POLICY_KIND, CLUSTER_POLICY_KIND)]


def _floor(document: dict[str, Json]) -> Floor:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    name, namespace = str(metadata["name"]), metadata.get("namespace")
    if document["kind"] == CLUSTER_POLICY_KIND:
        everywhere = ClusterGovernancePolicySpec.model_validate(document["spec"])
        return Floor(name, None, everywhere, tuple(everywhere.exemptions), cluster=True)
    spec = GovernancePolicySpec.model_validate(document["spec"])
    within = namespace if isinstance(namespace, str) and namespace else None
    return Floor(name, within, spec, tuple(spec.exemptions), cluster=False)
