"""Group statistics against published figures (Berkeley 1973) and known identities."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2
from statsmodels.stats.proportion import proportion_confint

from governed_api.governance import Bias
from governed_serving.trainer import documents
from governed_serving.trainer.audit import audit, errors, favorable
from governed_serving.trainer.dataset import Dataset, reweighing, typed
from governed_serving.trainer.generators import GENERATORS, credit
from governed_serving.trainer.generators.credit import FEMALE_RATE, MALE_RATE, NOISE
from governed_serving.trainer.prepare import plain
from governed_serving.trainer.sources import read, source_bytes
from unit.trainer.manifests import ADMISSIONS_BIAS, admissions, bias, training

EXPECTED_MALE = MALE_RATE * (1 - NOISE) + (1 - MALE_RATE) * NOISE
EXPECTED_FEMALE = FEMALE_RATE * (1 - NOISE) + (1 - FEMALE_RATE) * NOISE


@pytest.fixture(scope="module")
def berkeley() -> Dataset:
    plan = training(admissions())
    return typed(read(plan.data, source_bytes(plan.data, Path())), plan, bias(ADMISSIONS_BIAS))


def test_berkeley(berkeley: Dataset) -> None:
    rules = bias(ADMISSIONS_BIAS)
    table = audit(rules, berkeley.groups, favorable(rules, berkeley.label, berkeley.classes))["sex"]
    (women,) = table.disparities
    assert women.group == "female"
    assert women.spd == pytest.approx(-0.141645, abs=1e-6)
    assert women.dir == pytest.approx(0.681830, abs=1e-6)
    assert table.chi_square == pytest.approx(92.205, abs=1e-3)
    by_department = {row.stratum: row.spd for row in table.strata["department"].by_stratum}
    assert by_department["A"] == pytest.approx(0.2035, abs=1e-4)
    assert sum(spd > 0 for spd in by_department.values()) == 4
    (adjusted,) = table.strata["department"].adjusted
    assert adjusted.adjusted_spd > 0
    assert table.strata["department"].simpson is True


def test_intervals_and_test_of_berkeley(berkeley: Dataset) -> None:
    rules = bias(ADMISSIONS_BIAS)
    table = audit(rules, berkeley.groups, favorable(rules, berkeley.label, berkeley.classes))["sex"]
    (women,) = table.disparities
    (l1, u1), (l0, u0) = (proportion_confint(k, n, method="beta") for k, n in ((557, 1835), (1198, 2691)))
    p1, p0 = 557 / 1835, 1198 / 2691
    want = women.spd - math.hypot(p1 - l1, u0 - p0), women.spd + math.hypot(u1 - p1, p0 - l0)
    assert women.spd_interval == pytest.approx(want, abs=1e-9)
    low, high = women.dir_interval
    assert low < women.dir < high
    assert table.p_value == pytest.approx(chi2.sf(table.chi_square, 1), rel=1e-9)


def grouped(counts: dict[str, tuple[int, int]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Group → (rows, favourable) as columns."""
    names = [name for name, (rows, _) in counts.items() for _ in range(rows)]
    outcome = [k < good for rows, good in counts.values() for k in range(rows)]
    return {"g": np.array(names, dtype=object)}, np.array(outcome)


def rules_for(**attribute: object) -> Bias:
    return bias({**ADMISSIONS_BIAS, "protectedAttributes": [{"name": "g", **attribute}], "strata": []})


def test_without_privileged_the_most_favoured_group_is_the_reference() -> None:
    found = audit(rules_for(), *grouped({"a": (10, 5), "b": (10, 8), "c": (10, 0)}))["g"].disparities
    assert [(d.group, d.reference) for d in found] == [("a", "b"), ("c", "b")]
    assert found[0].spd == pytest.approx(-0.3)
    assert found[1].dir == 0


def test_undefined_values_are_none_and_json_holds_them() -> None:
    found = audit(rules_for(privileged=["b"]), *grouped({"a": (10, 0), "b": (10, 0)}))
    assert found["g"].disparities[0].dir is None
    documents.encode(plain(found))


def test_errors_reproduce_compas() -> None:
    counts = {"African-American": (990, 805, 532, 1369), "Caucasian": (1139, 349, 461, 505)}
    group: list[str] = []
    predicted: list[int] = []
    actual: list[int] = []
    for name, cells in counts.items():
        for (p, a), n in zip(((0, 0), (1, 0), (0, 1), (1, 1)), cells, strict=True):
            group += [name] * n
            predicted += [p] * n
            actual += [a] * n
    table = errors(np.array(group, dtype=object), np.array(predicted, bool), np.array(actual, bool), ["Caucasian"])
    rates = {row.group: row for row in table.groups}
    assert rates["African-American"].fpr == pytest.approx(0.4485, abs=5e-5)
    assert 1 - rates["Caucasian"].tpr == pytest.approx(0.4772, abs=5e-5)
    assert rates["Caucasian"].rows == 2454
    (gap,) = table.disparities
    assert gap.equal_opportunity == pytest.approx(0.19737, abs=1e-5)
    assert gap.average_odds == pytest.approx(0.20565, abs=1e-5)
    assert gap.equalized_odds == pytest.approx(0.21392, abs=1e-5)
    assert gap.predictive_parity == pytest.approx(0.03838, abs=1e-5)


def test_reweighing_makes_label_and_group_independent(berkeley: Dataset) -> None:
    weights = reweighing(berkeley.label, {"sex": berkeley.groups["sex"]})
    women = berkeley.groups["sex"] == "female"
    rates = [np.average(berkeley.label[part] == 0, weights=weights[part]) for part in (women, ~women)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-6)
    assert weights.mean() == pytest.approx(1, abs=1e-6)


def test_credit_has_the_disparity_that_its_docstring_promises() -> None:
    table = credit(10_000, 11)
    women, approved = table.columns["sex"] == "female", table.columns["approved"] == "yes"
    # Four standard errors of a difference of rates at 5,000 rows each.
    assert approved[women].mean() - approved[~women].mean() == pytest.approx(EXPECTED_FEMALE - EXPECTED_MALE, abs=0.04)
    assert pytest.approx(-0.135) == EXPECTED_FEMALE - EXPECTED_MALE
    assert pytest.approx(0.771186, abs=1e-6) == EXPECTED_FEMALE / EXPECTED_MALE
    assert (
        approved[table.columns["industry"] == "technology"].mean()
        > approved[table.columns["industry"] == "services"].mean()
    )


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_repeat_themselves(name: str) -> None:
    first, again, other = (GENERATORS[name](500, seed).columns for seed in (3, 3, 4))
    for column in first:
        np.testing.assert_array_equal(first[column], again[column])
    assert any(not np.array_equal(first[column], other[column]) for column in first)


def test_resident_numbers_satisfy_gb_11643_and_cards_luhn() -> None:
    from governed_serving.trainer.generators import persons

    rng = np.random.default_rng(1)
    for female in (True, False):
        number = persons.resident_id(rng, 1980, female)
        total = sum(
            int(c) * w for c, w in zip(number, [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2], strict=False)
        )
        assert number[17] == "10X98765432"[total % 11]
        assert int(number[16]) % 2 == (0 if female else 1)
    card = persons.bank_card(rng)
    doubled = [int(c) * (1 + k % 2) for k, c in enumerate(reversed(card))]
    assert sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
