"""Names in text by a model: see README.md."""

from governed_serving.privacy.names.finder import NameFinder, opened

__all__ = ["NameFinder", "opened"]
