"""GovernancePolicies and ClusterGovernancePolicies as last seen, and which models each of them is about."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from pydantic import ValidationError

from governed_api.names import CLUSTER_POLICY_KIND, CLUSTER_POLICY_PLURAL, POLICY_KIND, POLICY_PLURAL
from governed_api.policy import ClusterGovernancePolicySpec, GovernancePolicySpec, PolicySelector
from governed_operator.kube.cluster import ApiError
from governed_operator.watch.cache import Head, ModelKey, head_of

__all__ = ["Policies", "Policy"]

EVERYWHERE = ""
"""Namespace of what is in none, or in all."""
PLURALS = {POLICY_KIND: POLICY_PLURAL, CLUSTER_POLICY_KIND: CLUSTER_POLICY_PLURAL}


class _Body(msgspec.Struct):
    spec: msgspec.Raw = msgspec.Raw(b"{}")


_body = msgspec.json.Decoder(_Body).decode


class Policy(NamedTuple):
    """One, as last seen."""

    kind: str
    namespace: str
    """Empty for a ClusterGovernancePolicy."""
    name: str
    uid: str
    version: int
    spec: GovernancePolicySpec | ClusterGovernancePolicySpec | None
    """None where this version's types don't take it; ``fault`` says why."""
    fault: str
    labels: Mapping[str, str]
    """Which models it is about: those with all of these. Empty: all, or its selector can't be read."""
    refuses: bool
    """False: it says Audit, whatever else may be wrong with it."""

    @property
    def essence(self) -> "Policy":
        """All but which state of it this is."""
        return self._replace(version=0)

    @classmethod
    def of(cls, kind: str, head: Head, observed: bytes) -> "Policy":
        raw: object = msgspec.json.decode(_body(observed).spec)
        spec, fault = _spec(kind, raw)
        stated = raw if isinstance(raw, dict) else {}
        return cls(
            kind=kind,
            namespace=EVERYWHERE if kind == CLUSTER_POLICY_KIND else head.namespace,
            name=head.name,
            uid=head.uid,
            version=head.version,
            spec=spec,
            fault=fault,
            labels=_labels(stated.get("selector")),
            refuses=stated.get("enforcement") != "Audit",
        )


def _spec(kind: str, raw: object) -> tuple[GovernancePolicySpec | ClusterGovernancePolicySpec | None, str]:
    types = ClusterGovernancePolicySpec if kind == CLUSTER_POLICY_KIND else GovernancePolicySpec
    try:
        return types.model_validate(raw), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"{'.'.join(['spec', *map(str, first['loc'])])}: {first['msg']}"


def _labels(selector: object) -> Mapping[str, str]:
    """Of a selector alone: what else is wrong with a policy makes it be about no further models."""
    try:
        return PolicySelector.model_validate(selector).match_labels
    except ValidationError:
        return {}


class Policies:
    """Newest known state, and what of it could not be read; takes what reflectors hear.

    ``namespaces``: of an operator of named ones; empty: all.
    """

    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self._known: dict[str, dict[str, Policy]] = {}
        """Namespace → name → policy."""
        places = [(CLUSTER_POLICY_KIND, EVERYWHERE), *((POLICY_KIND, n) for n in namespaces or (EVERYWHERE,))]
        self._unread = dict.fromkeys(places, "they have not been listed yet")
        self._touched: dict[ModelKey, list[Mapping[str, str]]] = {}

    def of_namespace(self, namespace: str) -> list[Policy]:
        """Those of the cluster first, by name: they may be about the namespace's models."""
        found = (self._known.get(place, {}) for place in (EVERYWHERE, namespace))
        return [policies[name] for policies in found for name in sorted(policies)]

    def get(self, key: ModelKey) -> Policy | None:
        """``key``: namespace, empty for a ClusterGovernancePolicy; name."""
        return self._known.get(key[0], {}).get(key[1])

    def unreadable(self) -> list[ModelKey]:
        """Keys of those that this version's types don't take."""
        return [(p.namespace, p.name) for known in self._known.values() for p in known.values() if p.spec is None]

    def unread(self, namespace: str) -> str:
        """Why nobody can say which policies a namespace's models must meet; empty: all of them are known."""
        why = (
            f"{PLURALS[kind]} are unknown: {text}"
            for (kind, place), text in self._unread.items()
            if text and place in (EVERYWHERE, namespace)
        )
        return "; ".join(why)

    def touched(self, key: ModelKey) -> list[Mapping[str, str]]:
        """Whom the change of a policy is about, told once: labels of models, as it selected before and selects now."""
        return self._touched.pop(key, [])

    def refused(self, kind: str, namespace: str | None, error: ApiError) -> ModelKey | None:
        """They may not be listed, or there is no such kind. The key to wake by; None where that was known."""
        place = namespace or EVERYWHERE
        remedy = "install its CRD" if error.status == 404 else "grant the operator list and watch of them"
        before, self._unread[kind, place] = self._unread[kind, place], f"{error}; {remedy}, as the chart does"
        return None if before == self._unread[kind, place] else self._all_of(place)

    def stale(self, kind: str, head: Head) -> bool:
        """Whether this state, or a later one, is known already."""
        kept = self.get(_key(kind, head))
        return kept is not None and kept.uid == head.uid and head.version <= kept.version

    def put(self, kind: str, observed: bytes, head: Head | None = None) -> ModelKey | None:
        """Remember one; its key where there is something new in it."""
        head = head or head_of(observed)
        if self.stale(kind, head):
            return None
        key = _key(kind, head)
        before, after = self.get(key), Policy.of(kind, head, observed)
        self._known.setdefault(key[0], {})[key[1]] = after
        if before is not None and before.essence == after.essence:
            return None
        self._touched.setdefault(key, []).extend(p.labels for p in (before, after) if p is not None)
        return key

    def drop(self, kind: str, head: Head) -> ModelKey | None:
        """Forget one; its key where it was known."""
        key = _key(kind, head)
        kept = self.get(key)
        return self._forget(key, kept) if kept is not None and kept.uid == head.uid else None

    def keep_only(
        self, kind: str, seen: set[tuple[ModelKey, str]], namespace: str | None = None
    ) -> list[ModelKey]:  # fmt: skip
        """After a complete list, of one namespace or all: forget those that it doesn't have; their keys."""
        everywhere = kind == CLUSTER_POLICY_KIND
        listed = {(EVERYWHERE if everywhere else key[0], name) for key, name in seen}
        kept = [p for known in self._known.values() for p in known.values() if p.kind == kind]
        gone = [p for p in kept if (p.namespace, p.name) not in listed and namespace in (None, p.namespace)]
        keys = [self._forget((policy.namespace, policy.name), policy) for policy in gone]
        place = (kind, namespace or EVERYWHERE)
        if self._unread[place]:
            self._unread[place] = ""
            keys.append(self._all_of(place[1]))
        return keys

    def _all_of(self, place: str) -> ModelKey:
        """The key of no policy, which is about all models of a namespace, or of the cluster."""
        key = (place, "")
        self._touched.setdefault(key, []).append({})
        return key

    def _forget(self, key: ModelKey, known: Policy) -> ModelKey:
        del self._known[key[0]][key[1]]
        self._touched.setdefault(key, []).append(known.labels)
        return key


def _key(kind: str, head: Head) -> ModelKey:
    return (EVERYWHERE if kind == CLUSTER_POLICY_KIND else head.namespace, head.name)
