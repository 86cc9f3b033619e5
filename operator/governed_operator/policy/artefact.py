"""Which artefact answers a spec."""

from governed_api.report import GovernanceReportStatus
from governed_api.resolved import ResolvedModel


def artefact_of(model: ResolvedModel, report: GovernanceReportStatus | None) -> str | None:
    """Digest of what serves this spec, of a foreign runtime's weights too, "" where the spec doesn't name them; None
    while the trainer or importer Job hasn't answered this very spec."""
    predictor = model.spec.predictor.model
    if predictor.runtime:
        return predictor.digest or ""
    if predictor.is_mounted:
        return predictor.digest
    trainer = report.trainer if report else None
    if trainer is None or trainer.phase != "Succeeded" or trainer.training_hash != model.training_hash():
        return None
    digest = (trainer.artefact or {}).get("digest")
    return str(digest) if digest else None
