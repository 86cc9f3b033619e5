"""ModelConsumers in a cluster, through ``kubectl``, with the caller's own kubeconfig and rights."""

import json
from dataclasses import dataclass

from governed_api.json_types import Json
from governed_api.names import CONSUMER_PLURAL, GROUP
from governed_operator.cli.in_cluster import ClusterError, ClusterModel, in_cluster
from governed_operator.local.consumer_files import StoreError, checked
from governed_operator.local.consumer_keys import Document

__all__ = ["consumers_in_cluster"]

_KIND = f"{CONSUMER_PLURAL}.{GROUP}"


@dataclass(frozen=True)
class ClusterConsumers:
    """Of one namespace."""

    cluster: ClusterModel

    @property
    def place(self) -> str:
        return self.cluster.place

    def all(self) -> list[Document]:
        """Raises StoreError."""
        items = self._got("get", _KIND, "-o", "json").get("items")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def get(self, name: str) -> Document:
        """Raises StoreError where it isn't there."""
        consumer = self._got("get", _KIND, name, "-o", "json", "--ignore-not-found")
        if not consumer:
            raise StoreError(f"no ModelConsumer {name} in {self.place}: see kubectl get gconsumer -A")
        return consumer

    def create(self, document: Document) -> None:
        """Raises StoreError, with what the API server said."""
        self._got("create", "-f", "-", "-o", "json", stdin=json.dumps(checked(document)).encode())

    def replace(self, document: Document) -> None:
        """In the version that was read: whoever changed it meanwhile isn't overwritten. Raises StoreError."""
        self._got("replace", "-f", "-", "-o", "json", stdin=json.dumps(document).encode())

    def _got(self, *words: str, stdin: bytes = b"") -> dict[str, Json]:
        try:
            return self.cluster.kubectl_json(*words, stdin=stdin) or {}
        except ClusterError as error:
            raise StoreError(str(error)) from error


def consumers_in_cluster(namespace: str | None, context: str | None) -> ClusterConsumers:
    """Ends the command for names that Kubernetes has none of."""
    cluster = in_cluster("consumers", namespace, context)
    assert cluster is not None
    return ClusterConsumers(cluster)
