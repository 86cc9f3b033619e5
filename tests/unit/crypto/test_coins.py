"""Draws: the same for ever, unlike without the key, uniform, and of the row alone."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from governed_serving.crypto import COINS, Coins, CryptoError, DirectoryStore, Kek, Keyring, coin_key, rotate_due

KEY = bytes(range(32))
Columns = list[NDArray[np.generic]]


def rows(numbers: list[float], words: list[str]) -> Columns:
    return [np.array(numbers, np.float32).reshape(-1, 1), np.array(words, object).reshape(-1, 1)]


def test_a_draw_is_fixed_for_ever() -> None:
    """What was drawn must be drawn again by whoever replays it, in years: these are the digits."""
    assert Coins(KEY, 1).draw(rows([1], ["p1"])).tolist() == [[0.19019645741322178]]
    assert Coins(KEY, None).draw(rows([1], ["p1"])).tolist() == [[0.8924303122486502]]


def test_a_row_draws_the_same_alone_and_among_neighbours() -> None:
    many = rows([1, 2, 3, -0.0, np.nan], ["a", "b", "c", "d", ""])
    for subject in (None, 1):
        coins = Coins(KEY, subject)
        together = coins.draw(many)
        alone = [coins.draw([column[k : k + 1] for column in many])[0, 0] for k in range(5)]
        assert together.ravel().tolist() == alone
        assert coins.draw([column[::-1] for column in many]).ravel().tolist() == alone[::-1]
        assert len(set(alone)) == 5


def test_of_a_subject_nothing_else_counts() -> None:
    """Who varies what doesn't matter can't draw again."""
    coins = Coins(KEY, 1)
    assert len(set(coins.draw(rows([1, 2, 3], ["p", "p", "p"])).ravel().tolist())) == 1
    assert len(set(Coins(KEY, None).draw(rows([1, 2, 3], ["p", "p", "p"])).ravel().tolist())) == 3


@pytest.mark.parametrize("spelt", [" 17", "17.0", "17\u00a0", "17\u200b"])
def test_one_person_is_one_however_it_is_spelt(spelt: str) -> None:
    coins = Coins(KEY, 1)
    assert len(set(coins.draw(rows([1, 2], ["17", spelt])).ravel().tolist())) == 1
    assert len(set(coins.draw(rows([1, 2], ["\u00e9", "e\u0301"])).ravel().tolist())) == 1


def test_rows_that_are_alike_draw_alike() -> None:
    drawn = Coins(KEY, None).draw(rows([0.0, -0.0, np.nan, np.float32(-np.nan)], ["a", "a", "a", "a"])).ravel()
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


def test_where_one_value_ends_and_the_next_begins_counts() -> None:
    both = [np.array([["ab"], ["a"]], object), np.array([["c"], ["bc"]], object)]
    assert len(set(Coins(KEY, None).draw(both).ravel().tolist())) == 2


def test_draws_are_uniform_and_unlike_under_another_key() -> None:
    words = [f"p{k}" for k in range(20_000)]
    drawn = Coins(KEY, 1).draw(rows([0] * 20_000, words)).ravel()
    other = Coins(bytes(32), 1).draw(rows([0] * 20_000, words)).ravel()
    steps = np.abs(np.sort(drawn) - (np.arange(20_000) + 0.5) / 20_000)
    assert steps.max() < 1.95 / np.sqrt(20_000)  # Kolmogorov, level .001
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(CryptoError, match=r"coin\.key: expected 32 bytes, found 0"):
        Coins(b"", None)


def test_who_is_shown_the_key_later_can_check_that_it_is_this_one() -> None:
    """`sha256sum` of the 32 bytes, as the artefact has named it since."""
    assert Coins(KEY, None).commitment == "sha256:630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd"


def test_the_key_outlives_rotation_and_belongs_to_one_model(tmp_path: Path) -> None:
    kek = Kek(b"k" * 32)
    ring = Keyring(kek, DirectoryStore(tmp_path / "a"))
    key = coin_key(ring)
    rotate_due(ring, 0.0)
    assert coin_key(ring) == coin_key(Keyring(kek, DirectoryStore(tmp_path / "a"))) == key
    assert coin_key(Keyring(kek, DirectoryStore(tmp_path / "b"))) != key
    assert [k.purpose for k in ring.inventory()] == [COINS]
    assert key.hex() not in Coins(key, None).commitment
