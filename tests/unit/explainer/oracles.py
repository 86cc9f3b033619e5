"""The libraries that ours is checked against; what they warn about at import is theirs."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lime.lime_tabular as lime_tabular
    import lime.lime_text as lime_text
    import shap

__all__ = ["lime_tabular", "lime_text", "shap"]
