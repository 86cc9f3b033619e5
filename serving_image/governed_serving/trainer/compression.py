"""Compression F(θ) of the network's graph: int8 by ONNX Runtime's quantiser, or magnitude pruning."""

import logging
import warnings
from typing import Any

import numpy as np
import onnx
from onnx import helper

from governed_api.lifecycle import Compression
from governed_serving.trainer.documents import Variant
from governed_serving.trainer.export import plain
from governed_serving.trainer.preprocessing import Encoded, session
from governed_serving.trainer.scratch import memory_scratch

OPERATORS = ["Gemm", "MatMul"]


def compress(network: Any, spec: Compression, calibration: Encoded) -> tuple[Any, Variant]:
    """The compressed onnx.ModelProto of ``network``, which stays as it is, and the variant's name.

    ``calibration``: encoded training rows (staticInt8 takes activation ranges from them).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    if spec.method == "magnitudePruning":
        return prune(copy, spec.sparsity), "pruned"
    if spec.method == "none":
        return copy, "float"
    logging.getLogger().setLevel(max(logging.getLogger().level, logging.ERROR))  # the quantiser logs to the root
    with memory_scratch(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        quantised = _dynamic(copy) if spec.method == "dynamicInt8" else _static(copy, calibration)
    return plain(quantised), "int8"


def prune(model: Any, sparsity: float) -> Any:
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


def _dynamic(model: Any) -> Any:
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType

    quantiser = ONNXQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        mode=QuantizationMode.IntegerOps,
        static=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=None,
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=OPERATORS,
        extra_options={"MatMulConstBOnly": True},
    )
    quantiser.quantize_model()
    return quantiser.model.model


def _static(model: Any, calibration: Encoded) -> Any:
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
    return quantiser.model.model


def ranges(model: Any, calibration: Encoded) -> dict[str, tuple[Any, Any]]:
    """Least and greatest value of every float tensor over the calibration rows, measured on the unfused graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {v.name for v in watched.graph.output}
    produced = [name for node in watched.graph.node for name in node.output if name and name not in known]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in produced)
    running = session(watched, "none")
    found: dict[str, Any] = dict(
        zip([o.name for o in running.get_outputs()], running.run(None, dict(calibration)), strict=True)
    )
    found |= calibration
    floats = {name: v for name, v in found.items() if np.asarray(v).dtype == np.float32 and np.asarray(v).size}
    return {name: (np.float32(v.min()), np.float32(v.max())) for name, v in floats.items()}
