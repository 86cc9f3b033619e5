"""The one interface below governance."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from governed_serving.server.signature import Signature

__all__ = ["Columns", "Outputs", "Predictor"]

T = TypeVar("T")

Columns = list[NDArray[np.generic]]
"""One array per input, in the signature's order, shape (rows, *input.shape); str in object arrays."""

Outputs = list[NDArray[np.generic]]
"""One array per output, in the signature's order, shape (rows, *output.shape)."""


class Predictor(Protocol):
    """Rows in, rows out."""

    signature: Signature
    merges: bool
    """Rows of several requests in one call are cheaper than call by call."""
    slots: int
    """Calls that may run at a time."""

    async def predict(self, make: Callable[[], Columns], finish: Callable[[Outputs], T], size: int) -> T:
        """``finish(model(make()))``, off the event loop's thread unless that is known to take longer than the work
        itself.

        ``size``: bytes of the requests. Raises PredictionFailed, UpstreamFailed, what ``make`` and ``finish`` raise.
        """

    async def warm_up(self) -> None:
        """One call whose answer is thrown away, so that the first request finds everything loaded."""

    async def close(self) -> None:
        """Release what it holds."""
