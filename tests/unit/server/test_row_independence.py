"""An answer is a function of its own row, bit for bit, whatever strangers send meanwhile."""

import asyncio
import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from governed_api.lifecycle import Compression
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.messages import InferRequest
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.trainer.compression import compress
from unit.server.planes import plane
from unit.trainer.batch_scaled import batch_scaled

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


MODELS = {
    "scale over the batch": lambda: batch_scaled(network()),
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


def centred_for(category: str) -> onnx.ModelProto:
    """A row of this category gets ``x`` minus the batch's mean, any other ``x``."""
    axis = numpy_helper.from_array(np.array([0], np.int64), "axis")
    code = {"keys_strings": [category], "values_int64s": [1], "default_int64": 0, "domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node("ReduceMean", ["x", "axis"], ["m"]),
        helper.make_node("Sub", ["x", "m"], ["less"]),
        helper.make_node("LabelEncoder", ["c"], ["code"], **code),
        helper.make_node("Cast", ["code"], ["chosen"], to=TensorProto.BOOL),
        helper.make_node("Where", ["chosen", "less", "x"], ["y"]),
    ]
    kinds = {"x": TensorProto.FLOAT, "c": TensorProto.STRING, "y": TensorProto.FLOAT}
    x, c, y = (helper.make_tensor_value_info(name, kind, ["batch", 1]) for name, kind in kinds.items())
    graph = helper.make_graph(nodes, "g", [x, c], [y], [axis])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_a_dependence_that_one_category_in_a_thousand_brings_out_is_found_on_the_artefacts_rows() -> None:
    rare = ["rare" if k == 637 else f"c{k % 9}" for k in range(1000)]
    held = {"x": [None if k % 10 == 3 else float(k) for k in range(1000)], "c": rare}
    bare = centred_for("rare").SerializeToString()
    found = OnnxPredictor(bare, held=held).independence
    assert OnnxPredictor(bare).independence.independent, "made-up rows don't have the category"
    assert not found.independent
    assert "differs" in found.first


@pytest.mark.parametrize(
    ("held", "independent"),
    [
        ({"x": [1.0], "c": ["a"]}, True),
        ({"x": [], "c": []}, True),
        ({"c": ["a"]}, True),
        ({"x": [1.0, 2.0], "c": ["a"]}, False),
        ({"x": ["many"], "c": ["a"]}, False),
        ({"x": [[1.0, 2.0], [3.0]], "c": ["a", "b"]}, False),
        ({"x": [1e400, -0.0], "c": [None, 5]}, True),
    ],
)
def test_rows_of_an_artefact_that_do_not_fit_show_nothing(held: dict[str, list[object]], independent: bool) -> None:
    found = OnnxPredictor(centred_for("never").SerializeToString(), held=held).independence
    assert found.independent is independent
    assert independent or "background.json" in found.first


@pytest.mark.parametrize("name", ["none", "dynamicInt8", "staticInt8", "magnitudePruning"])
async def test_a_model_that_does_not_keeps_its_batches(name: str) -> None:
    assert OnnxPredictor(MODELS[name]().SerializeToString()).independence.independent


def rounding_one_row(by: float) -> onnx.ModelProto:
    """``x``, moved where a call has a single row, as matrix kernels that add in another order for one row do."""
    constants = {"first": np.array([0], np.int64), "one": np.array([1], np.int64), "by": np.array([by], np.float32)}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Equal", ["rows", "one"], ["single"]),
        helper.make_node("Cast", ["single"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "by"], ["moved"]),
        helper.make_node("Add", ["x", "moved"], ["y"]),
    ]
    return model(nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()], WIDTH)


@pytest.mark.parametrize(("by", "calls"), [(1e-6, [24]), (1e-3, [1] * 24)])
async def test_a_model_that_rounds_one_row_differently_keeps_its_batches(by: float, calls: list[int]) -> None:
    """Not one whose single row is another answer."""
    small = np.random.default_rng(3).random((24, WIDTH)).astype(np.float32)
    predictor = OnnxPredictor(rounding_one_row(by).SerializeToString())
    governed = plane(using=predictor)
    assert predictor.independence.independent is (len(calls) == 1)
    found: list[int] = []
    asked = predictor._asked
    predictor._asked = lambda columns: found.append(len(columns[0])) or asked(columns)  # type: ignore[func-returns-value]
    batch = (await answers(governed, [small]))[0]
    assert found == calls
    assert [(await answers(governed, [row[None]]))[0].tobytes() for row in small] == [row.tobytes() for row in batch]
    await governed.predictor.close()
