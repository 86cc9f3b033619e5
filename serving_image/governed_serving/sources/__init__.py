"""Where a model's files come from: fetched, bounded, verified."""

from governed_serving.sources.download import Bounds, Progress
from governed_serving.sources.errors import Differs, NoRoom, Refused, SourceError, Unavailable
from governed_serving.sources.fetching import Wanted, fetch
from governed_serving.sources.source import Access, Keys
from governed_serving.sources.tree import File, Tree

__all__ = [
    "Access",
    "Bounds",
    "Differs",
    "File",
    "Keys",
    "NoRoom",
    "Progress",
    "Refused",
    "SourceError",
    "Tree",
    "Unavailable",
    "Wanted",
    "fetch",
]
