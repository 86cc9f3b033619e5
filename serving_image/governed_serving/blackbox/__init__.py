"""Rows asked of a model as a black box: by explainer and auditor alike."""
