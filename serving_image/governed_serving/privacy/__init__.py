"""Personal data in text: found and masked; see README.md."""

from governed_serving.privacy.actions import ACTIONS, unmask
from governed_serving.privacy.finder import Finder, Finding, Hook
from governed_serving.privacy.masker import Masker, MaskingError, masker, scan
from governed_serving.privacy.recognisers import ENTITIES

__all__ = ["ACTIONS", "ENTITIES", "Finder", "Finding", "Hook", "Masker", "MaskingError", "masker", "scan", "unmask"]
