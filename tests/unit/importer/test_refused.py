"""Files that can't be served: each refused with a sentence, by the process that tries it."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import TrialRequest, onnx_file, read, run_trial
from unit.importer.graphs import identity, model, node, proto, tensor


def refusal(data: bytes, path: Path, memory: int = 0, seconds: float = 120.0) -> str:
    file = path / "m.onnx"
    file.write_bytes(data)
    with pytest.raises(MalformedArtefact) as raised:
        run_trial(file, TrialRequest(str(file), memory=memory), seconds)
    text = str(raised.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def external(location: str) -> bytes:
    values = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value=location)
    nodes = [node("Add", ["x", "w"], ["y"])]
    return proto(nodes, [tensor("x", ["n", 3])], [tensor("y", ["n", 3])], [values]).SerializeToString()


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd", ""])
def test_weights_in_another_file(location: str) -> None:
    with pytest.raises(MalformedArtefact, match=r"'w': expected its values in the file.*save the model as one file"):
        read(external(location))


def test_weights_in_another_file_of_an_inner_graph() -> None:
    values = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="../secret")
    branch = helper.make_graph([node("Identity", ["w"], ["v"])], "b", [], [tensor("v", [3])], [values])
    nodes = [node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    with pytest.raises(MalformedArtefact, match="expected its values in the file"):
        read(model(nodes, [tensor("c", [], TensorProto.BOOL)], [tensor("y", [3])]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a graph that computes something"),
        (b"\x80\x04pickle", "expected a model as onnx.save writes it"),
        (b"PK\x03\x04" + b"\x00" * 64, "expected a model as onnx.save writes it"),
        (model([], [tensor("x", ["n"])], [tensor("y", ["n"])]), "found 0 nodes"),
        (
            model(
                [node("Identity", ["x"], [f"y{k}"]) for k in range(10_000)], [tensor("x", [1])],
                [tensor(f"y{k}", [1]) for k in range(10_000)],
            ),
            "expected at most 256 outputs, found 10000; concatenate",
        ),
    ],
    ids=["empty", "pickle", "zip", "no nodes", "10,000 outputs"],
)  # fmt: skip
def test_what_is_no_model(data: bytes, message: str) -> None:
    with pytest.raises(MalformedArtefact, match=message):
        read(data)


def test_a_file_longer_than_protobuf_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 4)
    with pytest.raises(MalformedArtefact, match="expected at most 0 MiB, as one file can hold, found 0; compress it"):
        read(b"12345")


def test_a_file_that_is_none_is_refused_across_processes(tmp_path: Path) -> None:
    assert refusal(b"junk", tmp_path).startswith("m.onnx: ONNX file: expected a model as onnx.save writes it")


X, Y = tensor("x", [1]), tensor("y", [1])
BROKEN = {
    "custom operator": (model([node("Warp", ["x"], ["y"], domain="com.x")], [X], [Y], domains=["com.x"]), "com.x"),
    "opset": (model([node("Identity", ["x"], ["y"])], [X], [Y], opset=99), "opset"),
    "cycle": (model([node("Add", ["x", "b"], ["y"]), node("Neg", ["y"], ["b"])], [X], [Y]), "ONNX Runtime"),
    "no inputs": (model([node("Constant", [], ["y"], value_float=1.0)], [], [tensor("y", [])]), "always the same"),
    "zero size": (identity([0, 3]), "expected dimensions of 1 or more"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_graphs_that_cannot_run(data: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(data, tmp_path)


def test_a_graph_that_takes_more_memory_than_it_may(tmp_path: Path) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 28])
    nodes = [
        node("ConstantOfShape", ["shape"], ["big"]), node("ReduceMax", ["big"], ["max"], keepdims=0),
        node("Add", ["x", "max"], ["y"]),
    ]  # fmt: skip
    data = model(nodes, [tensor("x", ["n"])], [tensor("y", ["n"])], [shape])
    assert "expected a graph that runs in 600 MiB of memory, found one that takes more" in refusal(
        data, tmp_path, memory=600 << 20
    )


def test_a_graph_that_never_ends(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Identity", ["c"], ["again"]), node("Add", ["v", "v"], ["w"])], "b",
        [tensor("i", [], TensorProto.INT64), tensor("c", [], TensorProto.BOOL), tensor("v", ["n"])],
        [tensor("again", [], TensorProto.BOOL), tensor("w", ["n"])],
    )  # fmt: skip
    most = helper.make_tensor("most", TensorProto.INT64, [], [1 << 62])
    go = helper.make_tensor("go", TensorProto.BOOL, [], [True])
    data = model(
        [node("Loop", ["most", "go", "x"], ["y"], body=body)], [tensor("x", ["n"])], [tensor("y", ["n"])], [most, go]
    )
    assert "within 8 s, found none: a graph this slow is not served in process" in refusal(data, tmp_path, seconds=8)
