"""An answer is a function of its own row, bit for bit, whatever strangers send meanwhile."""

import asyncio
import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType

from governed_api.lifecycle import Compression
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.messages import InferRequest
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.trainer.compression import compress
from unit.server.planes import plane

WIDTH = 4
ROWS = np.random.default_rng(3).normal(size=(24, WIDTH)).astype(np.float32)
HOSTILE = [0.0, 1e6, -1e6, 3.4e38, -3.4e38]


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    sizes, nodes, weights, value = [WIDTH, 16, 2], [], [], "x"
    for k, (n, m) in enumerate(itertools.pairwise(sizes)):
        weights.append(numpy_helper.from_array(rng.normal(size=(m, n)).astype(np.float32), f"w{k}"))
        weights.append(numpy_helper.from_array(rng.normal(size=m).astype(np.float32), f"b{k}"))
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [f"g{k}"], transB=1, name=f"n{k}"))
        value = f"g{k}"
        if k == 0:
            nodes.append(helper.make_node("Relu", [value], ["r"], name="relu"))
            value = "r"
    nodes.append(helper.make_node("Softmax", [value], ["y"], axis=-1, name="softmax"))
    return model(nodes, weights, 2)


def model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], width: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def centred() -> onnx.ModelProto:
    axis = numpy_helper.from_array(np.array([0], np.int64), "axis")
    nodes = [helper.make_node("ReduceMean", ["x", "axis"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    return model(nodes, [axis], WIDTH)


def compressed(method: str) -> onnx.ModelProto:
    return compress(network(), Compression(method=method, sparsity=0.3), {"x": ROWS})[0]  # type: ignore[arg-type]


def batch_scaled() -> onnx.ModelProto:
    """ONNX Runtime's dynamic quantisation: one activation scale over the whole batch."""
    quantiser = ONNXQuantizer(
        network(),
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
        extra_options={},
    )
    quantiser.quantize_model()
    return quantiser.model.model


MODELS = {
    "scale over the batch": batch_scaled,
    "import, batch mean": centred,
    **{m: (lambda m=m: compressed(m)) for m in ("none", "dynamicInt8", "staticInt8", "magnitudePruning")},
}


def request(rows: np.ndarray) -> InferRequest:
    return InferRequest("", len(rows), [rows.ravel().tolist()])


async def answers(governed: DataPlane, parts: list[np.ndarray]) -> list[np.ndarray]:
    """The answers to requests that wait together, and so share a call."""
    found = await asyncio.gather(*(governed.infer(request(part)) for part in parts))
    return [np.array(a.outputs[0].values, np.float64).reshape(len(p), -1) for a, p in zip(found, parts, strict=True)]


@pytest.mark.parametrize("name", MODELS)
async def test_strangers_leave_an_answer_as_it_is(name: str) -> None:
    governed = plane(using=OnnxPredictor(MODELS[name]().SerializeToString()))
    alone = [(await answers(governed, [row[None]]))[0].tobytes() for row in ROWS]
    for value in HOSTILE:
        neighbour = np.full((3, WIDTH), value, np.float32)
        parts = [part for row in ROWS for part in (neighbour, row[None])]
        together = await answers(governed, parts)
        assert [a.tobytes() for a in together[1::2]] == alone, f"beside rows of {value:g}"
    in_one_request = (await answers(governed, [ROWS]))[0]
    assert [row.tobytes() for row in in_one_request] == alone
    await governed.predictor.close()


@pytest.mark.parametrize(("name", "reason"), [("scale over the batch", "scale"), ("import, batch mean", "differs")])
async def test_a_model_that_mixes_rows_is_found_at_load(name: str, reason: str) -> None:
    found = OnnxPredictor(MODELS[name]().SerializeToString()).independence
    assert not found.independent
    assert reason in found.first


@pytest.mark.parametrize("name", ["none", "staticInt8", "magnitudePruning"])
async def test_a_model_that_does_not_keeps_its_batches(name: str) -> None:
    assert OnnxPredictor(MODELS[name]().SerializeToString()).independence.independent
