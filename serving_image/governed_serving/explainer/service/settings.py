"""Configuration from the environment and the resolved spec."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.governance import Explainer
from governed_api.quantities import whole_bytes
from governed_api.resolved import ResolvedModel
from governed_serving.access.document import Sources
from governed_serving.environment import PodEnvironment, Token
from governed_serving.pod_token import NO_POD_TOKENS, PodTokens

__all__ = ["ExplainerSettings"]

ALIBI_PYTHON = Path("/opt/alibi/bin/python")
"""Where an image with alibi has its interpreter; elsewhere GOVERNED_ALIBI_PYTHON says."""

CAPTUM_PYTHON = Path("/opt/captum/bin/python")
"""Where an image with captum has its interpreter; elsewhere GOVERNED_CAPTUM_PYTHON says."""


@dataclass(frozen=True)
class ExplainerSettings:
    """What one explainer reads before it starts. Empty ``archive_url``: a model run by hand, whose keysets lie in the
    spool."""

    resolved: ResolvedModel
    explainer: Explainer
    model_dir: Path
    spool_dir: Path
    kek_file: Path
    archive_url: str
    archive_token: Token
    predictor_url: str
    host: str
    port: int
    pod: str
    revision: str
    artefact_digest: str = ""
    alibi_python: Path = ALIBI_PYTHON
    captum_python: Path = CAPTUM_PYTHON
    pod_tokens: PodTokens = NO_POD_TOKENS
    callers: Sources | None = None

    @property
    def model(self) -> str:
        return self.resolved.name

    @property
    def spool_bytes(self) -> int:
        """Room in the spool for the explainer's own stream: a quarter."""
        return whole_bytes(self.resolved.spec.governance.audit.spool_size) // 4

    @property
    def protected(self) -> tuple[str, ...]:
        """Columns that must not decide, hence must not change in a counterfactual."""
        bias = self.resolved.spec.governance.bias
        return tuple(attribute.name for attribute in bias.protected_attributes) if bias else ()

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "ExplainerSettings":
        """Raises InvalidSettings."""
        env = PodEnvironment(variables)
        resolved = env.model()
        url, token = env.archive()
        return cls(
            resolved=resolved,
            explainer=resolved.spec.explainer or Explainer(),
            model_dir=Path(env.text(runtime.MODEL_DIR, runtime.MOUNT_MODEL)),
            spool_dir=Path(env.text(runtime.SPOOL_DIR, runtime.MOUNT_SPOOL)),
            kek_file=env.required_path(runtime.KEK_FILE, "the path of the model's key-encryption key"),
            archive_url=url,
            archive_token=token,
            predictor_url=env.url(runtime.PREDICTOR_URL, f"http://127.0.0.1:{runtime.PORT_INTERNAL}"),
            host=env.text(runtime.HOST, "0.0.0.0"),
            port=env.port(runtime.HTTP_PORT, runtime.PORT_EXPLAINER),
            pod=env.text(runtime.POD_NAME, runtime.LOCAL),
            revision=env.text(runtime.REVISION),
            artefact_digest=env.text(runtime.ARTEFACT_DIGEST),
            alibi_python=env.path(runtime.ALIBI_PYTHON) or ALIBI_PYTHON,
            captum_python=env.path(runtime.CAPTUM_PYTHON) or CAPTUM_PYTHON,
            pod_tokens=env.pod_tokens(),
            callers=Sources.of(env),
        )
