"""V2 bodies to bodies: neither admitted nor masked nor journalled, as what is asked was masked and recorded before."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from governed_serving.server.messages import InferResponse, OutputValues
from governed_serving.server.predictors import Columns, Outputs
from governed_serving.server.protocol.v2 import Encoded, V2Codec
from governed_serving.server.signature import Signature, array

__all__ = ["Rows"]


class Rows:
    """``compute`` answers whole columns; ``count`` is told a counter's name and by how much it grew."""

    def __init__(
        self,
        codec: V2Codec,
        signature: Signature,
        compute: Callable[[Columns], Awaitable[Outputs]],
        count: Callable[[str, int], None],
    ) -> None:
        self._codec, self._signature, self._compute, self._count = codec, signature, compute, count

    async def answer(self, body: bytes, header: int | None) -> Encoded:
        """Raises ServerError."""
        request, form = self._codec.decode(body, header)
        inputs = zip(self._signature.inputs, request.columns, strict=True)
        outputs = await self._compute([array(spec, [values]) for spec, values in inputs])
        self._count("internal_rows", request.rows)
        wanted = request.outputs
        values: list[OutputValues] = []
        for spec, output in zip(self._signature.outputs, outputs, strict=True):
            if not wanted or spec.name in wanted:
                flat: Any = np.ascontiguousarray(output).ravel()
                if spec.dtype == "BYTES" or spec.name not in form.names:
                    flat = flat.tolist()
                values.append(OutputValues(spec, request.rows, flat))
        return self._codec.encode(InferResponse(request.client_id, values), form)
