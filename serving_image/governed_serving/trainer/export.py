"""Torch network → ONNX, joined with preprocessing before it and decisions after it, and checked against torch."""

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from governed_serving.trainer.errors import TrainingFailed
from governed_serving.trainer.networks import Network
from governed_serving.trainer.preprocessing import OPSET, TABULAR, Encoded, Preprocessing, graph, model_of, session

SCORES = "scores"
TOLERANCE = 1e-4
"""Largest |ONNX − torch| over held-out probabilities (or standardised predictions) that counts as the same model."""


def export(network: Network, fitted: Preprocessing) -> onnx.ModelProto:
    """onnx.ModelProto of the network alone: encoded inputs → ``scores`` (batch, outputs), rows dynamic."""
    example = tuple(
        torch.zeros(2, fitted.width) if name == TABULAR else torch.ones(2, _tokens(fitted, name), dtype=torch.int64)
        for name in fitted.inputs
    )
    batch = torch.export.Dim("batch")
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own internals
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            input_names=fitted.inputs,
            output_names=[SCORES],
            opset_version=OPSET,
            optimize=bool(fitted.texts),  # a tabular network has nothing to fold, and the optimiser takes seconds
            verbose=False,
        )
    if program is None:
        raise TrainingFailed("torch.onnx.export gave no program")
    return plain(program.model_proto)


def _tokens(fitted: Preprocessing, name: str) -> int:
    return fitted.texts[int(name.removeprefix("tokens_"))].max_tokens


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with canonical internal names and nothing else that an exporter leaves: docs, metadata, value infos."""
    names = {v.name: v.name for v in [*model.graph.input, *model.graph.output]}
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.ClearField("doc_string")
        copy.ClearField("metadata_props")
        copy.name = names.setdefault(tensor.name, f"net/w{len(constants)}")
        constants.append(copy)
    for k, node in enumerate(model.graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.ClearField("doc_string")
        copy.ClearField("metadata_props")
        copy.name = f"net/n{k}"
        for j, name in enumerate(node.input):
            copy.input[j] = names[name] if name else ""
        for j, name in enumerate(node.output):
            copy.output[j] = names.setdefault(name, f"net/n{k}.{j}") if name else ""
        nodes.append(copy)
    built = helper.make_graph(nodes, "network", model.graph.input, model.graph.output, constants)
    for value in [*built.input, *built.output]:
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    result = model_of(built)
    domains = {opset.domain for opset in result.opset_import}
    result.opset_import.extend(opset for opset in model.opset_import if opset.domain not in domains)
    return result


def decisions(classes: tuple[str | int, ...], mean: float = 0.0, scale: float = 1.0) -> onnx.ModelProto:
    """onnx.ModelProto: ``scores`` → ``probabilities`` and ``label``, or ``prediction`` = scores × scale + mean."""
    scores = helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch", len(classes) or 1])
    if not classes:
        factor = onnx.numpy_helper.from_array(np.array(scale, np.float32), "post/scale")
        shift = onnx.numpy_helper.from_array(np.array(mean, np.float32), "post/mean")
        axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "post/axis")
        nodes = [
            helper.make_node("Squeeze", [SCORES, "post/axis"], ["post/flat"], name="post/flat"),
            helper.make_node("Mul", ["post/flat", "post/scale"], ["post/scaled"], name="post/scaled"),
            helper.make_node("Add", ["post/scaled", "post/mean"], ["prediction"], name="post/prediction"),
        ]
        out = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch"])
        return model_of(helper.make_graph(nodes, "decision", [scores], [out], [factor, shift, axis]))
    text = isinstance(classes[0], str)
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(classes)]),
        helper.make_tensor_value_info("label", TensorProto.STRING if text else TensorProto.INT64, ["batch"]),
    ]
    codes: dict[str, Any] = {"keys_int64s": list(range(len(classes)))}
    codes |= {"values_strings" if text else "values_int64s": list(classes)}
    nodes = [
        helper.make_node("Softmax", [SCORES], ["probabilities"], name="post/probabilities", axis=-1),
        helper.make_node("ArgMax", [SCORES], ["post/best"], name="post/best", axis=1, keepdims=0),
        helper.make_node("LabelEncoder", ["post/best"], ["label"], name="post/label", domain="ai.onnx.ml", **codes),
    ]
    return model_of(helper.make_graph(nodes, "decision", [scores], outputs, []))


def join(fitted: Preprocessing, network: onnx.ModelProto, decision: onnx.ModelProto) -> onnx.ModelProto:
    """One onnx.ModelProto from raw features to decisions."""
    before = graph(fitted)
    for opset in network.opset_import:
        if opset.domain not in {o.domain for o in before.opset_import}:
            before.opset_import.append(opset)
            decision.opset_import.append(opset)
    maps = [(f"pre/{name}", name) for name in fitted.inputs]
    front = onnx.compose.merge_models(before, network, io_map=maps, producer_name="governed-models")
    whole = onnx.compose.merge_models(front, decision, io_map=[(SCORES, SCORES)], producer_name="governed-models")
    whole.graph.name = "governed-model"
    del whole.graph.value_info[:]
    onnx.checker.check_model(whole)
    return whole


def serialise(model: onnx.ModelProto) -> bytes:
    """The one byte form of a model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def torch_scores(network: Network, encoded: Encoded) -> NDArray[np.float32]:
    """Torch's scores for encoded rows, float32 (rows, outputs)."""
    with torch.no_grad():
        inputs = [torch.from_numpy(np.ascontiguousarray(v)) for v in encoded.values()]
        scores: NDArray[np.float32] = network(*inputs).numpy()
    return scores


def largest_difference(network: Network, exported: onnx.ModelProto, encoded: Encoded, regression: bool) -> float:
    """Largest |ONNX − torch| over ``encoded`` rows, of probabilities or standardised predictions."""
    ours = torch_scores(network, encoded)
    theirs = session(exported, "all").run([SCORES], dict(encoded))[0]
    if not regression:
        ours, theirs = softmax(ours), softmax(theirs)
    return float(np.abs(ours - theirs).max(initial=0.0))


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Along axis 1."""
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    result: NDArray[np.float32] = shifted / shifted.sum(1, keepdims=True)
    return result
