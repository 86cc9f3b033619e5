"""From a computed batch to what the journal keeps of it: masked columns and outputs, one frame for the whole batch."""

import time
from array import array
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from governed_serving.journal.columns import pack, pack_tensor
from governed_serving.records import Column, Frame, PredictionFrame
from governed_serving.server.identity import Identity
from governed_serving.server.signature import Signature

__all__ = ["Journal", "Kept", "PredictionRecorder"]


class Kept(Protocol):
    """Where a record lies: frame ``seq`` of ``stream``."""

    @property
    def stream(self) -> str: ...

    @property
    def seq(self) -> int: ...

    @property
    def ciphertext(self) -> bytes: ...

    def digest(self) -> str:
        """SHA-256 (hex) of the frame, as the archive will have it."""


class Journal(Protocol):
    """What the server needs of governed_serving.journal."""

    async def append(self, record: Frame) -> Kept:
        """Returns when the record is as durable as the spec asks. Raises JournalError."""


class PredictionRecorder:
    """Builds PredictionFrames of one model revision."""

    def __init__(self, signature: Signature, identity: Identity) -> None:
        self._features = [(s.name, s.dtype, s.width) for s in signature.inputs]
        self._outputs = [(s.name, s.dtype, s.width) for s in signature.outputs]
        self._identity = identity

    def frame(
        self,
        ids: list[str],
        rows: list[int],
        columns: Sequence[NDArray[np.generic]],
        outputs: Sequence[NDArray[np.generic]],
        client_ids: list[str],
        *,
        callers: Sequence[str] = (),
    ) -> PredictionFrame:
        """``columns`` (masked) and ``outputs`` hold sum(rows) rows, in the signature's order; ``client_ids``, masked as
        well, and ``callers``, one per request or none."""
        times = np.full(len(ids), time.time(), "<f8").tobytes()
        return PredictionFrame(
            self._identity.model,
            self._identity.revision,
            self._identity.artefact,
            ids,
            times,
            array("i", rows).tobytes(),
            _packed(self._features, columns),
            _packed(self._outputs, outputs),
            client_ids,
            list(callers),
        )

    def whole(
        self,
        id: str,
        columns: Sequence[NDArray[np.generic]],
        outputs: Sequence[NDArray[np.generic]],
        client_ids: list[str],
        *,
        callers: Sequence[str] = (),
    ) -> PredictionFrame:
        """Of one request to a graph whose shapes requests choose: a row that holds its tensors."""
        return PredictionFrame(
            self._identity.model,
            self._identity.revision,
            self._identity.artefact,
            [id],
            np.full(1, time.time(), "<f8").tobytes(),
            array("i", [1]).tobytes(),
            _whole(self._features, columns),
            _whole(self._outputs, outputs),
            client_ids,
            list(callers),
        )


def _whole(fields: list[tuple[str, str, int]], arrays: Sequence[NDArray[np.generic]]) -> dict[str, Column]:
    return {name: pack_tensor(dtype, values) for (name, dtype, _), values in zip(fields, arrays, strict=True)}


def _packed(fields: list[tuple[str, str, int]], arrays: Sequence[NDArray[np.generic]]) -> dict[str, Column]:
    return {
        name: pack(dtype, width, [values], len(values))
        for (name, dtype, width), values in zip(fields, arrays, strict=True)
    }
