"""Manifests written in a notebook: refused as `governed validate` refuses them, and read back as they were written."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import governed
from governed.manifests import Spec
from governed.plain import plain
from governed_api.governance import Bias, FavorableOutcome, MetricBounds, ProtectedAttribute
from governed_api.lifecycle import Data, Feature, Training
from governed_api.model import Model
from governed_operator.local.manifest_file import findings, load_model
from governed_operator.local.manifest_text import parsed
from governed_operator.local.yaml_writing import to_yaml
from support.kubectl_words import MEANT

DIGEST = "sha256:" + "0" * 64
IMPORTED: Mapping[str, object] = {"model": {"storageUri": "file:m.onnx", "digest": DIGEST}}
TRAINED: Mapping[str, object] = {
    "training": {"data": {"uri": "pvc://d/l.csv", "label": "y", "features": [{"name": "n"}]}}
}
BIAS: Mapping[str, object] = {
    "bias": {
        "protectedAttributes": [{"name": "n", "bands": [25, 65]}],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": "disparateImpactRatio", "thresholdLower": 0.8}],
    }
}


def test_a_label_that_yaml_would_read_as_a_boolean_comes_back_as_a_text(tmp_path: Path) -> None:
    made = governed.manifest("loans", "team", lifecycle=TRAINED, governance=BIAS)
    path = made.save(tmp_path / "loans.yaml")
    assert "label: 'y'\n" in path.read_text()
    assert [document.value for document in parsed(path.read_text())] == [made.document]
    model = load_model(path)
    assert model.spec.lifecycle.training is not None
    assert model.spec.lifecycle.training.data.label == "y"
    assert model.metadata == {"name": "loans", "namespace": "team"}


def test_typed_parts_and_mappings_say_the_same() -> None:
    data = Data(uri="pvc://d/l.csv", label="y", features=[Feature(name="n")])
    bias = Bias(
        protected_attributes=[ProtectedAttribute(name="n", bands=[25, 65])],
        favorable_outcome=FavorableOutcome(label="yes"),
        metrics=[MetricBounds(name="disparateImpactRatio", threshold_lower=0.8)],
    )
    typed = governed.manifest(
        "loans",
        lifecycle=governed.Lifecycle(training=Training(data=data)),
        governance=governed.Governance(bias=bias),
    )
    assert typed == governed.manifest("loans", lifecycle=TRAINED, governance=BIAS)
    assert typed.to_yaml() == governed.manifest("loans", lifecycle=TRAINED, governance=BIAS).to_yaml()
    imported = governed.Predictor(model=Model(storage_uri="file:m.onnx", digest=DIGEST))
    assert governed.manifest("m", predictor=imported) == governed.manifest("m", predictor=IMPORTED)


def test_what_numpy_counts_is_a_number() -> None:
    counted = governed.manifest(
        "loans",
        predictor={**IMPORTED, "minReplicas": np.int64(2), "maxReplicas": np.array([3])[0]},
        suspend=bool(np.True_),
    )
    assert counted == governed.manifest(
        "loans", predictor={**IMPORTED, "minReplicas": 2, "maxReplicas": 3}, suspend=True
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"qouta": {}}, ['unknown field "spec.qouta"; did you mean "quota"?']),
        (
            {"predictor": {"storageUri": "pvc://c/m"}},
            ['unknown field "spec.predictor.storageUri"; did you mean spec.predictor.model.storageUri?'],
        ),
        (
            {"predictor": {"model": {"storageUri": "file:m"}}},
            ["spec.predictor.model.digest: Invalid value: storageUri"],
        ),
        ({}, ["spec: Invalid value: exactly one of lifecycle.training, predictor.model.storageUri"]),
        (
            {"predictor": {**IMPORTED, "minReplicas": 3, "maxReplicas": 2}},
            ["spec.predictor.minReplicas: Invalid value: "],
        ),
        ({"predictor": IMPORTED, "suspend": "maybe"}, ["spec.suspend: Invalid value:", "Invalid value: null: some"]),
        (
            {"predictor": {"model": {"storageUri": "file:m", "digest": "md5:1"}}},
            ["spec.predictor.model.digest: Invalid"],
        ),
    ],
)
def test_a_wrong_field_is_told_in_the_words_of_governed_validate(spec: Spec, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(governed.InvalidManifest) as refused:
        governed.manifest("loans", **spec)
    found = refused.value.findings
    assert [words[: len(want)] for words, want in zip(found, said, strict=True)] == said
    assert all(words in str(refused.value) for words in found)
    path = tmp_path / "loans.yaml"
    written = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "loans"}}
    path.write_text(to_yaml([{**written, "spec": spec}]))
    assert [line.partition(": ")[2] for line in findings(path)] == list(found)


@pytest.mark.parametrize(
    ("name", "namespace", "place"),
    [
        ("Loans", None, "metadata.name"),
        ("", None, "metadata.name"),
        ("a\nb", None, "metadata.name"),
        ("x" * 41, None, "metadata.name"),
        ("loans", "", "metadata.namespace"),
        ("loans", "A b", "metadata.namespace"),
        ("loans", "x" * 64, "metadata.namespace"),
    ],
)
def test_a_name_that_kubernetes_has_none_of_is_refused(name: str, namespace: str | None, place: str) -> None:
    with pytest.raises(governed.InvalidManifest, match=place) as refused:
        governed.manifest(name, namespace, predictor=IMPORTED)
    assert len(str(refused.value).splitlines()) == 1


class Ring(dict[str, object]):
    def __init__(self) -> None:
        super().__init__()
        self["me"] = self


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ({"a": {1, 2}}, TypeError, r"spec\.quota\.a: expected a text, a number, a boolean or None, found set"),
        ({"a": [{"b": object()}]}, TypeError, r"spec\.quota\.a\[0\]\.b: .*found object"),
        ({1: "a"}, TypeError, r"spec\.quota: expected texts as names, found 1"),
        ({"a": float("nan")}, ValueError, r"spec\.quota\.a: expected a finite number, found nan"),
        ({"a": np.float32("inf")}, ValueError, r"spec\.quota\.a: expected a finite number, found inf"),
        ({"a": "\ud800"}, ValueError, r"spec\.quota\.a: expected a text, found half of a surrogate pair"),
        ({"a": pd.DataFrame({"a": [1]})}, TypeError, r"spec\.quota\.a: .*found DataFrame"),
        (Ring(), ValueError, r"expected at most 64 levels, found more: does it hold itself\?"),
    ],
)
def test_a_value_that_json_has_no_form_for_is_told_with_its_place(
    value: Mapping[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        governed.manifest("loans", predictor=IMPORTED, quota=value)


def test_values_of_a_notebook_become_json() -> None:
    found = plain({"a": np.array([[1, 2]]), "b": (np.float32(0.5), Fraction(1, 4)), "c": date(2026, 11, 1)}, "x")
    assert found == {"a": [[1, 2]], "b": [0.5, 0.25], "c": "2026-11-01"}
    assert [type(value) for value in plain([np.bool_(True), np.str_("y"), np.int8(3), None], "x")] == [
        bool, str, int, type(None),
    ]  # fmt: skip


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(sorted(MEANT)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(sorted(MEANT)), inner),
    max_leaves=8,
)


@example({"\x85": "a\x85b", "\u2028": ["\u2029", "x \u2028 y"]})
@given(JSON)
def test_whatever_json_holds_is_read_from_its_yaml_as_it_was(value: object) -> None:
    (document,) = parsed(to_yaml([{"a": value}]))
    assert document.value == {"a": value}


def test_the_import_loads_no_engine_and_no_command() -> None:
    code = (
        "import governed, sys; heavy = {'numpy', 'pandas', 'torch', 'onnx', 'onnxruntime', 'kopf', "
        "'kubernetes', 'governed_serving'}; print(sorted(heavy & set(sys.modules)), sorted(governed.__all__) == "
        "governed.__all__, all(hasattr(governed, name) for name in governed.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[] True True\n", "")
