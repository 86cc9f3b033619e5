"""What the governed path takes and gives, whatever the transport."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from governed_api.json_types import Json, Scalar
from governed_serving.access.directory import Known
from governed_serving.server.signature import Output, Values

__all__ = [
    "Completed",
    "ExplainRequest",
    "InferRequest",
    "InferResponse",
    "OutputValues",
    "Stream",
]


@dataclass(slots=True)
class InferRequest:
    """A request that fits the signature by name, shape and datatype.

    ``columns`` one per input of the signature, in its order, each flattened to rows × width. ``outputs`` are the names
    asked for; empty: all. ``client_id`` is what the client calls it: echoed and kept, masked, but never looked up by.
    """

    client_id: str
    rows: int
    columns: list[Values]
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Json] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of each column, where the signature's are chosen by requests (``Signature.whole``); ``rows`` is 1 then."""
    size: int = 0
    """Bytes of the body it came in."""
    request_id: str = ""
    """X-Request-Id, which the answer repeats; kept where the body has no id."""
    promise: bool = False
    """It asks for a signed promise (X-Governed-Promise)."""
    caller: Known | None = None
    """Who sent it, where that is asked."""
    id: str = ""
    """Ours (UUIDv7), given when it is admitted: the prediction's name in journal and ledger."""


@dataclass(slots=True)
class OutputValues:
    """One output of one request; ``values`` flattened to rows × width. ``finite``: NaN and infinity are not among
    those of its batch, and need not be looked for."""

    spec: Output
    rows: int
    values: list[Scalar]
    finite: bool = True
    whole: tuple[int, ...] | None = None
    """Shape of an answer that has no rows."""

    @property
    def shape(self) -> list[int]:
        """With the rows first."""
        return [self.rows, *self.spec.shape] if self.whole is None else list(self.whole)

    @property
    def non_finite(self) -> int:
        """Values that JSON has no number for: NaN, infinity."""
        return 0 if self.finite else sum(isinstance(v, float) and not math.isfinite(v) for v in self.values)


@dataclass(slots=True)
class InferResponse:
    """The answer to one request. ``masked`` the columns as the model saw them, for the explainer."""

    id: str
    """The prediction's, ours."""
    outputs: list[OutputValues]
    ledger: str = ""
    """pending: journalled, the archive will have it; "": not journalled."""
    client_id: str = ""
    """As the request had it."""
    masked: Sequence[list[Scalar]] = ()
    promise: str = ""
    """Signed: that the ledger will have its record; "": none was asked for, or can be given."""


@dataclass(slots=True)
class ExplainRequest:
    """An inference request and how its answer is to be explained: governed_api.explaining has the options."""

    infer: InferRequest
    options: dict[str, Json]
    later: bool = False
    """Answer with a ticket at once."""


class Completed(NamedTuple):
    """A whole completion: its request's id, the runtime's answer as JSON, and a promise if there is one (of a stream,
    its last event but one has it)."""

    id: str
    body: bytes
    promise: str = ""
    aigc: str = ""
    """Metadata of generated text, as its header has it."""


@dataclass(frozen=True)
class Stream:
    """A completion that comes in pieces (server-sent events)."""

    id: str
    pieces: AsyncIterator[bytes]
    aigc: str = ""
    """Metadata of generated text, as its header has it, without a digest of what is still to come."""
