"""A folder with a tokenizer as an artefact: pinned, packed with its tokenizer, refused with rules it can't have."""

from pathlib import Path
from typing import Any

import pytest

from governed_api.model import GovernedModelSpec
from governed_api.resolved import ResolvedModel
from governed_serving.archive.errors import Unverified
from governed_serving.archive.fetching.imported import packed_import
from governed_serving.artefact import MalformedArtefact, load, write
from governed_serving.server.predictors.loading import predictor_of
from governed_serving.sources import Tree
from support.text_models import embedder, folder

BIAS = {
    "protectedAttributes": [{"name": "sex"}, {"name": "age", "bands": [40]}],
    "favorableOutcome": {"label": "good"},
    "metrics": [{"name": "disparateImpactRatio", "thresholdLower": 0.8}],
}


def resolved(place: Path, digest: str = "", **spec: Any) -> ResolvedModel:
    model = {"storageUri": f"file:{place}", "digest": digest or Tree.of(place).digest, **spec.pop("model", {})}
    whole = GovernedModelSpec.model_validate({"predictor": {"model": model}, **spec})
    return ResolvedModel(name="reviews", namespace="team", spec=whole)


def packed(place: Path, **spec: Any) -> bytes:
    model = resolved(place, **spec)
    return packed_import(place, model.spec.predictor.model.digest or "", model)


def test_the_artefact_holds_the_graph_and_its_tokenizer(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    write(packed(place, governance={"bias": BIAS}), tmp_path / "out")
    artefact = load(tmp_path / "out")
    assert artefact.content("tokenizer.json") == (place / "tokenizer.json").read_bytes()
    assert set(artefact.manifest.files) == {"model.onnx", "tokenizer.json"}
    assert [(f.name, f.type, f.dtype) for f in artefact.manifest.features] == [
        ("text", "text", "BYTES"), ("sex", "categorical", "BYTES"), ("age", "numeric", "FP32"),
    ]  # fmt: skip
    assert artefact.manifest.classes == ["bad", "good", "so so"]
    assert artefact.manifest.lineage.versions["tokenizers"]
    assert predictor_of(artefact, threads=1).merges


def test_equal_folders_give_equal_artefacts_and_another_tokenizer_another(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    first = packed(place)
    assert packed(place) == first
    (place / "tokenizer.json").write_text((place / "tokenizer.json").read_text() + " ")
    assert packed(place) != first


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.onnx", "tokenizer_config.json"])
def test_a_byte_changed_in_any_file_is_not_served(tmp_path: Path, name: str) -> None:
    place = folder(tmp_path / "m")
    pinned = Tree.of(place).digest
    (place / name).write_bytes((place / name).read_bytes() + b" ")
    with pytest.raises(Unverified, match="it is not served"):
        packed_import(place, pinned, resolved(place, pinned))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an attribute called text": (
        {"governance": {"bias": BIAS | {"protectedAttributes": [{"name": "text"}]}}},
        "expected attributes of requests, such as sex, found 'text'",
    ),
    "a label that is none": (
        {"governance": {"bias": BIAS | {"favorableOutcome": {"label": "Good"}}}},
        "did you mean 'good'",
    ),
    "inputs": (
        {"model": {"inputs": [{"name": "input_ids"}]}},
        "predictor.model.inputs: expected none beside a tokenizer",
    ),
    "anchors": ({"explainer": {"type": "anchors"}}, "expected type shap or lime"),
    "rows to compare with": ({"explainer": {"background": {"inline": "text\na\n"}}}, "expected none for texts"),
    "a volume that is too small": ({"model": {"volumeSize": "1Mi"}}, "volumeSize: expected room"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rules_that_texts_cant_have_are_refused(tmp_path: Path, case: str) -> None:
    spec, message = REFUSED[case]
    with pytest.raises(MalformedArtefact, match=message):
        packed(folder(tmp_path / "m"), **spec)


@pytest.mark.parametrize("spec", [{"explainer": {}}, {"governance": {"bias": BIAS}}])
def test_embeddings_are_neither_explained_nor_audited_for_bias(tmp_path: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(MalformedArtefact, match="expected a model that decides something, found embeddings"):
        packed(embedder(tmp_path / "m"), **spec)
