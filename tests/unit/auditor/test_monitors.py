"""Drift against training, fresh rows, attribution gaps, proxies and flips as the live auditor folds and checks them."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.naive_bayes import CategoricalNB

from governed_api.governance import Bias, FavorableOutcome
from governed_serving.artefact import Feature, Lineage, Manifest, Output
from governed_serving.auditor.service.checks import Checks, Others
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.live import Live, _attribution_bound
from governed_serving.auditor.service.tally import SharedMonitoringState
from governed_serving.fairness.counts.columns import coded
from governed_serving.fairness.monitoring.drift import population_stability
from governed_serving.fairness.monitoring.monitors import (
    MOST_EXACT,
    AttributionSums,
    DriftMonitor,
    FreshRows,
    Hysteresis,
    shares_by_arrival,
)
from governed_serving.fairness.monitoring.proxies import joint_lift
from governed_serving.fairness.monitoring.reference import SMALLEST, Distribution, describe, read
from governed_serving.records import Column, ExplanationRecord, PredictionFrame

RNG = np.random.default_rng(0)
BIAS = Bias.model_validate(
    {
        "protectedAttributes": [{"name": "sex"}],
        "favorableOutcome": {"label": "yes"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    }
)
MANIFEST = Manifest(
    "loans", "classification",
    [Feature("income", "numeric", "FP32"), Feature("sex", "categorical", "BYTES"), Feature("text", "text", "BYTES")],
    ["income", "sex", "text"], [Output("label", "BYTES", [-1])], "label", "float", Lineage("", "", "", {}), {}, classes=["no", "yes"],  # noqa: E501
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=80), st.lists(st.floats(-9, 9, width=32), max_size=80))
def test_no_cell_of_a_reference_tells_of_few_rows(words: list[str], values: list[float]) -> None:
    """Every count is 0 or at least SMALLEST, unless all rows together are fewer and stand in one cell."""
    for one, rows in (
        (Distribution.of_words(np.array(words, object)), len(words)),
        (Distribution.of_numbers(np.array(values, np.float32)), len(values)),
    ):
        counts = one.counts.tolist()
        assert sum(counts) == rows
        assert all(n == 0 or n >= SMALLEST for n in counts) or (len([n for n in counts if n]) == 1 and rows < SMALLEST)


def reference(rows: int = 5000) -> dict[str, Any]:
    features = {
        "income": RNG.normal(50, 10, rows).astype(np.float32),
        "sex": RNG.choice(np.array(["f", "m"], object), rows),
        "text": np.array(["x" * int(n) for n in RNG.poisson(20, rows)], object),
    }
    decision = RNG.choice(np.array(["no", "yes"], object), rows)
    return describe(features, frozenset(["text"]), decision, RNG.random(rows).astype(np.float32))


def frame(rows: int, shift: float = 0.0, first: int = 0, seed: int = 1) -> PredictionFrame:
    rng = np.random.default_rng(seed)
    yes = rng.integers(0, 2, rows)
    return PredictionFrame(
        "loans", "r1", "a", [f"request-{first + i}" for i in range(rows)],
        np.full(rows, 1.7e9).tobytes(), np.ones(rows, "<i4").tobytes(),
        {
            "income": Column("FP32", rng.normal(50 + shift, 10, rows).astype("<f4").tobytes()),
            "sex": Column("BYTES", rng.integers(0, 2, rows, "<i4").tobytes(), ["f", "m"]),
            "text": Column("BYTES", np.arange(rows, dtype="<i4").tobytes(), ["x" * int(n) for n in rng.poisson(20, rows)]),  # noqa: E501
        },
        {
            "label": Column("BYTES", yes.astype("<i4").tobytes(), ["no", "yes"]),
            "probabilities": Column("FP32", np.stack([1 - rng.random(rows), rng.random(rows)], 1).astype("<f4").tobytes(), width=2),  # noqa: E501
        },
    )  # fmt: skip


def test_a_shift_of_one_column_is_seen_in_it_alone_and_survives_a_restart() -> None:
    known = read(json.loads(json.dumps(reference())))
    live = Live(Fold(BIAS, "r1", MANIFEST), MANIFEST, known)
    for part in range(4):
        live._fold.record(frame(600, 12.0, 600 * part, seed=part))
        live.record(frame(600, 12.0, 600 * part, seed=part))
        again = Live(live._fold, MANIFEST, known)
        again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(live.dump())))
        assert msgspec.msgpack.encode(again.dump()) == msgspec.msgpack.encode(live.dump())  # NaN is NaN in bytes
        closed, live = live.window_closed, again
    assert closed
    found = {one.column: one for one in live.drift.compared()}
    assert live.drift.compared()[0].column == "income"
    assert found["income"].psi > 0.25
    assert found["income"].p_value < 1e-6
    assert set(found) == {"income", "sex", "text", "output:decision", "output:score"}
    assert max(one.psi for name, one in found.items() if name != "income") < 0.1


def test_windows_of_all_replicas_are_compared_as_one() -> None:
    """Whoever of them looks; what bins differently is left out."""
    one, other, whole = (DriftMonitor({"x": Distribution.of_numbers(RNG.normal(size=4000))}, window=100) for _ in "abc")
    other.reference = whole.reference = one.reference
    first, second = RNG.normal(0.2, 1, 300), RNG.normal(0.6, 1, 500)
    for monitor, values in ((one, first), (other, second), (whole, np.concatenate([first, second]))):
        assert monitor.add({"x": (values, None)}, len(values))
    last = [{"x": monitor.last["x"].tolist()} for monitor in (one, other)]
    assert one.compared(last[1:]) == other.compared(last[:1]) == whole.compared()
    assert one.compared([{"x": [1, 2]}, {"y": [3]}]) == one.compared() != whole.compared()


def test_drift_of_binned_numbers_is_scipys_at_the_borders() -> None:
    training = RNG.normal(size=4000)
    one = Distribution.of_numbers(training)
    monitor = DriftMonitor({"x": one}, window=100)
    recent = RNG.normal(0.3, 1, 3000)
    assert monitor.add({"x": (recent, None)}, 3000)
    assert one.edges is not None
    borders = one.edges - 1e-12
    expected = np.abs(np.mean(training[:, None] <= borders, 0) - np.mean(recent[:, None] <= borders, 0)).max()
    assert monitor.compared()[0].ks == pytest.approx(expected, abs=1e-12)
    assert monitor.compared()[0].ks <= scipy.stats.ks_2samp(training, recent).statistic + 1e-12
    assert monitor.compared()[0].psi == pytest.approx(population_stability(one.counts, one.count(recent)))


def test_fresh_rows_are_a_uniform_sample_of_bounded_size() -> None:
    counts = np.zeros(1000)
    for seed in range(60):
        fresh = FreshRows(most=100, seed=seed)
        for start in range(0, 1000, 50):
            fresh.add({"n": (np.arange(start, start + 50), None)}, 50)
            assert len(fresh._kept) < 200
        assert fresh.seen == 1000
        taken = fresh.take()["n"]
        assert len(taken) == 100
        counts[taken.astype(int)] += 1
    assert scipy.stats.chisquare(counts.reshape(10, 100).sum(1)).pvalue > 1e-3
    assert (fresh.seen, fresh.take()) == (0, {})


def test_the_first_of_the_fresh_rows_are_a_sample_of_them() -> None:
    """Flips are asked about the first ones taken, of a stream that may come sorted."""
    counts = np.zeros(1000)
    for seed in range(150):
        fresh = FreshRows(most=100, seed=seed)
        for start in range(0, 1000, 50):
            fresh.add({"n": (np.arange(start, start + 50), None)}, 50)
        counts[fresh.take()["n"][:20].astype(int)] += 1
    assert counts.sum() == 3000
    assert scipy.stats.chisquare(counts.reshape(10, 100).sum(1)).pvalue > 1e-3


def test_an_alarm_needs_two_breaches_and_ends_after_two_calm_sights() -> None:
    alarm = Hysteresis()
    sights = [
        (True, False),
        (False, True),
        (True, False),
        (True, False),
        (False, False),
        (False, True),
        (True, False),
        (False, True),
        (False, True),
    ]
    found = [alarm.observe("x", breach=b, calm=c, now=float(i)) for i, (b, c) in enumerate(sights)]
    assert found == ["", "", "", "raised", "", "", "", "", "ended"]
    assert alarm.raised == {}


def explanation(number: int, attributions: dict[str, float], target: str = "yes") -> ExplanationRecord:
    entries = [{"feature": name, "attribution": value} for name, value in attributions.items()]
    body = {"explanations": [{"target": target, "attributions": entries}]}
    return ExplanationRecord(f"request-{number}", "loans", "r1", 1.0, json.dumps(body).encode())


def test_explanations_are_compared_between_groups_whichever_comes_first() -> None:
    live = Live(Fold(BIAS, "r1", MANIFEST), MANIFEST, {})
    shown = frame(300, seed=3)
    sexes = [shown.features["sex"].values[c] for c in np.frombuffer(shown.features["sex"].data, "<i4")]
    rng = np.random.default_rng(4)

    def explain(numbers: range) -> None:
        for n in numbers:
            value = rng.normal(0.5 if sexes[n] == "f" else 0.0, 0.3)
            # Half of them speak of the other class: there the sign is the opposite.
            live.record(
                explanation(n, {"income": value if n % 2 else -value, "text": rng.normal()}, "yes" if n % 2 else "no")
            )

    explain(range(150))
    live._fold.record(shown)
    live.record(shown)
    explain(range(150, 300))
    assert live.attributions.rows == 300
    gaps = {(g.group, g.feature): g for g in live.attributions.gaps(0.95, 10)}
    women = gaps["f", "income"]
    assert women.exact
    assert women.lower > 0.1
    assert women.difference == pytest.approx(0.5, abs=0.15)
    assert gaps["f", "text"].lower < 0 < gaps["f", "text"].upper
    assert live.attributions.gaps(0.95, 1000) == []
    live.record(ExplanationRecord("request-1", "loans", "r1", 1.0, b"not json"))
    assert live.attributions.rows == 300


def test_explanations_that_replicas_have_are_compared_as_one() -> None:
    rng = np.random.default_rng(6)
    parts, whole = [AttributionSums() for _ in range(3)], AttributionSums()
    for number in range(300):
        groups, values = {"g": "ab"[number % 2]}, {"x": float(rng.normal(number % 2)), "y": float(rng.normal())}
        for sums in (parts[number % 3], whole):
            sums.add(groups, values)
    tables = [json.loads(json.dumps(part.table())) for part in parts]
    found = [part.gaps(0.95, 40, [t for i, t in enumerate(tables) if i != own]) for own, part in enumerate(parts)]
    assert found[0] == found[1] == found[2], "the same bits"
    assert parts[0].gaps(0.95, 51) == [], "too few of its own"
    merged, expected = ({(g.group, g.feature): g for g in gaps} for gaps in (found[0], whole.gaps(0.95, 40)))
    assert set(merged) == set(expected) == {(g, f) for g in "ab" for f in "xy"}
    for key, gap in merged.items():
        assert gap.rows == expected[key].rows == 150
        assert (gap.lower, gap.upper) == pytest.approx((expected[key].lower, expected[key].upper))


def test_of_rare_large_attributions_no_gap_is_shown_that_is_not_there() -> None:
    """Nearly all are nothing: where few rows are seen of a group, its deviation is none, and 0 seems far away."""
    rng, wrong = np.random.default_rng(17), {None: 0, 1.0: 0}
    for _ in range(30):
        every = {bound: AttributionSums(bound=bound) for bound in wrong}
        shown = dict.fromkeys(wrong, False)
        for look in range(4):
            for group, rows in (("a", 25), ("b", 400)):
                for value in np.where(rng.random(rows) < 0.02, 0.9, 0.001 * rng.standard_normal(rows)).tolist():
                    for sums in every.values():
                        sums.add({"g": group}, {"x": value}, float(look))
            for bound, sums in every.items():
                shown[bound] |= any(gap.lower > 0 or gap.upper < 0 for gap in sums.gaps(0.95, 10))
        for bound, ever in shown.items():
            wrong[bound] += ever
    assert wrong[1.0] == 0
    assert wrong[None] > 0.05 * 30, "else this tells nothing"


def test_attributions_beyond_their_range_count_as_its_end_and_are_counted() -> None:
    sums = AttributionSums(bound=1.0)
    for number in range(40):
        sums.add({"g": "ab"[number % 2]}, {"x": 5.0 if number % 2 else -0.5})
    assert sums.clipped == 20
    by_group = {gap.group: gap for gap in sums.gaps(0.95, 10)}
    assert by_group["b"].difference == pytest.approx(1.5)
    assert by_group["b"].upper <= 2.0
    again = AttributionSums(bound=1.0)
    again.load(json.loads(json.dumps(sums.dump())))
    assert again.clipped == 20
    assert again.gaps(0.95, 10) == sums.gaps(0.95, 10)


def test_of_many_gaps_the_largest_have_an_interval_and_the_others_what_is_possible() -> None:
    rng, sums = np.random.default_rng(18), AttributionSums(bound=1.0)
    features = [f"x{i}" for i in range(MOST_EXACT)]
    for number in range(400):
        gone = {feature: 0.2 * (i + 1) / MOST_EXACT * (number % 2) for i, feature in enumerate(features)}
        sums.add({"g": "ab"[number % 2]}, {f: v + float(rng.normal(0, 0.01)) for f, v in gone.items()})
    gaps = sums.gaps(0.95, 10)
    assert len(gaps) == 2 * MOST_EXACT
    assert all(gap.exact for gap in gaps)
    wide = [gap for gap in gaps if (gap.lower, gap.upper) == (-2.0, 2.0)]
    assert len(wide) == MOST_EXACT
    assert max(abs(gap.difference) for gap in wide) <= min(abs(gap.difference) for gap in gaps if gap not in wide)


def outcome(**changed: object) -> FavorableOutcome:
    return FavorableOutcome.model_validate(changed)


def test_what_an_attribution_can_be_comes_from_the_manifest_alone() -> None:
    assert _attribution_bound(outcome(label="yes")) == 1.0
    assert _attribution_bound(outcome(threshold=3.0, range={"min": -2.0, "max": 8.0})) == 10.0
    assert _attribution_bound(outcome(threshold=3.0)) is None
    sums = AttributionSums()
    for number in range(40):
        sums.add({"g": "ab"[number % 2]}, {"x": float(number)})
    assert not any(gap.exact for gap in sums.gaps(0.95, 10))


@pytest.mark.parametrize("unit", [{"space": "log-odds"}, {"scale": "logit"}, {"space": "margin"}])
def test_attributions_in_another_unit_are_not_added_to_those_of_outputs(unit: dict[str, str]) -> None:
    live = Live(Fold(BIAS, "r1"), None, {})
    entry = {"target": "yes", "attributions": [{"feature": "income", "attribution": 0.25}]}
    assert live._attributions(entry) == {"income": 0.25}
    assert live._attributions({**entry, "space": "output"}) == {"income": 0.25}
    assert live._attributions({**entry, **unit}) == {}


@pytest.mark.parametrize("restarted", [False, True])
def test_the_level_of_a_gap_does_not_hang_on_groups_that_come_later(restarted: bool) -> None:
    rng, sums = np.random.default_rng(7), AttributionSums()
    for number in range(200):
        sums.add({"g": "ab"[number % 2]}, {"x": float(rng.normal()), "y": float(rng.normal())}, 10.0 + number)
    before = {(g.group, g.feature): (g.lower, g.upper) for g in sums.gaps(0.95, 10)}
    if restarted:
        sums.load(json.loads(json.dumps(sums.dump())))
    for number in range(400):
        sums.add({"h": f"later {number % 40}"}, {"x": 1.0, "z": 1.0}, 1000.0 + number)
    after = {(g.group, g.feature): (g.lower, g.upper) for g in sums.gaps(0.95, 10) if g.attribute == "g"}
    assert {key: after[key] for key in before} == before


def test_parts_of_a_level_are_kept_and_sum_to_less_than_1() -> None:
    since = {"a": 3.0, "b": 3.0, "c": 5.0}
    shares = shares_by_arrival(since)
    assert shares == {
        "a": pytest.approx(3 / np.pi**2),
        "b": pytest.approx(3 / np.pi**2),
        "c": pytest.approx(1.5 / np.pi**2),
    }
    later = shares_by_arrival(since | {f"d{n}": 6.0 + n // 10 for n in range(1000)})
    assert {key: later[key] for key in since} == shares
    assert 0.9 < sum(later.values()) < 1
    assert shares_by_arrival({}) == {}


def test_attributions_that_an_earlier_auditor_kept_are_read() -> None:
    sums = AttributionSums()
    sums.load([1, 0, [["g", "a", "x", 12.0, 3.0, 4.0], ["g", "b", "x", 12.0, 0.0, 4.0]]])
    assert [row[6] for row in sums.table()] == [0.0, 0.0]
    assert len(sums.gaps(0.95, 10, [[["g", "a", "x", 1.0, 0.0, 0.0]]])) == 2


def test_the_level_of_a_flip_does_not_hang_on_subjects_that_come_later() -> None:
    live = Live(Fold(BIAS, "r1"), None, {})
    checks = Checks(live, {}, None, {}, None)
    live.flips, live.flips_since = (
        {"flips/sex=m": [200, 30], "flips/sex=f": [190, 2]},
        {"flips/sex=m": 5.0, "flips/sex=f": 5.0},
    )
    before = {one.subject: one for one in checks._flips()}
    checks.others = Others(
        [
            SharedMonitoringState(
                flips={f"flips/race={n}": [20, 1] for n in range(50)},
                flips_since={f"flips/race={n}": 9.0 for n in range(50)},
            )
        ]
    )
    after = {one.subject: one for one in checks._flips()}
    assert len(after) == 52
    assert {subject: after[subject] for subject in before} == before
    restored = Live(live._fold, None, {})
    restored.load(json.loads(json.dumps(live.dump())))
    assert restored.flips_since == live.flips_since


def test_attribution_sums_are_bounded() -> None:
    sums = AttributionSums(limit=3)
    sums.add({"g": "a"}, {f"f{i}": 1.0 for i in range(5)})
    assert (len(sums._sums), sums.dropped) == (3, 2)


def test_joint_lift_is_that_of_naive_bayes_and_finds_what_no_single_feature_tells() -> None:
    rng = np.random.default_rng(5)
    group = rng.integers(0, 2, 4000)
    features = {f"x{i}": (group + (rng.random(4000) < 0.35)) % 2 for i in range(8)}
    found = joint_lift({n: coded(v) for n, v in features.items()}, coded(group))
    table = np.stack(list(features.values()), 1)
    fold = np.arange(4000) % 2
    right = sum(
        (
            CategoricalNB(alpha=1.0).fit(table[fold != k], group[fold != k]).predict(table[fold == k])
            == group[fold == k]
        ).sum()
        for k in (0, 1)
    )
    largest = np.bincount(group).max()
    assert found == pytest.approx((right - largest) / (4000 - largest), abs=1e-9)
    assert found > 0.5
    assert joint_lift({"noise": coded(rng.integers(0, 3, 4000))}, coded(group)) < 0.1


class Model:
    """Favours men and texts about him, whatever the income."""

    calls = 0

    def __call__(self, columns: dict[str, Any]) -> Any:
        self.calls += 1
        return (columns["sex"] == "m") | np.array([t.startswith("he ") for t in columns["text"]])


def checked(decide: Any) -> tuple[Checks, Live, list[Exception]]:
    fold = Fold(BIAS, "r1", MANIFEST)
    live = Live(fold, MANIFEST, {})
    background = {"income": list(RNG.normal(0, 1, 500)), "sex": ["f", "m"] * 250}
    checks, failures = Checks(live, fold.protected, MANIFEST, background, decide), list[Exception]()
    rng = np.random.default_rng(6)
    sex = rng.choice(np.array(["f", "m"], object), 400)
    fresh = {
        "income": (rng.normal(size=400) + 3 * (sex == "m")).astype(np.float32),
        "sex": sex,
        "text": np.array(["he is here", "it is here"] * 200, object),
    }
    checks.rows(fresh, failures.append, (ConnectionError,))
    checks.publish()
    return checks, live, failures


def test_checks_find_proxies_flips_and_discrepancy() -> None:
    model = Model()
    checks, live, _ = checked(model)
    found = {one.subject: one for one in checks.findings}
    assert found["proxies/sex/income"].breach
    assert found["proxies/sex/(all)"].breach
    assert not any("text" in s for s in found if s.startswith("proxies/"))
    assert found["drift/(all inputs)"].breach, "men earn more than in training: together it shows"
    rows, flipped = live.flips["flips/sex=m"]
    assert rows > 80
    assert flipped == pytest.approx(rows / 2, abs=20), "women without him in their text become favoured"
    assert live.flips["flips/words of text"][1] > 0
    assert found["flips/sex=m"].breach
    assert model.calls > 0
    assert set(checks.report()) == {"alarms", "drift", "flips", "proxies"}


def test_a_predictor_that_does_not_answer_stops_nothing_else() -> None:
    def away(_: Any) -> Any:
        raise ConnectionError("away")

    checks, live, failures = checked(away)
    assert (checks.flip_failures, len(failures), live.flips) == (1, 1, {})
    assert any(one.subject.startswith("proxies/") for one in checks.findings)
