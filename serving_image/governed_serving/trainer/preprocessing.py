"""Preprocessing: fitted on the training rows, and from then on nothing but an ONNX graph.

Training encodes its rows by running that very graph, so training and serving can't differ.

numeric      gaps → training mean; then (x − shift) × factor
categorical  string → one-hot row; rare categories share one code; one never seen takes that code, or, when there are no
             rare ones, the training frequencies (the average category, not an untrained one)
text         ASCII lower case → split at white space → vocabulary ids, 0 = padding, 1 = unknown; maxTokens wide
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from governed_api.lifecycle import Preprocess
from governed_serving.artefact import CJK_CHARACTERS, segment
from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.tables import Column

OPSET, ML_OPSET, IR = 20, 4, 10
TABULAR = "encoded"
PADDING, UNKNOWN, FIRST_TOKEN = 0, 1, 2
LEAST_TEXTS = 5
"""A token gets a code only if it occurs in this many texts: rare ones are names and numbers more often than meaning."""

Encoded = dict[str, NDArray[np.generic]]
"""Network inputs: ``encoded`` float32 (rows, width) and ``tokens_<k>`` int64 (rows, maxTokens)."""


@dataclass(frozen=True)
class Numeric:
    """Fitted numeric feature."""

    name: str
    shift: float
    factor: float
    fill: float
    gaps: bool


@dataclass(frozen=True)
class Categorical:
    """Fitted categorical feature; ``table`` (codes + 1, width) float32 holds each code's row, the last the
    unknown's."""

    name: str
    categories: list[str]
    table: NDArray[np.float32]


@dataclass(frozen=True)
class Text:
    """Fitted text feature; token k of ``vocabulary`` has id k + 2."""

    name: str
    vocabulary: list[str]
    max_tokens: int


@dataclass(frozen=True)
class Unseen:
    """An input that clients send and the network doesn't see: whom a decision is about."""

    name: str


@dataclass(frozen=True)
class Preprocessing:
    """All fitted features, in the manifest's order."""

    features: list[Numeric | Categorical | Text | Unseen]

    @property
    def texts(self) -> list[Text]:
        return [f for f in self.features if isinstance(f, Text)]

    @property
    def width(self) -> int:
        """Columns of ``encoded``."""
        tables = sum(int(f.table.shape[1]) for f in self.features if isinstance(f, Categorical))
        return tables + sum(isinstance(f, Numeric) for f in self.features)

    @property
    def inputs(self) -> list[str]:
        """Network inputs: ``encoded`` unless there are only texts, then one per text."""
        return [TABULAR] * (self.width > 0) + [f"tokens_{k}" for k in range(len(self.texts))]


def fit(train: Dataset, spec: Preprocess, unseen: str | None = None) -> Preprocessing:
    """Statistics of the training rows; none of ``unseen``, which the network is to know nothing of."""
    return Preprocessing(
        [
            Unseen(n) if n == unseen else _fit_one(n, column, train.types[n], spec)
            for n, column in train.features.items()
        ]
    )


def _fit_one(name: str, column: Column, kind: str, spec: Preprocess) -> Numeric | Categorical | Text:
    if kind == "numeric":
        return _fit_numeric(name, column, spec)
    return _fit_categorical(name, column, spec) if kind == "categorical" else _fit_text(name, column, spec)


def _fit_numeric(name: str, column: Column, spec: Preprocess) -> Numeric:
    seen = column[~np.isnan(column)].astype(np.float64)
    fill, gaps = float(seen.mean()), len(seen) < len(column)
    if spec.numeric == "standardize":
        return Numeric(name, fill, 1 / (float(seen.std()) or 1.0), fill, gaps)
    if spec.numeric == "minmax":
        return Numeric(name, float(seen.min()), 1 / (float(np.ptp(seen)) or 1.0), fill, gaps)
    return Numeric(name, 0.0, 1.0, fill, gaps)


def _fit_categorical(name: str, column: Column, spec: Preprocess) -> Categorical:
    counts = Counter(v for v in column.tolist() if v != "")
    kept = sorted(sorted(counts, key=lambda v: (-counts[v], v))[: spec.max_categories])
    frequencies = np.array([counts[v] for v in kept], dtype=np.float64)
    rare = len(column) - int(frequencies.sum())
    if rare:
        return Categorical(name, kept, np.eye(len(kept) + 1, dtype=np.float32))
    rows = np.vstack([np.eye(len(kept)), frequencies / frequencies.sum()])
    return Categorical(name, kept, rows.astype(np.float32))


def _fit_text(name: str, column: Column, spec: Preprocess) -> Text:
    counts: Counter[str] = Counter()
    for text in segment(column.tolist(), CJK_CHARACTERS):
        counts.update(set(_lower(text).split()))
    common = [token for token, count in counts.items() if count >= LEAST_TEXTS]
    kept = sorted(common, key=lambda token: (-counts[token], token))[: spec.vocabulary]
    return Text(name, kept, spec.max_tokens)


_ASCII_LOWER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}


def _lower(text: str) -> str:
    return text.translate(_ASCII_LOWER)


class Graph:
    """Nodes, initialisers and outputs as they grow; all names begin with ``prefix``."""

    def __init__(self, prefix: str = "pre/") -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = self._prefix + output
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        name = self._prefix + name
        self.constants.append(onnx.numpy_helper.from_array(values, name))
        return name


