"""Errors of the artefact room.

ArtefactError
├── MalformedArtefact   not an artefact, or one of another format
└── TamperedArtefact    a digest differs from what the manifest or the caller expects
"""


class ArtefactError(Exception):
    """Base of the room's errors; the message is one line for people."""


class MalformedArtefact(ArtefactError):
    """The bytes or files are not an artefact of this format."""


class TamperedArtefact(ArtefactError):
    """Content differs from its digest: it must not be served."""
