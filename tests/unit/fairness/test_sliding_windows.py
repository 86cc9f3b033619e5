"""What a sliding window promises over all its looks, and that a Fail ends with the rows that showed it."""

from collections.abc import Iterator
from math import inf, log

import numpy as np
import pytest

from governed_api.governance import Bias
from governed_api.verdict import BiasVerdict
from governed_serving.fairness.counts.windows import MAX_BUCKETS, STARTS, Joined, Window
from governed_serving.fairness.inference.contrasts import log_evidence
from governed_serving.fairness.metrics.promise import PROMISED_WINDOWS, alpha_of, promise_of
from governed_serving.fairness.metrics.roster import Roster, enrolled
from governed_serving.fairness.metrics.verdict import judge


def sliding(samples: int, **more: object) -> Bias:
    return Bias.model_validate(
        {
            "protectedAttributes": [{"name": "g", "privileged": ["m"]}],
            "favorableOutcome": {"label": "1"},
            "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
            "window": {"type": "sliding", "samples": samples},
            **more,
        }
    )


def rows_of(minutes: list[int] | np.ndarray, rates: tuple[float, float], rng: np.random.Generator) -> tuple:
    """Group codes, outcomes and times in seconds, one row per entry of ``minutes``."""
    group = rng.integers(0, 2, len(minutes))
    return group, rng.random(len(minutes)) < np.array(rates)[group], np.asarray(minutes) * 60.0


def add(window: Window, group: np.ndarray, outcome: np.ndarray, times: np.ndarray) -> None:
    window.add({"g": (group, ["f", "m"])}, outcome, window.bucket_of(times))


