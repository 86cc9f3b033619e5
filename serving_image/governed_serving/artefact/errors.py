"""Errors of the artefact room.

ArtefactError
├── MalformedArtefact   not an artefact, or one of another format
│   └── Untried         what kept it from being judged may pass
└── TamperedArtefact    a digest differs from what the manifest or the caller expects
"""


class ArtefactError(Exception):
    """Base of the room's errors; the message is one line for people."""


class MalformedArtefact(ArtefactError):
    """The bytes or files are not an artefact of this format."""


class Untried(MalformedArtefact):
    """It wasn't judged: time, memory of the machine or a file that isn't there yet kept it from that."""


class TamperedArtefact(ArtefactError):
    """Content differs from its digest: it must not be served."""
