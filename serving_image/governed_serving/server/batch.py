"""One call of the model for several requests: columns in, answers and one journal frame out.

Runs on the predictor's thread, except ``responses``.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.json_types import Scalar
from governed_serving.artefact import BASE_RULE, RULE
from governed_serving.crypto import Subjects, canonical
from governed_serving.records import PredictionFrame, SubjectFrame
from governed_serving.server.errors import InvalidRequest, PredictionFailed, ServerError, Unavailable
from governed_serving.server.masking import Masking, masked_inputs
from governed_serving.server.messages import InferRequest, InferResponse, OutputValues
from governed_serving.server.pipeline import Exchange
from governed_serving.server.predictors import Columns, Outputs
from governed_serving.server.recording import PredictionRecorder
from governed_serving.server.signature import Input, Signature, array

__all__ = ["Batch", "BatchPlan", "PendingRequest", "array_of", "callers_of", "check_values", "whom"]


class PendingRequest(Exchange):
    """A request for rows on its way; ``done`` is called once, with its answer or error."""

    __slots__ = ("done", "keep_masked", "request", "rows", "used")

    def __init__(
        self,
        request: InferRequest,
        done: Callable[[InferResponse | ServerError], None],
        reserved: int,
        keep_masked: bool,
    ) -> None:
        self.request, self.done, self.reserved, self.keep_masked = request, done, reserved, keep_masked
        self.rows, self.caller, self.account = request.rows, request.caller, None

    used: int
    """Tokens that were read, of a model of texts, once they are counted."""


class BatchPlan:
    """What is the same for every batch of a model. ``recorder`` None: nothing is journalled. ``about``: the input that
    says whom a request is about, and their keys."""

    def __init__(
        self,
        signature: Signature,
        masking: Masking | None,
        recorder: PredictionRecorder | None,
        fields: tuple[str, ...] = (),
        about: tuple[str, Subjects] | None = None,
        *,
        audited: Collection[str] = (),
    ) -> None:
        self.signature = signature
        self.audited = {name: signature.index[name] for name in audited if name in signature.index}
        self.masking = masking
        chosen = masked_inputs(signature, fields) if masking else []
        self.masked = chosen if masking and masking.requests else []
        self.masked_outputs = [
            k for k, spec in enumerate(signature.outputs) if masking and masking.answers and spec.dtype == "BYTES"
        ]
        outputs = [spec.name for spec in signature.outputs]
        self.rule = outputs.index(RULE) if RULE in outputs else None
        self.recorder = recorder
        self.subjects = about[1] if about else None
        self.subject = [spec.name for spec in signature.inputs].index(about[0]) if about else -1
        self.texts = [
            k
            for k, spec in enumerate(signature.inputs)
            if spec.kind == "text" or (spec.kind == "tensor" and spec.textual)
        ]
        # features of the same dtype travel as rows of one matrix: one conversion, one check
        self.plain = [k for k, s in enumerate(signature.inputs) if s.dtype == "FP32" and s.shape == (1,)]
        self.others = [k for k in range(len(signature.inputs)) if k not in set(self.plain)]
        self.complete = np.array([not signature.inputs[k].impute for k in self.plain])
        self.all_complete = bool(self.complete.all())

    def impose(self, request: InferRequest, attributes: Mapping[str, str]) -> None:
        """Who calls says what the audited attributes are, whatever the request says. Raises Unavailable."""
        for name in attributes.keys() & self.audited.keys():
            k = self.audited[name]
            value = _typed(self.signature.inputs[k], attributes[name])
            request.columns[k] = [value] * len(request.columns[k])

    def tokens(self, request: InferRequest) -> int:
        """Words of the text inputs; a CJK character counts as a word."""
        return sum(_words(text) for k in self.texts for text in request.columns[k])

    @staticmethod
    def joined(parts: list[Outputs]) -> Outputs:
        """Outputs of consecutive pieces."""
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


class Batch:
    """Several requests as one."""

    def __init__(self, plan: BatchPlan, items: list[PendingRequest]) -> None:
        self.plan, self.items = plan, items
        self._rows = [item.rows for item in items]
        self.size = sum(item.request.size for item in items)
        self._columns: Columns = []
        self._outputs: Outputs = []
        self._values: list[list[Scalar]] = []
        self._finite: list[bool] = []
        self._client_ids: list[str] = []
        self._about: list[str] = []
        self._frame: PredictionFrame | None = None
        self.seconds = 0.0
        """That the model worked on it."""

    def columns(self) -> Columns:
        """Checked and masked columns of all requests. Raises InvalidRequest, MaskingFailed."""
        plan, requests = self.plan, [item.request for item in self.items]
        columns: Columns = [None] * len(plan.signature.inputs)  # type: ignore[list-item]
        self._numbers(columns, requests)
        for k in plan.others:
            spec = plan.signature.inputs[k]
            columns[k] = array(spec, [r.columns[k] for r in requests])
            check_values(spec, columns[k])
        if plan.subjects is not None:
            self._about = whom(columns[plan.subject], self._rows, plan.signature.inputs[plan.subject].name)
        if plan.masking is not None and plan.masked:
            plan.masking.columns(columns, plan.masked)
        self._columns = columns
        if plan.recorder is not None:
            self._client_ids = self._called([request.client_id or request.request_id for request in requests])
        return columns

    def _called(self, names: list[str]) -> list[str]:
        """What clients call these requests, as the journal may know it. Raises MaskingFailed."""
        if not any(names):
            return []
        masking = self.plan.masking
        return masking.texts(names) if masking and masking.requests else names

    def _numbers(self, columns: Columns, requests: list[InferRequest]) -> None:
        plan = self.plan
        if not plan.plain:
            return
        rows = sum(self._rows)
        parts = [[r.columns[k] for r in requests] for k in plan.plain]
        if all(isinstance(part, list) for column in parts for part in column):
            flat = [value for column in parts for part in column for value in part]
            with np.errstate(over="ignore"):
                try:
                    matrix = np.array(flat, np.float32).reshape(len(plan.plain), rows)
                except OverflowError:  # an integer beyond float64
                    matrix = np.array([min(max(v, -1e39), 1e39) for v in flat], np.float32).reshape(
                        len(plan.plain), rows
                    )
        else:
            matrix = np.stack(
                [
                    array(plan.signature.inputs[k], column).reshape(-1)
                    for k, column in zip(plan.plain, parts, strict=True)
                ]
            )
        if not np.isfinite(matrix).all():
            self._refuse_missing(matrix)
        for position, k in enumerate(plan.plain):
            columns[k] = matrix[position].reshape(rows, 1)

    def _refuse_missing(self, matrix: NDArray[np.float32]) -> None:
        """NaN is the model's to fill in where it was trained to; infinity is nobody's."""
        bad = np.isinf(matrix) | (np.isnan(matrix) & self.plan.complete[:, None])
        if not bad.any():
            return
        position, row = (int(v) for v in np.argwhere(bad)[0])
        name = self.plan.signature.inputs[self.plan.plain[position]].name
        if np.isnan(matrix[position, row]):
            raise InvalidRequest(
                f"input {name!r}: expected a number in row {row}, found a missing value (NaN or null); the model "
                "was trained without gaps here"
            )
        raise InvalidRequest(f"input {name!r}: expected a finite FP32 number in row {row}, found one beyond ±3.4e38")

    def finish(self, outputs: Outputs) -> None:
        """Take the model's answer; check that it has a row for every row, and build the journal frame."""
        rows = sum(self._rows)
        for spec, values in zip(self.plan.signature.outputs, outputs, strict=True):
            if len(values) != rows or values.size != rows * spec.width:
                raise PredictionFailed(
                    f"output {spec.name!r}: expected {rows} rows of {spec.width} values, found shape "
                    f"{list(values.shape)}"
                )
        self._take(self._hidden(outputs))

    def _hidden(self, outputs: Outputs) -> Outputs:
        """The answer as the client and the journal may see it. Raises MaskingFailed."""
        plan, hidden = self.plan, list(outputs)
        if plan.masking is not None:
            plan.masking.columns(hidden, plan.masked_outputs)
        return hidden

    def _take(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._values = [values.ravel().tolist() for values in outputs]
        self._finite = [values.dtype.kind != "f" or bool(np.isfinite(values).all()) for values in outputs]
        if self.plan.recorder is not None and self.plan.subjects is None:
            ids = [item.request.id for item in self.items]
            self._frame = self.plan.recorder.frame(
                ids, self._rows, self._columns, outputs, self._client_ids, callers=callers_of(self.items)
            )

    def keep_open(self) -> bool:
        """Leave out requests that were answered while the model computed (504): nobody is told their decisions.

        On the event loop; from here on those that are left wait for their record. False when none is left.
        """
        kept = [not item.over for item in self.items]
        if not all(kept):
            self._select(kept)
        for item in self.items:
            item.deciding = True
        return bool(self.items)

    def _select(self, kept: list[bool]) -> None:
        specs, rows = self.plan.signature.outputs, np.repeat(kept, self._rows)
        self.items = [item for item, keep in zip(self.items, kept, strict=True) if keep]
        self._client_ids = [name for name, keep in zip(self._client_ids, kept, strict=False) if keep]
        self._about = [who for who, keep in zip(self._about, kept, strict=False) if keep]
        self._rows = [item.rows for item in self.items]
        self._columns = [column[rows] for column in self._columns]
        shaped = [values.reshape(len(rows), *spec.shape) for spec, values in zip(specs, self._outputs, strict=True)]
        self._take([values[rows] for values in shaped])

    def used(self, output: int) -> list[tuple[PendingRequest, int]]:
        """Each request with the sum of an output of whole numbers, such as the tokens that were read."""
        ends = np.cumsum(self._rows).tolist()
        counts = np.cumsum([0, *self._values[output]]).tolist()
        return [
            (item, counts[end] - counts[end - rows])
            for item, end, rows in zip(self.items, ends, self._rows, strict=True)
        ]

    def base_decisions(self) -> int:
        """Rows that no group's thresholds decided about, of a model that has some."""
        return 0 if self.plan.rule is None else self._values[self.plan.rule].count(BASE_RULE)

    def promised(self) -> list[str]:
        """Ids of the requests that ask for a promise."""
        return [item.request.id for item in self.items if item.request.promise]

    def frame(self) -> PredictionFrame:
        """The journal frame of the whole batch."""
        assert self._frame is not None, "the plan has no recorder"
        return self._metered(self._frame, self.items) if self._frame.callers else self._frame

    def _metered(self, frame: PredictionFrame, items: Sequence[PendingRequest]) -> PredictionFrame:
        """``frame``, of ``items``, with what their callers used."""
        if not frame.callers:
            return frame
        share = 1e6 * self.seconds / max(1, sum(self._rows))
        units = {"microseconds": [round(share * item.rows) for item in items]}
        if self.plan.signature.text is not None:
            units["tokensIn"] = [item.used for item in items]
        return msgspec.structs.replace(frame, units={name: array_of(values) for name, values in units.items()})

    def sealed_frames(self) -> list[tuple[PredictionFrame | SubjectFrame, int]]:
        """A journal frame for each person whom the batch is about, under that person's key, and one for the requests
        that name nobody; each with its number of requests. Waits for keys; raises ArchiveError, CryptoError."""
        plan, recorder = self.plan, self.plan.recorder
        assert recorder is not None, "asked where requests are recorded"
        assert plan.subjects is not None, "asked where requests are about somebody"
        whose = np.array(self._about, object)
        specs = plan.signature.outputs
        shaped = [v.reshape(sum(self._rows), *s.shape) for s, v in zip(specs, self._outputs, strict=True)]
        frames: list[tuple[PredictionFrame | SubjectFrame, int]] = []
        for who in dict.fromkeys(self._about):
            chosen = whose == who
            rows = np.repeat(chosen, self._rows)
            places = np.flatnonzero(chosen).tolist()
            frame = recorder.frame(
                [self.items[place].request.id for place in places],
                [self._rows[place] for place in places],
                [column[rows] for column in self._columns],
                [values[rows] for values in shaped],
                [self._client_ids[place] for place in places] if self._client_ids else [],
                callers=callers_of([self.items[place] for place in places]),
            )
            frame = self._metered(frame, [self.items[place] for place in places])
            sealed = plan.subjects.seal(frame, plan.subjects.digest(who)) if who else frame
            frames.append((sealed, len(places)))
        return frames

    def responses(self, ledger: str) -> Iterator[tuple[PendingRequest, InferResponse]]:
        """Each request with its answer."""
        specs = self.plan.signature.outputs
        start = 0
        for item in self.items:
            rows = item.rows
            end = start + rows
            wanted = item.request.outputs
            outputs = [
                OutputValues(spec, rows, values[start * spec.width : end * spec.width], finite)
                for spec, values, finite in zip(specs, self._values, self._finite, strict=True)
                if not wanted or spec.name in wanted
            ]
            if wanted:
                outputs.sort(key=lambda o: wanted.index(o.spec.name))
            masked = [column[start:end].ravel().tolist() for column in self._columns] if item.keep_masked else ()
            yield item, InferResponse(item.request.id, outputs, ledger, item.request.client_id, masked)
            start = end


def array_of(values: Sequence[int]) -> bytes:
    """Of :attr:`PredictionFrame.units`."""
    return np.array(values, "<i8").tobytes()


def callers_of(items: Sequence[PendingRequest]) -> list[str]:
    """How the record calls those who asked; none where that isn't known."""
    if not items or items[0].account is None:
        return []
    return ["" if item.account is None else item.account.pseudonym for item in items]


def whom(column: NDArray[np.generic], rows: list[int], name: str) -> list[str]:
    """Whom each request is about; "": nobody is named. Raises InvalidRequest."""
    values, people, start = column.reshape(sum(rows), -1), list[str](), 0
    for count in rows:
        distinct = {canonical(v) for v in values[start : start + count].ravel().tolist()}
        if len(distinct) > 1:
            raise InvalidRequest(
                f"input {name!r}: expected rows about one person (spec.governance.privacy.subject), found "
                f"{len(distinct)}; send a request for each"
            )
        people.append(distinct.pop() if distinct else "")
        start += count
    return people


def check_values(spec: Input, values: NDArray[np.generic]) -> None:
    """Raises InvalidRequest for what is missing or infinite."""
    if values.dtype == object:
        texts = values.ravel().tolist()
        if spec.kind == "categorical" and not spec.impute and "" in texts:
            row = texts.index("") // spec.width
            raise InvalidRequest(
                f'input {spec.name!r}: expected a category in row {row}, found a missing value (null or "")'
            )
        if spec.about and "" in (named := [canonical(text) for text in texts]):
            raise InvalidRequest(
                f"input {spec.name!r}: expected whom row {named.index('') // spec.width} is about, found blanks alone"
            )
    elif values.dtype.kind == "f" and not np.isfinite(values).all():
        floats: NDArray[np.floating] = values  # type: ignore[assignment]
        bad = np.isinf(floats) if spec.impute else ~np.isfinite(floats)
        if bad.any():
            row = int(np.argwhere(bad)[0][0]) if bad.ndim else 0
            raise InvalidRequest(f"input {spec.name!r}: expected finite numbers in row {row}, found NaN or infinity")


def _typed(spec: Input, text: str) -> Scalar:
    """A caller's attribute as an input. Raises Unavailable."""
    if spec.textual:
        return text
    try:
        return int(text) if spec.dtype.startswith(("INT", "UINT")) else float(text)
    except ValueError:
        raise Unavailable(
            f"consumer's attribute {spec.name!r}: expected {spec.dtype}, found another value; correct "
            "spec.attributes of the ModelConsumer"
        ) from None


def _words(text: str) -> int:
    if text.isascii():
        return len(text.split())
    return len("".join(f" {c} " if "\u2e80" <= c <= "\ud7ff" or "\uf900" <= c <= "\ufaff" else c for c in text).split())
