"""Errors of the server room; each knows its HTTP status and is translated once, at the edge.

ServerError
├── InvalidRequest 400      body, tensor names, shapes, dtypes, values
│   └── RuntimeRefused      by a foreign runtime, with its own status (400 to 499)
├── NotFound 404            no such model, version or explainer
├── BodyTooLarge 413
├── TooManyTokens 413       more than the quota's window ever holds
├── QuotaExceeded 429       carries Retry-After
├── PredictionFailed 500    the model itself erred
├── UpstreamFailed 502      the foreign runtime erred
├── Unavailable 503         not ready, draining, overloaded
│   ├── Overloaded          its turn would come after its deadline
│   ├── NoRoom              for the bodies that clients send at a time
│   ├── MaskingFailed       personal data could not be masked, and the policy is Closed
│   ├── JournalUnavailable  the record could not be written, and the policy is Closed
│   ├── PromiseUnavailable  asked for, and none can be given
│   ├── RuntimeBusy         a foreign runtime has no room: its own status (429, 503) and Retry-After
│   └── ExplainerAway
└── DeadlineExceeded 504
"""

Headers = tuple[tuple[bytes, bytes], ...]
"""HTTP header fields: lower-case names, values."""


class ServerError(Exception):
    """Base; the message is one line: what was expected, what was found, what to do. ``retry_after`` in seconds."""

    status = 500
    retry_after: int | None = None
    headers: Headers = ()
    """Fields that its answer has beside Retry-After."""
    client_made = False
    """A client alone can bring it about, on any revision: with status 500 or more, nothing to hold against this
    one."""


class InvalidRequest(ServerError):
    """The client must change the request."""

    status = 400


class RuntimeRefused(InvalidRequest):
    """The foreign runtime says that the request must change; ``status`` is its own."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class NotFound(ServerError):
    """There is no such thing here."""

    status = 404


class BodyTooLarge(ServerError):
    """The body exceeds the limit."""

    status = 413


class TooManyTokens(ServerError):
    """One request asks for more tokens than spec.quota.tokens ever holds: no wait helps."""

    status = 413


class QuotaExceeded(ServerError):
    """A quota of the spec is used up; ``quota`` names it (requests, tokens, concurrency)."""

    status = 429

    def __init__(self, message: str, *, quota: str, retry_after: int, headers: Headers = ()) -> None:
        super().__init__(message)
        self.quota = quota
        self.retry_after = retry_after
        self.headers = headers


class PredictionFailed(ServerError):
    """The model erred on valid input."""

    status = 500


class UpstreamFailed(ServerError):
    """The foreign runtime can't be reached or answered something else than its protocol."""

    status = 502


class Unavailable(ServerError):
    """Not now; the same request may succeed later."""

    status = 503
    retry_after = 1


class Overloaded(Unavailable):
    """What waits already takes longer than a request may."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = max(1, min(retry_after, 3600))


class NoRoom(Unavailable):
    """Bodies of requests fill the memory set aside for them."""

    client_made = True


class MaskingFailed(Unavailable):
    """Masking erred under failurePolicy Closed. Never quotes the text."""


class JournalUnavailable(Unavailable):
    """The journal can't be written under failurePolicy Closed."""

    retry_after = 5


class PromiseUnavailable(Unavailable):
    """A promise was asked for, and the process has no announced key, or no record to promise."""

    retry_after = 5


class RuntimeBusy(Unavailable):
    """The foreign runtime takes no more for now; ``status`` is its own, ``wait`` what it wrote as Retry-After: of
    whole seconds, an hour at most, it is told on."""

    def __init__(self, message: str, status: int = 503, wait: str = "") -> None:
        super().__init__(message)
        self.status = status
        if wait.isascii() and wait.isdigit() and len(wait) < 10:
            self.retry_after = max(1, min(int(wait), 3600))


class ExplainerAway(Unavailable):
    """The explainer doesn't answer."""

    retry_after = 5


class DeadlineExceeded(ServerError):
    """spec.predictor.timeout passed."""

    status = 504

    @classmethod
    def after(cls, seconds: float) -> "DeadlineExceeded":
        """The one message for it."""
        return cls(f"server: expected an answer within {seconds:g} s (spec.predictor.timeout), found none; retry later")
