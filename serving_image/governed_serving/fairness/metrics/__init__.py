"""Fairness metrics, verdicts, mitigation offers."""
