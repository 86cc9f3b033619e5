"""Kubernetes Events for people: transitions that somebody may want to hear of, never a stream."""

import logging
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

from governed_api import conditions as c
from governed_api.conditions import Condition
from governed_api.model import GovernedModelStatus
from governed_api.names import API_VERSION, FIELD_MANAGER, KIND
from governed_api.reasons import Reason
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import EVENT
from governed_operator.watch.cache import ModelKey

logger = logging.getLogger("governed_operator.loop.recorder")

QUIET = frozenset(
    {
        Reason.ROLLING_OUT,
        Reason.NOT_DEPLOYED,
        Reason.TRAINING,
        Reason.ARCHIVE_NOT_READY,
        Reason.KEY_PENDING,
        Reason.NOT_SERVING,
        Reason.SUSPENDED,
    }
)
"""Reasons of ordinary progress."""


TOLD = frozenset({c.TRAINING_SUCCEEDED, c.BIAS_WITHIN_THRESHOLDS, c.POLICY_SATISFIED, c.DEGRADED})
"""Conditions, beside Ready, whose trouble people want to hear of."""


class Regarding(NamedTuple):
    """What an Event is about."""

    kind: str
    namespace: str
    """Empty for what is in none: the Event is in namespace default then, as Kubernetes has it."""
    name: str
    uid: str

    @classmethod
    def model(cls, key: ModelKey, uid: str) -> "Regarding":
        return cls(KIND, *key, uid)

    @property
    def reference(self) -> dict[str, str]:
        named = {"apiVersion": API_VERSION, "kind": self.kind, "name": self.name, "uid": self.uid}
        return named | ({"namespace": self.namespace} if self.namespace else {})


class EventRecorder:
    """Writes events.k8s.io/v1 Events about a model, or another of our kinds."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def transitions(self, key: ModelKey, uid: str, old: GovernedModelStatus, new: GovernedModelStatus) -> None:
        """One event per condition that newly tells of trouble, and one when the model gets Ready or a revision takes
        over."""
        before = {x.type: x for x in old.conditions}
        told = {
            (x.reason, x.message or x.type): "Normal" if _good(x) else "Warning"
            for x in new.conditions
            if _worth_telling(before.get(x.type), x)
        }
        for (reason, message), kind in told.items():
            await self._post(Regarding.model(key, uid), kind, reason, message)

    async def warn(self, regarding: Regarding, reason: Reason, message: str) -> None:
        await self._post(regarding, "Warning", reason, message)

    async def _post(self, regarding: Regarding, kind: str, reason: str, message: str) -> None:
        namespace, name = regarding.namespace or "default", regarding.name
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{name}.{uuid4().hex[:16]}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"governedmodels.io/{FIELD_MANAGER}",
            "reportingInstance": FIELD_MANAGER,
            "action": "Reconcile",
            "type": kind,
            "reason": reason[:128],
            "note": message[:1024],
            "regarding": regarding.reference,
        }
        try:
            await self._cluster.create(EVENT, event)
        except ApiError as error:
            logger.warning("%s/%s: failed to write event %s: %s", namespace, name, reason, error)


def _good(condition: Condition) -> bool:
    return (condition.status == "True") != (condition.type == c.DEGRADED)


def _worth_telling(old: Condition | None, new: Condition) -> bool:
    same = old is not None and (old.status, old.reason) == (new.status, new.reason)
    if same or new.reason in QUIET or new.status == "Unknown":
        return False
    if new.type == c.READY:
        return True
    return not _good(new) and new.type in TOLD
