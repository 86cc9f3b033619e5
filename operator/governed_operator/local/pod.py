"""A pod: init containers in order, sidecars, then all containers at once; stopped in the reverse order."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from governed_api.runtime import EXIT_REFUSED
from governed_operator.desired.manifest import Manifest
from governed_operator.local.addresses import Addresses
from governed_operator.local.errors import JobFailed, NotReady
from governed_operator.local.logs import Logs
from governed_operator.local.probe import Prober
from governed_operator.local.process import Process
from governed_operator.local.supervision import Backoff, Supervised
from governed_operator.local.translate import ProcessSpec, process_spec
from governed_operator.local.volumes import Volumes
from governed_operator.local.workdir import Workdir


@dataclass(frozen=True)
class Host:
    """What all pods of one run share."""

    workdir: Workdir
    logs: Logs
    addresses: Addresses
    prober: Prober
    volumes: Callable[[str], Volumes]
    namespace: str
    backoff: Backoff


class Pod:
    """A pod template's local life."""

    def __init__(self, name: str, template: Manifest, host: Host, claims: list[Manifest] | None = None) -> None:
        self.name = name
        self._template = template
        self._host = host
        self._claims = [{"name": c["metadata"]["name"], "claimTemplate": {}} for c in claims or []]
        self._directories: dict[str, Path] = {}
        self.sidecars: list[Supervised] = []
        self.containers: list[Supervised] = []
        self._initialising: Process | None = None

    def specs(self) -> list[ProcessSpec]:
        """All containers, init containers first. Raises LocalError."""
        self._prepare()
        return [self._spec(c) for c in (*self._template.get("initContainers", []), *self._template["containers"])]

    def _prepare(self) -> None:
        if not self._directories:
            volumes = self._host.volumes(self.name)
            wanted = [*self._template.get("volumes", []), *self._claims]
            self._directories = {v["name"]: volumes.directory(v) for v in wanted}

    def _spec(self, container: Manifest) -> ProcessSpec:
        host = self._host
        return process_spec(container, self._template, self.name, host.namespace, self._directories, host.addresses)

    async def start(self) -> None:
        """Run init containers to completion and start the rest. Raises NotReady when one keeps failing, or says that
        trying again is useless."""
        self._prepare()
        for container in self._template.get("initContainers", []):
            spec = self._spec(container)
            if container.get("restartPolicy") == "Always":
                sidecar = self._supervise(spec)
                self.sidecars.append(sidecar)
                if spec.startup:
                    await self._event(sidecar, sidecar.started)
            else:
                await self._initialise(spec)
        self.containers = [self._supervise(self._spec(c)) for c in self._template["containers"]]

    def _supervise(self, spec: ProcessSpec) -> Supervised:
        host = self._host
        return Supervised(spec, host.logs, host.workdir, host.prober, host.backoff)

    async def _initialise(self, spec: ProcessSpec) -> None:
        for attempt in range(1, self._host.backoff.patience + 2):
            self._initialising = Process(spec, self._host.logs, self._host.workdir)
            await self._initialising.start()
            code = await self._initialising.wait()
            if code == 0:
                self._initialising = None
                return
            if code == EXIT_REFUSED:
                raise NotReady(f"init container {spec.name} failed: {self._host.logs.cause(spec.name)}")
            self._host.logs.note(f"{spec.name} exited with code {code}", "yellow")
            await asyncio.sleep(self._host.backoff.delay(attempt))
        raise NotReady(f"init container {spec.name} keeps failing: {self._host.logs.cause(spec.name)}")

    async def ready(self) -> None:
        """Returns when every container is ready. Raises NotReady when one crash-loops before that."""
        waits = [asyncio.create_task(self._event(c, c.ready)) for c in (*self.sidecars, *self.containers)]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    @staticmethod
    async def _event(container: Supervised, event: asyncio.Event) -> None:
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((waiting, container.failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not event.is_set():
            raise NotReady(container.failed.result())

    async def stop(self) -> None:
        """Containers together, then sidecars in reverse: the last ones ship what the first ones wrote."""
        if self._initialising:
            await self._initialising.stop(5)
        await asyncio.gather(*(c.stop() for c in self.containers))
        for sidecar in reversed(self.sidecars):
            await sidecar.stop()

    def kill(self) -> None:
        for container in (*self.containers, *self.sidecars):
            container.kill()


async def run_job(job: Manifest, host: Host) -> None:
    """Run a Job's pod to completion, with its back-off limit and failure policy. Raises JobFailed."""
    spec = job["spec"]
    name = job["metadata"]["name"]
    pod = Pod(name, spec["template"]["spec"], host)
    (process,) = pod.specs()
    permanent = [
        c for r in spec["podFailurePolicy"]["rules"] if r["action"] == "FailJob" for c in r["onExitCodes"]["values"]
    ]
    limit = spec.get("backoffLimit", 6)
    try:
        async with asyncio.timeout(spec.get("activeDeadlineSeconds")):
            await _attempts(process, host, limit, permanent)
    except TimeoutError:
        raise JobFailed(f"Job {name} ran past its deadline of {spec['activeDeadlineSeconds']} s") from None


async def _attempts(spec: ProcessSpec, host: Host, limit: int, permanent: list[int]) -> None:
    for attempt in range(1, limit + 2):
        process = Process(spec, host.logs, host.workdir)
        await process.start()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await process.stop(spec.grace)
            raise
        if code == 0:
            return
        if code in permanent:
            raise JobFailed(f"{spec.name} failed: {host.logs.cause(spec.name)}")
        host.logs.note(f"{spec.name} exited with code {code} (attempt {attempt} of {limit + 1})", "yellow")
        await asyncio.sleep(host.backoff.delay(attempt))
    raise JobFailed(f"{spec.name} failed {limit + 1} times: {host.logs.cause(spec.name)}")
