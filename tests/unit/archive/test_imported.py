"""Models from storageUri: an ONNX file or an artefact folder with the expected digest, nothing else."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from governed_api.resolved import ResolvedModel
from governed_serving.archive.errors import Unverified
from governed_serving.archive.fetching.fetch import fetch, source_path
from governed_serving.archive.fetching.imported import packed_import
from governed_serving.artefact import MalformedArtefact, TamperedArtefact, decode_manifest, load, unpack, write
from governed_serving.sources import Tree


def resolved(uri: str, digest: str) -> ResolvedModel:
    model = {"storageUri": uri, "digest": digest}
    return ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": {"predictor": {"model": model}}})


def onnx_file(path: Path, width: int = 1, output: str = "prediction") -> str:
    """A graph that adds its two inputs; its digest."""
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", width]) for n in ("a", "b")]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows"])]
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Reshape", ["sum", "shape"], [output])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    path.write_bytes(data)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_an_onnx_file_becomes_an_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    model = resolved("file:m.onnx", digest)
    (tmp_path / "spec.json").write_bytes(model.dump())
    monkeypatch.setenv("GOVERNED_SPEC", str(tmp_path / "spec.json"))
    monkeypatch.setenv("GOVERNED_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setenv("GOVERNED_SAMPLES_DIR", str(tmp_path))
    assert digest in fetch()
    found = load(tmp_path / "model")
    assert [f.name for f in found.manifest.features] == ["a", "b"]
    assert found.manifest.task == "regression"
    assert onnx.load_from_string(found.model).graph.name == "g"


def test_a_pod_s_volume_has_room_for_the_file(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    spec = {"predictor": {"model": {"storageUri": "file:m.onnx", "digest": digest, "volumeSize": "16Mi"}}}
    small = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec})
    with pytest.raises(MalformedArtefact, match="volumeSize: expected room for the file's 0 MiB, found 16Mi; say 17Mi"):
        packed_import(tmp_path / "m.onnx", digest, small)
    spec["predictor"]["model"]["volumeSize"] = "17Mi"
    enough = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec})
    assert unpack(packed_import(tmp_path / "m.onnx", digest, enough))


def test_other_content_is_not_served(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    model = resolved("file:m.onnx", digest)
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes() + b"x")
    with pytest.raises(Unverified, match="it is not served"):
        packed_import(tmp_path / "m.onnx", digest, model)


def test_a_graph_without_a_table_is_served_as_tensors(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx", 3, "y")
    packed = packed_import(tmp_path / "m.onnx", digest, resolved("file:m.onnx", digest))
    manifest = decode_manifest(unpack(packed)["model.json"])
    assert (manifest.task, manifest.features, manifest.label) == ("tensors", [], "")
    assert manifest.graph is not None
    assert [t.shape for t in manifest.graph.inputs] == [[-1, 3], [-1, 3]]


def test_what_the_spec_says_of_tensors_reaches_the_manifest(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx", 1, "y")
    model = resolved("file:m.onnx", digest)
    spec = model.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    spec["predictor"]["model"]["outputs"] = [{"name": "y", "role": "score"}]
    spec["predictor"]["model"]["inputs"] = [{"name": "a", "missing": "Accept", "role": "tabular"}]
    model = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec})
    manifest = decode_manifest(unpack(packed_import(tmp_path / "m.onnx", digest, model))["model.json"])
    assert (manifest.task, manifest.label) == ("regression", "prediction")
    assert [(f.name, f.missing) for f in manifest.features] == [("a", "impute"), ("b", "refuse")]


def test_a_graph_that_contradicts_the_spec_is_refused(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    model = {"storageUri": "file:m.onnx", "digest": digest, "inputs": [{"name": "z"}]}
    spec = {"predictor": {"model": model}}
    with pytest.raises(MalformedArtefact, match="expected names of the graph's inputs"):
        packed_import(
            tmp_path / "m.onnx", digest,
            ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec}),
        )  # fmt: skip


def test_an_artefact_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    packed = packed_import(tmp_path / "m.onnx", digest, resolved("file:m.onnx", digest))
    write(packed, tmp_path / "folder")
    whole = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert packed_import(tmp_path / "folder", whole, resolved("file:folder", whole)) == packed
    assert "model.onnx" in unpack(packed, whole)
    (tmp_path / "folder" / "model.onnx").chmod(0o644)
    (tmp_path / "folder" / "model.onnx").write_bytes(b"other")
    with pytest.raises(TamperedArtefact):
        packed_import(tmp_path / "folder", whole, resolved("file:folder", whole))


def _of_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


@pytest.mark.parametrize("kind", [os.mkfifo, Path.mkdir, _of_zeros, _sparse], ids=["pipe", "folder", "zeros", "sparse"])
@pytest.mark.parametrize("name", ["model.onnx", "model.json", "gates.json"])
def test_what_is_no_file_in_an_artefact_s_folder_is_not_waited_for(
    kind: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    write(packed_import(tmp_path / "m.onnx", digest, resolved("file:m.onnx", digest)), tmp_path / "folder")
    (tmp_path / "folder" / name).unlink(missing_ok=True)
    kind(tmp_path / "folder" / name)
    with pytest.raises((MalformedArtefact, TamperedArtefact), match=name):
        packed_import(tmp_path / "folder", digest, resolved("file:folder", digest))


def test_an_artefact_folder_is_taken_by_what_pin_prints(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    packed = packed_import(tmp_path / "m.onnx", digest, resolved("file:m.onnx", digest))
    write(packed, tmp_path / "folder")
    pinned = Tree.of(tmp_path / "folder").digest
    assert packed_import(tmp_path / "folder", pinned, resolved("file:folder", pinned)) == packed
    (tmp_path / "folder" / "notes.txt").write_text("one file more")
    with pytest.raises(TamperedArtefact):
        packed_import(tmp_path / "folder", pinned, resolved("file:folder", pinned))


def test_claim_paths_stay_in_their_volume(tmp_path: Path) -> None:
    assert source_path("pvc://claim/sub/m.onnx", tmp_path) == tmp_path / "sub" / "m.onnx"
    with pytest.raises(Unverified, match="leaves the volume of claim c"):
        source_path("pvc://c/../../etc/passwd", tmp_path)
