"""Protected attributes that are numbers: one banding rule from the data to the verdict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from governed_api.governance import Bias
from governed_serving import artefact
from governed_serving.auditor.service.folding import Fold
from governed_serving.fairness.counts.grouping import MISSING
from governed_serving.trainer.dataset import Dataset, typed
from governed_serving.trainer.errors import InvalidTraining
from governed_serving.trainer.job import within
from governed_serving.trainer.sources import read, source_bytes
from unit.trainer.manifests import bias, inline, resolved, training
from unit.trainer.neighbours import Workplace

RULES = {
    "favorableOutcome": {"label": "yes"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
}


def rules(strata: list[str] | None = None, **attribute: Any) -> dict[str, Any]:
    return {**RULES, "protectedAttributes": [{"name": "age", **attribute}], "strata": strata or []}


def table(ages: list[str]) -> str:
    return "x,age,y\n" + "".join(f"{k % 7},{age},{'yes' if k % 3 else 'no'}\n" for k, age in enumerate(ages))


def read_in(ages: list[str], kind: str | None = "numeric", **attribute: Any) -> Dataset:
    features = {"x": "numeric"} | ({"age": kind} if kind else {})
    plan = training(inline(table(ages), features))
    return typed(read(plan.data, source_bytes(plan.data, Path())), plan, bias(rules(**attribute)))


AGES = [str(18 + k % 60) for k in range(600)]


@pytest.mark.parametrize("kind", ["numeric", None])
def test_many_numbers_are_banded_by_default(kind: str | None) -> None:
    found = read_in(AGES, kind)
    assert found.bands == {"age": (30.0, 42.0, 54.0, 66.0)}
    assert set(found.groups["age"]) == {"< 30", "[30, 42)", "[42, 54)", "[54, 66)", "≥ 66"}
    assert Dataset.decode(found.encode()).bands == found.bands


@pytest.mark.parametrize("kind", ["numeric", "categorical", None])
def test_declared_bands_hold_for_every_type_and_in_any_order(kind: str | None) -> None:
    found = read_in(AGES, kind, bands=[40, 25], privileged=["[25, 40)"])
    assert found.bands == {"age": (25.0, 40.0)}
    assert set(found.groups["age"]) == {"< 25", "[25, 40)", "≥ 40"}


def test_few_numbers_are_groups_of_their_own_and_named_as_they_are_served() -> None:
    found = read_in(["0", "1.0", "", "-0", "01"] * 20)
    assert found.bands == {"age": ()}
    assert set(found.groups["age"]) == {"0", "1", MISSING}


@pytest.mark.parametrize(("kind", "values"), [("categorical", ["0", "01", "1.0"]), (None, ["0", "01", "yes"])])
def test_words_stay_as_they_are(kind: str | None, values: list[str]) -> None:
    found = read_in(values * 20, kind)
    assert found.bands == {}
    assert set(found.groups["age"]) == set(values)


def test_missing_huge_and_signed_values_have_a_place() -> None:
    found = read_in(["", "1e308", "-1e308", "-0", "33"] * 20, None, bands=[0, 40])
    assert found.groups["age"][:5].tolist() == [MISSING, "≥ 40", "< 0", "[0, 40)", "[0, 40)"]


NUMBERS = [str(k) for k in range(100)]
DATES = [f"2020-{1 + k // 28:02d}-{1 + k % 28:02d}" for k in range(120)]


@pytest.mark.parametrize(
    ("ages", "kind", "attribute", "said"),
    [
        ([*AGES, "old"], None, {"bands": [40]}, "row 601, column age: expected a number, found 'old'"),
        ([*AGES, "nan"], None, {"bands": [40]}, "row 601, column age: expected a finite number"),
        ([*NUMBERS, "old"], None, {}, "at most 64 groups, found 101; bands take numbers, and 'old' is none"),
        (DATES, None, {}, "'2020-01-01' is none: group its values in the data"),
        (AGES, "numeric", {"privileged": ["37"]}, r"expected a value of column age \(< 30, .*≥ 66.*\), found '37'"),
        (NUMBERS, "categorical", {}, "declare it as a numeric feature, or bands of the attribute age"),
    ],
)
def test_what_can_not_be_banded_is_refused_by_name(
    ages: list[str], kind: str | None, attribute: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidTraining, match=said):
        read_in(ages, kind, **attribute)


def test_the_verdict_has_the_groups_of_the_audit_and_the_archive_takes_the_reference(tmp_path: Path) -> None:
    """A group per value made 60 groups by age and income: the reference didn't fit into the archive."""
    drawn = np.random.default_rng(3)
    ages = (18 + drawn.gamma(4, 7, 900)).round(1)
    csv = "x,age,y\n" + "".join(f"{k % 7},{a},{'yes' if a > 40 else 'no'}\n" for k, a in enumerate(ages.tolist()))
    plan = inline(csv, {"x": "numeric", "age": "numeric"}, model={"type": "linear"}, loop={"epochs": 1})
    place = Workplace(tmp_path)
    made = place.job(resolved(plan, governance={"bias": rules(strata=["x"])})).run()
    files = artefact.unpack(place.artefact(made))
    card = artefact.decode_manifest(files["model.json"])
    assert set(card.bands) == {"age", "x"}
    assert card.bands["x"] == [], "seven values"
    served = {g.name: g for g in Fold(Bias.model_validate(rules(strata=["x"])), "r1", card)._groupings}
    codes, names = served["age"].encode(ages.astype(np.float32), None)
    live = dict(zip(*np.unique(np.array(names, object)[codes].astype(str), return_counts=True), strict=True))
    audited = place.report.parts[-1]["dataAudit"]["age"]
    assert {g["group"]: g["rows"] for g in audited["groups"]} == live
    assert {row["stratum"] for row in audited["strata"]["x"]["byStratum"]} == {str(k) for k in range(7)}


def test_a_reference_holds_what_there_is_room_for() -> None:
    groups = {f"model.spd.office.{k}": 0.1 for k in range(400)}
    kept = {
        "artefact": {"digest": "sha256:1", "blob": "b", "variant": "float"},
        "metrics": {"accuracy": 0.9, **groups},
        "gates": [{"name": "export", "verdict": "pass"}],
        "dataAudit": {"office": {"groups": [{"group": str(k), "rows": k} for k in range(400)]}},
    }
    assert within(1 << 20, kept) == kept
    assert within(16_000, kept) == {**kept, "dataAudit": {}}
    small = within(4096, kept)
    assert small == {**kept, "dataAudit": {}, "metrics": {"accuracy": 0.9}}
    assert within(10, kept)["artefact"] == kept["artefact"]
