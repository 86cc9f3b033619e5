"""Bias verdicts; see README.md. The statistics are in metrics, intervals, hypotheses, betting; the service is in
service/."""
