"""Configuration from the environment and the resolved spec."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.governance import Bias
from governed_api.lifetimes import Lifetimes
from governed_api.quantities import seconds, whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.access.document import Sources
from governed_serving.environment import PodEnvironment, Token
from governed_serving.pod_token import NO_POD_TOKENS, PodTokens

_CENTURY = 36_525 * 86_400
"""Seconds."""

__all__ = ["AuditorSettings"]


@dataclass(frozen=True)
class AuditorSettings:
    """What the process needs to know. Empty ``archive_url``: nothing is shipped; empty ``explainer_url``: no explainer
    runs."""

    resolved: ResolvedModel
    model_dir: Path
    spool_dir: Path
    kek_file: Path
    archive_url: str
    archive_token: Token
    report: str
    predictor_url: str
    explainer_url: str
    host: str
    port: int
    pod: str
    namespace: str
    revision: str
    on_trial: bool
    artefact_digest: str
    pod_tokens: PodTokens = NO_POD_TOKENS
    callers: Sources | None = None

    @property
    def model(self) -> str:
        return self.resolved.name

    @property
    def bias(self) -> Bias | None:
        return self.resolved.spec.governance.bias

    @property
    def lifetimes(self) -> Lifetimes:
        """How long the archive keeps payloads, and the model's keys last."""
        return Lifetimes.of(self.resolved.spec)

    @property
    def contest_seconds(self) -> int:
        """Seconds within which a contested decision is to be decided; a century at most, so that it has a date."""
        return min(seconds(self.resolved.spec.governance.audit.contest_deadline), _CENTURY)

    @property
    def spool_bytes(self) -> int:
        """Room in the spool for the auditor's own stream: an eighth."""
        return whole_bytes(self.resolved.spec.governance.audit.spool_size) // 8

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "AuditorSettings":
        """Raises InvalidSettings."""
        env = PodEnvironment(variables)
        resolved = env.model()
        url, token = env.archive()
        return cls(
            resolved=resolved,
            model_dir=Path(env.text(runtime.MODEL_DIR, runtime.MOUNT_MODEL)),
            spool_dir=Path(env.text(runtime.SPOOL_DIR, runtime.MOUNT_SPOOL)),
            kek_file=env.required_path(runtime.KEK_FILE, "the path of the model's key-encryption key"),
            archive_url=url,
            archive_token=token,
            report=env.text(runtime.REPORT),
            predictor_url=env.url(runtime.PREDICTOR_URL, f"http://127.0.0.1:{runtime.PORT_INTERNAL}"),
            explainer_url=env.url(runtime.EXPLAINER_URL),
            host=env.text(runtime.HOST, "0.0.0.0"),
            port=env.port(runtime.HTTP_PORT, runtime.PORT_AUDITOR),
            pod=env.text(runtime.POD_NAME, runtime.LOCAL),
            namespace=env.text(runtime.NAMESPACE, resolved.namespace),
            revision=env.text(runtime.REVISION),
            on_trial=env.text(runtime.TRACK) == runtime.TRACK_CANARY,
            artefact_digest=env.text(runtime.ARTEFACT_DIGEST),
            pod_tokens=env.pod_tokens(),
            callers=Sources.of(env),
        )
