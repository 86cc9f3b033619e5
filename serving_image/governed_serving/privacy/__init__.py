"""Personal data in text: found and masked; see README.md."""

from governed_serving.privacy.actions import ACTIONS, unmask
from governed_serving.privacy.finder import Finder, Finding, Hook
from governed_serving.privacy.masker import Covered, Masker, MaskingError, masker, scan
from governed_serving.privacy.recognisers import ENTITIES
from governed_serving.privacy.ruled import NameSearch
from governed_serving.privacy.stream import TextStream

__all__ = [
    "ACTIONS",
    "ENTITIES",
    "Covered",
    "Finder",
    "Finding",
    "Hook",
    "Masker",
    "MaskingError",
    "NameSearch",
    "TextStream",
    "masker",
    "scan",
    "unmask",
]
