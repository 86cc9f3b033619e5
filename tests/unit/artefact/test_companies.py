"""In which company rows are asked about, what counts as another answer, and which rows are chosen: exactly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from governed_serving.artefact import covering, row_independence
from governed_serving.artefact.independence import Independence, Values

NUMBERS = (np.arange(24, dtype=np.float32).reshape(8, 3) + 1) / 7
WORDS = np.array(list("abcdabcd"), object)[:, None]
LARGEST = float(np.finfo(np.float32).max)
HOSTILE = [0.0, 1.0, -1.0, 1e6, -1e6, 1e30, -1e30, LARGEST, -LARGEST]
ROWLESS = "not shown: an output has no row for each row asked"
STOPPED = "not shown in the time given"
COMPANIES = [
    "in a batch",
    "in a shuffled batch",
    *["in a batch of 2"] * 4,
    *["in a batch of 3"] * 2,
    "in a batch of 7",
    "among copies of another row",
    *[f"beside a row of {value:g}" for value in HOSTILE],
]
ALL = 8 + 8 + 4 * 2 + 2 * 3 + 7 + 8 + 9 * 8
"""Answers that are compared of a sample of eight rows."""


class Asked:
    """Answers each row by its numbers, and keeps what it was asked; ``odd`` may change an answer in company."""

    def __init__(self, odd: Callable[[int, np.ndarray], np.ndarray | None] = lambda _, __: None) -> None:
        self.batches: list[Values] = []
        self._odd = odd

    def __call__(self, columns: Values) -> Values:
        self.batches.append(columns)
        answer = np.array(columns[0], np.float64)
        changed = self._odd(len(self.batches) - 1 - 8, answer) if len(self.batches) > 8 else None
        return [answer if changed is None else changed]


def test_rows_are_asked_alone_and_in_every_company() -> None:
    asked = Asked()
    found = row_independence(asked, [NUMBERS, WORDS])
    assert found == Independence(True, ALL, 0, "", 0) == Independence(True, ALL, 0)
    alone, company = asked.batches[:8], asked.batches[8:]
    assert [[c.tolist() for c in batch] for batch in alone] == [
        [NUMBERS[n : n + 1].tolist(), [[w]]] for n, w in enumerate("abcdabcd")
    ]
    assert [len(batch[0]) for batch in company] == [8, 8, 2, 2, 2, 2, 3, 3, 7, 72, *[9] * 9]
    assert [len(batch[0]) == len(batch[1]) for batch in company] == [True] * len(company)
    np.testing.assert_array_equal(company[0][0], NUMBERS)
    order = [NUMBERS.tolist().index(row) for row in company[1][0].tolist()]
    assert sorted(order) == list(range(8)) != order
    assert company[1][1][:, 0].tolist() == [WORDS[n, 0] for n in order]
    for batch, start in zip(company[2:9], (0, 2, 4, 6, 0, 3, 0), strict=True):
        np.testing.assert_array_equal(batch[0], NUMBERS[start : start + len(batch[0])])
    copies = company[9]
    assert len(np.unique(copies[0][:64], axis=0)) == len(set(copies[1][:64, 0])) == 1
    assert copies[0][0].tolist() in NUMBERS.tolist()
    for batch, value in zip(company[10:], HOSTILE, strict=True):
        assert batch[0][0].tolist() == [np.float32(value)] * 3
        assert batch[1][0, 0] == "a", "what isn't a float stays: a model refuses codes that it doesn't know"
    for batch in company[9:]:
        np.testing.assert_array_equal(batch[0][-8:], NUMBERS)
        assert batch[1][-8:].tolist() == WORDS.tolist()


def test_which_rows_repeat_and_how_they_are_shuffled_is_drawn_by_the_seed() -> None:
    def asked(seed: int) -> list[Any]:
        run = Asked()
        row_independence(run, [NUMBERS], seed=seed)
        return [batch[0].tolist() for batch in run.batches]

    default = Asked()
    row_independence(default, [NUMBERS])
    assert [batch[0].tolist() for batch in default.batches] == asked(0)
    assert len({str(asked(seed)[9]) for seed in range(5)}) > 1
    assert len({str(asked(seed)[17]) for seed in range(5)}) > 1
    run = Asked()
    row_independence(run, [NUMBERS], repeats=5)
    assert len(run.batches[17][0]) == 13


@pytest.mark.parametrize("place", range(len(COMPANIES)), ids=lambda n: f"{n} {COMPANIES[n]}")
def test_a_difference_is_told_by_its_company(place: int) -> None:
    def odd(call: int, answer: np.ndarray) -> np.ndarray | None:
        answer[-1] += call == place
        return answer

    found = row_independence(Asked(odd), [NUMBERS])
    assert (found.independent, found.rows, found.different, found.material) == (False, ALL, 1, 1)
    assert found.first.endswith(f" of the sample differs {COMPANIES[place]}")
    ends = {"in a batch of 2": (1, 3, 5, 7), "in a batch of 3": (2, 5), "in a batch of 7": (6,)}.get(
        COMPANIES[place], (7,)
    )
    if place != 1:
        nth = place - COMPANIES.index(COMPANIES[place])
        assert found.first.startswith(f"row {ends[nth]} of the sample")


def test_the_first_material_difference_is_told_before_any_other() -> None:
    def odd(call: int, answer: np.ndarray) -> np.ndarray | None:
        answer[0] += {0: 1e-9, 2: 1.0, 3: 1.0}.get(call, 0.0)
        return answer

    found = row_independence(Asked(odd), [NUMBERS])
    assert found == Independence(False, ALL, 3, "row 0 of the sample differs in a batch of 2", 2)


@pytest.mark.parametrize(
    ("base", "moved", "material"),
    [
        (0.0, 2e-6, False),
        (0.0, 2.1e-6, True),
        (0.0, -2.1e-6, True),
        (0.5, 1.9e-6, False),
        (0.5, 2.1e-6, True),
        (1000.0, 1.9e-3, False),
        (1000.0, 2.1e-3, True),
        (-1000.0, 1.9e-3, False),
        (-1000.0, -2.1e-3, True),
    ],
)
def test_what_counts_as_rounding(base: float, moved: float, material: bool) -> None:
    def odd(call: int, answer: np.ndarray) -> np.ndarray:
        return np.full(len(answer), base + (moved if call == 0 else 0.0))

    def run(columns: Values) -> Values:
        return asked(columns) if len(asked.batches) >= 8 else [*map(np.array, [[base]] * len(asked(columns)))]

    asked = Asked(odd)
    found = row_independence(run, [NUMBERS])
    assert (found.different, found.material) == (8, 8 if material else 0)


def test_an_output_that_is_the_same_makes_rounding_of_another_no_other_answer() -> None:
    def run(columns: Values) -> Values:
        rows = len(columns[0])
        return [np.arange(rows) * 0, np.full(rows, "approve", object), np.full(rows, 1.0 + (1e-9 if rows > 60 else 0))]

    found = row_independence(run, [NUMBERS])
    assert (found.different, found.material) == (8, 0)


def test_texts_are_compared_as_texts_and_not_as_objects() -> None:
    def anew(columns: Values) -> Values:
        return [np.array([["".join([*word, "!"])] for word in columns[0][:, 0]], object)]

    assert row_independence(anew, [WORDS]).independent


def test_time_that_is_over_ends_the_check_between_two_calls() -> None:
    for calls, want in ((1, (0, 1)), (8, (0, 8)), (9, (8, 9)), (11, (18, 11))):
        asked = Asked()
        found = row_independence(asked, [NUMBERS], enough=lambda a=asked, n=calls: len(a.batches) >= n)  # type: ignore[misc]
        assert (found, len(asked.batches)) == (Independence(False, want[0], 0, STOPPED), want[1])


def test_an_output_that_has_no_row_for_each_shows_nothing() -> None:
    assert row_independence(lambda _: [np.zeros(2)], [NUMBERS]) == Independence(False, 0, 0, ROWLESS)
    assert row_independence(lambda _: [np.zeros(())], [NUMBERS]) == Independence(False, 0, 0, ROWLESS)
    short = Asked(lambda call, answer: answer[:-1] if call == 1 else None)
    assert row_independence(short, [NUMBERS]) == Independence(False, 8, 0, ROWLESS)


def refusing(*places: int) -> Asked:
    def odd(call: int, _: np.ndarray) -> None:
        if call in places:
            raise RuntimeError("refused")

    return Asked(odd)


def test_a_model_that_refuses_its_own_rows_is_no_neighbour_s_fault() -> None:
    with pytest.raises(RuntimeError, match="refused"):
        row_independence(refusing(0), [NUMBERS])
    assert row_independence(refusing(10, 15), [NUMBERS]) == Independence(True, ALL - 2 * 8, 0)


def test_a_model_with_fewer_outputs_in_company_is_not_compared() -> None:
    def run(columns: Values) -> Values:
        return [columns[0], columns[0]][: 2 if len(columns[0]) == 1 else 1]

    with pytest.raises(ValueError, match="zip"):
        row_independence(run, [NUMBERS])


def test_hostile_values_fit_the_column_that_they_come_in() -> None:
    seen: list[Values] = []

    def run(columns: Values) -> Values:
        seen.append(columns)
        return [columns[1]]

    row_independence(run, [NUMBERS.astype(np.float16), np.arange(8)[:, None]])
    rows = [batch[0][0, 0] for batch in seen[-9:]]
    assert rows == [0.0, 1.0, -1.0, 65504.0, -65504.0, 65504.0, -65504.0, 65504.0, -65504.0]
    assert {batch[0].dtype for batch in seen} == {np.dtype(np.float16)}
    assert [batch[1][0, 0] for batch in seen[-9:]] == [0] * 9


# Which rows are chosen


def test_a_column_has_categories_where_half_its_rows_or_fewer_are_the_first_of_their_text() -> None:
    half = np.array([str(n // 2) for n in range(100)], object)[:, None]
    chosen = covering([half], 50, seed=2)
    assert {half[n, 0] for n in chosen} == {str(n) for n in range(50)}
    more = half.copy()
    more[1] = "another"
    chosen = covering([more], 51, seed=2)
    assert len({more[n, 0] for n in chosen}) < 51, "most rows are unique: as they come"


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_text_at_any_place_of_a_row_is_chosen(width: int) -> None:
    words = np.full((200, width), "often", object)
    words[150, width - 1], words[20, 0] = "once", "seldom"
    for seed in range(5):
        assert {20, 150} <= set(covering([words], 3, seed=seed).tolist())


def test_without_categories_rows_are_drawn_by_the_seed() -> None:
    drawn = {tuple(covering([NUMBERS], 3, seed=seed).tolist()) for seed in range(6)}
    assert len(drawn) > 1
    assert all(list(places) == sorted(places) for places in drawn)
    assert covering([NUMBERS], 3).tolist() == covering([NUMBERS], 3, seed=0).tolist()
