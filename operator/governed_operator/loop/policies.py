"""Which models the change of a policy wakes, and what is said of policies that can't be read."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from governed_api.labels import has_labels
from governed_api.names import CLUSTER_POLICY_KIND
from governed_api.reasons import Reason
from governed_operator.loop.recorder import EventRecorder, Regarding
from governed_operator.loop.workqueue import WorkQueue
from governed_operator.policy.floor import Floor, InForce, Unreadable
from governed_operator.watch.cache import Cache, ModelKey
from governed_operator.watch.policies import Policies, Policy

__all__ = ["PolicyTeller", "in_force", "models_of"]

logger = logging.getLogger("governed_operator.loop.policies")


def in_force(policies: Policies, namespace: str) -> InForce:
    """All that is known of the policies that may be about a namespace's models."""
    known = policies.of_namespace(namespace)
    return InForce(
        floors=tuple(floor for policy in known if (floor := _floor(policy)) is not None),
        unreadable=tuple(
            Unreadable(_title(policy), policy.fault, policy.labels, policy.refuses)
            for policy in known
            if policy.spec is None
        ),
        unread=policies.unread(namespace),
    )


def _floor(policy: Policy) -> Floor | None:
    if policy.spec is None:
        return None
    cluster = policy.kind == CLUSTER_POLICY_KIND
    place = None if cluster else policy.namespace
    return Floor(policy.name, place, policy.spec, tuple(policy.spec.exemptions), cluster=cluster)


def _title(policy: Policy) -> str:
    return f"{policy.kind} {policy.name}"


def models_of(cache: Cache, namespace: str, about: Sequence[Mapping[str, str]]) -> Iterator[ModelKey]:
    """Models of a namespace, of all where it is empty, with any of the labels that a policy asks for or asked for."""
    models = cache.models_of(namespace) if namespace else cache.models
    for key, entry in models.items():
        labels = dict(entry.labels)
        if any(has_labels(labels, wanted) for wanted in about):
            yield key


class PolicyTeller:
    """A worker that posts an Event about each policy that can't be read: whoever wrote it must hear of it."""

    def __init__(self, policies: Policies, recorder: EventRecorder) -> None:
        self.queue = WorkQueue()
        self._policies, self._recorder = policies, recorder

    async def work(self) -> None:
        """Never returns."""
        while True:
            key = await self.queue.take()
            await self.tell(key)
            self.queue.done(key)

    async def tell(self, key: ModelKey) -> None:
        """Once for each change; what the API server says to that is logged."""
        policy = self._policies.get(key)
        if policy is None or policy.spec is not None:
            return
        held = "models that it may be about roll nothing new out" if policy.refuses else "it says nothing of models"
        message = f"{policy.fault}; until it is mended or taken away {held}"
        logger.warning("%s: %s", _title(policy), message)
        regarding = Regarding(policy.kind, policy.namespace, policy.name, policy.uid)
        await self._recorder.warn(regarding, Reason.POLICY_INVALID, message)
