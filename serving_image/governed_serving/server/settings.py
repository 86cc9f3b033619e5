"""What the server reads from its environment (constants of governed_api.runtime, and a few of its own with defaults)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime

MAX_BODY = "GOVERNED_MAX_BODY_BYTES"
THREADS = "GOVERNED_THREADS"
DRAIN_SECONDS = "GOVERNED_DRAIN_SECONDS"
HOST = "GOVERNED_HOST"


class InvalidSettings(Exception):
    """A variable is missing or has a value of the wrong kind; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Paths, ports and sizes of one process."""

    spec: Path
    model_dir: Path | None
    spool_dir: Path | None
    kek_file: Path | None
    archive_url: str
    archive_token_file: Path | None
    artefact_digest: str
    revision: str
    track: str
    report: str
    pod: str
    namespace: str
    host: str
    http_port: int
    grpc_port: int | None
    internal_port: int | None
    explainer_url: str
    upstream_url: str
    max_body: int
    """Bytes of a request body beyond which 413 is answered."""
    threads: int
    """Threads within one ONNX Runtime operator."""
    drain: float
    """Seconds between readiness going 503 and the port being closed."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Raises InvalidSettings."""

        def path(name: str) -> Path | None:
            return Path(env[name]) if env.get(name) else None

        if not env.get(runtime.SPEC):
            raise InvalidSettings(f"{runtime.SPEC}: expected the path of the resolved spec, found nothing; set it")
        return cls(
            spec=Path(env[runtime.SPEC]),
            model_dir=path(runtime.MODEL_DIR),
            spool_dir=path(runtime.SPOOL_DIR),
            kek_file=path(runtime.KEK_FILE),
            archive_url=env.get(runtime.ARCHIVE_URL, ""),
            archive_token_file=path(runtime.ARCHIVE_TOKEN_FILE),
            artefact_digest=env.get(runtime.ARTEFACT_DIGEST, ""),
            revision=env.get(runtime.REVISION, ""),
            track=env.get(runtime.TRACK) or runtime.TRACK_STABLE,
            report=env.get(runtime.REPORT, ""),
            pod=env.get(runtime.POD_NAME) or "local",
            namespace=env.get(runtime.NAMESPACE) or "default",
            host=env.get(HOST) or "0.0.0.0",
            http_port=_number(env, runtime.HTTP_PORT, runtime.PORT_HTTP),
            grpc_port=_number(env, runtime.GRPC_PORT, 0) or None,
            internal_port=_number(env, runtime.INTERNAL_PORT, 0) or None,
            explainer_url=env.get(runtime.EXPLAINER_URL, "").rstrip("/"),
            upstream_url=env.get(runtime.UPSTREAM_URL, "").rstrip("/"),
            max_body=_number(env, MAX_BODY, 64 * 2**20),
            threads=_number(env, THREADS, available_cores()),
            drain=_number(env, DRAIN_SECONDS, 0),
        )


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise InvalidSettings(f"{name}: expected a whole number, found {text!r}; correct or unset it")
    return int(text)


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: CPU affinity bounded by the cgroup's quota (cgroup v2, cpu.max), at least 1."""
    cores = len(os.sched_getaffinity(0))
    if quota.is_file():
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, max(1, int(allowed) // int(period)))
    return max(1, cores)
