"""What a failed reconcile means for people: a reason of a closed set, a message with what to do next, and when it is
told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from governed_api.reasons import Reason
from governed_operator.kube.cluster import ApiError
from governed_operator.policy.observed import Refusal
from governed_operator.watch.cache import ModelKey

LONGEST = 700
"""Characters of what was found: the remedy after it must fit into a condition's message (1000) as well."""


class Wait(Exception):
    """Something must happen first; try again in ``seconds``."""

    def __init__(self, seconds: float, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.reason = reason


class NameTaken(Exception):
    """An object that a model wants is there, made by another: it is never adopted."""

    def __init__(self, kind: str, name: str, owner: str) -> None:
        super().__init__(f"expected to make {kind} {name}, found one that others own: {owner}")
        self.subject = f"{kind} {name}"


class SpecNotReadable(Exception):
    """A stored spec that this version's types don't take (made under another version's CRD)."""


class Treatment(NamedTuple):
    """How a kind of failure is dealt with."""

    remedy: str
    """What the reader should do next."""
    stalled: bool = False
    """Retrying cannot succeed until a person acts (kstatus)."""
    times: int = 3
    """Failures running before it is told."""
    seconds: float = 0.0
    """Age of the first of them before it is told."""


PASSING = 8
"""Failures running (about two minutes of back-off) before one that usually passes by itself is told after all: a limit
or a conflict that lasts is no passing one, and nobody may wait for ever without a word."""
WAIT_SECONDS = 30.0

TREATMENTS: dict[Reason, Treatment] = {
    Reason.SPEC_NOT_READABLE: Treatment("correct that field, or run the operator version that wrote it", True, 1),
    Reason.INVALID: Treatment("correct the field that it names", True, 1),
    Reason.FORBIDDEN: Treatment("raise the quota, or grant the operator that right", times=1),
    Reason.BAD_REQUEST: Treatment("change the model, or the admission policy that denies it", True),
    Reason.REQUEST_ENTITY_TOO_LARGE: Treatment("make the model smaller: inline data belongs on a volume", True),
    Reason.UNAUTHORIZED: Treatment("renew the operator's token or certificate"),
    Reason.NOT_FOUND: Treatment("install the kind or make the object that it names"),
    Reason.METHOD_NOT_ALLOWED: Treatment("install the API version that the operator writes"),
    Reason.INTERNAL_ERROR: Treatment("see whether the webhook it names, or the API server, is up"),
    Reason.SERVICE_UNAVAILABLE: Treatment("see whether the API server and its extensions are up"),
    Reason.TIMEOUT: Treatment("see whether a webhook or the API server answers too slowly"),
    Reason.UNEXPECTED_ERROR: Treatment(
        "this is a fault of the operator: report it with the traceback in its log", True
    ),
    Reason.OTHER: Treatment("see the operator's log"),
    # What passes by itself as a rule.
    Reason.CONFLICT: Treatment("see who else writes that object", times=PASSING),
    Reason.TOO_MANY_REQUESTS: Treatment("see what overloads the API server", times=PASSING),
    Reason.UNREACHABLE: Treatment("see whether the API server is up", times=PASSING),
    Reason.NAME_TAKEN: Treatment("rename the model or that object; it is left as it is", True, 1),
    # What must happen first.
    Reason.ARCHIVE_KEYS_PENDING: Treatment(
        "see the operator's log for why the archive is not made", times=1, seconds=WAIT_SECONDS
    ),
    Reason.PREVIOUS_MODEL_REMAINS: Treatment(
        "remove the finalizers that keep it, or choose another name", times=1, seconds=WAIT_SECONDS
    ),
}
"""Every reason that a failed reconcile can have: the closed set of the metric's label as well."""

BY_STATUS = {
    0: Reason.UNREACHABLE, 400: Reason.BAD_REQUEST, 401: Reason.UNAUTHORIZED, 403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED, 408: Reason.TIMEOUT, 409: Reason.CONFLICT,
    413: Reason.REQUEST_ENTITY_TOO_LARGE, 422: Reason.INVALID, 429: Reason.TOO_MANY_REQUESTS,
    500: Reason.INTERNAL_ERROR, 502: Reason.SERVICE_UNAVAILABLE, 503: Reason.SERVICE_UNAVAILABLE, 504: Reason.TIMEOUT,
}  # fmt: skip
"""Where the API server, or a webhook that denies, gives no reason of the set: anybody may write anything there."""


@dataclass(frozen=True)
class Failure:
    """Why a reconcile did not come to its end."""

    reason: Reason
    message: str
    subject: str = ""
    """Kind and name of the object whose write was refused; empty where no object is to blame."""

    @property
    def treatment(self) -> Treatment:
        return TREATMENTS[self.reason]

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Any exception that ended a reconcile."""
        if isinstance(error, ApiError):
            reason = _reason(error)
            return cls(reason, _message(reason, str(error), error.subject), error.subject)
        if isinstance(error, SpecNotReadable):
            return cls(Reason.SPEC_NOT_READABLE, _message(Reason.SPEC_NOT_READABLE, str(error)))
        if isinstance(error, NameTaken):
            return cls(Reason.NAME_TAKEN, _message(Reason.NAME_TAKEN, str(error)), error.subject)
        if isinstance(error, Wait):
            return cls(error.reason, _message(error.reason, str(error)))
        message = f"unexpected {type(error).__name__}: {error}"
        return cls(Reason.UNEXPECTED_ERROR, _message(Reason.UNEXPECTED_ERROR, message))

    def refusal(self, of: str) -> Refusal:
        """The same, of what several models share."""
        return Refusal(self.reason, f"{of}: {self.message}", self.treatment.stalled, self.subject)


API_REASONS = {r.value: r for r in BY_STATUS.values()}
"""Reasons that an API server may give for a refusal; any other word stays in the message."""


def _reason(error: ApiError) -> Reason:
    return API_REASONS.get(error.reason) or BY_STATUS.get(error.status, Reason.OTHER)


def _message(reason: Reason, message: str, subject: str = "") -> str:
    where = f"{subject}: " if subject else ""
    return f"{where}{message[:LONGEST]}; to do: {TREATMENTS[reason].remedy}"


@dataclass
class _Row:
    """Failures of one key, running."""

    since: float
    count: int = 0
    evented: tuple[int, Reason, str] | None = None


class FailureLog:
    """Failures running, per key: which of them is told, and which event has been posted already."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[ModelKey, _Row] = {}

    def failed(self, key: ModelKey, failure: Failure) -> bool:
        """Whether it is to be told."""
        row = self._rows.setdefault(key, _Row(self._clock()))
        row.count += 1
        treatment = failure.treatment
        return row.count >= treatment.times and self._clock() - row.since >= treatment.seconds

    def news(self, key: ModelKey, generation: int, failure: Failure) -> bool:
        """Whether no event has told of this yet. A message may differ each time (a trace number): it decides
        nothing."""
        row = self._rows.setdefault(key, _Row(self._clock()))
        told = (generation, failure.reason, failure.subject)
        fresh, row.evented = row.evented != told, told
        return fresh

    def passed(self, key: ModelKey) -> None:
        self._rows.pop(key, None)
