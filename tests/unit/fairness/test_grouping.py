"""One banding rule for numbers: the trainer's audit, the live verdict and the page put a value into the same group."""

from typing import Any

import numpy as np
import pytest

from governed_api.governance import Bias
from governed_serving.artefact import Feature, Lineage, Manifest
from governed_serving.fairness.counts.grouping import MISSING, Grouping, default_bands, groupings, number_in

BANDED = Grouping("age", (25.0, 40.0, 60.0))
NAMES = ["< 25", "[25, 40)", "[40, 60)", "≥ 60", MISSING]


def names_of(grouping: Grouping, values: Any, words: Any = None) -> list[str]:
    codes, names = grouping.encode(np.asarray(values), words)
    return [names[code] for code in codes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_fall_into_bands(dtype: Any) -> None:
    values = np.array([24.999, 25, 39, 40, 59.9, 60, np.nan, -np.inf, np.inf, -0.0, 3e38], dtype)
    places = [0, 1, 1, 2, 2, 3, 4, 0, 3, 0, 3]
    assert names_of(BANDED, values) == [NAMES[place] for place in places]


def test_what_only_a_wider_type_holds_falls_into_the_last_band() -> None:
    assert names_of(BANDED, [1e308, -1e308]) == ["≥ 60", "< 25"]
    assert names_of(BANDED, np.array([2**62, 25, 0], np.int64)) == ["≥ 60", "[25, 40)", "< 25"]


def test_a_value_on_a_border_is_in_the_same_band_in_every_type() -> None:
    """float32 has no .7: it is a little less than float64's."""
    tenths = Grouping("x", (0.1, 0.3, 0.7))
    for dtype in (np.float32, np.float64):
        assert names_of(tenths, np.array([0.1, 0.3, 0.7], dtype)) == ["[0.1, 0.3)", "[0.3, 0.7)", "≥ 0.7"]


def test_words_that_are_numbers_are_banded_and_others_are_their_own_group() -> None:
    words = ["37", " 60 ", "1e2", "", "2020-01-01", "nan", "inf", "true", "-0", "unknown"]
    found = names_of(BANDED, np.arange(len(words)), words)
    assert found == ["[25, 40)", "≥ 60", "≥ 60", MISSING, "2020-01-01", "nan", "inf", "true", "< 25", "unknown"]


def test_a_number_has_one_name_whatever_its_type_and_company() -> None:
    each = Grouping("code")
    for values in (
        [0.0, 1.0],
        np.array([0, 1], np.int64),
        np.array([0, 1], np.float32),
        np.array([-0.0, 1], np.float32),
    ):
        assert names_of(each, values) == ["0", "1"]
    assert names_of(each, [0.0, 1.0, 2.5, np.nan]) == ["0", "1", "2.5", MISSING]
    assert names_of(each, np.array([0.1, np.inf], np.float32)) == ["0.1", "inf"]
    assert names_of(each, [1e308]) == ["1e+308"]
    assert names_of(each, np.array([True, False])) == ["True", "False"]


def test_borders_have_names_of_their_own() -> None:
    assert names_of(Grouping("t", (1_700_000_000.0, 1_700_000_128.0)), [1_700_000_064.0]) == [
        "[1700000000, 1700000128)"
    ]


def test_default_bands_have_about_as_many_rows_each() -> None:
    ages = np.random.default_rng(2).gamma(4, 9, 5000).round() + 18
    edges = default_bands(ages)
    codes, _ = Grouping("age", edges).encode(ages, None)
    assert len(edges) == 4
    assert np.bincount(codes).min() > 700, "equal widths leave the last bands nearly empty"
    assert set(edges) <= set(ages.tolist())


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        (np.arange(16.0), ()),
        (np.full(50, np.nan), ()),
        (np.r_[np.zeros(900), np.arange(1, 101)], (1.0, 26.0, 51.0, 76.0)),
        (np.r_[np.full(900, 999.0), np.arange(100)], (999.0,)),
        (np.r_[np.arange(100), np.full(20, np.nan)], (20.0, 40.0, 60.0, 80.0)),
    ],
)
def test_default_bands_of_odd_columns(values: np.ndarray, edges: tuple[float, ...]) -> None:
    assert default_bands(values) == edges


@pytest.mark.parametrize(("word", "number"), [("1_000", 1000.0), ("١٢", 12.0), ("0x10", None), ("1e999", None)])
def test_numbers_in_words(word: str, number: float | None) -> None:
    assert number_in(word) == number


def bias(**attribute: Any) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "age", **attribute}],
            "strata": ["income"],
            "favorableOutcome": {"label": "yes"},
            "metrics": [{"name": "statisticalParityDifference", "thresholdUpper": 0.1}],
        }
    )


def card(**bands: list[float]) -> Manifest:
    features = [Feature(name, "numeric", "FP32", min=18, max=68) for name in ("age", "income")]
    lineage = Lineage("", "", "", {})
    return Manifest("m", "classification", features, [], [], "y", "float", lineage, {}, bands=bands)


def test_the_artefacts_bands_come_first_then_the_manifests_then_the_training_range() -> None:
    made = groupings(bias(bands=[60, 25]), card(age=[30], income=[]))
    assert [(g.name, g.edges) for g in made] == [("age", (30.0,)), ("income", ())]
    assert groupings(bias(bands=[60, 25]), None)[0].edges == (25.0, 60.0)
    assert groupings(bias(bands=[60, 25]), card())[0].edges == (25.0, 60.0)
    assert groupings(bias(), card())[0] == Grouping.of("age", 18, 68)
    assert groupings(bias(), None)[0].edges == ()
