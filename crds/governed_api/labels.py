"""Labels of Kubernetes, as ``matchLabels`` selects by them."""

from collections.abc import Mapping

__all__ = ["has_labels"]


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all of ``wanted`` are among ``labels``, with their values; true where none is wanted."""
    return all(labels.get(name) == value for name, value in wanted.items())
