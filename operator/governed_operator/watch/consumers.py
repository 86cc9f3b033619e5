"""ModelConsumers as last seen, and which models each of them is about."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from pydantic import ValidationError

from governed_api.callers import Caller
from governed_api.consumer import ALL_MODELS, ModelConsumerSpec, caller_of, token_identities
from governed_api.labels import has_labels
from governed_api.token_identity import IssuerSource, TokenIdentity
from governed_operator.kube.kinds import Object
from governed_operator.watch.cache import Head, ModelKey, head_of

__all__ = ["Consumer", "Consumers", "caller_text", "selects"]


class _Body(msgspec.Struct):
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: msgspec.Raw = msgspec.Raw(b"{}")


class _Created(msgspec.Struct, rename="camel"):
    creation_timestamp: str = ""


class _Aged(msgspec.Struct):
    metadata: _Created


_body = msgspec.json.Decoder(_Body).decode
_aged = msgspec.json.Decoder(_Aged).decode


class Consumer(NamedTuple):
    """One, as last seen."""

    name: str
    uid: str
    version: int
    generation: int
    created: str
    deleting: bool
    spec: ModelConsumerSpec | None
    """None where this version's types don't take it; ``fault`` says why."""
    fault: str
    caller: Caller | None
    """What a document says of it where all its keys are its own: made once, as documents are made often."""
    text: bytes
    """The same as it is written; empty for none."""
    tokens: tuple[TokenIdentity, ...]
    """What makes a token its own."""
    status: bytes
    """JSON."""

    @property
    def identities(self) -> list[str]:
        """Ids of its keys, and of what makes a token its own: each may be of one consumer alone."""
        keys = [key.id for key in self.spec.api_keys] if self.spec is not None else []
        return [*keys, *(identity.id for identity in self.tokens)]

    @property
    def age(self) -> tuple[str, str]:
        """The older of two comes first."""
        return self.created, self.name

    @property
    def essence(self) -> "Consumer":
        """All but how it is told to stand."""
        return self._replace(version=0, status=b"")

    @property
    def stored(self) -> Object:
        """The status as JSON has it."""
        status: Object = msgspec.json.decode(self.status)
        return status

    @classmethod
    def of(cls, head: Head, observed: bytes) -> "Consumer":
        body = _body(observed)
        spec, fault = _spec(bytes(body.spec))
        created = _aged(observed).metadata.creation_timestamp
        deleting = head.deletion_timestamp is not None
        caller = caller_of(head.name, spec) if spec else None
        return cls(
            name=head.name, uid=head.uid, version=head.version, generation=head.generation, created=created,
            deleting=deleting, spec=spec, fault=fault, caller=caller, text=caller_text(caller),
            tokens=tuple(token_identities(spec)) if spec else (), status=bytes(body.status),
        )  # fmt: skip


def caller_text(caller: Caller | None) -> bytes:
    """As it is written into a document."""
    return caller.model_dump_json(by_alias=True, exclude_defaults=True).encode() if caller else b""


def _spec(text: bytes) -> tuple[ModelConsumerSpec | None, str]:
    try:
        return ModelConsumerSpec.model_validate(msgspec.json.decode(text)), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"spec.{'.'.join(str(p) for p in first['loc'])}: {first['msg']}"


def selects(consumer: Consumer, model: str, labels: Mapping[str, str]) -> bool:
    """Whether it names the model, or the model has the labels that it asks for."""
    if consumer.spec is None:
        return False
    models = consumer.spec.models
    if ALL_MODELS in models.names or model in models.names:
        return True
    wanted = models.selector.match_labels if models.selector else {}
    return bool(wanted) and has_labels(labels, wanted)


class Consumers:
    """Newest known state of all namespaces; takes what a reflector hears."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Consumer]] = defaultdict(dict)
        self._claims: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Namespace → id of a key or of a token's identity → consumers that list it."""
        self._sources: Counter[IssuerSource] = Counter()
        self._revisions: dict[str, int] = defaultdict(int)
        self._touched: dict[ModelKey, list[Consumer]] = {}

    def get(self, key: ModelKey) -> Consumer | None:
        """``key``: namespace, name."""
        return self._known.get(key[0], {}).get(key[1])

    def of_namespace(self, namespace: str) -> list[Consumer]:
        return list(self._known.get(namespace, {}).values())

    def sources(self) -> set[IssuerSource]:
        """Issuers that any of them names."""
        return {*self._sources}

    def of_source(self, place: IssuerSource) -> dict[str, list[Consumer]]:
        """Namespace → consumers with tokens of an issuer, whatever their audience; documents with it are others now."""
        found: dict[str, list[Consumer]] = {}
        for namespace, consumers in self._known.items():
            about = [c for c in consumers.values() if any(t.source.place == place.place for t in c.tokens)]
            if about:
                found[namespace] = about
                self._revisions[namespace] += 1
        return found

    def keys(self) -> list[ModelKey]:
        return [(namespace, name) for namespace, consumers in self._known.items() for name in consumers]

    def revision(self, namespace: str) -> int:
        """Moves with each change that may matter to a document of callers."""
        return self._revisions.get(namespace, 0)

    def touched(self, key: ModelKey) -> list[Consumer]:
        """Whom the change of a consumer is about, told once: the consumer as it was and as it is, and those that list a
        key of the same id."""
        return self._touched.pop(key, [])

    def holder(self, namespace: str, key_id: str) -> str:
        """Name of the consumer that a key, or a token's identity, is of: the oldest of those that list it; "" where
        none does."""
        consumers = self._known.get(namespace, {})
        claims = [consumers[n] for n in self._claims.get(namespace, {}).get(key_id, ()) if not consumers[n].deleting]
        return min(claims, key=lambda c: c.age).name if claims else ""

    def selecting(self, namespace: str, model: str, labels: Mapping[str, str]) -> list[Consumer]:
        """Those that are about a model, the oldest first."""
        selected = (c for c in self.of_namespace(namespace) if not c.deleting and selects(c, model, labels))
        return sorted(selected, key=lambda c: c.age)

    def stale(self, kind: str, head: Head) -> bool:  # noqa: ARG002
        """Whether this state, or a later one, is known already."""
        kept = self.get((head.namespace, head.name))
        return kept is not None and kept.uid == head.uid and head.version <= kept.version

    def put(self, kind: str, observed: bytes, head: Head | None = None) -> ModelKey | None:
        """Remember one; its key where there is something new in it."""
        head = head or head_of(observed)
        if self.stale(kind, head):
            return None
        key = (head.namespace, head.name)
        before, after = self.get(key), Consumer.of(head, observed)
        self._known[head.namespace][head.name] = after
        if before is not None and before.essence == after.essence:
            return None if before.status == after.status else key
        self._changed(key, before, after)
        return key

    def drop(self, kind: str, head: Head) -> ModelKey | None:  # noqa: ARG002
        """Forget one; its key where it was known."""
        key = (head.namespace, head.name)
        kept = self.get(key)
        return self._forget(key, kept) if kept is not None and kept.uid == head.uid else None

    def keep_only(
        self,
        kind: str,  # noqa: ARG002
        seen: set[tuple[ModelKey, str]],
        namespace: str | None = None,
    ) -> list[ModelKey]:
        """After a complete list, of one namespace or all: forget those that it doesn't have; their keys."""
        listed = {(key[0], name) for key, name in seen}
        gone = {key: self.get(key) for key in self.keys() if key not in listed and namespace in (None, key[0])}
        return [self._forget(key, kept) for key, kept in gone.items() if kept is not None]

    def _forget(self, key: ModelKey, known: Consumer) -> ModelKey:
        del self._known[key[0]][key[1]]
        self._changed(key, known, None)
        return key

    def _changed(self, key: ModelKey, before: Consumer | None, after: Consumer | None) -> None:
        gone, come = ([t.source for t in c.tokens] if c is not None else [] for c in (before, after))
        self._sources.update(come)
        self._sources.subtract(gone)
        for source in gone:
            if not self._sources[source]:
                del self._sources[source]
        claims, sharing = self._claims[key[0]], set[str]()
        for listed in before.identities if before is not None else ():
            claims[listed].discard(key[1])
            sharing |= claims[listed]
            if not claims[listed]:
                del claims[listed]
        for listed in after.identities if after is not None else ():
            sharing |= claims[listed]
            claims[listed].add(key[1])
        consumers = self._known[key[0]]
        about = [c for c in (before, after, *(consumers.get(name) for name in sharing)) if c is not None]
        self._touched.setdefault(key, []).extend(about)
        self._revisions[key[0]] += 1
