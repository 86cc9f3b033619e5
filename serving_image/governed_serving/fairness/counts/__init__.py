"""Counts that add up: cells, groups, windows, scores, labels."""
