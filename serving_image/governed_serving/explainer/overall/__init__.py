"""Explanations of the model as a whole: importances, effects, a surrogate tree, and how importances drift."""
