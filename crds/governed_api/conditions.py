"""Condition types, reasons and the one helper that sets them (metav1.Condition)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from governed_api.base import Part

READY = "Ready"
PREDICTOR_READY = "PredictorReady"
EXPLAINER_READY = "ExplainerReady"
AUDITOR_READY = "AuditorReady"
ARCHIVE_READY = "ArchiveReady"
ENCRYPTION_READY = "EncryptionReady"
QUOTA_ENFORCED = "QuotaEnforced"
POLICY_SATISFIED = "PolicySatisfied"
BIAS_WITHIN_THRESHOLDS = "BiasWithinThresholds"
MODEL_VERIFIED = "ModelVerified"
TRAINING_SUCCEEDED = "TrainingSucceeded"
DEGRADED = "Degraded"
RECONCILING = "Reconciling"
"""kstatus: work is under way that time alone will finish. Present only while True."""
STALLED = "Stalled"
"""kstatus: nothing gets better until a person acts. Present only while True."""

KEY_READY = "KeyReady"
"""Of a ModelConsumer: all its keys are its own, and one at least lets somebody in."""
MODELS_FOUND = "ModelsFound"
"""Of a ModelConsumer: every model that it names is there."""

TYPES = (
    READY,
    PREDICTOR_READY,
    EXPLAINER_READY,
    AUDITOR_READY,
    ARCHIVE_READY,
    ENCRYPTION_READY,
    QUOTA_ENFORCED,
    POLICY_SATISFIED,
    BIAS_WITHIN_THRESHOLDS,
    MODEL_VERIFIED,
    TRAINING_SUCCEEDED,
    DEGRADED,
    RECONCILING,
    STALLED,
)

Truth = Literal["True", "False", "Unknown"]
State = tuple[Truth, str, str]
"""(status, reason, message) of a condition."""


class Condition(Part):
    """metav1.Condition."""

    type: str = Field(max_length=316)
    status: Truth
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    message: str = Field(max_length=32768)
    last_transition_time: datetime
    observed_generation: int | None = Field(default=None, ge=0)


def set_condition(
    conditions: Sequence[Condition],
    type: str,
    state: State,
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Conditions with one of them set; the transition time moves only when the status does."""
    old = next((c for c in conditions if c.type == type), None)
    status, reason, message = state
    said = (*state, generation)
    if old is not None and (old.status, old.reason, old.message, old.observed_generation) == said:
        return list(conditions)
    moved = old is None or old.status != status
    new = Condition(
        type=type,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=now if moved or old is None else old.last_transition_time,
        observed_generation=generation,
    )
    return [*(c for c in conditions if c.type != type), new]
