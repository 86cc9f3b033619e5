"""Explanations of one row that aren't Shapley values: LIME, anchors, counterfactuals."""
