"""A container of a pod template → the process that stands for it."""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api.runtime import ALIBI_PYTHON, CAPTUM_PYTHON, HOST, MOUNT_MODEL, VARIABLES, Kind, on_this_machine
from governed_operator.desired.manifest import Manifest
from governed_operator.desired.pod import WEIGHTS
from governed_operator.local.addresses import Addresses
from governed_operator.local.errors import LocalError

INHERITED = (
    "PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "TZ", "PYTHONPATH", ALIBI_PYTHON,
    CAPTUM_PYTHON,
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
"""Of the runner's own environment; everything else comes from the template, as in a pod."""

_WEIGHTS = re.compile(rf"(?<![\w/.-]){re.escape(MOUNT_MODEL)}(?![\w.-])")


@dataclass(frozen=True)
class Probe:
    """An HTTP probe with the patience of its template."""

    url: str
    period: float
    failures: int
    timeout: float
    delay: float

    @classmethod
    def of(cls, probe: Manifest | None, container: Manifest, addresses: Addresses) -> "Probe | None":
        if probe is None:
            return None
        if "httpGet" not in probe:
            raise LocalError(f"container {container['name']}: only httpGet probes work on one machine")
        get = probe["httpGet"]
        named = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        number = get["port"] if isinstance(get["port"], int) else named[get["port"]]
        return cls(
            url=on_this_machine(addresses.port(number)) + get["path"],
            period=probe.get("periodSeconds", 10),
            failures=probe.get("failureThreshold", 3),
            timeout=probe.get("timeoutSeconds", 1),
            delay=probe.get("initialDelaySeconds", 0),
        )


@dataclass(frozen=True)
class ProcessSpec:
    """What is executed, and how it is watched."""

    name: str
    pod: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    ports: tuple[int, ...]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    grace: float

    @property
    def key(self) -> str:
        return f"{self.pod}/{self.name}"


def process_spec(
    container: Manifest, pod: Manifest, name: str, namespace: str, directories: Mapping[str, Path], addresses: Addresses
) -> ProcessSpec:
    """Translate one container. ``directories``: volume name → directory. Raises LocalError when it needs its image."""
    mounts = {m["mountPath"]: directories[m["name"]] for m in container.get("volumeMounts", [])}
    weights = next((directories[m["name"]] for m in container.get("volumeMounts", []) if m["name"] == WEIGHTS), None)
    own = [p["containerPort"] for p in container.get("ports", [])]
    facts = {"metadata.name": name, "metadata.namespace": namespace}
    environment = {k: os.environ[k] for k in INHERITED if k in os.environ}
    environment[HOST] = addresses.host(container["name"])
    for variable in container.get("env", []):
        environment[variable["name"]] = _placed(_value(variable, facts, mounts, addresses), weights)
    return ProcessSpec(
        name=container["name"],
        pod=name,
        argv=tuple(_placed(word, weights) for word in _command(container)),
        environment=environment,
        ports=tuple(addresses.port(p) for p in {*own, *_listening(container)}),
        startup=Probe.of(container.get("startupProbe"), container, addresses),
        readiness=Probe.of(container.get("readinessProbe"), container, addresses),
        liveness=Probe.of(container.get("livenessProbe"), container, addresses),
        grace=pod.get("terminationGracePeriodSeconds", 30),
    )


def _placed(word: str, weights: Path | None) -> str:
    """A foreign runtime's words name its weights by where a pod has them."""
    return word if weights is None else _WEIGHTS.sub(lambda _: str(weights), word)


def _listening(container: Manifest) -> list[int]:
    """Ports that the contract says it listens on, beside those that the template opens."""
    return [int(v["value"]) for v in container.get("env", []) if _kind(v) is Kind.PORT]


def _kind(variable: Manifest) -> Kind:
    """What a variable's value is, by the contract; a name that isn't ours is passed on as it is."""
    return VARIABLES.get(variable["name"], Kind.TEXT)


def _command(container: Manifest) -> tuple[str, ...]:
    words = [*container.get("command", []), *container.get("args", [])]
    if not container.get("command"):
        raise LocalError(
            f"container {container['name']} runs the entry point of image {container['image']}, which a local run can't start: "  # noqa: E501
            "set predictor.model.runtime.command to a command of this machine"
        )
    if words[0] == "python":
        words[0] = sys.executable
    elif shutil.which(words[0]) is None:
        raise LocalError(f"container {container['name']}: command {words[0]!r} is not on this machine's PATH")
    return tuple(words)


def _value(variable: Manifest, facts: Mapping[str, str], mounts: Mapping[str, Path], addresses: Addresses) -> str:
    if "valueFrom" in variable:
        path = variable["valueFrom"]["fieldRef"]["fieldPath"]
        return facts[path]
    value = str(variable.get("value", ""))
    match _kind(variable):
        case Kind.PORT:
            return str(addresses.port(int(value)))
        case Kind.URL:
            return addresses.url(value)
        case Kind.PATH:
            return _path(value, mounts)
        case Kind.TEXT:
            return value


def _path(value: str, mounts: Mapping[str, Path]) -> str:
    """The same place under the directory that stands for its volume."""
    for mount in sorted(mounts, key=len, reverse=True):
        if value == mount or value.startswith(f"{mount}/"):
            return str(mounts[mount]) + value[len(mount) :]
    return value
