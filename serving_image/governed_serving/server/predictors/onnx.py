"""ONNX Runtime in this process, on a thread of its own."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from governed_api.datatypes import ONNX
from governed_api.json_types import Scalar
from governed_serving.artefact import NO_FILES, Independence, covering, row_independence, segment
from governed_serving.containment import Threads, contained
from governed_serving.crypto import COIN, Coins
from governed_serving.server.errors import PredictionFailed, Unavailable
from governed_serving.server.predictors.binding import Binding
from governed_serving.server.predictors.protocol import Columns, Outputs
from governed_serving.server.signature import NUMPY, Input, Output, Signature

__all__ = ["OnnxPredictor", "segmented", "session", "signature_of"]

T = TypeVar("T")

INLINE_SECONDS = 0.001
"""Work expected to take less runs on the event loop: handing a batch to a thread and back costs more than a small model
(measured: tests/bench/serving), and the loop is blocked no longer than by decoding a large request."""
INLINE_BYTES = 256 * 1024
WARM_UPS = 16
CHECK_SECONDS = 2.0
"""What the row independence check may take at load; a model too slow for it is computed row by row."""
CHECK_ROWS, CHECK_BYTES = 12, 1 << 20
"""Made-up rows that it asks about, and what its largest batch of inputs may weigh."""
HELD_ROWS, QUICK_SECONDS = 64, CHECK_SECONDS / 2
"""Rows of the artefact that it asks about beside them, where one row's time says that they take no longer than that."""
CALLS_A_ROW = 17
"""Row computations for each row asked about: alone, in five batches, among copies, beside nine hostile neighbours."""
BATCH_SCALED = (b"DynamicQuantizeLinear", b"DynamicQuantizeMatMul", b"DynamicQuantizeLSTM")
"""Operators that take one scale over the whole batch: their rows depend on each other, whether or not a sample shows
it."""


class _Cost:
    """What a call takes, learnt from the calls before: seconds, growing with the requests' bytes. Starts as expensive.

    Follows a cheaper call quickly and a dearer one slowly: a call that the kernel interrupted says little about the
    next.
    """

    def __init__(self) -> None:
        self._seconds, self._size = 1.0, 1.0

    def observe(self, seconds: float, size: int) -> None:
        weight = 0.5 if seconds < self._seconds else 0.05
        self._seconds += weight * (seconds - self._seconds)
        self._size += 0.1 * (max(size, 1) - self._size)

    def expected(self, size: int) -> float:
        """Seconds; infinite where it would be a guess far beyond what was seen."""
        if size > INLINE_BYTES:
            return float("inf")
        return self._seconds * max(1.0, size / max(self._size, 1024.0))


def segmented(column: NDArray[np.generic], segmentation: str) -> NDArray[np.generic]:
    """A column of texts, same shape, as the model's graph expects them."""
    out = np.empty(column.size, object)
    out[:] = segment(column.ravel().tolist(), segmentation)
    return out.reshape(column.shape)


