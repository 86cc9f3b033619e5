"""Files that can't be served: each refused with a sentence, by the process that tries it."""

import os
import struct
from pathlib import Path

import pytest
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper

from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import TrialRequest, content_of, onnx_file, read, run_trial
from governed_serving.server.predictors.onnx import session
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


def elsewhere(name: str = "w", kind: int = TensorProto.FLOAT) -> TensorProto:
    """Three values in the file secret.bin of whatever folder a process works in."""
    values = TensorProto(name=name, data_type=kind, dims=[3], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="secret.bin")
    return values


def sparse(values: TensorProto | None = None, indices: TensorProto | None = None) -> SparseTensorProto:
    found = SparseTensorProto(dims=[3])
    found.values.CopyFrom(values or helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3]))
    found.indices.CopyFrom(indices or helper.make_tensor("i", TensorProto.INT64, [3], [0, 1, 2]))
    return found


def branching(branch: GraphProto) -> list[NodeProto]:
    """Nodes that answer x and what ``branch`` gives."""
    yes = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    return [
        node("Constant", [], ["c"], value=yes), node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
        node("Add", ["x", "i"], ["y"]),
    ]  # fmt: skip


def added(
    nodes: list[NodeProto], *constants: TensorProto, sparse_values: SparseTensorProto | None = None
) -> ModelProto:
    found = proto(nodes, [tensor("x", ["n", 3])], [tensor("y", ["n", 3])], constants)
    found.graph.sparse_initializer.extend([sparse_values] if sparse_values else [])
    return found


def by_function(nodes: list[NodeProto]) -> ModelProto:
    found = proto(
        [node("F", ["x"], ["y"], domain="own")], [tensor("x", ["n", 3])], [tensor("y", ["n", 3])], domains=["own"]
    )
    found.functions.append(helper.make_function("own", "F", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)]))
    return found


CONSTANT = helper.make_graph([node("Constant", [], ["v"], value=elsewhere("v"))], "b", [], [tensor("v", [3])])
SPARSE = helper.make_graph([node("Identity", ["w"], ["v"])], "b", [], [tensor("v", [3])])
SPARSE.sparse_initializer.append(sparse(elsewhere()))
HIDDEN = {
    "a constant within a function's branch": by_function(branching(CONSTANT)),
    "sparse values of a constant": added(
        [node("Constant", [], ["w"], sparse_value=sparse(elsewhere())), node("Add", ["x", "w"], ["y"])]
    ),
    "sparse values of an inner graph": added(branching(SPARSE)),
    "sparse indices": added(
        [node("Add", ["x", "w"], ["y"])], sparse_values=sparse(indices=elsewhere("i", TensorProto.INT64))
    ),
    "sparse values": added([node("Add", ["x", "w"], ["y"])], sparse_values=sparse(elsewhere())),
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_no_place_of_a_graph_reads_a_file_of_ours(
    hidden: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where files are judged, nor in the server's session, which takes what others packed as well."""
    (tmp_path / "secret.bin").write_bytes(struct.pack("<3f", 41, 42, 43))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MalformedArtefact, match="expected its values in the file, found them in another one"):
        read(hidden.SerializeToString())
    with pytest.raises(ValueError, match="expected a model that ONNX Runtime"):
        session(hidden.SerializeToString())


def named(given: str = "x", answered: str = "y") -> bytes:
    return model([node("Identity", [given], [answered])], [tensor(given, ["n", 3])], [tensor(answered, ["n", 3])])


@pytest.mark.parametrize(
    "name", ["\x1b[2Jx", "a\nb", "a\0b", "a\u202eb", "a\u200bb", "", "x" * 257, "x" * 1_000_000, "\u2028", "\x7f"]
)
def test_names_that_cannot_be_printed_or_are_too_long(name: str) -> None:
    """They would be in each record of the journal, in logs, conditions and on terminals."""
    for data in (named(name), named(answered=name)):
        with pytest.raises(MalformedArtefact, match="expected a printable name of 1 to 256 characters") as refused:
            read(data)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("place", ["x", "y", "producer"])
def test_names_that_are_no_text(place: str) -> None:
    found = ModelProto.FromString(named("QQQQ" if place == "x" else "x", "QQQQ" if place == "y" else "y"))
    found.producer_name = "QQQQ"
    with pytest.raises(MalformedArtefact, match="expected text in UTF-8, found bytes that are none"):
        read(found.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xfd\xfc"))


def test_a_runtimes_words_cannot_draw_on_a_terminal(tmp_path: Path) -> None:
    data = model([node("\x1b[2JWarp", ["x"], ["y"], domain="com.x")], [X], [Y], domains=["com.x"])
    assert refusal(data, tmp_path).isprintable()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ('["a\\u001b[2J", "b", "c"]', "expected a printable name"),
        ('["a", "a", "b"]', "expected each class once, found 'a'"),
        ('["", "b", "c"]', "expected a printable name"), (f'["{"x" * 300}", "b", "c"]', "and 220 more"),
    ],
)  # fmt: skip
def test_classes_that_no_record_can_hold(classes: str, message: str, tmp_path: Path) -> None:
    found = proto(
        [node("Softmax", ["x"], ["probabilities"])], [tensor("x", ["n", 3])], [tensor("probabilities", ["n", 3])]
    )
    found.metadata_props.add(key="classes", value=classes)
    assert message in refusal(found.SerializeToString(), tmp_path)


@pytest.mark.parametrize("width", [1 << 31, 1 << 40, 1 << 62])
def test_rows_too_wide_to_be_made_up(width: int, tmp_path: Path) -> None:
    """And none of them is: the machine's memory isn't asked for them."""
    text = refusal(identity(["n", width]), tmp_path)
    assert "narrow" in text
    assert "ended the process" not in text


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="is no regular file"):
            content_of(path)
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "large")
    assert content_of(tmp_path / "link") == b"12345"
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 4)
    with pytest.raises(MalformedArtefact, match="compress it"):
        content_of(tmp_path / "link")


def test_a_file_that_changes_after_it_was_verified(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(identity(["n", 3]))
    with pytest.raises(MalformedArtefact, match="expected the bytes that were verified, found others"):
        run_trial(file, TrialRequest(str(file), digest="0" * 64))


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
