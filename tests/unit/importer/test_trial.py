"""What an imported graph is shown to be: unit, names, shapes, classes; and whether requests share a call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from governed_api.datatypes import DATATYPES
from governed_api.tensors import TensorInput, TensorOutput
from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import Declared
from governed_serving.importer import tried
from unit.importer.graphs import identity, model, node, recurrent, tensor

ort.set_default_logger_severity(4)
KINDS = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip
TABLE = [{"name": "x", "role": "tabular", "columns": ["a", "b", "c"]}]


def declared(inputs: Sequence[dict[str, Any]] = (), outputs: Sequence[dict[str, Any]] = ()) -> Declared:
    return Declared([TensorInput.model_validate(i) for i in inputs], [TensorOutput.model_validate(o) for o in outputs])


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [["n", 3], [], [2, 3], ["n", "m"]], ids=["rows", "scalar", "fixed", "free"])
def test_every_datatype_goes_in_and_out_in_every_shape(datatype: str, shape: list[Any]) -> None:
    trial = tried(identity(shape, KINDS[datatype]), Declared())
    assert trial.graph.unit == ("row" if shape == ["n", 3] else "request")
    assert [t.datatype for t in (*trial.graph.inputs, *trial.graph.outputs)] == [datatype] * 2
    assert trial.merges == (shape == ["n", 3])
    assert trial.graph.outputs[0].shape == [size if isinstance(size, int) else -1 for size in shape]


def test_columns_of_a_matrix_are_features() -> None:
    graph = tried(identity(["n", 3]), declared(TABLE)).graph
    assert graph.unit == "row"
    assert graph.inputs[0].columns == ["a", "b", "c"]


def test_a_free_width_is_that_of_the_columns() -> None:
    trial = tried(identity(["n", "f"]), declared(TABLE))
    assert trial.graph.unit == "row"
    assert trial.graph.inputs[0].shape == [-1, 3]


def test_states_and_scalars_make_a_request_a_call() -> None:
    trial = tried(recurrent(), declared([{"name": "sr", "example": 16000}]))
    assert (trial.graph.unit, trial.merges, trial.why) == ("request", False, "a request is one call of the graph")
    assert [t.shape for t in trial.graph.inputs] == [[-1, -1], [2, -1, 8], []]
    assert [t.example for t in trial.graph.inputs] == [[1, 1], [2, 1, 8], []]
    assert trial.graph.inputs[2].fill == 16000


def test_what_is_declared_narrows_what_is_free() -> None:
    trial = tried(identity(["n", 3, None, None]), declared([{"name": "x", "shape": [-1, 3, 4, 5], "role": "image"}]))
    assert trial.graph.unit == "row"
    assert trial.graph.inputs[0].shape == [-1, 3, 4, 5]


def test_rows_that_depend_on_each_other_are_not_merged() -> None:
    nodes = [node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), node("Sub", ["x", "mean"], ["y"])]
    trial = tried(model(nodes, [tensor("x", ["n", 3])], [tensor("y", ["n", 3])]), Declared())
    assert (trial.graph.unit, trial.merges) == ("row", False)
    assert "differs" in trial.why


def test_outputs_without_a_row_for_each_row_make_a_request_a_call() -> None:
    nodes = [node("ReduceMean", ["x"], ["y"], keepdims=0)]
    trial = tried(model(nodes, [tensor("x", ["n", 3])], [tensor("y", [])]), Declared())
    assert (trial.graph.unit, trial.graph.outputs[0].shape) == ("request", [])


def classifier(zipped: bool, words: bool = False) -> bytes:
    names: dict[str, Any] = {"classlabels_strings": ["no", "yes"]} if words else {"classlabels_ints": [0, 1]}
    nodes = [
        node(
            "LinearClassifier", ["x"], ["label", "p" if zipped else "probabilities"], domain="ai.onnx.ml",
            coefficients=[1.0, 2, 3, -1, -2, -3], intercepts=[0.0, 0.5], multi_class=0, post_transform="SOFTMAX",
            **names,
        )
    ]  # fmt: skip
    kind = TensorProto.STRING if words else TensorProto.INT64
    outputs = [tensor("label", ["n"], kind)]
    if zipped:
        keys = {"classlabels_strings": ["no", "yes"]} if words else {"classlabels_int64s": [0, 1]}
        nodes.append(node("ZipMap", ["p"], ["output_probability"], domain="ai.onnx.ml", **keys))
        mapped = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(mapped)))
    else:
        outputs.append(tensor("probabilities", ["n", 2]))
    return model(nodes, [tensor("x", ["n", 3])], outputs, domains=["ai.onnx.ml"])


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_probabilities_have_a_column_for_each_class(zipped: bool, words: bool) -> None:
    told = [{"name": "probabilities", "classes": ["no", "yes"]}] if words and not zipped else []
    graph = tried(classifier(zipped, words), declared(TABLE, told)).graph
    label, scores = graph.outputs
    assert (label.served, scores.served) == ("label", "probabilities")
    assert scores.classes == (["no", "yes"] if words else [0, 1])
    assert scores.shape == [-1, 2]
    assert scores.maps == zipped


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([{"name": "z"}], [], r"inputs: expected names of the graph's inputs \(x\), found 'z'"),
        ([{"name": "x", "datatype": "FP64"}], [], "expected the graph's datatype FP32, found FP64"),
        ([{"name": "x", "shape": [-1, 4]}], [], r"expected a shape that the graph's \[-1, 3\] allows, found \[-1, 4\]"),
        ([{"name": "x", "shape": [-1]}], [], "expected a shape that the graph's"),
        ([{"name": "x", "columns": ["a", "b"]}], [], "expected as many columns as its matrix"),
        ([{"name": "x", "columns": ["a", "b", "a"]}], [], "found 'a' more than once"),
        ([{"name": "x", "columns": ["a", "b", "c\n"]}], [], "expected printable names"),
        ([{"name": "x", "role": "image", "columns": ["a", "b", "c"]}], [], "expected role tabular for columns"),
        ([{"name": "x", "role": "tabular"}], [], "expected columns for role tabular, found none; name the 3 columns"),
        ([], [{"name": "y", "role": "label"}], "its role is rather score"),
        ([], [{"name": "q"}], r"outputs: expected names of the graph's outputs \(y\), found 'q'"),
        ([], [{"name": "y", "role": "probabilities", "classes": ["a", "b"]}], "expected 3 classes"),
    ],
)
def test_what_contradicts_the_graph_is_refused(
    inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(MalformedArtefact, match=message):
        tried(identity(["n", 3]), declared(inputs, outputs))


def test_two_outputs_of_one_role_are_refused() -> None:
    nodes = [node("Identity", ["x"], ["y"]), node("Neg", ["x"], ["z"])]
    data = model(nodes, [tensor("x", ["n", 1])], [tensor("y", ["n", 1]), tensor("z", ["n", 1])])
    roles = [{"name": name, "role": "score"} for name in ("y", "z")]
    with pytest.raises(MalformedArtefact, match="expected each output once, found 'prediction' more than once"):
        tried(data, declared([], roles))


def test_a_table_needs_an_answer_for_each_row() -> None:
    nodes = [node("ReduceMean", ["x"], ["y"], keepdims=0)]
    with pytest.raises(MalformedArtefact, match="expected an answer for each row of a table"):
        tried(model(nodes, [tensor("x", ["n", 3])], [tensor("y", [])]), declared(TABLE))


def test_answers_may_be_not_numbers() -> None:
    nodes = [node("Log", ["x"], ["y"])]
    assert tried(model(nodes, [tensor("x", ["n"])], [tensor("y", ["n"])]), Declared()).graph.unit == "row"


def test_an_answer_may_be_empty() -> None:
    nodes = [node("NonZero", ["x"], ["y"])]
    trial = tried(model(nodes, [tensor("x", [4])], [tensor("y", [1, None], TensorProto.INT64)]), Declared())
    assert trial.graph.outputs[0].shape == [1, -1]


def test_sizes_are_looked_for_that_the_graph_answers() -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 64])
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    trial = tried(model(nodes, [tensor("x", ["batch", "length"])], [tensor("y", [None, 64])], [shape]), Declared())
    assert trial.graph.inputs[0].example == [1, 64]
    assert np.prod(trial.graph.inputs[0].example) % 64 == 0


@pytest.mark.parametrize(
    ("name", "width", "kept"),
    [("probabilities", 1, False), ("probabilities", 2, False), ("variable", 2, False), ("variable", 1, True)],
)
def test_a_name_is_believed_where_the_values_are_such(name: str, width: int, kept: bool) -> None:
    """scikit-learn's margins are exported as probabilities, several quantities as one variable."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, width], [1.0] * 3 * width)
    data = model([node("MatMul", ["x", "w"], [name])], [tensor("x", ["n", 3])], [tensor(name, ["n", width])], [weights])
    (output,) = tried(data, declared(TABLE)).graph.outputs
    assert (output.role, output.served, output.classes) == (("score", "prediction", []) if kept else ("", name, []))
    told = tried(data, declared(TABLE, [{"name": name, "role": "score"}])).graph.outputs
    assert told[0].served == "prediction", "what a person says is believed"
