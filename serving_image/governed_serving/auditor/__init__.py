"""Bias verdicts; see README.md. The statistics are in ../fairness, the process is in service/."""
