"""Lease leader election: a standby keeps its caches warm and writes nothing."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio.client import V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from governed_operator.kube.cluster import MERGE, ApiError, Cluster
from governed_operator.kube.kinds import LEASE

logger = logging.getLogger("governed_operator.kube.leader")

LEASE_NAME = "governed-operator"
DURATION, DEADLINE, RETRY = 15, 10, 2


class SteadyLock(LeaseLock):  # type: ignore[misc]
    """A LeaseLock for which an API server that can't be reached is a failed try, not the end of the election."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            return await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return False, ApiException(status=0, reason=str(error))

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        try:
            # not the library's own: it passes pretty=True, which its validation refuses (kubernetes 37.0.2)
            lease = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.warning("failed to create the Lease: %s", error)
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        try:
            return bool(await super().update(name, namespace, updated_record))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


class Leadership:
    """Runs ``lead`` while this process holds the Lease; ``lost`` is called when it no longer does."""

    def __init__(self, cluster: Cluster, namespace: str, identity: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._work: asyncio.Task[None] | None = None
        self.leading = False

    async def run(self, lead: Callable[[], Awaitable[None]], lost: Callable[[], None]) -> None:
        async def started() -> None:
            self._work = asyncio.current_task()  # the election starts it, and leaves it alone when cancelled itself
            self.leading = True
            logger.info("leading as %s", self._identity)
            try:
                await lead()
            except Exception:
                logger.exception("the leading process failed")
                lost()

        async def stopped() -> None:
            self.leading = False
            logger.error("lost the Lease %s/%s", self._namespace, LEASE_NAME)
            lost()

        lock = SteadyLock(LEASE_NAME, self._namespace, self._identity, self._cluster.api)
        try:
            await LeaderElection(Config(lock, DURATION, DEADLINE, RETRY, started, stopped)).run()
        finally:
            if self._work:
                await cancelled(self._work)

    async def release(self) -> None:
        """Hand over at once: the next one need not wait for the Lease to run out."""
        if not self.leading:
            return
        self.leading = False
        path = LEASE.path(self._namespace, LEASE_NAME)
        try:
            await self._cluster.request("PATCH", path, {"spec": {"holderIdentity": None}}, media=MERGE)
        except ApiError as error:
            logger.warning("failed to release the Lease: %s", error)


def identity(pod: str) -> str:
    """Unique per process: a restarted container is another candidate."""
    return f"{pod}_{uuid.uuid4().hex[:8]}"


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel and wait."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
