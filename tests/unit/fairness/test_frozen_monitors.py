"""What is watched beside verdicts, figure by figure, over columns without chance; and what counts keep of rows."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from governed_api.governance import Bias
from governed_serving.fairness.counts.cells import Cells, coded
from governed_serving.fairness.counts.columns import joint, joint_name, parts_of
from governed_serving.fairness.counts.grouping import Grouping, default_bands, groupings, number_in, outcomes
from governed_serving.fairness.counts.scores import MOST_EXACT, GroupScores, Moments, ScoreTable, _ordered
from governed_serving.fairness.counts.windows import Joined, Window
from governed_serving.fairness.inference.special import (
    beta_quantile,
    chi_square_tail,
    incomplete_beta,
)
from governed_serving.fairness.monitoring.counterfactuals import GENDER_WORDS, attribute_flips, swap_words, text_flips
from governed_serving.fairness.monitoring.drift import (
    alarm_threshold,
    kolmogorov_tail,
    log_dirichlet_multinomial,
    log_evidence,
    population_stability,
    quantile_edges,
)
from governed_serving.fairness.monitoring.inputs import InputDrift, MeanEmbedding, encoder, median_square
from governed_serving.fairness.monitoring.monitors import AttributionSums, DriftMonitor, FreshRows, Hysteresis
from governed_serving.fairness.monitoring.proxies import association, joint_lift, proxies
from governed_serving.fairness.monitoring.reference import Distribution, describe, read

from .frozen import numbers, same


def waves(rows: int, columns: int = 3, shift: float = 0.0) -> np.ndarray:
    """Numbers that look irregular, the same on every machine: shape (rows, columns)."""
    row, column = np.arange(1, rows + 1)[:, None], np.arange(columns)
    return np.asarray(
        (row * (0.618034 + 0.137 * column)) % 1.0 + shift * (1 + 0.37 * column) + 0.3 * ((row * 7) % 5 == 0)
    )


def words(rows: int, shift: int = 0) -> np.ndarray:
    return np.array(["abcde"[(n * 3 + shift + n // 7) % 5 if n % 11 else 4] for n in range(rows)], object)


# ---- monitoring ----


def test_figures_of_drift_stay_what_they_were() -> None:
    one, two = np.array([40, 30, 20, 10, 0]), np.array([30, 30, 30, 5, 5])
    half = np.full(5, 0.5)
    told = {
        "thresholds": [alarm_threshold(), alarm_threshold(0), alarm_threshold(7)],
        "evidence": [log_evidence(one, two), log_evidence(one * 9, two * 9), log_evidence(one, one)],
        "rows": log_evidence(np.array([one, two]), np.array([two, one * 3])),
        "law": [log_dirichlet_multinomial(half, one), log_dirichlet_multinomial(np.array([3.0, 1.5]), two[:2])],
        "edges": [quantile_edges(waves(50)[:, 0]), quantile_edges(waves(50)[:, 0], 4), quantile_edges(np.ones(9))],
        "psi": [population_stability(one, two), population_stability(two, one), population_stability(one, one)],
        "tail": [kolmogorov_tail(x) for x in (0.0, 0.2, 0.25, 0.4, 0.7, 1.0, 1.5, 3.0)],
    }
    same("drift", numbers(told))


def test_an_embedding_stays_what_it_was() -> None:
    """No row lies where training's do: the last bit of a matrix product, which depends on the processor, would choose
    its cell."""
    told: dict[str, Any] = {"median": [median_square(waves(40)), median_square(np.ones((5, 2)))]}
    for columns in (1, 2, 3, 12):
        training = waves(620, columns)
        embedding = MeanEmbedding(training, 16, seed=3)
        for shift in (0.0013, 0.41234567):
            told[f"{columns} {shift}"] = embedding.compare(embedding.sums(waves(300, columns, shift)))
    tied = np.round(waves(300, 2) * 4) / 4
    embedding = MeanEmbedding(tied, 8)
    told["ties"] = [embedding.compare(embedding.sums(tied[:90] + shift)) for shift in (0.0013, 0.5013)]
    told["few"] = MeanEmbedding(waves(6, 2), 8).compare(MeanEmbedding(waves(6, 2), 8).sums(waves(9, 2, 0.0013)))
    same("embedding", numbers(told))


def test_drift_of_inputs_stays_what_it_was() -> None:
    numbers_, text = waves(200)[:, 0].tolist(), words(200).tolist()
    background: dict[str, Any] = {
        "x": [None, *numbers_[1:]],
        "w": text,
        "t": text,
        "short": numbers_[:19],
        "k": [2.0] * 200,
    }
    drift = InputDrift(background, ["t"], 20)
    assert drift.compared({}) is None
    assert drift.sums({"t": words(9), "short": waves(9)[:, 0]}) == {}
    fresh = {"x": waves(60, shift=0.5)[:, 0], "w": words(60, 2), "t": words(60), "k": np.full(60, 2.0)}
    own = drift.sums(fresh)
    alone = drift.compared(own)
    other = InputDrift(background, ["t"], 20)
    theirs = other.sums({**fresh, "x": waves(40, shift=0.0013)[:, 0], "w": words(40), "k": np.full(40, 2.0)})
    told = [
        alone,
        drift.compared(own, [theirs, {}, {"another": [1.0]}]),
        drift.compared(own, [{k: v[:3] for k, v in own.items()}]),
    ]
    assert list(own) == list(theirs)
    assert drift.compared({"nothing": [1.0]}) is None
    numeric = encoder([1.0, None, 3.0, 5.0], False)
    same(
        "inputs",
        numbers(
            [
                told,
                numeric([None, 3.0, 9.0]),
                encoder([2.0, 2.0], False)([2.0, 3.0]),
                encoder(text, True)(["a", "", "z"]),
                encoder([f"w{n:02}" for n in range(60)], True)(["w49", "w50"]),
                encoder(["a", None, "b"], True)(["X", "", "b"]),
            ]
        ),
    )


def test_monitors_of_columns_stay_what_they_were() -> None:
    training = {"x": waves(500)[:, 0], "w": words(500), "t": np.array(["abc"[: n % 4] for n in range(500)], object)}
    rare = words(500)
    rare[:6] = "rare"
    document = describe({**training, "r": rare}, frozenset("t"), words(500), waves(500)[:, 1])
    reference = read({"columns": {**document["columns"], "empty": {"values": [], "counts": [0]}}})  # type: ignore[dict-item]
    assert "empty" not in reference
    monitor, seen = DriftMonitor(reference, 100), []
    for start in range(4):
        codes, names = coded(words(40, start))
        closed = monitor.add(
            {"x": (waves(40, shift=0.2 * start)[:, 0], None), "w": (codes, names), "z": (codes, names)}, 40
        )
        seen.append([closed, monitor.rows, monitor.windows])
    again = DriftMonitor(reference, 100)
    again.load(monitor.dump())
    assert again.dump() == monitor.dump()
    fewer = DriftMonitor({"x": reference["x"]}, 100)
    fewer.load(monitor.dump())
    assert fewer.windows == 0
    told = [
        monitor.dump(),
        DriftMonitor({}).window,
        monitor.compared(),
        monitor.compared([again.last_window(), {"x": [1], "q": [2]}]),
    ]
    same("monitors", numbers([document, seen, told]))


def test_references_suppress_small_cells() -> None:
    many = np.array([f"w{n:02}" for n in range(60) for _ in range(10 + n)], object)
    few = np.array(["a"] * 30 + ["b"] * 12 + ["c"] * 9, object)
    told = {
        "many": Distribution.of_words(many),
        "few": Distribution.of_words(few),
        "ten": Distribution.of_words(np.array(["a"] * 30 + ["b"] * 10, object)),
        "nine": Distribution.of_words(np.array(["a"] * 9, object)),
        "gaps": Distribution.of_numbers(np.array([np.nan, np.inf, *range(40)])),
        "steps": Distribution.of_numbers(np.array([0.0] * 95 + [1.0] * 9 + [2.0] * 20)),
        "none": Distribution.of_numbers(np.array([np.nan])),
        "bins": Distribution.of_numbers(waves(300)[:, 0], 4),
        "just enough": Distribution.of_numbers(np.arange(100.0)),
    }
    counted = [
        told["few"].count(np.array([0, 1, 1, 2]), ["a", "z", "b"]), told["few"].count(np.array([], np.int64), []),
        told["gaps"].count(np.array([np.nan, -1.0, 100.0, 4.0])),
    ]  # fmt: skip
    same("references", numbers([{name: one.plain() for name, one in told.items()}, counted]))


def test_hysteresis_counts_in_a_row() -> None:
    alarm = Hysteresis(patience=2)
    sights = [(True, False), (False, False), (True, False), (True, False), (True, False), (False, True), (False, False)]
    sights += [(False, True), (True, False), (False, True), (False, True), (False, True), (True, False), (True, False)]
    told = [alarm.observe("x", breach=b, calm=c, now=float(n)) for n, (b, c) in enumerate(sights)]
    assert [n for n, word in enumerate(told) if word] == [3, 10, 13]
    assert [word for word in told if word] == ["raised", "ended", "raised"]
    assert alarm.raised == {"x": 13.0}
    assert Hysteresis().patience == 2


def test_fresh_rows_are_a_sample_of_all() -> None:
    sample = FreshRows(5, seed=2)
    for start in range(0, 60, 20):
        codes, names = coded(words(20, start))
        sample.add({"x": (np.arange(start, start + 20.0), None), "w": (codes, names)}, 20)
    assert sample.seen == 60
    assert len(sample._kept) < 10, "kept are fewer than twice the sample"
    told = [sample.take(), sample.seen, sample.take()]
    sample.add({"x": (np.arange(3.0), None)}, 3)
    sample.add({"w": (np.zeros(1, np.int64), ["q"])}, 1)
    one, other = FreshRows(3), FreshRows(3, seed=0)
    for each in (one, other):
        each.add({"x": (np.arange(30.0), None)}, 30)
    assert one.take()["x"].tolist() == other.take()["x"].tolist()
    same("fresh-rows", numbers([told, sample.take(), sample.seen, FreshRows().most]))


def test_gaps_between_attributions_stay_what_they_were() -> None:
    sums = AttributionSums(limit=11)
    for n in range(40):
        sums.add(
            {"sex": "fm"[n % 2], "race": "ab"[n % 3 == 0]}, {"x": n % 7 - 0.5 * (n % 2), "y": 0.25, "z": float(n % 3)}
        )
    again = AttributionSums()
    again.load(sums.dump())
    told = [
        sums.rows,
        sums.dropped,
        sums.table(),
        sums.gaps(0.95, 10),
        sums.gaps(0.8, 20, [again.table()]),
        sums.gaps(0.95, 21),
    ]
    assert again.table() == sums.table()
    same("attributions", numbers([told, AttributionSums().limit]))


def test_proxies_are_bergsmas() -> None:
    rows = 240
    sex, noise = coded(words(rows)), coded(words(rows, 3))
    near = coded(np.where(np.arange(rows) % 9 == 0, words(rows, 1), words(rows)))
    one = (np.zeros(rows, np.int64), ["only", "never"])
    for column in (near, noise, sex):
        found = association("f", column, sex)
        table = np.zeros((5, 5))
        np.add.at(table, (column[0], sex[0]), 1)
        statistic = scipy.stats.chi2_contingency(table, correction=False).statistic
        phi = max(0.0, statistic / rows - 16 / (rows - 1))
        side = 5 - 16 / (rows - 1)
        assert found.cramers_v == pytest.approx(np.sqrt(phi / (side - 1)), rel=1e-9, abs=1e-12)
        assert found.lift == pytest.approx((table.max(1).sum() - table.sum(0).max()) / (rows - table.sum(0).max()))
    nothing = association("one", one, sex)
    assert (nothing.cramers_v, nothing.lift, nothing.p_value) == (0.0, 0.0, 1.0)
    assert association("one", (np.zeros(1, np.int64), ["a"]), (np.zeros(1, np.int64), ["b"])).p_value == 1.0
    halves = (np.arange(rows) % 2, ["even", "odd", "never"])
    thirds = (np.arange(rows) // 2 % 3 + (np.arange(rows) % 2 > 0), ["a", "b", "c", "d", "never"])
    uneven = [association("a", halves, thirds), association("b", thirds, halves)]
    assert association("two", (np.arange(2), ["a", "b"]), (np.arange(2), ["p", "q"])).lift == 1.0
    assert proxies({"f": halves}, thirds, uneven[0].cramers_v), "from that value on"
    both = {"near": near, "noise": noise}
    assert joint_lift(both, sex) == joint_lift(both, sex, 2) != joint_lift(both, sex, 3)
    kept = proxies({"noise": noise, "near": near, "sex": sex, "one": one}, sex)
    lifts = [joint_lift({"near": near, "noise": noise}, sex, folds) for folds in (2, 3)]
    lifts += [joint_lift({}, sex), joint_lift({"near": near}, one), joint_lift({}, (np.zeros(0, np.int64), ["a"]))]
    same("proxies", numbers([uneven, kept, lifts, proxies({"near": near}, sex, 0.99)]))


def test_every_word_has_its_partner() -> None:
    told = {
        text: swap_words(text) for pair in GENDER_WORDS for word in pair for text in (word, word.upper(), word.title())
    }
    told |= {text: swap_words(text) for text in ("I", "HE", "Mr. Man's son", "shehe", "he2 she_he", "爸爸和女", "")}
    same("words", told)
    assert swap_words("a b c", [("a", "b"), ("b", "c")]) == "b a b"
    assert swap_words("I A YOU", [("i", "you"), ("a", "an")]) == "You An I"
    columns = {"t": np.array(["he", "it", "she"], object), "n": np.arange(3)}
    found = text_flips(
        lambda c: np.array([t == "he" and n == 0 for t, n in zip(c["t"], c["n"], strict=True)]), columns, "t"
    )
    none = text_flips(lambda c: c["n"] > 5, {"t": np.array(["it"], object), "n": np.arange(1)}, "t")
    assert (found.rows, found.flipped, none.rows, none.flipped, none.rate) == (2, 1, 0, 0, 0.0)
    alike = attribute_flips(lambda c: c["n"] > 0, {"n": np.array([1, 1])}, "n", [1, 0])
    assert {g: (f.rows, f.flipped, f.rate) for g, f in alike.items()} == {1: (0, 0, 0.0), 0: (2, 2, 1.0)}


# ---- special functions and offers ----


@pytest.mark.parametrize("x", [0.0, 0.001, 0.5, 3.0, 7.0, 30.0, 300.0])
def test_special_functions_equal_scipys(x: float) -> None:
    for degrees in (1, 2, 5, 40):
        assert chi_square_tail(x, degrees) == pytest.approx(scipy.stats.chi2.sf(x, degrees), rel=1e-10, abs=1e-15)
    for a, b in ((0.5, 0.5), (1, 9), (x + 1, 3.0), (40.0, x + 2.5)):
        for p in (0.0, 1e-9, 0.01, 0.3, 0.77, 0.999, 1.0):
            assert incomplete_beta(a, b, p) == pytest.approx(scipy.special.betainc(a, b, p), rel=1e-10, abs=1e-14)
            if 0 < p < 1:
                assert beta_quantile(p, a, b) == pytest.approx(scipy.stats.beta.ppf(p, a, b), rel=1e-9, abs=1e-12)
    assert chi_square_tail(-1.0, 3) == 1.0


# ---- counts ----


def test_groups_of_numbers_stay_what_they_were() -> None:
    ages = np.array([17.0, 18.0, 25.0, 39.999, 40.0, 99.0, np.nan])
    banded, plain = Grouping("age", (18.0, 40.0)), Grouping("age")
    told = {
        "bands": banded.encode(ages, None),
        "no gaps": banded.encode(ages[:-1], None),
        "plain": plain.encode(np.array([1.5, 2.0, np.nan, -3.0, 1e17]), None),
        "flags": plain.encode(np.array([True, False, True]), None),
        "words": plain.encode(np.array([1, 0, 2]), ["x", "", "y"]),
        "no words": plain.encode(np.array([], np.int64), []),
        "read": banded.encode(np.array([0, 1, 2, 3, 4, 5]), ["17", "40", "", "n/a", "nan", "1e40"]),
        "of": [Grouping.of("n", low, high).edges for low, high in
               ((0, 15), (0, 16), (0.5, 15.0), (1, 3.5), (-10, 1000), (None, 3), (3, None))],
        "default": [default_bands(np.arange(n, dtype=float)) for n in (16, 17, 100)],
        "heaped": default_bands(np.array([0.0] * 50 + [1.0] * 3 + list(range(2, 30)) + [np.nan] * 4)),
        "top": default_bands(np.array(list(range(20)) + [20.0] * 90)),
        "middle": default_bands(np.array([*range(10), *[10.0] * 40, *range(11, 31)], float)),
        "numbers": [number_in(w) for w in ("1", " 2.5 ", "x", "inf", "nan", "-0", "1e999")],
    }  # fmt: skip
    same("groups", numbers(told))
    rules = Bias.model_validate(
        {
            "protectedAttributes": [{"name": "age", "bands": [40, 18]}, {"name": "sex"}],
            "favorableOutcome": {"label": "1"}, "strata": ["dept", "sex"],
            "metrics": [{"name": "statisticalParityDifference", "thresholdUpper": 0.1}],
        }
    )  # fmt: skip
    assert [(g.name, g.edges) for g in groupings(rules, None)] == [("age", (18.0, 40.0)), ("sex", ()), ("dept", ())]
    values = np.array([0.0, 1.0, 1.5])
    assert outcomes(values, None, "1", None).tolist() == [False, True, False]
    assert outcomes(values, None, "1.5", None).tolist() == [False, False, True]
    assert outcomes(values, None, None, 1.0).tolist() == [False, True, True]
    assert outcomes(np.array([1, 0]), ["no", "1"], "1", None).tolist() == [True, False]
    assert outcomes(np.array([], np.int64), [], "1", None).tolist() == []


def test_cells_beyond_their_limit_are_counted_together() -> None:
    cells = Cells(("g", "h"), limit=2)
    for place in range(5):
        cells.put((f"g{place}", "x"), np.full((2, 3), place + 1))
    assert sorted(cells.counts) == [("(other)", "(other)"), ("g0", "x"), ("g1", "x")]
    assert (cells.overflow, cells.rows, cells.labelled) == (6 * 12, 6 * 15, 4 * 15)
    again = Cells.load(cells.dump())
    assert (again.overflow, again.limit, Cells(("g",)).limit) == (72, 20_000, 20_000)
    twice = cells.copy().merge(cells)
    assert (twice.overflow, twice.rows) == (144, 180)
    with pytest.raises(ValueError, match=r"expected counts over \('g', 'h'\), found \('g',\)"):
        cells.merge(Cells(("g",)))
    one = Cells(("g",))
    one.put(("a",), np.array([[0, 0, 1], [0, 0, 0]]))
    assert (one.relabel(("b",), 0, 1), one.relabel(("a",), 1, 1), one.relabel(("a",), 0, 1)) == (False, False, True)
    assert one.counts["a",].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert not one.relabel(("a",), 0, 1)
    assert cells.where("g", "g1").rows == 12
    assert (cells.values("h"), cells.by("h").groups) == (["(other)", "x"], ("(other)", "x"))
    table = cells.by("g", "h")
    assert (table.groups, table.rows.tolist()) == (("(other) ∧ (other)", "g0 ∧ x", "g1 ∧ x"), [72, 6, 12])
    assert table.of(["g1 ∧ x", "nobody"]).tolist() == [[2, 2, 2], [2, 2, 2]]


def test_wide_and_narrow_columns_are_counted_alike() -> None:
    """Beyond a million places only those that occur are made."""
    codes = [np.array([n * 31 % 700 for n in range(900)]), np.array([n * 17 % 600 for n in range(900)])]
    outcome, label = np.arange(900) % 3 == 0, np.arange(900) % 2
    wide, narrow = Cells(("a", "b")), Cells(("a", "b"))
    names = [[f"v{n:03}" for n in range(size)] for size in (700, 600)]
    wide.add({"a": (codes[0], names[0]), "b": (codes[1], names[1])}, outcome, label)
    for row in range(900):
        key = (names[0][codes[0][row]], names[1][codes[1][row]])
        narrow.put(key, np.eye(6, dtype=np.int64)[3 * int(outcome[row]) + label[row]].reshape(2, 3))
    assert wide.dump() == narrow.dump()
    unlabelled = Cells(())
    unlabelled.add({}, np.array([1, 0, 1]))
    assert unlabelled.counts[()].tolist() == [[0, 0, 1], [0, 0, 2]]


def test_intersections_name_what_occurs() -> None:
    columns = {
        "a": (np.array([0, 1, 1]), ["x", "y"]),
        "b": (np.array([1, 0, 0]), ["p", "q"]),
        "c": (np.array([0, 0, 2]), ["1", "2", "3"]),
    }
    codes, names = joint(columns, ("a", "b", "c"))
    assert [names[code] for code in codes] == ["x ∧ q ∧ 1", "y ∧ p ∧ 1", "y ∧ p ∧ 3"]
    assert parts_of(joint_name(["x", "y"])) == ["x", "y"]
    assert coded([1.0, 2.0, 1.0])[1] == ["1", "2"]
    assert coded([1.5, 2.0])[1] == ["1.5", "2.0"]
    assert coded(np.array(["b", "a"]))[0].tolist() == [1, 0]


def test_moments_are_exact() -> None:
    values = np.array([0.1, -3.5, 2.0**-20, 1e5, 0.0, 7.25], np.float32)
    table = ScoreTable([("g",), ("g", "h")])
    columns = {"g": (np.array([0, 0, 1, 0, 0, 1, 0]), ["a", "b"]), "h": (np.array([0, 1, 0, 0, 0, 0, 0]), ["p", "q"])}
    table.add(columns, np.append(values, np.float32(np.inf)))
    from fractions import Fraction

    for group, rows in (("a", [0, 1, 3, 4]), ("b", [2, 5])):
        found, known = table.group(("g",), group).score, [Fraction(float(v)) for v in values[rows]]
        mean = sum(known) / len(known)
        assert found.n == len(rows)
        assert found.mean == pytest.approx(float(mean), rel=1e-15)
        assert Fraction(found.total, 2**173) == sum(known)
        assert Fraction(found.squares, 2**346) == sum(v * v for v in known)
        assert found.variance == pytest.approx(float(sum((v - mean) ** 2 for v in known) / (len(rows) - 1)), rel=1e-14)
        assert found.mean_square == pytest.approx(float(sum(v * v for v in known) / len(rows)), rel=1e-14)
    assert sorted(name for (_, name) in table.groups) == ["a", "a ∧ p", "a ∧ q", "b", "b ∧ p"]
    nothing = Moments()
    assert all(v != v for v in (nothing.mean, nothing.variance, nothing.mean_square, Moments(1, 5, 25).variance))
    assert Moments.load(found.dump()) == found


def test_scores_are_kept_as_they_were() -> None:
    table = ScoreTable([("g",)])
    for row in range(60):
        value = row / 59
        table.add({"g": (np.zeros(1, np.int64), ["a"])}, np.array([value]))
        if row % 3:
            table.learn({"g": "a"}, value, float(row % 2))
    table.learn({"g": "a"}, 0.25, 1.0)
    before = table.dump()
    table.learn({"g": "a"}, 0.7, 0.5)
    table.learn({"g": "a"}, 1.2, 0.4)
    table.learn({"g": "a"}, float("nan"), 0.4)
    both = table.group(("g",), "a")
    assert (both.bins.sum(0).tolist(), both.error.n) == ([42, 22], 43)
    table.learn({"g": "a"}, 0.7, 0.5, back=True)
    table.learn({"g": "a"}, 1.2, 0.4, back=True)
    assert table.dump() == before
    one = table.group(("g",), "a")
    limits = [(0.0, 1.0), (0.0, 0.99), (0.5, 1.0), (0.0, 0.999)]
    ends = [
        one.calibration_error,
        [one.most_fourth_power(c) for c in (0.2, 0.5, 0.8)],
        [one.within(*w) for w in limits],
    ]
    same("scores", numbers([before, ends, one.bins, one.binned]))
    empty = GroupScores()
    assert empty.calibration_error != empty.calibration_error
    assert empty.most_fourth_power(0.5) != empty.most_fourth_power(0.5)
    again = ScoreTable.load(before)
    again.merge(table)
    assert again.of(("g",), ["a", "nobody"]).score.n == 120
    bits = _ordered(np.array([-2.0, -1.0, -0.0, 0.0, 1.0], np.float32)).tolist()
    assert (bits, bits[2]) == (sorted(bits), bits[3])


@pytest.mark.parametrize("distinct", [MOST_EXACT, MOST_EXACT + 1])
def test_a_distribution_is_exact_up_to_so_many_scores(distinct: int) -> None:
    values = (np.arange(distinct) / 4096).astype(np.float32)
    whole, parts = GroupScores(), GroupScores()
    whole.count(_ordered(values), np.ones(distinct, np.int64))
    for part in np.array_split(values, 5):
        parts.count(_ordered(part), np.ones(len(part), np.int64))
    assert (whole.coarse, len(whole.near) == distinct) == (distinct > MOST_EXACT, distinct <= MOST_EXACT)
    assert (parts.coarse, parts.near) == (whole.coarse, whole.near)
    assert sum(whole.near.values()) == distinct
    twice = GroupScores()
    twice.add(whole)
    twice.count(_ordered(values[:3]), np.array([2, 2, 2]))
    assert (twice.coarse, sum(twice.near.values())) == (whole.coarse, distinct + 6)


def test_windows_slide_as_they_did() -> None:
    window, told = Window(("g",), 40), []
    for minute in range(30):
        for _ in range(2):
            rows = 3 + minute % 5
            times = (
                np.full(rows, 60.0 * minute + 59.9)
                if minute % 7
                else np.linspace(60.0 * minute, 60.0 * minute + 119.0, rows)
            )
            codes = np.arange(rows) % 2
            window.add({"g": (codes, ["a", "b"])}, codes == minute % 2, window.bucket_of(times))
        total = window.total()
        told.append([window.gone, len(window.buckets), window._begin(), total.rows, sorted(window.buckets)[0]])
    late = [window.relabel(Joined(bucket, ("a",), outcome, 1)) for bucket in (0, 29, 28) for outcome in (0, 1)]
    window.correct(Joined(29, ("b",), 1, 0))
    window.correct(Joined(29, ("b",), 1, 0), back=True)
    again = Window.load(window.dump())
    assert again.dump() == window.dump()
    merged = Window.load(window.dump()).merge(window)
    told.append([late, merged.gone, merged.total().rows, merged.dump()])
    same("windows", numbers(told))
    whole = Window(("g",))
    assert whole.bucket_of(np.array([5.0, 900.0])).tolist() == [0, 0]
    whole.add({"g": (np.zeros(0, np.int64), [])}, np.zeros(0, bool), np.zeros(0, np.int64))
    assert (whole.buckets, whole.total().rows, "gone" in whole.dump()) == ({}, 0, False)
