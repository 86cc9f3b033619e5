"""Engines of others, each a process in an environment of its own that asks the model through us."""
