"""What the server reads from its environment (names: governed_api.runtime)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_serving.access.document import Sources
from governed_serving.environment import PodEnvironment, Token
from governed_serving.pod_token import NO_POD_TOKENS, PodTokens

__all__ = ["ServerSettings", "available_cores"]


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Paths, ports and sizes of one process."""

    spec: Path
    model_dir: Path | None
    spool_dir: Path | None
    kek_file: Path | None
    archive_url: str
    archive_token: Token
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
    pod_tokens: PodTokens = NO_POD_TOKENS
    callers: Sources | None = None

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "ServerSettings":
        """Raises InvalidSettings."""
        env = PodEnvironment(variables)
        url, token = env.archive()
        return cls(
            spec=env.required_path(runtime.SPEC, "the path of the resolved spec"),
            model_dir=env.path(runtime.MODEL_DIR),
            spool_dir=env.path(runtime.SPOOL_DIR),
            kek_file=env.path(runtime.KEK_FILE),
            archive_url=url,
            archive_token=token,
            artefact_digest=env.text(runtime.ARTEFACT_DIGEST),
            revision=env.text(runtime.REVISION, runtime.LOCAL),
            track=env.text(runtime.TRACK, runtime.TRACK_STABLE),
            report=env.text(runtime.REPORT),
            pod=env.text(runtime.POD_NAME, runtime.LOCAL),
            namespace=env.text(runtime.NAMESPACE, "default"),
            host=env.text(runtime.HOST, "0.0.0.0"),
            http_port=env.port(runtime.HTTP_PORT, runtime.PORT_HTTP),
            grpc_port=env.port(runtime.GRPC_PORT, 0) or None,
            internal_port=env.port(runtime.INTERNAL_PORT, 0) or None,
            explainer_url=env.url(runtime.EXPLAINER_URL),
            upstream_url=env.url(runtime.UPSTREAM_URL),
            max_body=env.number(runtime.MAX_BODY_BYTES, 64 * 2**20),
            threads=env.number(runtime.THREADS, available_cores()),
            drain=env.number(runtime.DRAIN_SECONDS, 0),
            pod_tokens=env.pod_tokens(),
            callers=Sources.of(env),
        )


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: CPU affinity bounded by the cgroup's quota (cgroup v2, cpu.max), at least 1."""
    cores = len(os.sched_getaffinity(0))
    if quota.is_file():
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, max(1, int(allowed) // int(period)))
    return max(1, cores)
