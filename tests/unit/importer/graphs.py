"""Graphs as other exporters write them, by hand."""

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

ROWS = ["n"]


def tensor(name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def proto(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    constants: Sequence[TensorProto] = (),
    *,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def model(*args: Any, **keywords: Any) -> bytes:
    return proto(*args, **keywords).SerializeToString()


def identity(shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> bytes:
    """Answers what it is given."""
    return model([node("Identity", ["x"], ["y"])], [tensor("x", shape, kind)], [tensor("y", shape, kind)])


def recurrent() -> bytes:
    """A state whose rows are on its second axis, and a scalar."""
    nodes = [
        node("ReduceSum", ["input", "last"], ["loud"], keepdims=1),
        node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT),
        node("Div", ["loud", "rate"], ["output"]),
        node("Unsqueeze", ["output", "zero"], ["more"]),
        node("Add", ["state", "more"], ["stateN"]),
    ]
    inputs = [
        tensor("input", [None, None]),
        tensor("state", [2, None, 8]),
        tensor("sr", [], TensorProto.INT64),
    ]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
    ]
    return model(nodes, inputs, [tensor("output", [None, 1]), tensor("stateN", [None, None, None])], constants)
