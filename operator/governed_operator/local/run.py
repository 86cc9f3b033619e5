"""`governed run`: archive → Job → Deployment, as the operator would apply them."""

import asyncio
import functools
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.resolved import ResolvedModel
from governed_operator.desired import Manifest, Subject, objects
from governed_operator.desired.decision import Decision, Revision
from governed_operator.local.addresses import Addresses, refuse_taken
from governed_operator.local.consumers import LocalConsumers
from governed_operator.local.errors import LocalError
from governed_operator.local.kept_logs import KeptLogs
from governed_operator.local.logs import Logs
from governed_operator.local.pod import Host, Pod, run_job
from governed_operator.local.probe import Prober
from governed_operator.local.progress import training_state, waiting
from governed_operator.local.reports import forget_other_revisions, raw_report, report
from governed_operator.local.supervision import Backoff
from governed_operator.local.volumes import Secrets, Volumes
from governed_operator.local.workdir import Workdir, pod_token_headers
from governed_operator.policy.artefact import artefact_of
from governed_operator.settings import OperatorSettings

UNKNOWN = "sha256:unknown"
"""Stands for the artefact's digest until training has made it; nothing runs with it."""


@dataclass(frozen=True)
class Options:
    """Of one run."""

    workdir: Path
    source: Path
    """Folder that relative file: URIs resolve against."""
    port_offset: int = 0
    host: str = rt.LOOPBACK
    """Address that the server listens on; all else stays on loopback."""
    quiet: bool = False
    settings: OperatorSettings = field(default_factory=OperatorSettings)
    """What the chart's values are in a cluster."""
    backoff: Backoff = field(default_factory=Backoff)
    given: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """Secrets that no object makes: name → key → content. They stay in memory."""
    consumers: tuple[Path, ...] = ()
    """Files that may hold ModelConsumers, beside those of the work directory."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the GovernedModel: consumers may select it by them."""


@dataclass(frozen=True)
class Running:
    """A ready model on this machine."""

    model: ResolvedModel
    workdir: Workdir
    addresses: Addresses
    revision: Revision

    @property
    def url(self) -> str:
        return rt.on_this_machine(self.addresses.port(rt.PORT_HTTP))

    @property
    def auditor_url(self) -> str:
        return rt.on_this_machine(self.addresses.port(rt.PORT_AUDITOR))

    @property
    def archive_url(self) -> str:
        return rt.on_this_machine(self.addresses.port(rt.PORT_ARCHIVE))

    @property
    def auditor_headers(self) -> dict[str, str]:
        """What the auditor's port asks for where a foreign runtime shares the pod."""
        path = self.workdir.pod_token(self.model.name)
        return pod_token_headers(path) if path.is_file() else {}

    @property
    def token_file(self) -> Path:
        return self.workdir.operator_token(self.model.name)

    @property
    def kek_file(self) -> Path:
        secret, key = object_names.key_encryption_key(self.model.name, self.model.spec)
        return self.workdir.secrets / secret / key


def by_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == kind]


