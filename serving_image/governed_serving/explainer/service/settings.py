"""Configuration from the environment and the resolved spec."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.governance import Explainer
from governed_api.resolved import ResolvedModel

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What one explainer reads before it starts."""

    resolved: ResolvedModel
    explainer: Explainer
    model_dir: Path
    spool_dir: Path
    kek_file: Path
    predictor_url: str
    port: int
    pod: str
    revision: str
    artefact_digest: str = ""

    @property
    def model(self) -> str:
        return self.resolved.name

    @property
    def protected(self) -> tuple[str, ...]:
        """Columns that must not decide, hence must not change in a counterfactual."""
        bias = self.resolved.spec.governance.bias
        return tuple(attribute.name for attribute in bias.protected_attributes) if bias else ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Raises KeyError naming a missing variable, OSError, pydantic.ValidationError."""
        resolved = ResolvedModel.load(environ[runtime.SPEC])
        return cls(
            resolved=resolved,
            explainer=resolved.spec.explainer or Explainer(),
            model_dir=Path(environ.get(runtime.MODEL_DIR, runtime.MOUNT_MODEL)),
            spool_dir=Path(environ.get(runtime.SPOOL_DIR, runtime.MOUNT_SPOOL)),
            kek_file=Path(environ[runtime.KEK_FILE]),
            predictor_url=environ.get(runtime.PREDICTOR_URL, f"http://127.0.0.1:{runtime.PORT_INTERNAL}"),
            port=int(environ.get(runtime.HTTP_PORT, runtime.PORT_EXPLAINER)),
            pod=environ.get(runtime.POD_NAME, "local"),
            revision=environ.get(runtime.REVISION, ""),
            artefact_digest=environ.get(runtime.ARTEFACT_DIGEST, ""),
        )
