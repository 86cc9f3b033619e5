"""The auditor's process: tails, folds, ships, judges, answers."""
