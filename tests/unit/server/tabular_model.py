"""A credit-like model of twelve features (eight numbers, four categories) and one with text, as the trainer would
export them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from governed_serving.artefact import Feature, Lineage, Manifest, Output, encode_manifest

NUMBERS = ["income", "employmentYears", "amount", "duration", "debtRatio", "existingLoans", "latePayments", "age"]
CATEGORIES = {
    "housing": ["own", "mortgage", "rent"],
    "purpose": ["car", "home", "education", "business", "medical", "travel"],
    "region": ["north", "south", "east", "west"],
    "sex": ["female", "male"],
}
CLASSES = ["no", "yes"]
SCALE = [8000.0, 7.0, 40000.0, 30.0, 0.3, 1.2, 0.6, 45.0]
ROW: dict[str, Any] = dict(zip(NUMBERS, [8200.0, 4.5, 35000.0, 36.0, 0.31, 1.0, 0.0, 41.0], strict=True)) | {
    "housing": "rent",
    "purpose": "car",
    "region": "north",
    "sex": "female",
}


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def tabular(seed: int = 7, *, text: bool = False) -> bytes:
    """ONNX bytes: numbers → scaled, categories → one-hot, MLP 64-32-2, probabilities and label. ``text`` adds a note
    whose length counts."""
    g, rng = _Graph(), np.random.default_rng(seed)
    joined = g.node("Concat", NUMBERS, "numbers", axis=1)
    scaled = g.node("Div", [joined, g.constant("scale", np.array([SCALE], np.float32))], "scaled")
    rows, width = [], len(NUMBERS)
    for name, values in CATEGORIES.items():
        codes = {"keys_strings": values, "values_int64s": list(range(len(values)))}
        code = g.node("LabelEncoder", [name], f"{name}/code", domain="ai.onnx.ml", default_int64=len(values), **codes)
        table = g.constant(f"{name}/table", np.eye(len(values) + 1, dtype=np.float32))
        rows.append(g.node("Gather", [table, code], f"{name}/row", axis=0))
        width += len(values) + 1
    hot = g.node("Concat", rows, "rows", axis=2)
    flat = g.node("Reshape", [hot, g.constant("flat", np.array([-1, width - len(NUMBERS)], np.int64))], "hot")
    value = g.node("Concat", [scaled, flat], "encoded", axis=1)
    if text:
        line = g.node("Reshape", ["note", g.constant("line", np.array([-1], np.int64))], "note/line")
        g.nodes.append(helper.make_node("StringSplit", [line], ["note/words", "note/count"]))
        count = g.node("Cast", ["note/count"], "note/float", to=TensorProto.FLOAT)
        column = g.node("Unsqueeze", [count, g.constant("one", np.array([1], np.int64))], "note/column")
        value = g.node("Concat", [value, column], "with note", axis=1)
        width += 1
    for k, size in enumerate((64, 32, 2)):
        weights = g.constant(f"w{k}", (rng.normal(size=(width, size)) / np.sqrt(width)).astype(np.float32))
        bias = g.constant(f"b{k}", np.zeros(size, np.float32))
        value, width = g.node("Gemm", [value, weights, bias], f"gemm{k}"), size
        if k < 2:
            value = g.node("Relu", [value], f"relu{k}")
    g.node("Softmax", [value], "probabilities", axis=1)
    best = g.node("ArgMax", ["probabilities"], "best", axis=1, keepdims=0)
    g.node(
        "LabelEncoder",
        [best],
        "label",
        domain="ai.onnx.ml",
        keys_int64s=[0, 1],
        values_strings=CLASSES,
        default_string="",
    )
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1]) for n in NUMBERS]
    strings = [*CATEGORIES, "note"] if text else list(CATEGORIES)
    inputs += [helper.make_tensor_value_info(n, TensorProto.STRING, ["batch", 1]) for n in strings]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("label", TensorProto.STRING, ["batch"]),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    built = helper.make_graph(g.nodes, "credit", inputs, outputs, g.constants)
    return helper.make_model(built, opset_imports=opsets, ir_version=10).SerializeToString()


def manifest(model: bytes, *, text: bool = False, impute: tuple[str, ...] = ()) -> Manifest:
    """model.json of :func:`tabular`."""
    features = [Feature(n, "numeric", "FP32", missing="impute" if n in impute else "refuse") for n in NUMBERS]
    features += [Feature(n, "categorical", "BYTES", categories=v) for n, v in CATEGORIES.items()]
    if text:
        features.append(Feature("note", "text", "BYTES", segmentation="cjk-characters", max_tokens=64))
    return Manifest(
        name="credit",
        task="classification",
        features=features,
        inputs=[f.name for f in features],
        outputs=[Output("probabilities", "FP32", [-1, 2]), Output("label", "BYTES", [-1])],
        label="approved",
        variant="float",
        lineage=Lineage(dataset="", training="", code="", versions={"onnx": onnx.__version__}),
        files={"model.onnx": hashlib.sha256(model).hexdigest()},
        classes=list(CLASSES),
        favorable="yes",
    )


def write_artefact(folder: Path, *, text: bool = False) -> Path:
    """An artefact directory."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tabular(text=text)
    (folder / "model.onnx").write_bytes(model)
    (folder / "model.json").write_bytes(encode_manifest(manifest(model, text=text)))
    return folder


def v2_body(rows: int = 1, *, text: str | None = None, identity: str = "") -> dict[str, Any]:
    """A V2 request of ``rows`` equal rows, one tensor per feature."""
    inputs = [
        {"name": n, "shape": [rows, 1], "datatype": "FP32" if n in NUMBERS else "BYTES", "data": [ROW[n]] * rows}
        for n in ROW
    ]
    if text is not None:
        inputs.append({"name": "note", "shape": [rows, 1], "datatype": "BYTES", "data": [text] * rows})
    return ({"id": identity} if identity else {}) | {"inputs": inputs}