def graph(fitted: Preprocessing) -> onnx.ModelProto:
    """onnx.ModelProto: raw inputs [batch, 1] (float or string) → the network's inputs (see
    ``Preprocessing.inputs``)."""
    g = Graph()
    numeric = [f for f in fitted.features if isinstance(f, Numeric)]
    categorical = [f for f in fitted.features if isinstance(f, Categorical)]
    blocks = []
    if numeric:
        blocks.append(_numeric_nodes(g, numeric))
    if categorical:
        blocks.append(_categorical_nodes(g, categorical))
    outputs = []
    if blocks:
        encoded = g.add("Concat", blocks, TABULAR, axis=1) if len(blocks) == 2 else g.add("Identity", blocks, TABULAR)
        outputs.append(helper.make_tensor_value_info(encoded, TensorProto.FLOAT, ["batch", fitted.width]))
    for k, text in enumerate(fitted.texts):
        tokens = _text_nodes(g, text, k)
        outputs.append(helper.make_tensor_value_info(tokens, TensorProto.INT64, ["batch", text.max_tokens]))
    inputs = [
        helper.make_tensor_value_info(
            f.name, TensorProto.FLOAT if isinstance(f, Numeric) else TensorProto.STRING, ["batch", 1]
        )
        for f in fitted.features
    ]
    return model_of(helper.make_graph(g.nodes, "preprocessing", inputs, outputs, g.constants))


def model_of(built: onnx.GraphProto) -> onnx.ModelProto:
    """onnx.ModelProto around a graph, with the opsets that all our graphs use."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(built, opset_imports=opsets, ir_version=IR, producer_name="governed-models")


def _numeric_nodes(g: Graph, features: list[Numeric]) -> str:
    raw = g.add("Concat", [f.name for f in features], "numeric", axis=1)
    if any(f.gaps for f in features):
        fill = g.constant("fill", np.array([[f.fill for f in features]], np.float32))
        raw = g.add("Where", [g.add("IsNaN", [raw], "missing"), fill, raw], "filled")
    shift = g.constant("shift", np.array([[f.shift for f in features]], np.float32))
    factor = g.constant("factor", np.array([[f.factor for f in features]], np.float32))
    return g.add("Mul", [g.add("Sub", [raw, shift], "shifted"), factor], "scaled")


def _categorical_nodes(g: Graph, features: list[Categorical]) -> str:
    rows = []
    for k, f in enumerate(features):
        codes = {"keys_strings": f.categories, "values_int64s": list(range(len(f.categories)))}
        code = g.add(
            "LabelEncoder", [f.name], f"code_{k}", domain="ai.onnx.ml", default_int64=len(f.categories), **codes
        )
        rows.append(g.add("Gather", [g.constant(f"table_{k}", f.table), code], f"row_{k}", axis=0))
    joined = g.add("Concat", rows, "rows", axis=2) if len(rows) > 1 else rows[0]
    flat = g.constant("flat", np.array([-1, sum(f.table.shape[1] for f in features)], np.int64))
    return g.add("Reshape", [joined, flat], "categorical")


def _text_nodes(g: Graph, text: Text, k: int) -> str:
    line = g.constant(f"line_{k}", np.array([-1], np.int64))
    texts = g.add("Reshape", [text.name, line], f"texts_{k}")
    # The C locale is there in every container; it folds ASCII only, as _lower does.
    lower = g.add("StringNormalizer", [texts], f"lower_{k}", case_change_action="LOWER", locale="C")
    split = helper.make_node("StringSplit", [lower], [f"pre/words_{k}", f"pre/count_{k}"], name=f"pre/split_{k}")
    g.nodes.append(split)
    keys, ids = ["", *text.vocabulary], [PADDING, *range(FIRST_TOKEN, FIRST_TOKEN + len(text.vocabulary))]
    index = g.add(
        "LabelEncoder",
        [f"pre/words_{k}"],
        f"ids_{k}",
        domain="ai.onnx.ml",
        keys_strings=keys,
        values_int64s=ids,
        default_int64=UNKNOWN,
    )
    widen = g.constant(f"pads_{k}", np.array([0, 0, 0, text.max_tokens], np.int64))
    zero = g.constant(f"padding_{k}", np.array(PADDING, np.int64))
    padded = g.add("Pad", [index, widen, zero], f"padded_{k}")
    ends = [
        g.constant(f"{n}_{k}", np.array([v], np.int64)) for n, v in (("from", 0), ("to", text.max_tokens), ("axis", 1))
    ]
    return g.add("Slice", [padded, *ends], f"tokens_{k}")


def feeds(dataset: Dataset) -> dict[str, NDArray[np.generic]]:
    """Inputs of the preprocessing graph, shape (rows, 1) each: float32, or str segmented as the server segments it."""
    out: dict[str, NDArray[np.generic]] = {}
    for name, column in dataset.features.items():
        if dataset.types[name] == "text":
            column = np.array(segment(column.tolist(), CJK_CHARACTERS), dtype=object)
        out[name] = column.reshape(-1, 1)
    return out


def session(model: bytes | onnx.ModelProto, level: str = "basic", threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU. ``level``: none, basic, extended or all."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[level]
    data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def encode(fitted: Preprocessing, dataset: Dataset, chunk: int = 8192) -> Encoded:
    """Rows as the network reads them, computed by the graph that ships."""
    running, names = session(graph(fitted)), fitted.inputs
    if dataset.rows == 0:
        return {n: _empty(fitted, n) for n in names}
    parts = []
    for start in range(0, dataset.rows, chunk):
        rows = dataset.at(np.arange(start, min(start + chunk, dataset.rows)))
        parts.append(running.run(None, feeds(rows)))
    return {name: np.concatenate([part[k] for part in parts]) for k, name in enumerate(names)}


def _empty(fitted: Preprocessing, name: str) -> NDArray[np.generic]:
    if name == TABULAR:
        return np.zeros((0, fitted.width), np.float32)
    return np.zeros((0, fitted.texts[int(name.removeprefix("tokens_"))].max_tokens), np.int64)
