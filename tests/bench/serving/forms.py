"""The two input forms of the one network: twelve mixed tensors, and one matrix of twelve numbers with categories as
codes."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper

from unit.server.tabular_model import CATEGORIES, NUMBERS, ROW, tabular, v2_body


def matrix() -> bytes:
    """The same network behind one input ``features`` [rows, 12]: a column per number, a code per category."""
    model = onnx.load_model_from_string(tabular())
    graph = model.graph
    nodes = [
        helper.make_node(
            "Split", ["features"], [*NUMBERS, *(f"{c}/number" for c in CATEGORIES)], axis=1, num_outputs=12
        )
    ]
    for node in graph.node:
        if node.op_type == "LabelEncoder" and node.input[0] in CATEGORIES:
            node = helper.make_node("Cast", [f"{node.input[0]}/number"], [node.output[0]], to=TensorProto.INT64)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 12]))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def bodies(rows: int) -> dict[str, bytes]:
    """The same rows in both forms, as V2 JSON (with an id: KServe's server answers 500 without)."""
    coded = [ROW[n] for n in NUMBERS] + [float(values.index(ROW[c])) for c, values in CATEGORIES.items()]
    tensor = {"name": "features", "shape": [rows, 12], "datatype": "FP32", "data": coded * rows}
    return {
        "tensors": json.dumps(v2_body(rows, identity="r-1")).encode(),
        "matrix": json.dumps({"id": "r-1", "inputs": [tensor]}).encode(),
    }


def feeds(rows: int) -> dict[str, np.ndarray]:
    """ONNX Runtime's inputs of the first form."""
    return {n: np.array([[v]] * rows, np.float32 if n in NUMBERS else object) for n, v in ROW.items()}
