"""Offers are fitted on other rows than those that they are measured on."""

import numpy as np
import pytest

from governed_serving.trainer.dataset import Dataset
from governed_serving.trainer.evaluation import Judged, Predictions, offers
from unit.trainer.manifests import ADMISSIONS_BIAS, bias

CLASSES = ("admitted", "rejected")


def judged(seed: int, **groups: int) -> Judged:
    """Rows of groups, whose scores differ."""
    rng = np.random.default_rng(seed)
    names = np.concatenate([np.full(rows, name, object) for name, rows in groups.items()])
    score = np.clip(rng.normal(np.where(names == "male", 0.6, 0.45), 0.2), 0, 1).astype(np.float32)
    label = (rng.random(len(names)) > score).astype(np.int64)
    rows = Dataset({"sex": names}, {"sex": "categorical"}, label, CLASSES, {"sex": names})
    return Judged(rows, Predictions(np.stack([score, 1 - score], 1), CLASSES))


@pytest.mark.parametrize(
    ("validation", "test", "expected"),
    [
        ({"male": 100, "female": 80}, {"male": 200, "female": 150}, (180, 350)),
        ({"male": 100, "female": 20}, {"male": 200, "female": 150}, (175, 175)),
        ({"male": 0, "female": 0}, {"male": 200, "female": 150}, (175, 175)),
        ({"male": 100, "female": 80, "x": 5}, {"male": 200, "female": 150, "x": 40}, (180, 350)),
        ({"male": 100, "female": 80, "x": 5}, {"male": 200, "female": 150, "x": 80}, (215, 215)),
    ],
)
def test_rows_to_fit_on_and_to_measure_on(
    validation: dict[str, int], test: dict[str, int], expected: tuple[int, int]
) -> None:
    held = judged(2, **test)
    rules = bias({**ADMISSIONS_BIAS, "strata": []})
    offer = offers(rules, held.rows, judged(1, **validation), held, 3)["sex"]
    assert (offer.fitted_rows, offer.measured_rows) == expected
    assert set(offer.thresholds) == ({"male", "female"} if expected[0] != 215 else {"male", "female", "x"})
    assert offers(rules, held.rows, judged(1, **validation), held, 3)["sex"] == offer, "seeded"


def test_too_few_rows_of_a_second_group_offer_nothing() -> None:
    held = judged(2, male=200, female=40)
    assert offers(bias({**ADMISSIONS_BIAS, "strata": []}), held.rows, judged(1, male=100, female=20), held, 3) == {}
