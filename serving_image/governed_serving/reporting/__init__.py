"""GovernanceReport writing, and the report that a person reads."""

from governed_serving.report.writer import ReportWriter

__all__ = ["ReportWriter"]
