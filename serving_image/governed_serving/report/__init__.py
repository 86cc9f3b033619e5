"""Client of the GovernanceReport: a pod puts its own part, into a file or the resource's status."""

from governed_serving.report.writer import ReportWriter

__all__ = ["ReportWriter"]
