"""Watch caches: every child as a fingerprint and a few facts, every model and report as bytes. 10,000 models must fit."""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from governed_api.names import KIND, LABEL_COMPONENT, LABEL_MODEL, REPORT_KIND
from governed_operator.facts import facts_of
from governed_operator.projection import observed_fingerprint

Object = dict[str, Any]
ModelKey = tuple[str, str]
"""(namespace, model); the model is "" for what the namespace's models share."""
ChildKey = tuple[str, str]
"""(kind, name)."""
NAMESPACE_LABEL = "governedmodels.io/namespace"
"""On cluster-scoped objects: the namespace of the model they belong to."""


class Child(NamedTuple):
    """One owned object or pod, as last seen."""

    kind: str
    name: str
    uid: str
    version: int
    fingerprint: bytes | None
    facts: Any
    deleting: bool
    component: str
    owner: str
    """uid of the controlling owner; empty without one."""


def model_key(observed: Object) -> ModelKey:
    """The owner's name before the label: a label may drift, and its object must still be found."""
    metadata = observed["metadata"]
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and reference["kind"] == KIND:
            return metadata.get("namespace", ""), reference["name"]
    labels = metadata.get("labels") or {}
    namespace = metadata.get("namespace") or labels.get(NAMESPACE_LABEL, "")
    return namespace, labels.get(LABEL_MODEL, "")


def child_of(kind: str, observed: Object) -> Child:
    metadata = observed["metadata"]
    owner = next((r["uid"] for r in metadata.get("ownerReferences") or () if r.get("controller")), "")
    return Child(
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        fingerprint=observed_fingerprint(observed),
        facts=facts_of(kind, observed),
        deleting="deletionTimestamp" in metadata,
        component=(metadata.get("labels") or {}).get(LABEL_COMPONENT, ""),
        owner=owner,
    )


def _essence(child: Child) -> Child:
    return child._replace(version=0)


class ModelEntry(NamedTuple):
    """A GovernedModel as last seen."""

    uid: str
    version: int
    generation: int
    deleting: bool
    content: bytes
    """JSON of metadata (labels, annotations), spec and status."""

    @classmethod
    def of(cls, observed: Object) -> "ModelEntry":
        metadata = observed["metadata"]
        content = {
            "metadata": {k: metadata[k] for k in ("name", "namespace", "labels", "annotations") if k in metadata},
            "spec": observed.get("spec", {}),
            "status": observed.get("status") or {},
        }
        return cls(
            metadata["uid"],
            int(metadata["resourceVersion"]),
            metadata.get("generation", 0),
            "deletionTimestamp" in metadata,
            json.dumps(content, separators=(",", ":")).encode(),
        )


class Cache:
    """Newest known state; older events than what is known (our own writes' answers) are dropped."""

    def __init__(self) -> None:
        self.models: dict[ModelKey, ModelEntry] = {}
        self._children: dict[ModelKey, dict[ChildKey, Child]] = defaultdict(dict)
        self._reports: dict[ModelKey, bytes] = {}

    def put_model(self, observed: Object) -> bool:
        """True when there is something new in it."""
        key = (observed["metadata"]["namespace"], observed["metadata"]["name"])
        known, metadata = self.models.get(key), observed["metadata"]
        if known and known.uid == metadata["uid"] and int(metadata["resourceVersion"]) <= known.version:
            return False
        entry = ModelEntry.of(observed)
        self.models[key] = entry
        return known is None or known._replace(version=0) != entry._replace(version=0)

    def drop_model(self, key: ModelKey, uid: str) -> None:
        if key in self.models and self.models[key].uid == uid:
            del self.models[key]

    def put(self, kind: str, observed: Object) -> ModelKey | None:
        """Remember a child; the model to wake, or None when nothing that matters changed."""
        key, metadata = model_key(observed), observed["metadata"]
        known = self._children[key].get((kind, metadata["name"]))
        if known and known.uid == metadata["uid"] and int(metadata["resourceVersion"]) <= known.version:
            return None
        child = child_of(kind, observed)
        self._children[key][kind, child.name] = child
        changed = known is None or _essence(known) != _essence(child)
        if kind == REPORT_KIND:
            changed = self._put_report(key[0], child.name, observed) or changed
        return key if changed else None

    def _put_report(self, namespace: str, name: str, observed: Object) -> bool:
        content = json.dumps(observed.get("status") or {}, separators=(",", ":")).encode()
        changed = self._reports.get((namespace, name)) != content
        self._reports[namespace, name] = content
        return changed

    def drop(self, kind: str, observed: Object) -> ModelKey | None:
        """Forget a child; the model to wake."""
        key = model_key(observed)
        name = observed["metadata"]["name"]
        known = self._children.get(key, {}).get((kind, name))
        if known is None or known.uid != observed["metadata"]["uid"]:
            return None
        del self._children[key][kind, name]
        if kind == REPORT_KIND:
            self._reports.pop((key[0], name), None)
        if not self._children[key]:
            del self._children[key]
        return key

    def keep_only(self, kind: str, seen: set[tuple[ModelKey, str]]) -> list[ModelKey]:
        """After a complete list: forget children that it doesn't have; the models to wake."""
        woken = []
        for key in list(self._children):
            gone = [c for c in self._children[key] if c[0] == kind and (key, c[1]) not in seen]
            for child in gone:
                del self._children[key][child]
            if gone:
                woken.append(key)
        return woken

    def children(self, key: ModelKey) -> dict[ChildKey, Child]:
        return self._children.get(key, {})

    def report(self, namespace: str, name: str) -> Object | None:
        found = self._reports.get((namespace, name))
        return None if found is None else json.loads(found)

    def keys(self) -> Iterator[ModelKey]:
        """Of all models, and of children whose model is gone."""
        yield from set(self.models) | set(self._children)
