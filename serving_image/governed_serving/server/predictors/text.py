"""A graph of tokens behind texts: tokenised, run by equal length, pooled or made probabilities, each row for itself.

No row is ever padded: a padded row has other bits than the same row alone. Rows of one length share a call where that
was shown to change no bit, by the importer's trial and again when the model loads.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from governed_api.json_types import Scalar
from governed_serving.artefact import TOKENS_READ, TOKENS_TRUNCATED, Independence, row_independence
from governed_serving.server.errors import DeadlineExceeded, InvalidRequest, PredictionFailed
from governed_serving.server.predictors.onnx import BATCH_SCALED, CHECK_SECONDS, OnnxPredictor, no_answer
from governed_serving.server.predictors.protocol import Columns, Outputs
from governed_serving.server.predictors.tokens import Encoded, Tokens
from governed_serving.server.signature import Signature

__all__ = ["MOST_TEXTS", "NUMPY_OF_TOKENS", "PROBES", "TextPredictor", "fed"]

T = TypeVar("T")

MOST_TEXTS = 2048
"""Rows of one request, as OpenAI bounds the inputs of one."""
TOKENS_A_CALL = 512
"""Tokens of the rows that share a call: more wins nothing (MiniLM, ms a row of 8, 32 and 128 tokens: alone 4.3, 9.5 and
35.5; sixteen together 2.0, 8.1 and 37.5), and attention's memory grows with the square of a row's length."""
PROBES = (
    "", "a", "b", "b c", "c b", "good", "not bad at all", "bad at all, not", "0", "中文", "[SEP][CLS]", "e\u0301 👍",
)  # fmt: skip
"""What independence is checked on: several of each length."""


NUMPY_OF_TOKENS: Mapping[str, np.dtype[np.generic]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}
"""What inputs of tokens may be."""


class TextPredictor(OnnxPredictor):
    """``seconds``: how long a call may take in all; those who asked were answered by then."""

    def __init__(
        self, model: bytes, tokenizer: bytes, signature: Signature, *, threads: int = 1, seconds: float = float("inf")
    ) -> None:
        assert signature.text is not None, "a model of texts"
        self._text, self._tokens = signature.text, Tokens(tokenizer, signature.text)
        self._seconds = seconds
        super().__init__(model, signature, threads=threads)
        self.merges = self.independence.independent

    def _check(self) -> None:
        self._has(self._text.inputs, [self._text.output])
        for node in self._session.get_inputs():
            if node.type not in NUMPY_OF_TOKENS:
                raise ValueError(f"model.onnx: {node.name!r}: expected whole numbers for tokens, found {node.type}")
        self._types: Mapping[str, np.dtype[np.generic]] = {
            node.name: NUMPY_OF_TOKENS[node.type] for node in self._session.get_inputs()
        }

    def _shown(self, model: bytes, held: Mapping[str, Sequence[Scalar]]) -> Independence:  # noqa: ARG002
        if self._text.alone:
            return Independence(False, 0, 0, "rows that share a call are rounded differently")
        if scaled := [name.decode() for name in BATCH_SCALED if name in model]:
            return Independence(False, 0, 0, f"{scaled[0]} takes its scale over the batch")
        until = time.monotonic() + CHECK_SECONDS
        texts = np.array([[text] for text in PROBES], object)
        columns = [texts, *(np.full((len(PROBES), 1), "", object) for _ in self.signature.inputs[1:])]
        try:
            return row_independence(self._called, columns, enough=lambda: time.monotonic() > until)
        except (PredictionFailed, InvalidRequest) as error:
            return Independence(False, 0, 0, f"not shown: {error}")

    def run(self, columns: Columns) -> Outputs:
        return self._called(columns, together=self.independence.independent)

    async def predict(self, make: Callable[[], Columns], finish: Callable[[Outputs], T], size: int) -> T:  # noqa: ARG002
        """Never on the event loop: how long a text takes isn't known by its size."""
        return await super().predict(make, finish, 1 << 30)

    def _called(self, columns: Columns, *, together: bool = True) -> Outputs:
        texts: list[str] = columns[0].ravel().tolist()
        until = time.monotonic() + self._seconds
        if len(texts) > MOST_TEXTS:
            raise InvalidRequest(f"input 'text': expected at most {MOST_TEXTS} rows in a request, found {len(texts)}")
        self._tokens.check(texts)
        encoded: list[Encoded] = []
        for some in self._tokens.encoded(texts):
            encoded += some
            self._in_time(until)
        rows: list[NDArray[np.generic]] = [np.zeros(0)] * len(texts)
        for places in _calls([len(encoding.ids) for encoding in encoded], TOKENS_A_CALL if together else 0):
            for place, row in zip(places, self._graph_run([encoded[place] for place in places]), strict=True):
                rows[place] = self._row(row)
            self._in_time(until)
        return self._outputs_of(np.stack(rows), encoded)

    def _in_time(self, until: float) -> None:
        if time.monotonic() > until:
            raise DeadlineExceeded.after(self._seconds)

    def _graph_run(self, rows: list[Encoded]) -> Any:
        """The graph's answer to rows of one length."""
        feeds = fed(np.stack([row.ids for row in rows]), np.stack([row.types for row in rows]), self._types)
        try:
            (answer,) = self._session.run([self._text.output], feeds)
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own
            raise no_answer(error) from error
        if len(answer) != len(rows):
            raise PredictionFailed(f"model: expected an answer for each of {len(rows)} rows, found {len(answer)}")
        return answer

    def _row(self, answer: NDArray[np.floating]) -> NDArray[np.float32]:
        """What is answered for one row, from the graph's: in double precision, and never beside another one."""
        values = np.array(answer, np.float64)
        if self._text.pooling:
            values = _POOLED[self._text.pooling](values)
        values = values.ravel()
        if self._text.normalized:
            values = values / max(float(np.sqrt(np.sum(values * values))), 1e-12)
        if self._text.activation == "softmax":
            shares = np.exp(values - values.max())
            values = shares / shares.sum()
        elif self._text.activation == "sigmoid":
            values = np.exp(-np.logaddexp(0.0, -values))
        return values.astype(np.float32)

    def _outputs_of(self, values: NDArray[np.generic], encoded: list[Encoded]) -> Outputs:
        classes = self.signature.classes
        outputs: dict[str, NDArray[np.generic]] = {
            TOKENS_READ: np.array([len(encoding.ids) for encoding in encoded], np.int32),
            TOKENS_TRUNCATED: np.array([encoding.cut for encoding in encoded], np.int32),
        }
        main = self.signature.outputs[0]
        if values.shape[1:] != (main.width,):
            raise PredictionFailed(f"output {main.name!r}: expected {main.width} values, found {values.shape[1]}")
        outputs[main.name] = values if main.shape else values.ravel()
        if classes:
            label = np.empty(len(values), object)
            label[:] = [classes[place] for place in values.argmax(axis=1)]
            outputs["label"] = label
        return [outputs[spec.name] for spec in self.signature.outputs]


_POOLED: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "cls": lambda tokens: tokens[0],
    "mean": lambda tokens: tokens.mean(axis=0),
    "meanSqrtLen": lambda tokens: tokens.sum(axis=0) / np.sqrt(len(tokens)),
    "max": lambda tokens: tokens.max(axis=0),
    "lastToken": lambda tokens: tokens[-1],
}
"""(tokens, width) → (width,)."""


def fed(
    ids: NDArray[np.int64], types: NDArray[np.int64], kinds: Mapping[str, np.dtype[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """What a graph is given for rows of one length, none of them padded: ``ids`` and ``types``, shape (rows, tokens)
    each; ``kinds``: input of the graph → its type."""
    given: dict[str, NDArray[np.int64]] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": types,
        "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
    }
    return {name: given[name].astype(kind) for name, kind in kinds.items()}


def _calls(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of the rows that share a call: of one length, of at most ``most`` tokens in all."""
    by_length: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        by_length.setdefault(length, []).append(place)
    for length, places in by_length.items():
        rows = max(1, most // length)
        for start in range(0, len(places), rows):
            yield places[start : start + rows]
