"""Intervals, sequences, tests: what counts allow to say."""
