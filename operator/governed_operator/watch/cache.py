"""Watch caches: every child as a fingerprint and a few facts, every model and report as bytes. 10,000 models must
fit."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from governed_api.names import FIELD_MANAGER, KIND, LABEL_COMPONENT, LABEL_MODEL, REPORT_KIND
from governed_operator.kube.kinds import Object
from governed_operator.kube.projection import observed_fingerprint
from governed_operator.watch.facts import Facts, facts_of

ModelKey = tuple[str, str]
"""(namespace, model); the model is "" for what the namespace's models share."""
ChildKey = tuple[str, str]
"""(kind, name)."""
NAMESPACE_LABEL = "governedmodels.io/namespace"
"""On cluster-scoped objects: the namespace of the model they belong to."""


COUNTED = frozenset(
    {"Deployment", "StatefulSet", "Job", "PodDisruptionBudget", "HTTPRoute", "ScaledObject", REPORT_KIND}
)
"""Kinds whose status moves while their generation counts every change of spec."""


class Child(NamedTuple):
    """One owned object or pod, as last seen."""

    kind: str
    name: str
    uid: str
    version: int
    fingerprint: bytes | None
    facts: Facts | None
    deleting: bool
    component: str
    owner: str
    """uid of the controlling owner; empty without one."""
    bearing: int = 0
    """As long as it stays, so does the fingerprint; 0 where the kind counts no generations."""


class Owner(msgspec.Struct):
    """An owner reference."""

    kind: str
    name: str
    uid: str
    controller: bool = False


class Managed(msgspec.Struct, rename={"fields": "fieldsV1"}):
    """An entry of managedFields."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields: msgspec.Raw = msgspec.Raw(b"")


class Head(msgspec.Struct, rename="camel"):
    """Metadata that tell whose an object is and whether it is news: read without looking at the rest."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    """All that a bookmark has."""
    namespace: str = ""
    labels: dict[str, str] | None = None
    owner_references: list[Owner] | None = None
    generation: int = 0
    deletion_timestamp: str | None = None
    managed_fields: list[Managed] | None = None

    @property
    def version(self) -> int:
        return int(self.resource_version)

    @property
    def controller(self) -> Owner | None:
        return next((o for o in self.owner_references or () if o.controller), None)

    @property
    def others(self) -> bool:
        """Made by another controller, which may have copied our labels: so does KEDA from a ScaledObject to its
        autoscaler."""
        owner = self.controller
        return owner is not None and owner.kind != KIND

    @property
    def model(self) -> ModelKey:
        """The owner's name before the label: a label may drift, and its object must still be found."""
        owner, labels = self.controller, self.labels or {}
        if owner and owner.kind == KIND:
            return self.namespace, owner.name
        return self.namespace or labels.get(NAMESPACE_LABEL, ""), labels.get(LABEL_MODEL, "")

    @property
    def ours(self) -> bytes | None:
        """Our fieldsV1; None when we never applied the object."""
        for entry in self.managed_fields or ():
            if entry.manager == FIELD_MANAGER and entry.operation == "Apply" and not entry.subresource:
                return bytes(entry.fields)
        return None

    @property
    def bearing(self) -> int:
        """Changes whenever the fingerprint may, for kinds whose generation counts every change of their spec.

        Whoever changes a field of ours takes it over: that shows in which fields we own. A change of status shows in
        nothing.
        """
        owners = tuple((o.kind, o.name, o.uid, o.controller) for o in self.owner_references or ())
        labels = frozenset((self.labels or {}).items())
        return hash((self.generation, labels, owners, self.ours))


class Headed(msgspec.Struct):
    """Any object, its head alone; or a Status, which has none."""

    metadata: Head = msgspec.field(default_factory=Head)


_headed = msgspec.json.Decoder(Headed).decode


def head_of(observed: bytes) -> Head:
    return _headed(observed).metadata


def _fingerprint(head: Head, observed: bytes) -> bytes | None:
    return None if head.ours is None else observed_fingerprint(msgspec.json.decode(observed))


def child_of(kind: str, head: Head, observed: bytes, before: Child | None, applied: bytes | None) -> Child:
    """``known``: the same child before; ``applied``: fingerprint of what we have just made it of.

    Either spares the projection, the dearest part, where it can't tell anything new.
    """
    mark = head.bearing if kind in COUNTED else 0
    if before is not None and mark and before.bearing == mark:
        fingerprint = before.fingerprint
    else:
        fingerprint = _fingerprint(head, observed) if applied is None else applied
    owner = head.controller
    return Child(
        kind=kind,
        name=head.name,
        uid=head.uid,
        version=head.version,
        fingerprint=fingerprint,
        facts=facts_of(kind, observed),
        deleting=head.deletion_timestamp is not None,
        component=sys.intern((head.labels or {}).get(LABEL_COMPONENT, "")),
        owner=sys.intern(owner.uid) if owner else "",
        bearing=mark,
    )


