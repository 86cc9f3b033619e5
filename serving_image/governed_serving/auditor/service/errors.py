"""What can go wrong in the auditor; translated to an HTTP status at the edge.

AuditorError
├── Unusable     a request that can't be right (400)
├── Unknown      no person's token (401)
├── Forbidden    the token of somebody who may not (403)
├── NotFound     nothing of that id here (404)
└── Unavailable  can't be done now: journal full, predictor unreachable (503)
"""

__all__ = ["AuditorError", "Forbidden", "NotFound", "Unavailable", "Unknown", "Unusable"]


class AuditorError(Exception):
    """Root; the message is one line for a person."""


class Unusable(AuditorError):
    """The request can't be fulfilled as it stands."""


class Unknown(AuditorError):
    """Nobody says who asks."""


class Forbidden(AuditorError):
    """Who asks may not."""


class NotFound(AuditorError):
    """Nothing of that name or id."""


class Unavailable(AuditorError):
    """Not now: retry later."""
