"""Manifests of GovernedModels, written in Python and held to the rules of the API server."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from governed.plain import plain
from governed_api.access import Access
from governed_api.governance import Explainer, Governance, Quota
from governed_api.json_types import Json
from governed_api.lifecycle import Lifecycle
from governed_api.model import Predictor
from governed_api.names import API_VERSION, KIND
from governed_api.printable import printable
from governed_operator.local.manifest_findings import findings_of
from governed_operator.local.yaml_writing import to_yaml

__all__ = ["InvalidManifest", "Manifest", "Spec", "manifest"]

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123, as Kubernetes has it."""

Fields = Mapping[str, object]
"""As the manifest writes them, such as ``{"minReplicas": 2}``."""


class Spec(TypedDict, total=False):
    """Fields of a GovernedModel's ``spec``: typed parts, or mappings with the names that a manifest has."""

    predictor: Predictor | Fields
    lifecycle: Lifecycle | Fields
    explainer: Explainer | Fields
    governance: Governance | Fields
    quota: Quota | Fields
    access: Access | Fields
    suspend: bool


class InvalidManifest(ValueError):
    """What ``governed validate`` would refuse. ``findings``: its words, one for each field, which they begin with."""

    def __init__(self, name: str, findings: list[str]) -> None:
        head = f"{KIND} {printable(str(name))}:"
        super().__init__(f"{head} {findings[0]}" if len(findings) == 1 else "\n".join([head, *findings]))
        self.findings = tuple(findings)


@dataclass(frozen=True)
class Manifest:
    """A valid GovernedModel; ``document`` as a cluster is sent it, without defaults."""

    document: Mapping[str, Json]

    def to_yaml(self) -> str:
        """For ``kubectl apply -f`` and ``governed run``; both read from it what ``document`` holds: the text "y" is
        quoted, and so is each other word that would be read as a boolean or a number. Equal manifests give equal
        texts."""
        return to_yaml([self.document])

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_yaml` to ``path``, over what is there, and return it. Raises OSError."""
        file = Path(path)
        file.write_text(self.to_yaml(), encoding="utf-8")
        return file


def manifest(name: str, namespace: str | None = None, **spec: Unpack[Spec]) -> Manifest:
    """A GovernedModel of this name; without ``namespace``, of the one that it is applied in.

    ``spec``: its fields as README and ``kubectl explain gmodel.spec`` name them (``predictor``, ``lifecycle``,
    ``explainer``, ``governance``, ``quota``, ``access``, ``suspend``), each a mapping or a typed part of this package;
    numbers of numpy are taken as numbers, days as their texts. Raises InvalidManifest with what ``governed validate``
    says, rules across fields included, and TypeError or ValueError for a value that JSON has no form for.
    """
    if namespace is not None and not _NAMESPACE.fullmatch(namespace):
        words = f"metadata.namespace: Invalid value: {namespace!r}: expected a DNS label of at most 63 characters"
        raise InvalidManifest(name, [words])
    metadata: dict[str, Json] = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    fields = {field: plain(value, f"spec.{field}") for field, value in spec.items()}
    document: dict[str, Json] = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": fields}
    if findings := findings_of(document):
        raise InvalidManifest(name, [finding.words for finding in findings])
    return Manifest(document)
