"""What can go wrong in the auditor; translated to an HTTP status at the edge.

AuditorError
├── Unusable       a request that can't be right (400)
├── Unknown        no person's token (401)
├── Forbidden      the token of somebody who may not (403)
├── Decided        a contest that somebody decided otherwise (409)
├── Contradicting  another label than the one that a prediction has (409)
├── NotFound       nothing of that id here (404)
└── Unavailable    can't be done now: journal full, predictor unreachable (503)
"""

__all__ = ["AuditorError", "Contradicting", "Decided", "Forbidden", "NotFound", "Unavailable", "Unknown", "Unusable"]


class AuditorError(Exception):
    """Root; the message is one line for a person."""


class Unusable(AuditorError):
    """The request can't be fulfilled as it stands."""


class Unknown(AuditorError):
    """Nobody says who asks."""


class Forbidden(AuditorError):
    """Who asks may not."""


class Decided(AuditorError):
    """It was decided otherwise before; ``record`` is that decision."""

    def __init__(self, message: str, record: dict[str, object]):
        super().__init__(message)
        self.record = record


class Contradicting(AuditorError):
    """Another label than the first; ``requests``: of which predictions, some of them."""

    def __init__(self, message: str, requests: list[str]):
        super().__init__(message)
        self.requests = requests


class NotFound(AuditorError):
    """Nothing of that name or id."""


class Unavailable(AuditorError):
    """Not now: retry later."""
