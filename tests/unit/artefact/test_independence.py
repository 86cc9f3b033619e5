"""Row independence on models that mix rows and on one that doesn't."""

import numpy as np
import pytest

from governed_serving.artefact import row_independence

COLUMNS = [np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32), np.array(list("abcdabcd"), object)[:, None]]


def own(columns):  # type: ignore[no-untyped-def]
    numbers, texts = columns
    return [np.tanh(numbers * np.float32(1.5)), texts[:, 0]]


def centred(columns):  # type: ignore[no-untyped-def]
    return [columns[0] - columns[0].mean(0)]


def scaled(columns):  # type: ignore[no-untyped-def]
    numbers = columns[0]
    with np.errstate(all="ignore"):
        scale = max(np.float32(4), np.abs(numbers).max()) / np.float32(127)
        return [np.round(numbers / scale)]


def first_wins(columns):  # type: ignore[no-untyped-def]
    return [np.broadcast_to(columns[1][:1, 0], len(columns[1])).copy()]


def last_bit(columns):  # type: ignore[no-untyped-def]
    numbers = columns[0]
    return [np.nextafter(numbers, np.float32(9)) if len(numbers) > 60 else numbers]


def test_a_model_that_reads_its_own_row() -> None:
    found = row_independence(own, COLUMNS)
    assert found.independent
    assert found.rows > 8 * 10
    assert (found.different, found.first) == (0, "")


@pytest.mark.parametrize(
    ("model", "where"),
    [(centred, "in a batch"), (scaled, "beside a row of"), (first_wins, "in a batch"), (last_bit, "copies")],
)
def test_models_that_mix_rows(model, where: str) -> None:  # type: ignore[no-untyped-def]
    with np.errstate(all="ignore"):
        found = row_independence(model, COLUMNS)
    assert not found.independent
    assert 0 < found.different <= found.rows
    assert where in found.first


def test_what_the_time_did_not_reach_is_not_shown() -> None:
    found = row_independence(own, COLUMNS, enough=lambda: True)
    assert not found.independent
    assert "not shown" in found.first


def test_neighbours_that_the_model_refuses_are_left_out() -> None:
    def refusing(columns):  # type: ignore[no-untyped-def]
        if np.abs(columns[0]).max() > 1e20:
            raise ValueError("too large")
        return own(columns)

    assert row_independence(refusing, COLUMNS).independent


@pytest.mark.parametrize("answer", [np.float32(1), np.zeros((1, 2), np.float32)])
def test_an_output_without_a_row_for_each_row_shows_nothing(answer: np.ndarray) -> None:
    found = row_independence(lambda _: [np.asarray(answer)], COLUMNS)
    assert not found.independent
    assert "no row for each row" in found.first
