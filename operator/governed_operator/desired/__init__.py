"""Pure builders of everything that the operator owns."""

from governed_operator.desired.manifest import Manifest, Subject
from governed_operator.desired.objects import archive_objects, model_objects, objects

__all__ = ["Manifest", "Subject", "archive_objects", "model_objects", "objects"]
