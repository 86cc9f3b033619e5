"""Reading raw data: what is wrong is named by field, row and column."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from governed_serving.trainer.dataset import Dataset, split, typed
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.sources import read, source_bytes
from governed_serving.trainer.tables import parse_csv
from unit.trainer.manifests import ADMISSIONS, ADMISSIONS_BIAS, admissions, bias, inline, training

GOOD = "a,b,y\n" + "".join(f"{k},{'uv'[k % 2]},{['no', 'yes'][k % 2]}\n" for k in range(12))
KINDS = {"a": "numeric", "b": "categorical"}


def dataset_of(csv: str, features: dict[str, str] = KINDS, **parts: object) -> Dataset:
    plan = training(inline(csv, features, **parts))
    return typed(read(plan.data, source_bytes(plan.data, Path())), plan, None)


def test_counts_repeat_rows() -> None:
    plan = training(admissions())
    dataset = typed(read(plan.data, source_bytes(plan.data, Path())), plan, bias(ADMISSIONS_BIAS))
    assert dataset.rows == 4526
    assert dataset.classes == ("admitted", "rejected")
    assert int((dataset.label == 0).sum()) == 1755
    assert int(((dataset.groups["sex"] == "female") & (dataset.label == 0)).sum()) == 557


def test_types_and_gaps() -> None:
    dataset = dataset_of(GOOD.replace("\n3,v", "\n,v"))
    assert dataset.features["a"].dtype == np.float32
    assert np.isnan(dataset.features["a"]).sum() == 1
    assert dataset.features["b"][:2].tolist() == ["u", "v"]


def test_integer_classes_are_ordered_as_numbers() -> None:
    csv = "a,y\n" + "".join(f"{k},{(10, 9, 100)[k % 3]}\n" for k in range(12))
    dataset = dataset_of(csv, {"a": "numeric"})
    assert dataset.classes == (9, 10, 100)
    assert dataset.label[:3].tolist() == [1, 0, 2]


def test_a_dataset_survives_its_bytes() -> None:
    dataset = dataset_of(GOOD.replace("\n3,v", "\n,v"))
    again = Dataset.decode(dataset.encode())
    assert again.encode() == dataset.encode()
    assert again.features["b"].tolist() == dataset.features["b"].tolist()
    np.testing.assert_array_equal(again.features["a"], dataset.features["a"])


@pytest.mark.parametrize(
    ("csv", "features", "want"),
    [
        ("", KINDS, r"data\.inline: expected CSV with a header line, found nothing"),
        ("a,b,y\n", KINDS, r"data\.inline: expected rows after the header, found none"),
        ("a,a,y\n1,2,3\n", KINDS, r"data\.inline: expected distinct column names .* 'a'"),
        (GOOD + "1,u\n", KINDS, r"data\.inline: row 13: expected 3 values, found 2"),
        (
            GOOD.replace("\n3,v", "\nthree,v"),
            KINDS,
            r"features\[0\]: row 4, column a: expected a number, found 'three'",
        ),
        (GOOD.replace("\n3,v", "\nNaN,v"), KINDS, r"features\[0\]: row 4, column a: expected a finite .* found 'NaN'"),
        (GOOD.replace("\n3,v", "\ninf,v"), KINDS, r"row 4, column a: expected a finite .* found 'inf'"),
        (GOOD.replace("\n3,v", "\n1e39,v"), KINDS, r"column a: expected numbers within FP32"),
        (GOOD, {"c": "numeric"}, r"features\[0\]\.name: expected a column of the data, found 'c'; .* a, b, y"),
        (GOOD.replace("yes", "no"), KINDS, r"data\.label: .* at least two classes, found only 'no'"),
        (GOOD.replace(",yes", ",", 1), KINDS, r"data\.label: row 2, column y: expected a class, found nothing"),
        ("a,b,y\n" + ",u,1\n,v,2\n" * 8, KINDS, r"features\[0\]: column a: expected values, found only missing ones"),
        ("a,b,y\n" + "1,,1\n1,,2\n" * 8, KINDS, r"features\[1\]: column b: expected values, found only missing ones"),
        ("a,b,y\n1,u,0\n2,v,1\n", KINDS, r"expected at least 10 rows to split, found 2"),
    ],
)
def test_bad_data_is_named(csv: str, features: dict[str, str], want: str) -> None:
    with pytest.raises(InvalidTraining, match=want) as caught:
        dataset_of(csv, features)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("spec.lifecycle.training.data")


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(InvalidTraining, match=r"data\.label: expected a column of the data, found 'z'"):
        dataset_of(GOOD, label="z")


@pytest.mark.parametrize(
    ("changed", "want"),
    [
        (
            {"protectedAttributes": [{"name": "age"}]},
            r"bias\.protectedAttributes\[0\]\.name: expected a column .* 'age'",
        ),
        ({"strata": ["faculty"]}, r"bias\.strata\[0\]: expected a column .* 'faculty'"),
        ({"favorableOutcome": {"label": "Admitted"}}, r"favorableOutcome\.label: .*admitted, rejected.*'Admitted'"),
        (
            {"protectedAttributes": [{"name": "sex", "privileged": ["men"]}]},
            r"protectedAttributes\[0\]\.privileged: expected a value of column sex \(female, male\), found 'men'",
        ),
    ],
)
def test_bad_bias_rules_are_named(changed: dict[str, object], want: str) -> None:
    plan = training(admissions())
    with pytest.raises(InvalidTraining, match=want):
        typed(read(plan.data, source_bytes(plan.data, Path())), plan, bias({**ADMISSIONS_BIAS, **changed}))


@pytest.mark.parametrize("count", ["-1", "1.5", "many", "NaN"])
def test_bad_counts_are_named(count: str) -> None:
    plan = training(admissions())
    table = ADMISSIONS.replace("512", count)
    data = plan.data.model_copy(update={"inline": table})
    with pytest.raises(InvalidTraining, match=r"data\.countColumn: row 1, column applicants: expected"):
        read(data, source_bytes(data, Path()))


def test_files_relative_and_gzip(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    for uri in ("file:d.csv", f"file:{tmp_path}/d.csv", "pvc://claim/d.csv", "file:d.csv.gz"):
        data = training(inline(GOOD, KINDS)).data.model_copy(update={"inline": None, "uri": uri})
        assert read(data, source_bytes(data, tmp_path)).rows == 12


def test_missing_file_changed_file_and_escape(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    base = training(inline(GOOD, KINDS)).data.model_copy(update={"inline": None, "uri": "file:none.csv"})
    with pytest.raises(InvalidTraining, match=r"data\.uri: expected a readable file, found No such file"):
        source_bytes(base, tmp_path)
    with pytest.raises(InvalidTraining, match=r"data\.uri: pvc://.*: the path leaves the volume of claim"):
        source_bytes(base.model_copy(update={"uri": "pvc://claim/../x.csv"}), tmp_path)
    pinned = {"uri": "file:d.csv", "digest": f"sha256:{hashlib.sha256(GOOD.encode()).hexdigest()}"}
    assert source_bytes(base.model_copy(update=pinned), tmp_path) == GOOD.encode()
    (tmp_path / "d.csv").write_text(GOOD + "1,u,no\n")
    with pytest.raises(InvalidTraining, match=r"data\.digest: expected sha256:.* the data changed"):
        source_bytes(base.model_copy(update=pinned), tmp_path)


def test_other_bytes_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"a,b\n\xff,1\n")
    (tmp_path / "d.csv.gz").write_bytes(b"plain")
    for uri, want in (("file:d.csv", "expected UTF-8"), ("file:d.csv.gz", "expected gzip")):
        data = training(inline(GOOD, KINDS)).data.model_copy(update={"inline": None, "uri": uri})
        with pytest.raises(InvalidTraining, match=want):
            read(data, source_bytes(data, tmp_path))


def test_quoted_cells_may_hold_lines() -> None:
    assert parse_csv('a,b\n"x\ny","1,2"\n', "p").columns["a"].tolist() == ["x\ny"]


def test_splits_are_seeded_disjoint_and_complete() -> None:
    csv = "a,y\n" + "".join(f"{k},{k % 2}\n" for k in range(100))
    plan = training(inline(csv, {"a": "numeric"}))
    dataset = typed(read(plan.data, source_bytes(plan.data, Path())), plan, None)
    parts = split(dataset, plan.data, 3)
    assert [p.rows for p in parts] == [70, 10, 20]
    values = np.concatenate([p.features["a"] for p in parts])
    assert sorted(values.tolist()) == list(range(100))
    again = split(dataset, plan.data, 3)
    assert again[2].features["a"].tolist() == parts[2].features["a"].tolist()
    assert split(dataset, plan.data, 4)[2].features["a"].tolist() != parts[2].features["a"].tolist()
