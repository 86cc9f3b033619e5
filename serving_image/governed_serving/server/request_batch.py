"""One call of a graph for one request, whose tensors have the graph's own shapes: in, out and into the journal."""

from collections.abc import Iterator

import numpy as np

from governed_serving.records import PredictionFrame, SubjectFrame
from governed_serving.server.batch import Batch, PendingRequest, callers_of, check_values, whom
from governed_serving.server.errors import PredictionFailed
from governed_serving.server.messages import InferResponse, OutputValues
from governed_serving.server.predictors import Columns, Outputs
from governed_serving.server.signature import tensor

__all__ = ["RequestBatch"]


class RequestBatch(Batch):
    """A batch of one, where nothing is merged."""

    def columns(self) -> Columns:
        plan, request = self.plan, self.items[0].request
        given = zip(plan.signature.inputs, request.columns, request.shapes, strict=True)
        columns: Columns = [tensor(spec, values, shape) for spec, values, shape in given]
        for spec, column in zip(plan.signature.inputs, columns, strict=True):
            check_values(spec, column)
        if plan.subjects is not None:
            spec, values = plan.signature.inputs[plan.subject], columns[plan.subject]
            self._about = whom(values.reshape(1, -1), [1], spec.name)
        if plan.masking is not None and plan.masked:
            plan.masking.columns(columns, plan.masked)
        self._columns = columns
        if plan.recorder is not None:
            self._client_ids = self._called([request.client_id or request.request_id])
        return columns

    def finish(self, outputs: Outputs) -> None:
        """Take the graph's answer, of whatever shape that its signature allows."""
        for spec, values in zip(self.plan.signature.outputs, outputs, strict=True):
            allowed = len(spec.shape) == values.ndim and all(
                own in (-1, size) for own, size in zip(spec.shape, values.shape, strict=True)
            )
            if not allowed:
                raise PredictionFailed(
                    f"output {spec.name!r}: expected shape {list(spec.shape)}, found {list(values.shape)}"
                )
        self._take(self._hidden(outputs))

    def _take(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._values = [values.ravel().tolist() for values in outputs]
        self._finite = [values.dtype.kind != "f" or bool(np.isfinite(values).all()) for values in outputs]
        if self.plan.recorder is not None and self.plan.subjects is None:
            self._frame = self._record()

    def _record(self) -> PredictionFrame:
        assert self.plan.recorder is not None, "asked where requests are recorded"
        return self.plan.recorder.whole(
            self.items[0].request.id,
            self._columns,
            self._outputs,
            self._client_ids,
            callers=callers_of(self.items),
        )

    def sealed_frames(self) -> list[tuple[PredictionFrame | SubjectFrame, int]]:
        assert self.plan.subjects is not None, "asked where requests are about somebody"
        who, frame = self._about[0], self._metered(self._record(), self.items)
        return [(self.plan.subjects.seal(frame, self.plan.subjects.digest(who)) if who else frame, 1)]

    def _select(self, kept: list[bool]) -> None:
        """Nobody waits any more: there is nothing to record."""
        self.items = [item for item, keep in zip(self.items, kept, strict=True) if keep]

    def responses(self, ledger: str) -> Iterator[tuple[PendingRequest, InferResponse]]:
        item = self.items[0]
        wanted = item.request.outputs
        answered = zip(self.plan.signature.outputs, self._outputs, self._values, self._finite, strict=True)
        outputs = [
            OutputValues(spec, 1, values, finite, whole=array.shape)
            for spec, array, values, finite in answered
            if not wanted or spec.name in wanted
        ]
        if wanted:
            outputs.sort(key=lambda output: wanted.index(output.spec.name))
        yield item, InferResponse(item.request.id, outputs, ledger, item.request.client_id)
