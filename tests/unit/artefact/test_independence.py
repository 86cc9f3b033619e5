"""Row independence on models that mix rows and on one that doesn't."""

import numpy as np
import pytest

from governed_serving.artefact import covering, row_independence

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


def rounded(columns):  # type: ignore[no-untyped-def]
    """By 15 steps of float32 near 1 in a batch of more than 60; NaN and ±∞ stay."""
    moved = np.array([np.nan, np.inf, 1], np.float32) + np.float32(15 * 2.0**-23 if len(columns[0]) > 60 else 0)
    return [np.tile(moved, (len(columns[0]), 1))]


def another_word(columns):  # type: ignore[no-untyped-def]
    return [np.full(len(columns[0]), "refer" if len(columns[0]) > 60 else "approve", object)]


@pytest.mark.parametrize(
    ("model", "material"), [(last_bit, False), (rounded, False), (another_word, True), (centred, True), (scaled, True)]
)
def test_rounding_is_told_from_another_answer(model, material: bool) -> None:  # type: ignore[no-untyped-def]
    with np.errstate(all="ignore"):
        found = row_independence(model, COLUMNS)
    assert not found.independent
    assert found.different > 0
    assert (found.material > 0) is material


def test_a_number_that_becomes_nan_is_another_answer() -> None:
    def undefined(columns):  # type: ignore[no-untyped-def]
        return [np.full(len(columns[0]), np.nan if len(columns[0]) > 60 else 1.0, np.float32)]

    assert row_independence(undefined, COLUMNS).material > 0


@pytest.mark.parametrize("most", [3, 12, 500])
def test_chosen_rows_hold_every_category_that_they_can(most: int) -> None:
    words = np.array(["a"] * 996 + ["b", "c", "d", "e"], object)[:, None]
    unique = np.array([f"text {k}" for k in range(1000)], object)[:, None]
    columns = [words, np.arange(1000, dtype=np.float32)[:, None], unique]
    chosen = covering(columns, most, seed=4)
    assert len(set(chosen.tolist())) == most
    assert len(set(words[chosen, 0])) == min(most, 5)
    np.testing.assert_array_equal(chosen, covering(columns, most, seed=4))
    assert chosen.max() > 700, "no head"
    assert covering(columns, 5000).tolist() == list(range(1000))