class Stream:
    """Minutes of ``size`` rows into a window, judged after each."""

    def __init__(self, bias: Bias, size: int, seed: int):
        self.bias, self.size, self.minute = bias, size, 0
        self.window, self.roster = Window(("g",), bias.window.samples), Roster()
        self.rng = np.random.default_rng(seed)

    def goes_on(self, rows: int, rates: tuple[float, float]) -> Iterator[BiasVerdict]:
        for _ in range(rows // self.size):
            self.minute += 1
            add(self.window, *rows_of([self.minute] * self.size, rates, self.rng))
            cells = self.window.total()
            self.roster = enrolled(self.roster, self.bias, cells)
            yield judge(self.bias, cells, self.roster)


# ---- the promise ----


@pytest.mark.parametrize("seed", [11])
def test_a_truth_on_the_bound_never_fails_in_fifty_windows(seed: int) -> None:
    """Each of these streams failed when every window was judged at the level of the whole."""
    words = {v.verdict for v in Stream(sliding(1000), 250, seed).goes_on(50_000, (0.4, 0.5))}
    assert words == {"Unknown"}


def ever_failing(runs: int, windows: int, share: float, threshold: float) -> float:
    """Share of runs in which a window of 1,000 rows at SPD −.1 ever has evidence of ``threshold`` against the bound."""
    rng, step = np.random.default_rng(3), 250
    n = rng.binomial(step, share, (runs, windows * STARTS))
    k = np.stack([rng.binomial(n, 0.4), rng.binomial(step - n, 0.5)], -1)
    n = np.stack([n, step - n], -1)
    k, n = (np.lib.stride_tricks.sliding_window_view(x, STARTS, 1).sum(-1) for x in (k, n))
    rate = (k + 0.5) / (n + 1)
    spread = rate * (1 - rate) / (n + 1)
    far = rate[..., 1] - rate[..., 0] - 0.1
    asked = np.argwhere(far**2 / spread.sum(-1) > threshold)  # no evidence is above half of about that
    found = log_evidence(k[*asked.T], n[*asked.T], np.tile([-1.0, 1.0], (len(asked), 1)), np.full(len(asked), 0.1))
    failed = np.zeros(runs, bool)
    failed[asked[found >= threshold, 0]] = True
    return float(failed.mean())


@pytest.mark.parametrize(("share", "before"), [(0.5, 0.2), (0.05, 0.02)])
def test_two_hundred_windows_at_the_bound_hold_the_level(share: float, before: float) -> None:
    """``before``: what the level of a whole window comes to when it is spent on every one of them, or more."""
    assert ever_failing(200, 200, share, log(2 / alpha_of(sliding(1000)))) == 0
    assert ever_failing(200, 200, share, log(2 / 0.05)) >= before


def test_what_is_promised_is_said() -> None:
    promise = promise_of(sliding(1000))
    assert promise == (0.05, PROMISED_WINDOWS * 1000, 20_000_000)
    assert promise_of(sliding(1000, window={"type": "whole"})) == (0.05, None, None)
    verdict = list(Stream(sliding(1000), 250, 5).goes_on(2000, (0.5, 0.5)))[-1]
    assert "at most a 0.05 chance of a false verdict in any 1,000,000 predictions" in verdict.summary


@pytest.mark.parametrize("size", [1, 7, 90, 260, 3000])
def test_a_window_begins_anew_no_oftener_than_was_counted_on(size: int) -> None:
    """Whatever the traffic: one row a minute, or three windows of rows."""
    window, beginnings, rows = Window(("g",), 200), set(), max(1500, 20 * size)
    rng = np.random.default_rng(1)
    for minute in range(rows // size):
        add(window, *rows_of([minute] * size, (0.5, 0.5), rng))
        beginnings.add(window._begin())
        held = window.total().rows
        assert held >= min(200, (minute + 1) * size)
        assert held <= 200 + 200 // STARTS + 2 * size
    assert len(beginnings) <= rows / 200 * STARTS + 1


def test_rows_before_the_beginning_are_kept_only_as_long_as_a_sum_over_replicas_may_need_them() -> None:
    window, rng = Window(("g",), 200), np.random.default_rng(2)
    for minute in range(500):
        add(window, *rows_of([minute] * 10, (0.5, 0.5), rng))
    assert sum(c.rows for c in window.buckets.values()) <= 200 + 2 * 200 // STARTS + 20
    assert window.gone + sum(c.rows for c in window.buckets.values()) == 5000


def test_windows_without_rows_are_merged_into_one_without_rows() -> None:
    assert not Window(("g",), 200).merge(Window(("g",), 200)).buckets


# ---- Fail and back ----


def test_a_disparity_fails_and_passes_again_when_its_rows_have_left() -> None:
    stream = Stream(sliding(10_000), 1000, 0)
    assert list(stream.goes_on(20_000, (0.5, 0.5)))[-1].verdict == "Pass"
    assert list(stream.goes_on(12_000, (0.3, 0.5)))[-1].verdict == "Fail"
    assert list(stream.goes_on(16_000, (0.5, 0.5)))[-1].verdict == "Pass"


def test_a_window_too_small_to_decide_says_which_would() -> None:
    *_, last = Stream(sliding(1000), 250, 2).goes_on(3000, (0.5, 0.5))
    (found,) = last.metrics
    assert (found.verdict, found.rows_to_decide) == ("Unknown", None)
    assert found.window_to_decide is not None
    assert 2000 < found.window_to_decide < 20_000
    assert f"a window of about {found.window_to_decide:,} samples will decide" in last.summary


def test_a_window_smaller_than_min_samples_still_has_a_verdict() -> None:
    *_, last = Stream(sliding(100, minSamples=5000), 50, 3).goes_on(1000, (0.02, 0.98))
    assert last.verdict == "Fail"


# ---- hostile ----


@pytest.mark.parametrize("rates", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_rates_of_zero_and_one_have_finite_intervals(rates: tuple[float, float]) -> None:
    *_, last = Stream(sliding(500), 100, 4).goes_on(3000, rates)
    (found,) = last.metrics
    assert None not in (found.lower, found.upper)
    assert -1 <= found.lower <= rates[0] - rates[1] <= found.upper <= 1
    assert last.verdict == ("Fail" if rates == (0.0, 1.0) else "Pass")


def test_a_group_that_vanishes_and_returns_keeps_its_part_of_the_level() -> None:
    stream = Stream(sliding(400), 100, 5)
    list(stream.goes_on(1000, (0.5, 0.5)))
    for minute in range(stream.minute + 1, stream.minute + 11):
        add(stream.window, np.ones(100, np.int64), np.ones(100, bool), np.full(100, minute * 60.0))
    alone = judge(stream.bias, stream.window.total(), stream.roster)
    assert (alone.verdict, alone.metrics) == ("Unknown", [])
    stream.minute += 10
    *_, back = stream.goes_on(2000, (0.5, 0.5))
    assert [m.group for m in back.metrics] == ["f"]
    assert stream.roster.order("g") == ("f", "m")


@pytest.mark.parametrize("size", [7, 60, 450])
def test_a_restart_in_mid_window_changes_nothing(size: int) -> None:
    rng, straight, restarted = np.random.default_rng(6), Window(("g",), 200), Window(("g",), 200)
    for minute in range(3000 // size):
        rows = rows_of([minute] * size, (0.4, 0.5), rng)
        for window in (straight, restarted):
            add(window, *rows)
        if minute % 3 == 0:
            restarted = Window.load(restarted.dump())
    assert restarted.dump() == straight.dump()
    assert restarted.total().dump() == straight.total().dump()


def test_counts_saved_before_marks_were_kept_still_load() -> None:
    window = Window(("g",), 200)
    add(window, *rows_of([1] * 300, (0.5, 0.5), np.random.default_rng(0)))
    dumped = {k: v for k, v in window.dump().items() if k not in ("gone", "joinedFrom")}
    assert Window.load(dumped).total().dump() == window.total().dump()


@pytest.mark.parametrize("minute", [0, 500])
def test_a_late_label_of_a_row_that_left_the_window_is_no_part_of_it(minute: int) -> None:
    window, rng = Window(("g",), 200), np.random.default_rng(7)
    for one in range(500):
        add(window, *rows_of([one] * 10, (0.5, 0.5), rng))
    before = window.total().rows
    joined = Joined(minute, ("f",), 1, 1)
    assert not window.relabel(joined)
    window.correct(joined)
    add(window, *rows_of([500] * 10, (0.5, 0.5), rng))
    assert abs(window.total().rows - before) <= 50 + 10
    assert all((table >= 0).all() for table in window.total().counts.values()) or minute == 500


def test_a_label_finds_its_row_in_minutes_that_were_joined() -> None:
    """A quiet model: a row every minute, a window of more minutes than are kept apart."""
    window, rng = Window(("g",), 10_000), np.random.default_rng(8)
    for minute in range(MAX_BUCKETS + 100):
        add(window, *rows_of([minute], (0.5, 0.5), rng))
    cells = window.total()
    key, outcome = next((k, o) for k, t in sorted(cells.counts.items()) for o in (0, 1) if t[o, 2])
    assert window.relabel(Joined(3, key, outcome, 1))
    assert window.total().labelled == 1
    assert Window.load(window.dump()).relabel(Joined(4, key, outcome, 1))


def test_a_clock_that_jumps_back_and_forth_neither_loses_nor_invents_rows() -> None:
    window, rng = Window(("g",), 200), np.random.default_rng(9)
    for turn in range(400):
        jump = {50: 100_000, 51: -5, 52: -5_000_000}.get(turn, 0)
        add(window, *rows_of([turn + jump] * 5, (0.5, 0.5), rng))
    assert window.gone + sum(c.rows for c in window.buckets.values()) == 2000
    assert 200 <= window.total().rows <= 200 + 200 // STARTS + 10
    assert window.total().rows < inf
