"""ONNX Runtime's own dynamic quantisation, which takes one activation scale over the whole batch."""

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

__all__ = ["batch_scaled"]


def batch_scaled(network: onnx.ModelProto) -> onnx.ModelProto:
    """``network`` stays as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    quantiser = ONNXQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        mode=QuantizationMode.IntegerOps,
        static=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=None,
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=["Gemm", "MatMul"],
        extra_options={"MatMulConstBOnly": True},
    )
    quantiser.quantize_model()
    return quantiser.model.model