class _Reported(msgspec.Struct):
    status: msgspec.Raw = msgspec.Raw(b"{}")


_reported = msgspec.json.Decoder(_Reported).decode


def _essence(child: Child) -> Child:
    return child._replace(version=0, bearing=0)


class ModelEntry(NamedTuple):
    """A GovernedModel as last seen."""

    uid: str
    version: int
    generation: int
    deleting: bool
    answered: bool
    """Its status speaks of this generation."""
    content: bytes
    """JSON of metadata (labels, annotations), spec and status."""
    labels: tuple[tuple[str, str], ...] = ()
    authenticates: bool = False
    """Its callers must say who they are."""

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
            content["status"].get("observedGeneration") == metadata.get("generation", 0),
            msgspec.json.encode(content),
            tuple(sorted((metadata.get("labels") or {}).items())),
            (content["spec"].get("access") or {}).get("authentication") == "Required",
        )


class Cache:
    """Newest known state; older events than what is known (our own writes' answers) are dropped."""

    def __init__(self) -> None:
        self.models: dict[ModelKey, ModelEntry] = {}
        self._names: dict[str, set[str]] = defaultdict(set)
        """Namespace → models."""
        self._children: dict[ModelKey, dict[ChildKey, Child]] = defaultdict(dict)
        self._reports: dict[ModelKey, bytes] = {}

    def put_model(self, observed: Object) -> bool:
        """True when there is something new in it."""
        key = (observed["metadata"]["namespace"], observed["metadata"]["name"])
        before, metadata = self.models.get(key), observed["metadata"]
        if before and before.uid == metadata["uid"] and int(metadata["resourceVersion"]) <= before.version:
            return False
        entry = ModelEntry.of(observed)
        self.models[key] = entry
        self._names[key[0]].add(key[1])
        return before is None or before._replace(version=0) != entry._replace(version=0)

    def drop_model(self, key: ModelKey, uid: str) -> None:
        if key in self.models and self.models[key].uid == uid:
            del self.models[key]
            self._names[key[0]].discard(key[1])
            if not self._names[key[0]]:
                del self._names[key[0]]

    def models_of(self, namespace: str) -> dict[ModelKey, ModelEntry]:
        """The models of one namespace."""
        keys = [(namespace, name) for name in self._names.get(namespace, ())]
        return {key: self.models[key] for key in keys}

    def stale(self, kind: str, head: Head) -> bool:
        """Whether this state of a child, or a later one, is known already: mostly from our own writes' answers."""
        cached = self._children.get(head.model, {}).get((kind, head.name))
        return cached is not None and cached.uid == head.uid and head.version <= cached.version

    def put(
        self, kind: str, observed: bytes, head: Head | None = None, applied: bytes | None = None
    ) -> ModelKey | None:
        """Remember a child, given as JSON; the model to wake, or None when nothing that matters changed."""
        head = head or head_of(observed)
        if self.stale(kind, head) or (head.others and kind != "Pod"):
            return None
        key = head.model
        before = self._children[key].get((kind, head.name))
        child = child_of(kind, head, observed, before if before and before.uid == head.uid else None, applied)
        self._children[key][kind, child.name] = child
        changed = before is None or _essence(before) != _essence(child)
        if kind == REPORT_KIND:
            changed = self._put_report(key[0], child.name, observed) or changed
        return key if changed else None

    def _put_report(self, namespace: str, name: str, observed: bytes) -> bool:
        content = bytes(_reported(observed).status)
        changed = self._reports.get((namespace, name)) != content
        self._reports[namespace, name] = content
        return changed

    def drop(self, kind: str, head: Head) -> ModelKey | None:
        """Forget a child; the model to wake."""
        key = head.model
        cached = self._children.get(key, {}).get((kind, head.name))
        if cached is None or cached.uid != head.uid:
            return None
        del self._children[key][kind, head.name]
        if kind == REPORT_KIND:
            self._reports.pop((key[0], head.name), None)
        if not self._children[key]:
            del self._children[key]
        return key

    def keep_only(self, kind: str, seen: set[tuple[ModelKey, str]], namespace: str | None = None) -> list[ModelKey]:
        """After a complete list, of one namespace or all: forget children that it doesn't have; the models to wake."""
        woken = []
        for key in [k for k in self._children if namespace in (None, k[0])]:
            gone = [c for c in self._children[key] if c[0] == kind and (key, c[1]) not in seen]
            for child in gone:
                del self._children[key][child]
            if gone:
                woken.append(key)
        return woken

    def children(self, key: ModelKey) -> dict[ChildKey, Child]:
        return self._children.get(key, {})

    def report(self, namespace: str, name: str) -> Object | None:
        reported = self._reports.get((namespace, name))
        return None if reported is None else msgspec.json.decode(reported)

    def keys(self) -> Iterator[ModelKey]:
        """Of all models, and of children whose model is gone."""
        yield from set(self.models) | set(self._children)
