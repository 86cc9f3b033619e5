"""Configuration from the environment and the resolved spec."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governed_api import runtime
from governed_api.governance import Bias
from governed_api.quantities import seconds
from governed_api.resolved import ResolvedModel

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What the process needs to know. Empty ``archive_url``: nothing is shipped; empty ``explainer_url``: no explainer runs."""

    resolved: ResolvedModel
    model_dir: Path
    spool_dir: Path
    kek_file: Path
    archive_url: str
    archive_token: str
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

    @property
    def model(self) -> str:
        return self.resolved.name

    @property
    def bias(self) -> Bias | None:
        return self.resolved.spec.governance.bias

    @property
    def retention(self) -> int | None:
        """Seconds that the archive keeps payloads; None: for ever."""
        payloads = self.resolved.spec.governance.privacy.retention.payloads
        return seconds(payloads) if payloads else None

    @property
    def rotation(self) -> int | None:
        """Seconds after which a new key takes over; None: never."""
        period = self.resolved.spec.governance.encryption.rotation
        return seconds(period) if period else None

    @property
    def spool_bytes(self) -> int:
        """Room in the spool for the auditor's own stream: an eighth."""
        size = self.resolved.spec.governance.audit.spool_size
        return (int(size[:-2]) << (20 if size.endswith("Mi") else 30)) // 8

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Raises KeyError naming a missing variable, OSError, pydantic.ValidationError."""
        resolved = ResolvedModel.load(environ[runtime.SPEC])
        url = environ.get(runtime.ARCHIVE_URL, "")
        return cls(
            resolved=resolved,
            model_dir=Path(environ.get(runtime.MODEL_DIR, runtime.MOUNT_MODEL)),
            spool_dir=Path(environ.get(runtime.SPOOL_DIR, runtime.MOUNT_SPOOL)),
            kek_file=Path(environ[runtime.KEK_FILE]),
            archive_url=url,
            archive_token=Path(environ[runtime.ARCHIVE_TOKEN_FILE]).read_text().strip() if url else "",
            report=environ.get(runtime.REPORT, ""),
            predictor_url=environ.get(runtime.PREDICTOR_URL, f"http://127.0.0.1:{runtime.PORT_INTERNAL}"),
            explainer_url=environ.get(runtime.EXPLAINER_URL, ""),
            host=environ.get("GOVERNED_HOST", "0.0.0.0"),
            port=int(environ.get(runtime.HTTP_PORT, runtime.PORT_AUDITOR)),
            pod=environ.get(runtime.POD_NAME) or "local",
            namespace=environ.get(runtime.NAMESPACE) or resolved.namespace,
            revision=environ.get(runtime.REVISION, ""),
            on_trial=environ.get(runtime.TRACK) == runtime.TRACK_CANARY,
            artefact_digest=environ.get(runtime.ARTEFACT_DIGEST, ""),
        )
