"""`governed inspect` and `governed init`: one screen, and a manifest that validates and serves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from onnx import TensorProto, helper
from typer.testing import CliRunner

from governed_api.names import MAX_MODEL_NAME
from governed_api.validation import validate
from governed_operator.cli import app
from governed_operator.cli.inspect import serving_side
from governed_serving.artefact import MalformedArtefact
from governed_serving.formats import TrialRequest, run_trial
from governed_serving.importer.inspection import Rows, inspected, manifest_of, screen
from unit.importer.graphs import model, node, proto, recurrent, tensor
from unit.importer.test_trial import classifier


def test_a_classifier_on_one_screen(tmp_path: Path) -> None:
    file = tmp_path / "Über 9 churn.onnx"
    file.write_bytes(classifier(zipped=True))
    found = inspected(file)
    text = screen(found)
    assert "in   x                        FP32   [n, 3]" in text
    assert "out  output_probability       FP32   [n, 2] as probabilities (maps, as a matrix); classes 0, 1" in text
    assert "Explained: yes, with columns named, with explainer.background" in text
    assert "Audited:   yes, by favorableOutcome.label" in text
    assert len(text.splitlines()) <= 40
    written = yaml.safe_load(manifest_of(found, "", f"file:{file}"))
    assert validate(written) == []
    asked = written["spec"]["predictor"]["model"]
    assert asked["inputs"] == [{"name": "x", "role": "tabular", "columns": ["x1", "x2", "x3"]}]
    assert asked["digest"] == found.digest
    answer = run_trial(file, TrialRequest(str(file), asked["inputs"]))
    assert answer.graph is not None
    assert answer.graph.inputs[0].columns == ["x1", "x2", "x3"]


def test_states_are_neither_explained_nor_audited_for_bias(tmp_path: Path) -> None:
    (tmp_path / "vad.onnx").write_bytes(recurrent())
    text = screen(inspected(tmp_path / "vad.onnx"))
    assert "[2, any, 8]" in text
    assert "Served:    each request is one call of the graph" in text
    assert "Explained: no: it answers no class and no quantity for each row" in text
    assert "Audited:   journalled, masked, proved; bias needs a table" in text


def test_names_that_a_terminal_would_act_on(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    made = proto([node("Neg", ["a"], ["y"])], [tensor("a", ["n"])], [tensor("y", ["n"])])
    made.producer_name = "a\x1b[2J"
    file.write_bytes(made.SerializeToString())
    text = screen(inspected(file))
    assert "written by a" in text
    assert "\x1b" not in text


def test_init_writes_a_manifest_and_overwrites_none(tmp_path: Path) -> None:
    file, out = tmp_path / ("9" * 60 + "m.onnx"), tmp_path / "model.yaml"
    file.write_bytes(classifier(zipped=False))
    run = CliRunner()
    done = run.invoke(app, ["init", str(file), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert run.invoke(app, ["validate", str(out)]).exit_code == 0
    assert len(yaml.safe_load(out.read_text())["metadata"]["name"]) <= MAX_MODEL_NAME
    before = out.read_text()
    again = run.invoke(app, ["init", str(file), "-o", str(out)])
    assert again.exit_code == 1
    assert "expected no file there, found one" in again.output
    assert out.read_text() == before


def test_rows_name_the_columns_and_explain(tmp_path: Path) -> None:
    file, rows = tmp_path / "in" / "m.onnx", tmp_path / "in" / "rows.csv"
    file.parent.mkdir()
    file.write_bytes(classifier(zipped=True))
    rows.write_text("income,no,收入 x\n1,2,3\n")
    run, out = CliRunner(), tmp_path / "m.yaml"
    done = run.invoke(app, ["init", str(file), "--background", str(rows), "-o", str(out), "--name", "loans"])
    assert done.exit_code == 0, done.output
    manifest = yaml.safe_load(out.read_text())
    assert validate(manifest) == []
    asked = manifest["spec"]["predictor"]["model"]
    assert asked["storageUri"] == "file:in/m.onnx", "from the manifest's folder, wherever it was written from"
    assert asked["inputs"] == [{"name": "x", "role": "tabular", "columns": ["income", "no", "收入 x"]}]
    assert manifest["spec"]["explainer"]["background"]["uri"] == "file:in/rows.csv"
    assert 'favorableOutcome: {label: "1"}' in out.read_text()
    elsewhere = tmp_path / "other" / "m.yaml"
    elsewhere.parent.mkdir()
    assert run.invoke(app, ["init", str(file), "-o", str(elsewhere)]).exit_code == 0
    assert yaml.safe_load(elsewhere.read_text())["spec"]["predictor"]["model"]["storageUri"] == f"file:{file}"


@pytest.mark.parametrize(
    ("width", "role"), [(1, {"role": "score"}), (3, {"role": "probabilities", "classes": ["0", "1", "2"]})]
)
def test_an_output_that_its_exporter_named_otherwise(width: int, role: dict[str, Any], tmp_path: Path) -> None:
    file, rows = tmp_path / "m.onnx", tmp_path / "rows.csv"
    nodes = [node("MatMul", ["in", "w"], ["linear_1"])]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, width], [0.25] * 2 * width)
    file.write_bytes(model(nodes, [tensor("in", ["n", 2])], [tensor("linear_1", ["n", width])], [weights]))
    rows.write_text("a,b\n1,2\n3,4\n")
    found = inspected(file)
    assert "yes, with columns named and the role of 'linear_1' said" in screen(found)
    plain = yaml.safe_load(manifest_of(found, "", f"file:{file}"))
    assert "outputs" not in plain["spec"]["predictor"]["model"], "served as it is, unless a person says more"
    written = yaml.safe_load(manifest_of(found, "m", f"file:{file}", Rows.read(rows, f"file:{rows}")))
    assert validate(written) == []
    asked = written["spec"]["predictor"]["model"]
    assert asked["outputs"] == [{"name": "linear_1", **role}]
    answer = run_trial(file, TrialRequest(str(file), asked["inputs"], asked["outputs"]))
    assert answer.graph is not None
    assert answer.graph.outputs[0].served == {1: "prediction", 3: "probabilities"}[width]


def test_a_large_file_has_a_volume_of_its_size(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier(zipped=True))
    found = inspected(tmp_path / "m.onnx")
    assert "volumeSize" not in manifest_of(found, "", "file:m.onnx")
    written = yaml.safe_load(manifest_of(replace(found, size=1500 << 20), "", "file:m.onnx"))
    assert validate(written) == []
    assert written["spec"]["predictor"]["model"]["volumeSize"] == "1666Mi"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("a,b,c,label", "expected 3 columns for the matrix that the graph takes, in its order, found 4"),
        ("a,b,b", "expected a header that names each column once, found a, b, b"),
        ("", "expected a header that names each column once, found none"),
    ],
)
def test_rows_that_do_not_fit(header: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier(zipped=True))
    (tmp_path / "rows.csv").write_text(f"{header}\n")
    with pytest.raises(MalformedArtefact, match=words):
        manifest_of(
            inspected(tmp_path / "m.onnx"), "", "file:m.onnx", Rows.read(tmp_path / "rows.csv", "file:rows.csv")
        )


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"junk")
    done = serving_side("inspect", f"file:{file}")
    assert (done.returncode, done.stdout) == (1, "")
    run = CliRunner()
    for target, words in (
        (str(tmp_path), "found a folder"),
        ("s3://b/m.onnx", "fetch it first"),
        ("none", "found none"),
    ):
        refused = run.invoke(app, ["inspect", target])
        assert refused.exit_code == 1
        assert words in refused.output