class LocalRun:
    """One model's life on one machine."""

    def __init__(self, model: ResolvedModel, options: Options, console: Console) -> None:
        self.model = model
        self.options = options
        self.workdir = Workdir(options.workdir)
        self.logs = Logs(console, quiet=options.quiet, kept=KeptLogs(self.workdir.logs))
        self._subject = Subject(model, settings=options.settings)
        self._consumers = LocalConsumers(model, options.labels, self.workdir, options.consumers, self.logs.note)
        self._pods: list[Pod] = []
        runtime = model.spec.predictor.model.runtime
        self._foreign = [runtime.port] if runtime else []

    async def __call__(self, when_ready: Callable[[Running], Awaitable[None]]) -> None:
        """Start everything, call ``when_ready``, stop everything. Raises LocalError."""
        self.workdir.open()
        prober = Prober()
        try:
            running = await self._start(prober)
            following = asyncio.create_task(self._consumers.follow())
            try:
                await when_ready(running)
            finally:
                following.cancel()
        finally:
            await self._stop()
            await prober.close()
            self.logs.close()
            self.workdir.close()

    async def _start(self, prober: Prober) -> Running:
        self.workdir.remember_model(self.model.for_report.dump())
        artefact = self._artefact()
        manifests = self._render(artefact)
        secrets = Secrets(self.workdir, (object_names.ARCHIVE_KEYS, rt.ROOT_NAME), self.options.given)
        for secret in by_kind(manifests, "Secret"):
            secrets.ensure(secret)
        self._consumers.begin(secrets)
        services = by_kind(manifests, "Service")
        addresses = Addresses(self.options.port_offset, self.workdir, services, self._foreign, host=self.options.host)
        host = self._host(manifests, secrets, addresses, prober)
        self._refuse_taken_ports(manifests, host)
        archive = self._archive(manifests, host)
        await self._up(archive, "archive")
        if artefact is None:
            await self._train(manifests, host)
            artefact = self._artefact()
            if artefact is None:
                raise LocalError("the Job succeeded, but its report names no artefact for this spec")
            manifests = self._render(artefact)
            host = self._host(manifests, secrets, addresses, prober)
        revision = Revision.of(self.model, artefact)
        forget_other_revisions(self.workdir, self.model.name, revision.name)
        await self._up(self._deployment(manifests, host), self.model.name)
        self.workdir.remember_serving(self.options.port_offset)
        return Running(self.model, self.workdir, addresses, revision)

    def _artefact(self) -> str | None:
        return artefact_of(self.model, report(self.workdir, self.model.name))

    def _render(self, artefact: str | None) -> list[Manifest]:
        stable = Revision.of(self.model, UNKNOWN if artefact is None else artefact)
        return objects(self._subject, Decision(train=artefact is None, stable=stable))

    def _host(self, manifests: list[Manifest], secrets: Secrets, addresses: Addresses, prober: Prober) -> Host:
        config_maps = {m["metadata"]["name"]: m for m in by_kind(manifests, "ConfigMap")}
        volumes = functools.partial(
            Volumes,
            workdir=self.workdir,
            secrets=secrets,
            config_maps=config_maps,
            source=self.options.source,
            weights=self.model.spec.predictor.model.storage_uri,
        )
        namespace = self.model.namespace
        return Host(self.workdir, self.logs, addresses, prober, volumes, namespace, self.options.backoff)

    def _archive(self, manifests: list[Manifest], host: Host) -> Pod:
        (archive,) = by_kind(manifests, "StatefulSet")
        spec = archive["spec"]
        return Pod(object_names.ARCHIVE_POD, spec["template"]["spec"], host, spec.get("volumeClaimTemplates"))

    def _deployment(self, manifests: list[Manifest], host: Host) -> Pod:
        (deployment,) = by_kind(manifests, "Deployment")
        return Pod(object_names.local_pod(self.model.name), deployment["spec"]["template"]["spec"], host)

    def _refuse_taken_ports(self, manifests: list[Manifest], host: Host) -> None:
        pods = (self._archive(manifests, host), self._deployment(manifests, host))
        refuse_taken({port: spec.name for pod in pods for spec in pod.specs() for port in spec.ports})

    async def _up(self, pod: Pod, title: str) -> None:
        self._pods.append(pod)
        async with waiting(self.logs.console, f"starting {title}", lambda: (None, "")):
            began = time.monotonic()
            await pod.start()
            await pod.ready()
            self.logs.note(f"{title} is ready after {time.monotonic() - began:.1f} s")

    async def _train(self, manifests: list[Manifest], host: Host) -> None:
        state = training_state(lambda: raw_report(self.workdir, self.model.name))
        doing, done = (
            ("importing", "imported") if self.model.spec.predictor.model.is_fetched else ("training", "trained")
        )
        async with waiting(self.logs.console, doing, state):
            began = time.monotonic()
            for job in by_kind(manifests, "Job"):
                await run_job(job, host)
            self.logs.note(f"{done} in {time.monotonic() - began:.1f} s")

    def kill(self) -> None:
        """End all processes at once."""
        for pod in self._pods:
            pod.kill()

    async def _stop(self) -> None:
        for pod in reversed(self._pods):
            await pod.stop()


async def until_signalled(run: LocalRun, when_ready: Callable[[Running], Awaitable[None]]) -> bool:
    """Run until done; SIGINT or SIGTERM stops gracefully, a second one at once. True when a signal ended it."""
    task = asyncio.create_task(run(when_ready))
    signals = 0

    def end() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            run.logs.note("stopping: requests in flight are finished; once more to stop at once", "bold")
            task.cancel()
        else:
            run.kill()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        if not signals:
            raise
    return signals > 0
