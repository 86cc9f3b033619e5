"""Explanations as the governed path knows them: what is asked, and what is answered, whatever carries it.

The way to the explainer is explainer_client.py; answers become HTTP where the routes are.
"""

from typing import ClassVar, Literal, Protocol

import msgspec

from governed_api.json_types import Json, Scalar
from governed_serving.server.errors import ServerError

__all__ = [
    "Accepted",
    "Column",
    "Explained",
    "ExplainedCompletion",
    "Explainer",
    "ExplanationRefused",
    "Question",
    "Reason",
    "Report",
    "ReportKind",
]

ReportKind = Literal["importances", "quality", "overview"]
"""Global importances and quality of the explanations given; the model as a whole."""

Reason = Literal[
    "invalid", "unknown", "too-large", "overloaded", "failed", "misbehaved", "unavailable", "out-of-time", "unanswered"
]
"""out-of-time: the budget that was asked for is over; unanswered: ours is, the explainer says nothing."""

_STATUS: dict[Reason, int] = {
    "invalid": 400,
    "unknown": 404,
    "too-large": 413,
    "overloaded": 429,
    "failed": 500,
    "misbehaved": 502,
    "unavailable": 503,
    "out-of-time": 504,
    "unanswered": 504,
}


class Column(msgspec.Struct, frozen=True):
    """One input of the rows to explain, masked; ``data`` flattened, V2's field names."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Scalar]


class Question(msgspec.Struct, frozen=True):
    """The answered and journalled request ``id``, to be explained; V2's field names. ``parameters``: the
    options of governed_api.explaining."""

    id: str
    inputs: list[Column]
    parameters: dict[str, Json]


class Explained(msgspec.Struct, frozen=True):
    """``document``: the explanation as JSON, byte for byte as the explainer recorded it."""

    status: ClassVar[int] = 200
    document: bytes


class Accepted(msgspec.Struct, frozen=True):
    """The explanation is being computed; ``document``: its ticket as JSON."""

    status: ClassVar[int] = 202
    document: bytes


class ExplainedCompletion(msgspec.Struct, frozen=True):
    """The explanation of the completion ``id``, or a ticket for it."""

    id: str
    answer: Explained | Accepted


class Report(msgspec.Struct, frozen=True):
    """Something read of the explainer's, as JSON."""

    status: ClassVar[int] = 200
    document: bytes


class ExplanationRefused(ServerError):
    """The explainer itself refused, and why."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = _STATUS[reason]
        self.client_made = reason == "out-of-time"  # of the budget that the request named, or the spec


class Explainer(Protocol):
    """Each raises ExplainerAway, ExplanationRefused."""

    async def explain(self, question: Question, *, later: bool = False) -> Explained | Accepted:
        """Explain an answer; ``later``: at once a ticket for it."""

    async def ticket(self, ticket: str) -> Report:
        """What became of an explanation that was asked for later."""

    async def report(self, kind: ReportKind) -> Report:
        """Over all explanations."""

    async def close(self) -> None:
        """Drop connections."""
