"""Imports under rules that need a table: explanations and audits, or a refusal that says the way out."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from governed_api.resolved import ResolvedModel
from governed_api.validation import validate
from governed_serving.archive.errors import Unverified
from governed_serving.archive.fetching.imported import packed_import
from governed_serving.artefact import Feature, MalformedArtefact, load, write
from governed_serving.explainer.service.model import ExplainedModel
from governed_serving.formats import background_columns
from unit.importer.graphs import identity, node, recurrent, tensor
from unit.importer.graphs import model as graph_of

ROWS = "b,extra,a\n1,x,2\n3,y,4\n"
TABLE = [{"name": "x", "role": "tabular", "columns": ["a", "b"]}]


def regression() -> bytes:
    nodes = [node("ReduceMean", ["x"], ["variable"], axes=[1], keepdims=1)]
    return graph_of(nodes, [tensor("x", ["n", 2])], [tensor("variable", ["n", 1])])


def classifier() -> bytes:
    nodes = [node("Softmax", ["x"], ["probabilities"]), node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)]
    outputs = [tensor("probabilities", ["n", 2]), tensor("label", ["n"], TensorProto.INT64)]
    return graph_of(nodes, [tensor("x", ["n", 2])], outputs)


def brought(data: bytes, folder: Path, inputs: list[dict[str, Any]], **spec: Any) -> bytes:
    (folder / "m.onnx").write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return packed_import(folder / "m.onnx", digest, of("m.onnx", digest, inputs, **spec), folder)


def of(name: str, digest: str, inputs: list[dict[str, Any]], **spec: Any) -> ResolvedModel:
    model = {"storageUri": f"file:{name}", "digest": digest, "inputs": inputs}
    return ResolvedModel.model_validate(
        {"name": "m", "namespace": "default", "spec": {"predictor": {"model": model}, **spec}}
    )


def test_an_explainer_starts_beside_an_import(tmp_path: Path) -> None:
    write(brought(regression(), tmp_path, TABLE, explainer={"background": {"inline": ROWS}}), tmp_path / "model")
    assert load(tmp_path / "model").background() == {"a": [2.0, 4.0], "b": [1.0, 3.0]}
    model = ExplainedModel.read(tmp_path / "model", "", [], 100, ())
    assert (model.output, model.outputs) == ("prediction", ["prediction"])
    assert sorted(model.background["a"].tolist()) == [2.0, 4.0]


def test_background_rows_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    digest = f"sha256:{hashlib.sha256(ROWS.encode()).hexdigest()}"
    given = {"uri": "file:rows.csv", "digest": digest}
    write(brought(regression(), tmp_path, TABLE, explainer={"background": given}), tmp_path / "model")
    assert load(tmp_path / "model").background()["b"] == [1.0, 3.0]
    with pytest.raises(Unverified, match="nothing is explained by it"):
        brought(regression(), tmp_path, TABLE, explainer={"background": {**given, "digest": "sha256:" + "0" * 64}})
    with pytest.raises(MalformedArtefact, match="expected a readable file"):
        brought(regression(), tmp_path, TABLE, explainer={"background": {**given, "uri": "file:none.csv"}})
    with pytest.raises(MalformedArtefact, match="expected a file on the volume of storageUri"):
        brought(regression(), tmp_path, TABLE, explainer={"background": {**given, "uri": "pvc://c/rows.csv"}})


def test_background_rows_of_a_fetched_model_lie_on_a_volume_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "m.onnx").write_bytes(regression())
    digest = f"sha256:{hashlib.sha256(regression()).hexdigest()}"
    given = {"uri": "pvc://rows/rows.csv", "digest": f"sha256:{hashlib.sha256(ROWS.encode()).hexdigest()}"}
    model = {"storageUri": "s3://bucket/m.onnx", "digest": digest, "inputs": TABLE}
    spec = {"predictor": {"model": model}, "explainer": {"background": given}}
    resolved = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec})
    write(packed_import(tmp_path / "m.onnx", digest, resolved, tmp_path), tmp_path / "model")
    assert load(tmp_path / "model").background()["b"] == [1.0, 3.0]


BIAS = {
    "protectedAttributes": [{"name": "a"}], "favorableOutcome": {"threshold": 0.5},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "inputs", "spec", "message"),
    [
        (recurrent(), [], {"explainer": {"background": {"inline": ROWS}}}, "explainer: expected a table, found"),
        (identity(["n", 2]), [], {"governance": {"bias": BIAS}}, "governance.bias: expected a table, found a graph"),
        (regression(), TABLE, {"explainer": {}}, "expected explainer.background, rows that explanations compare with"),
        (
            regression(), [{**TABLE[0], "columns": ["b", "c"]}], {"governance": {"bias": BIAS}},
            r"expected some of the model's columns \(b, c\), found 'a'",
        ),
    ],
)  # fmt: skip
def test_rules_that_the_graph_cannot_keep(
    data: bytes, inputs: list[dict[str, Any]], spec: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MalformedArtefact, match=message):
        brought(data, tmp_path, inputs, **spec)


@pytest.mark.parametrize(
    ("data", "outcome", "message"),
    [
        (classifier(), {"label": "yes"}, r"label: expected a class of the model \(0, 1\), found 'yes'; name the one"),
        (classifier(), {"label": " 1"}, r"found ' 1'; did you mean '1'\?"),
        (classifier(), {"threshold": 1}, r"label: expected a class of the model \(0, 1\), found none"),
        (regression(), {"label": "1"}, "expected threshold, since the model predicts a number, found none"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_an_outcome_that_no_answer_can_have_is_refused(
    data: bytes, outcome: dict[str, Any], message: str, folder: bool, tmp_path: Path
) -> None:
    """Every answer would count as unfavourable, and parity would hold."""
    fits = {"threshold": 1} if "label" in outcome and outcome["label"] == "1" else {"label": "1"}
    fitting, rules = ({"bias": BIAS | {"favorableOutcome": one}} for one in (fits, outcome))
    packed = brought(data, tmp_path, TABLE, governance=fitting)
    if not folder:
        with pytest.raises(MalformedArtefact, match=message):
            brought(data, tmp_path, TABLE, governance=rules)
        return
    write(packed, tmp_path / "folder")
    digest = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    with pytest.raises(MalformedArtefact, match=message):
        packed_import(tmp_path / "folder", digest, of("folder", digest, TABLE, governance=rules), tmp_path)
    assert packed_import(tmp_path / "folder", digest, of("folder", digest, TABLE, governance=fitting), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found the header of no column"),
        (b"a\n1\n", "expected one column 'b'"),
        (b"a,b,a\n1,2,3\n", "expected one column 'a'"),
        (b"a,b\n", "expected 1 to 10000 rows below its header, found none"),
        (b"a,b\n1,\n", "line 2, column 'b': expected a number, found none; say missing: Accept"),
        (b"a,b\n1\n", "line 2, column 'b': expected a number, found none"),
        (b"a,b\n1,two\n", "line 2, column 'b': expected a number, found 'two'"),
        (b"a,b\n1,inf\n", "expected a finite number"),
        (b"a,b\n1,\xff\n", "expected CSV in UTF-8"),
        (b"a,b\n" + b"1,2\n" * 10_001, "found more"),
    ],
)
def test_background_rows_that_do_not_fit(content: bytes, message: str) -> None:
    with pytest.raises(MalformedArtefact, match=message):
        background_columns(content, [Feature(name, "numeric", "FP32") for name in "ab"])


def test_what_is_missing_may_be_accepted() -> None:
    features = [Feature("a", "numeric", "FP64", missing="impute"), Feature("b", "categorical", "BYTES")]
    assert background_columns("\ufeffa,b\n,\n1.5,ü\n".encode(), features) == {"a": [None, 1.5], "b": ["", "ü"]}


@pytest.mark.parametrize(
    ("model", "explainer", "message"),
    [
        ({"storageUri": "file:m.onnx"}, {"background": {}}, "exactly one of inline and uri"),
        ({"storageUri": "file:m.onnx"}, {"background": {"uri": "file:r.csv"}}, "uri and digest go together"),
        (
            {"storageUri": "file:m.onnx", "inputs": [{"name": "x", "role": "image"}]},
            {"background": {"inline": ROWS}}, "explainer needs a table",
        ),
        ({"storageUri": "file:m.onnx"}, {}, "explainer of an ONNX file needs explainer.background"),
        ({"storageUri": "pvc://c/M.ONNX"}, {"type": "lime"}, "explainer of an ONNX file needs explainer.background"),
        ({"storageUri": "file:model", "inputs": TABLE}, {}, "explainer of an ONNX file needs explainer.background"),
        ({"storageUri": "file:folder"}, {}, ""),
        ({"storageUri": "file:m.onnx"}, {"background": {"inline": ROWS}}, ""),
    ],
)  # fmt: skip
def test_validate_says_the_way_out(model: dict[str, Any], explainer: dict[str, Any], message: str) -> None:
    spec = {"predictor": {"model": {**model, "digest": "sha256:" + "0" * 64}}, "explainer": explainer}
    manifest = {
        "apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "m"}, "spec": spec,
    }  # fmt: skip
    found = validate(manifest)
    assert (found == []) if not message else any(message in line for line in found), found
