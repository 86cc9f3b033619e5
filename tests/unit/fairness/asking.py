"""What is asked of one metric alone, as a verdict asks it of all comparisons together."""

from typing import Any

from governed_serving.fairness.inference.intervals import Interval
from governed_serving.fairness.metrics.sequences import evidences, intervals, metric_question


def metric_sequence(name: str, u: Any, p: Any, level: float) -> Interval:
    """Confidence sequence of METRICS[name] for counts (2, 3) of the unprivileged and the privileged."""
    return intervals([metric_question(name, u, p)], [1 - level])[0]


def metric_evidence(name: str, u: Any, p: Any, lower: float, upper: float) -> float:
    """Log e-value against "the metric lies in [``lower``, ``upper``]"; −inf where nothing speaks against it."""
    return evidences([metric_question(name, u, p)], [(lower, upper)])[0]
