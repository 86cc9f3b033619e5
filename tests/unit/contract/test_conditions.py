"""Conditions: the transition time moves only when the status does."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from governed_api import set_condition
from governed_api.quantities import quantity, seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_transition_time_moves_with_the_status_only() -> None:
    first = set_condition([], "Ready", ("False", "Training", "epoch 1"), generation=1, now=NOW)
    same = set_condition(first, "Ready", ("False", "Training", "epoch 2"), generation=2, now=NOW + timedelta(minutes=1))
    turned = set_condition(same, "Ready", ("True", "Serving", ""), generation=2, now=NOW + timedelta(minutes=2))
    assert same[0].last_transition_time == NOW
    assert same[0].message == "epoch 2"
    assert same[0].observed_generation == 2
    assert turned[0].last_transition_time == NOW + timedelta(minutes=2)
    assert len(turned) == 1


def test_a_reason_must_be_a_word() -> None:
    with pytest.raises(ValidationError, match="reason"):
        set_condition([], "Ready", ("False", "not a word", ""), generation=1, now=NOW)


@pytest.mark.parametrize(("text", "value"), [("500m", "0.5"), (2, "2"), ("1Gi", "1073741824"), ("1.5M", "1500000")])
def test_quantities(text: int | str, value: str) -> None:
    assert quantity(text) == quantity(value)


@pytest.mark.parametrize("text", ["1 Gi", "5MB", "", "-1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_durations() -> None:
    assert [seconds(d) for d in ("30s", "15m", "24h", "90d")] == [30, 900, 86400, 7776000]
    with pytest.raises(ValueError, match="not a duration"):
        seconds("3mo")