class OnnxPredictor:
    """A model's session. One call at a time: operators may use ``threads`` threads, and what waits is merged into the
    next call.

    An answer is a function of its own row, bit for bit. Matrix kernels may round one row differently from several: then
    a row alone is asked twice in one call, which costs less than giving up batches. Where the check at load shows
    independence neither way (``independence``), each row of a call is computed alone.

    A graph that others exported answers each request as it would answer that call alone, bit for bit: requests are
    merged (``merges``) where rows are shown independent without any such means, else each is a call of its own. Rows
    that the explainer asks about are computed as above.
    """

    slots = 1

    def __init__(
        self,
        model: bytes,
        signature: Signature | None = None,
        *,
        threads: int = 1,
        segmented: Callable[[NDArray[np.generic], str], NDArray[np.generic]] = segmented,
        held: Mapping[str, Sequence[Scalar]] | None = None,
        coins: Coins | None = None,
    ) -> None:
        """``model``: ONNX bytes that somebody verified; ``segmented`` prepares texts; ``held``: raw rows of the
        artefact (feature → values, None: missing) that independence is checked on; ``coins``: draws, of a graph that
        takes some. Raises ValueError when ONNX Runtime can't load it, or it doesn't fit ``signature``."""
        self._session = session(model, threads)
        self.signature = signature or signature_of(self._session)
        graph = self.signature.graph
        self._binding = Binding(graph) if graph is not None else None
        self._names = [spec.name for spec in self.signature.inputs]
        self._outputs = self._binding.names if self._binding else [spec.name for spec in self.signature.outputs]
        self._prepared, self._coins = segmented, coins
        self._segmented = [(k, s.segmentation) for k, s in enumerate(self.signature.inputs) if s.segmentation]
        self._check()
        self._pool = Threads(1, thread_name_prefix="onnxruntime")
        self._cost = _Cost()
        self._closed = False
        self._paired = False
        self.independence = self._shown(model, held or {})
        self.merges = graph is None or (self.independence.independent and not self._paired)

    def _check(self) -> None:
        """Raises ValueError where the graph has other inputs or outputs than model.json says."""
        graph = self.signature.graph
        wanted = [tensor.name for tensor in (graph.inputs if graph else self.signature.inputs)]
        given = [spec.name for spec in (graph.outputs if graph else self.signature.outputs)]
        self._has(wanted if self._coins is None else [*wanted, COIN], given)

    def _has(self, wanted: Sequence[str], given: Sequence[str]) -> None:
        inputs = {node.name for node in self._session.get_inputs()}
        if inputs != set(wanted):
            raise ValueError(f"model.onnx: expected inputs {sorted(wanted)} (model.json), found {sorted(inputs)}")
        outputs = {node.name for node in self._session.get_outputs()}
        if missing := [name for name in given if name not in outputs]:
            raise ValueError(f"model.onnx: expected output {missing[0]!r} (model.json), found {sorted(outputs)}")

    def _shown(self, model: bytes, held: Mapping[str, Sequence[Scalar]]) -> Independence:
        if scaled := [name.decode() for name in BATCH_SCALED if name in model]:
            return Independence(False, 0, 0, f"{scaled[0]} takes its scale over the batch")
        if not self.signature.inputs:
            return Independence(False, 0, 0, "the model has no inputs")
        if self.signature.whole:
            return Independence(False, 0, 0, "a request is one call of the graph")
        columns, until = _probes(self.signature), time.monotonic() + CHECK_SECONDS
        weight = sum(column[:1].nbytes for column in columns)
        rows, repeats = (min(max(CHECK_BYTES // max(weight, 1), 3), most) for most in (CHECK_ROWS, 64))
        columns = [column[:rows] for column in columns]
        try:
            own = self._held(held, self._affordable(columns))
            columns = [np.concatenate(pair) for pair in zip(columns, own, strict=True)]
            independence = row_independence(
                self._asked, columns, enough=lambda: time.monotonic() > until, repeats=repeats
            )
            if independence.different and not independence.material:
                self._paired = True
                independence = row_independence(
                    self._asked, columns, enough=lambda: time.monotonic() > until, repeats=repeats
                )
                self._paired = independence.independent
            return independence
        except PredictionFailed as error:
            return Independence(False, 0, 0, f"not shown: {error}")
        except (TypeError, ValueError, OverflowError) as error:
            return Independence(False, 0, 0, f"not shown: background.json doesn't fit the model's inputs: {error}")

    def _affordable(self, columns: Columns) -> int:
        """Rows of the artefact that the check has time for."""
        first = [column[:1] for column in columns]
        self._asked(first)
        started = time.perf_counter()
        self._asked(first)
        return min(int(QUICK_SECONDS / (CALLS_A_ROW * (time.perf_counter() - started))), HELD_ROWS)

    def _held(self, held: Mapping[str, Sequence[Scalar]], rows: int) -> Columns:
        """At most ``rows`` of the rows ``held``, as the model's graph takes them, with as many categories as they can
        hold."""
        inputs = self.signature.inputs
        if rows < 1 or not all(spec.shape == (1,) and len(held.get(spec.name, ())) for spec in inputs):
            return self.example(0)
        made = [_column(spec, held[spec.name]) for spec in inputs]
        if len({len(column) for column in made}) > 1:
            raise ValueError("its columns differ in length")
        chosen = covering(made, rows)
        return self._segment([column[chosen] for column in made])

    def run(self, columns: Columns) -> Outputs:
        """The model on the caller's thread. Raises PredictionFailed."""
        rows = len(columns[0]) if columns else 0
        if rows <= 1 or self.independence.independent:
            return self._together(columns)
        parts = [self._together([column[row : row + 1] for column in columns]) for row in range(rows)]
        return [np.concatenate([np.atleast_1d(part) for part in values]) for values in zip(*parts, strict=True)]

    def _together(self, columns: Columns) -> Outputs:
        return self._asked(self._segment(columns))

    def _segment(self, columns: Columns) -> Columns:
        columns = list(columns)
        for k, segmentation in self._segmented:
            columns[k] = self._prepared(columns[k], segmentation)
        return columns

    def answer(self, columns: Columns) -> Outputs:
        """What those who sent ``columns`` are answered. Raises PredictionFailed."""
        return self.run(columns) if self._binding is None else self._called(columns)

    def _asked(self, columns: Columns) -> Outputs:
        doubled = self._paired and len(columns[0]) == 1
        outputs = self._called([np.repeat(c, 2, 0) for c in columns] if doubled else columns)
        return [values[:1] for values in outputs] if doubled else outputs

    def _called(self, columns: Columns) -> Outputs:
        try:
            if self._binding is None:
                feeds = dict(zip(self._names, columns, strict=True))
                if self._coins is not None:
                    feeds[COIN] = self._coins.draw(columns)
                return list(self._session.run(self._outputs, feeds))
            return self._binding.outputs(self._session.run(self._outputs, self._binding.feeds(columns)))
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own
            raise no_answer(error) from error

    async def predict(self, make: Callable[[], Columns], finish: Callable[[Outputs], T], size: int) -> T:
        self._refuse_closed()

        def work() -> T:
            started = time.perf_counter()
            answer = finish(self.answer(make()))
            self._cost.observe(time.perf_counter() - started, size)
            return answer

        if self._cost.expected(size) < INLINE_SECONDS:
            return contained(work)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("server: expected to be serving, found it shutting down; retry elsewhere")

    def example(self, rows: int = 1) -> Columns:
        """Columns of zeros and empty strings, or of what the graph is known to answer, for the warm-up."""
        whole = self.signature.whole
        shapes = [spec.example if whole else (rows, *spec.shape) for spec in self.signature.inputs]
        return [
            np.full(shape, "", object) if spec.textual else np.full(shape, spec.fill, NUMPY[spec.dtype])
            for spec, shape in zip(self.signature.inputs, shapes, strict=True)
        ]

    async def warm_up(self) -> None:
        for _ in range(WARM_UPS):
            await self.predict(self.example, lambda _: None, 0)

    async def close(self) -> None:
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)


def session(model: bytes, threads: int = 1) -> Any:
    """ONNX Runtime's session as the server has it. Raises ValueError."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # spinning threads would eat other pods' CPU
    options.log_severity_level = 3
    options.add_session_config_entry(*NO_FILES)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own
        raise ValueError(
            f"model.onnx: expected a model that ONNX Runtime {ort.__version__} loads, found: {_line(error)}"
        ) from error


def _column(spec: Input, values: Sequence[Scalar]) -> NDArray[np.generic]:
    """Raw values (None: missing), shape (rows, 1). Raises TypeError, ValueError, OverflowError."""
    if spec.textual:
        return np.array([["" if value is None else str(value)] for value in values], object)
    absent = np.nan if NUMPY[spec.dtype].kind == "f" else 0
    return np.array([[absent if value is None else value] for value in values], NUMPY[spec.dtype])


def _probes(signature: Signature) -> Columns:
    """CHECK_ROWS seeded rows: floats of many magnitudes, small codes, short texts."""
    rng = np.random.default_rng(np.random.PCG64(0))
    columns: Columns = []
    for spec in signature.inputs:
        shape = (CHECK_ROWS, *spec.shape)
        if spec.textual:
            texts = np.array(["", "a", "b c", "good", "not bad at all", "0"], object)
            columns.append(texts[rng.integers(len(texts), size=shape)])
        elif NUMPY[spec.dtype].kind == "f":
            columns.append((rng.normal(size=shape) * 10.0 ** rng.uniform(-2, 4, shape)).astype(NUMPY[spec.dtype]))
        else:
            columns.append(rng.integers(0, 2, shape).astype(NUMPY[spec.dtype]))
    return columns


def signature_of(session: Any) -> Signature:
    """The signature that a bare ONNX file declares. Raises ValueError for types or shapes that can't be served."""
    inputs = []
    for node in session.get_inputs():
        shape = _row_shape(node)
        kind = "tensor" if shape != (1,) else "categorical" if node.type == "tensor(string)" else "numeric"
        inputs.append(Input(node.name, _datatype(node), shape, kind))  # type: ignore[arg-type]
    outputs = [Output(node.name, _datatype(node), _row_shape(node)) for node in session.get_outputs()]
    return Signature(tuple(inputs), tuple(outputs))


def _datatype(node: Any) -> str:
    if node.type not in ONNX:
        raise ValueError(
            f"model.onnx: {node.name!r}: expected a tensor of a V2 datatype, found {node.type}; export the "
            "classifier without ZipMap"
        )
    return ONNX[node.type]


def _row_shape(node: Any) -> tuple[int, ...]:
    shape = list(node.shape)
    if not shape or isinstance(shape[0], int):
        raise ValueError(
            f"model.onnx: {node.name!r}: expected a free first dimension (rows), found shape {shape}; export it "
            "with dynamic shapes"
        )
    if not all(isinstance(size, int) for size in shape[1:]):
        raise ValueError(f"model.onnx: {node.name!r}: expected only the rows to be free, found shape {shape}")
    return tuple(shape[1:])


def no_answer(error: Exception) -> PredictionFailed:
    """What ONNX Runtime raised in place of an answer."""
    return PredictionFailed(f"model: expected an answer from ONNX Runtime, found: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
