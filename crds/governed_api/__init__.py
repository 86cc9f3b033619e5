"""The contract: typed spec and status of GovernedModel and GovernanceReport, names, conditions, CRD generation.

Imports nothing of ours. See README.md.
"""

from governed_api.conditions import Condition, set_condition
from governed_api.model import GovernedModel, GovernedModelSpec, GovernedModelStatus
from governed_api.report import GovernanceReportStatus
from governed_api.resolved import ResolvedModel

__all__ = [
    "Condition",
    "GovernanceReportStatus",
    "GovernedModel",
    "GovernedModelSpec",
    "GovernedModelStatus",
    "ResolvedModel",
    "set_condition",
]
