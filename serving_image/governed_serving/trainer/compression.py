"""Compression F(θ) of the network's graph: int8, or magnitude pruning."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from governed_api.lifecycle import Compression
from governed_serving.trainer.documents import Variant
from governed_serving.trainer.export import plain
from governed_serving.trainer.preprocessing import Encoded, session
from governed_serving.trainer.scratch import memory_scratch

OPERATORS = ["Gemm", "MatMul"]
LEVELS, ZERO_POINT = 127, 128
"""Symmetric int8: −127 … 127; activations travel as uint8 around 128, the form that every MatMulInteger kernel has."""


def compress(network: onnx.ModelProto, spec: Compression, calibration: Encoded) -> tuple[onnx.ModelProto, Variant]:
    """The compressed onnx.ModelProto of ``network``, which stays as it is, and the variant's name.

    ``calibration``: encoded training rows (staticInt8 takes activation ranges from them).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    if spec.method == "magnitudePruning":
        return prune(copy, spec.sparsity), "pruned"
    if spec.method == "none":
        return copy, "float"
    with memory_scratch(), _quiet_quantiser(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        quantised = _dynamic(copy) if spec.method == "dynamicInt8" else _static(copy, calibration)
    return plain(quantised), "int8"


@contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """It logs its advice to the root logger, which then is as it was."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        root.setLevel(level)


def prune(model: onnx.ModelProto, sparsity: float) -> onnx.ModelProto:
    """Zero the share ``sparsity`` of smallest |weights| in every weight matrix (Han et al. 2015)."""
    weights = {name for node in model.graph.node if node.op_type in OPERATORS for name in node.input}
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if tensor.name in weights and values.ndim == 2:
            kept = np.array(values)
            count = int(sparsity * kept.size)
            kept.ravel()[np.argsort(np.abs(kept).ravel(), kind="stable")[:count]] = 0.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(kept, tensor.name))
    return model


def _dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """int8 weights per output channel, and activations quantised as they come with one scale per row.

    ONNX Runtime's own dynamic quantisation takes one scale over the whole batch, so that a row's answer would depend on
    the rows beside it. Here each row of a matrix product's input has its own (token-wise, ZeroQuant, Yao et al. 2022):
    the integer product is exact, so an answer is the same alone and in any batch.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for k, node in enumerate(model.graph.node):
        weight = constants.get(node.input[1]) if node.op_type in OPERATORS else None
        values = None if weight is None else _matrix(node, onnx.numpy_helper.to_array(weight))
        if values is None:
            nodes.append(node)
            continue
        made, added = _row_scaled(f"int8_{k}", node, values)
        nodes += made
        model.graph.initializer.extend(added)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    return model


def _matrix(node: onnx.NodeProto, values: NDArray[np.generic]) -> NDArray[np.float32] | None:
    """The weights as (inputs, outputs), or None for a product that stays in float."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if values.ndim != 2 or values.dtype != np.float32 or attributes.get("transA", 0):
        return None
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    matrix = values.astype(np.float32, copy=False)
    return matrix.T if attributes.get("transB", 0) else matrix


def _row_scaled(
    name: str, node: onnx.NodeProto, values: NDArray[np.float32]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants of node.input[0] · ``values`` (+ node.input[2]) in int8, a scale per row of the input."""
    scale = np.maximum(np.abs(values).max(0), np.finfo(np.float32).tiny * 127) / np.float32(LEVELS)
    constants = {
        "weights": np.round(values / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "axis": np.array([-1], np.int64),
        "levels": np.array(1 / LEVELS, np.float32),
        "least": np.array(np.finfo(np.float32).tiny, np.float32),
        "middle": np.array(ZERO_POINT, np.float32),
        "zero": np.array(ZERO_POINT, np.uint8),
    }
    c = {key: f"{name}/{key}" for key in constants}
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{name}/{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    largest = add("ReduceMax", [add("Abs", [node.input[0]]), c["axis"]], keepdims=1)
    step = add("Max", [add("Mul", [largest, c["levels"]]), c["least"]])
    rounded = add("Round", [add("Div", [node.input[0], step])])
    codes = add("Cast", [add("Add", [rounded, c["middle"]])], to=onnx.TensorProto.UINT8)
    product = add("Cast", [add("MatMulInteger", [codes, c["weights"], c["zero"]])], to=onnx.TensorProto.FLOAT)
    answer = add("Mul", [add("Mul", [product, step]), c["scale"]])
    if len(node.input) > 2 and node.input[2]:
        add("Add", [answer, node.input[2]])
    nodes[-1].output[0] = node.output[0]
    return nodes, [onnx.numpy_helper.from_array(np.ascontiguousarray(v), c[key]) for key, v in constants.items()]


def _static(model: onnx.ModelProto, calibration: Encoded) -> onnx.ModelProto:
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantType

    quantiser = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges(model, calibration)),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=OPERATORS,
        extra_options={},
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    quantised: onnx.ModelProto = quantiser.model.model
    return quantised


def ranges(model: onnx.ModelProto, calibration: Encoded) -> dict[str, tuple[np.float32, np.float32]]:
    """Least and greatest value of every float tensor over the calibration rows, measured on the unfused graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched_names = {v.name for v in watched.graph.output}
    produced = [name for node in watched.graph.node for name in node.output if name and name not in watched_names]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in produced)
    running = session(watched, "none")
    calibrated: dict[str, NDArray[np.generic]] = dict(
        zip([o.name for o in running.get_outputs()], running.run(None, dict(calibration)), strict=True)
    )
    calibrated |= calibration
    floats = {name: v for name, v in calibrated.items() if np.asarray(v).dtype == np.float32 and np.asarray(v).size}
    return {name: (np.float32(v.min()), np.float32(v.max())) for name, v in floats.items()}
