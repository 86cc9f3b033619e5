"""Keeps the document of a model's callers as its namespace's ModelConsumers say.

A document has a sequence that grows with each change: ports refuse an older one, which somebody put back. It goes on
from the document that is there. Where none is, or one that isn't ours, it begins at the API server's own count of
changes, which is beyond any sequence that an earlier document had.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import ValidationError

from governed_api import object_names
from governed_api.callers import CALLERS_FILE, Callers, TokenIssuer, callers_secret, open_callers, seal_callers
from governed_api.model import GovernedModelSpec
from governed_api.resolved import ResolvedModel
from governed_api.token_identity import IssuerSource
from governed_operator.desired.callers import callers_config, callers_place
from governed_operator.desired.manifest import Subject
from governed_operator.kube.cluster import Cluster
from governed_operator.kube.kinds import CONFIG_MAP
from governed_operator.loop.apply import Applier, Expected
from governed_operator.policy.callers import Compiled, compiled, digest_of
from governed_operator.watch.cache import ModelEntry, ModelKey
from governed_operator.watch.consumers import Consumers, caller_text
from governed_operator.watch.issuer_keys import IssuerKeys

__all__ = ["CallersKeeper"]


class Document(NamedTuple):
    """What is said of a model's callers, and how often that has changed."""

    digest: bytes
    sequence: int
    issuers: Mapping[str, TokenIssuer] = {}
    """By id: their keys count until this process has fetched some."""


class Settled(NamedTuple):
    """A document that was written, and what it was made of."""

    made_of: tuple[int, tuple[tuple[str, str], ...], str]
    """Revision of the namespace's consumers, labels and uid of the model."""
    document: Document
    expected: Expected
    left_out: frozenset[str]


class CallersKeeper:
    """Of all models. ``wake``: consumers that newly have no room in a document, or have."""

    def __init__(
        self, cluster: Cluster, applier: Applier, consumers: Consumers, keys: IssuerKeys,
        wake: Callable[[ModelKey], None],
    ) -> None:  # fmt: skip
        self._cluster, self._applier, self._consumers, self._wake = cluster, applier, consumers, wake
        self._keys = keys
        self._settled: dict[ModelKey, Settled] = {}

    def left_out(self, key: ModelKey) -> frozenset[str]:
        """Consumers for whom a model's document has no room."""
        settled = self._settled.get(key)
        return settled.left_out if settled else frozenset()

    def forget(self, key: ModelKey) -> None:
        """The model is gone, or asks nobody who they are."""
        settled = self._settled.pop(key, None)
        for name in settled.left_out if settled else ():
            self._wake((key[0], name))

    async def carry_out(self, key: ModelKey, entry: ModelEntry) -> int:
        """Write the document where it differs; the number of writes. Raises ApiError, Wait.

        It looks at nothing of the model but who it is: what else is wrong with one must not keep a key valid. As long
        as the document is there something may read it: an earlier revision, while the present one is held.
        """
        if not entry.authenticates and not self._applier.there(key, callers_place(key[1])):
            self.forget(key)
            return 0
        settled, revision = self._settled.get(key), self._consumers.revision(key[0])
        made_of = (revision, entry.labels, entry.uid)
        if settled and settled.made_of == made_of and not self._applier.differs(key, settled.expected):
            return 0
        secret = callers_secret(await self._applier.archive_root(key[0]), *key)
        before = settled.document if settled else await self._live(key, secret)
        compiled = self._compiled(key, entry, before)
        self._settled.pop(key, None)  # until the API server has said that it is written
        document = await self._next(key, before, compiled, known=settled is not None)
        callers = compiled.document(*key, document.sequence)
        manifest = callers_config(_subject(key, entry.uid), seal_callers(callers, secret))
        expected = Expected.of(manifest)
        writes = await self._applier.converge(key, [(manifest, expected)], entry.uid)
        self._settled[key] = Settled(made_of, document, expected, compiled.left_out)
        for name in compiled.left_out ^ (settled.left_out if settled else frozenset()):
            self._wake((key[0], name))
        return writes

    async def _next(self, key: ModelKey, before: Document, compiled: Compiled, *, known: bool) -> Document:
        """The document as it is, or the one after it. What an earlier process left, somebody may have put back."""
        if before.digest == compiled.digest:
            return before
        beyond = 0 if known else await self._changes(key[0])
        issuers = {issuer.id: issuer for issuer in compiled.issuers}
        return Document(compiled.digest, max(before.sequence + 1, beyond), issuers)

    def _compiled(self, key: ModelKey, entry: ModelEntry, before: Document) -> Compiled:
        namespace, name = key
        selecting = self._consumers.selecting(namespace, name, dict(entry.labels))

        def issuer_of(source: IssuerSource) -> TokenIssuer:
            return self._keys.issuer(source, before.issuers.get(source.id))

        return compiled(selecting, lambda key_id: self._consumers.holder(namespace, key_id), issuer_of)

    async def _live(self, key: ModelKey, secret: str) -> Document:
        """The document that an earlier process left."""
        live = await self._cluster.get(CONFIG_MAP, key[0], object_names.callers(key[1]))
        text = ((live or {}).get("data") or {}).get(CALLERS_FILE)
        if isinstance(text, str):
            try:
                callers = Callers.model_validate_json(open_callers(text.encode(), secret))
            except (ValueError, ValidationError):
                callers = None
            if callers is not None:
                digest = digest_of(map(caller_text, callers.callers), callers.issuers)
                return Document(digest, callers.sequence, {issuer.id: issuer for issuer in callers.issuers})
        return Document(b"", 0)

    async def _changes(self, namespace: str) -> int:
        """The API server's count of changes: every write of a document was one, so no sequence is beyond it."""
        async for _, version in self._cluster.pages(CONFIG_MAP, "", limit=1, namespace=namespace):
            return int(version)
        return 0


def _subject(key: ModelKey, uid: str) -> Subject:
    return Subject(ResolvedModel(name=key[1], namespace=key[0], spec=GovernedModelSpec()), uid=uid)
