"""Brings artefacts into a pod: by reference, or imported."""
