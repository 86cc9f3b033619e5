"""Whether prediction sets and intervals hold the truth as often as promised: counted whatever way a label comes."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import beta

from governed_api.evidence import ConformalCoverage, ConformalEvaluation
from governed_api.governance import Bias
from governed_api.verdict import wire
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.process import _calibration
from governed_serving.auditor.service.tally import add_up
from governed_serving.fairness.counts.coverage import CoverageCounts, is_covered, packed
from governed_serving.fairness.metrics.coverage import calibration_of, set_coverage
from governed_serving.fairness.metrics.roster import Roster, place_share
from governed_serving.records import EventRecord, PredictionFrame
from support.predictions import Field, Prediction, PredictionSchema, framed

from .records import SPEC
from .test_monitors import MANIFEST

RULES: dict[str, Any] = SPEC["spec"]["governance"]["bias"]
BIAS = Bias.model_validate(RULES)
CLASSES = ("no", "perhaps", "yes")


def fold(classes: tuple[str, ...] = CLASSES, coverage: float | None = 0.9) -> Fold:
    manifest = msgspec.structs.replace(MANIFEST, classes=[*classes], coverage=coverage)
    rules = RULES if classes else RULES | {"favorableOutcome": {"threshold": 0.5}}
    return Fold(Bias.model_validate(rules), "r1", manifest)


def answered(number: int, sexes: list[str], sets: np.ndarray, regression: bool = False) -> PredictionFrame:
    """One request of as many rows."""
    held = Field("prediction_interval", "FP32", 2) if regression else Field("prediction_set", "BOOL", sets.shape[1])
    first = Field("prediction", "FP32") if regression else Field("label", "BYTES")
    said = np.ones(len(sexes), np.float32) if regression else ["yes"] * len(sexes)
    schema = PredictionSchema("loans", "r1", "sha256:0", (Field("sex", "BYTES"),), (first, held))
    return framed(Prediction(schema, f"r{number}", 1e9 + number, len(sexes), [sexes], [said, sets]))


def label(number: int, values: list[Any], time: float = 0.0) -> EventRecord:
    body = json.dumps({"id": f"r{number}", "label": values}).encode()
    return EventRecord("label", f"r{number}", "loans", "r1", time, body)


def drawn(seed: int, requests: int = 60) -> Iterator[tuple[int, list[str], np.ndarray, list[str]]]:
    """Number, sexes, sets, truths of each request."""
    rng = np.random.default_rng(seed)
    for number in range(requests):
        rows = int(rng.integers(1, 4))
        yield (
            number,
            [str(s) for s in rng.choice(["F", "M"], rows)],
            rng.random((rows, 3)) < 0.6,
            [str(c) for c in rng.choice(CLASSES, rows)],
        )


def by_hand(requests: list[tuple[int, list[str], np.ndarray, list[str]]]) -> dict[str, dict[str, list[int]]]:
    rows = [
        (s, bool(held[CLASSES.index(c)]))
        for _, sexes, sets, truths in requests
        for s, held, c in zip(sexes, sets, truths, strict=True)
    ]
    found: dict[str, dict[str, list[int]]] = {"": {"(all)": [sum(k for _, k in rows), len(rows)]}, "sex": {}}
    for sex in "FM":
        mine = [k for s, k in rows if s == sex]
        found["sex"][sex] = [sum(mine), len(mine)]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_labels_early_late_and_of_other_replicas_count_once(seed: int) -> None:
    requests, one, other = list(drawn(seed)), fold(), fold()
    rng = np.random.default_rng(seed)
    for number, sexes, sets, truths in requests:
        frame, said = answered(number, sexes, sets), label(number, [*truths])
        match int(rng.integers(0, 3)):
            case 0:
                one.record(frame)
                one.record(said)
                one.record(said)
            case 1:
                one.record(said)
                one.record(frame)
            case 2:  # served by one, posted to the other, which finds it in the ledger
                one.record(frame)
                other.record(said)
                other.settle(f"r{number}", other.rows_of(frame, 0), "")
        again = fold()
        assert again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(one.dump())))
        one = again
    whole = add_up(one.tally(), [other.tally()])
    assert whole.coverage == by_hand(requests)
    assert whole.joined == whole.coverage[""]["(all)"][1]


def test_a_label_that_the_ledger_takes_back_is_counted_no_longer() -> None:
    mine = fold()
    mine.labels.doubt = True
    mine.record(answered(0, ["F"], np.array([[False, False, True]])))
    mine.record(label(0, ["yes"]))
    assert mine.coverage.counts == {"": {"(all)": [1, 1]}, "sex": {"F": [1, 1]}}
    mine.settle("r0", [], "repeated")
    assert mine.coverage.counts == {"": {"(all)": [0, 0]}, "sex": {"F": [0, 0]}}
    assert CoverageCounts.sum_of([{"": {"(all)": [-1, -1]}}]) == {"": {"(all)": [0, 0]}}


def test_an_interval_holds_its_ends_and_what_lies_between() -> None:
    ends = np.array([[0.1, 0.3]] * 6 + [[np.nan, np.nan], [-3.4e38, 3.4e38]], np.float32)
    mine = fold(())
    mine.record(answered(0, ["F"] * 8, ends, regression=True))
    mine.record(label(0, [0.1, 0.3, 0.2, 0.09, 0.31, "0.25", 0.2, -1e9]))
    assert mine.coverage.counts[""]["(all)"] == [5, 8]


@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 1000])
def test_sets_are_kept_as_bits(columns: int) -> None:
    sets = np.random.default_rng(columns).random((5, columns)) < 0.5
    kept = packed(sets)
    assert kept.shape == (5, -(-columns // 8))
    for row, held in zip(sets, kept, strict=True):
        assert [is_covered(held.tobytes(), place, 1.0) for place in range(columns)] == row.tolist()
    assert is_covered(b"", 0, 1.0) == is_covered(b"", -1, 0.5) == is_covered(kept[0].tobytes(), 8000, 0.5) == -1


def test_nothing_is_counted_where_nothing_is_promised_or_known() -> None:
    plain = fold(coverage=None)
    plain.record(answered(0, ["F"], np.array([[True, True, True]])))
    plain.record(label(0, ["yes"]))
    assert (plain.labels.joined, plain.coverage.counts) == (1, {})
    other = fold(("no", "yes"))  # the sets are another model's
    other.record(answered(0, ["F"], np.array([[True, True, True]])))
    other.record(label(0, ["yes"]))
    assert (other.labels.joined, other.coverage.counts) == (1, {})


def test_groups_are_bounded() -> None:
    counts = CoverageCounts(("sex",), ["sex"])
    for number in range(1500):
        counts.add((f"g{number}",), 1)
    for number in range(1500):
        counts.add((f"g{number}",), 1, back=True)
    assert len(counts.counts["sex"]) == 1001
    assert {tuple(n) for n in counts.counts["sex"].values()} == {(0, 0)}


def test_what_is_shown_and_what_is_not() -> None:
    roster = Roster({"sex": {"F": 0.0, "M": 1.0, "gone": 2.0}})
    counts = {"": {"(all)": [9200, 10_000]}, "sex": {"F": [800, 1000], "M": [8400, 9000], "x": [0, 50]}}
    found = set_coverage(BIAS, 0.9, counts, roster)
    words = {one.group: one.verdict for one in found.groups["sex"]}
    assert (found.overall.verdict, words) == ("Pass", {"F": "Fail", "M": "Pass"})
    assert set_coverage(BIAS, 0.92, counts, roster).overall.verdict == "Unknown"
    nothing = set_coverage(BIAS, 0.9, {}, Roster())
    assert (nothing.overall.coverage, nothing.overall.verdict, nothing.groups) == (None, "Unknown", {})
    assert wire(found)["overall"] == {
        "group": "(all)", "rows": 10_000, "covered": 9200, "coverage": 0.92,
        "lower": found.overall.lower, "upper": found.overall.upper, "verdict": "Pass", "least": None,
    }  # fmt: skip
    metrics = AuditorMetrics("default", "loans")
    metrics.coverage(found)
    assert 'governed_auditor_set_coverage{attribute="sex",group="F",name="loans",namespace="default"} 0.8' in (
        metrics.text().decode()
    )


def test_a_promise_that_is_kept_is_hardly_ever_found_broken() -> None:
    """Truth on the promise, a look every 50 rows up to 3,000, three groups."""
    rng, roster, failed = np.random.default_rng(3), Roster({"sex": {"F": 0.0, "M": 0.0, "x": 1.0}}), 0
    for _ in range(60):
        covered, sex = rng.random(3000) < 0.9, rng.choice(["F", "M", "x"], 3000, p=[0.6, 0.3, 0.1])
        said = set()
        for n in range(50, 3001, 50):
            by = {s: [int(covered[:n][sex[:n] == s].sum()), int((sex[:n] == s).sum())] for s in "FMx"}
            found = set_coverage(BIAS, 0.9, {"": {"(all)": [int(covered[:n].sum()), n]}, "sex": by}, roster)
            said |= {found.overall.verdict, *(one.verdict for one in found.groups["sex"])}
        failed += "Fail" in said
    assert failed <= 6


def test_what_the_luck_of_a_calibration_explains_is_no_fail() -> None:
    """500 calibration rows, then 100,000 labelled ones: most of those below the promise would be told as Fail."""
    rng, roster, told = np.random.default_rng(5), Roster(), {"": {"(all)": [500]}}
    law = beta(451, 50)
    words: dict[bool, list[str]] = {True: [], False: []}
    for share in law.rvs(200, random_state=rng):
        counts = {"": {"(all)": [int(rng.binomial(100_000, share)), 100_000]}}
        for known in words:
            words[known].append(set_coverage(BIAS, 0.9, counts, roster, told if known else None).overall.verdict)
    assert words[True].count("Fail") <= 10
    assert words[False].count("Fail") > 60
    found = set_coverage(BIAS, 0.9, {"": {"(all)": [85_000, 100_000]}}, roster, told).overall
    assert found.least == pytest.approx(law.ppf(0.0125), abs=1e-9)
    assert found.verdict == "Fail"


def test_of_groups_with_thresholds_of_their_own_each_has_its_law() -> None:
    def line(group: str, rows: int, own: bool) -> ConformalCoverage:
        return ConformalCoverage(
            group=group, rows=0, covered=0, lower=0.0, upper=1.0, calibration_rows=rows, threshold=0.5, own=own
        )

    everybody = line("(all)", 1000, True)
    groups = {"sex": [line("F", 200, True), line("M", 750, True), line("x", 50, False), line("y", 3, False)]}
    told = ConformalEvaluation(
        coverage=0.9, method="LAC", output="prediction_set", group_conditional=True, overall=everybody, groups=groups
    )
    by = calibration_of(told)
    assert by == {"": {"(all)": [3, 50, 200, 750]}, "sex": {"F": [200], "M": [750]}}
    counts = {"": {"(all)": [80, 100]}, "sex": {g: [80, 100] for g in "FMx"}}
    roster = Roster({"sex": {"F": 0.0, "M": 1.0, "x": 2.0}})
    found = set_coverage(BIAS, 0.9, counts, roster, by)
    least = {one.group: one.least for one in found.groups["sex"]}
    assert least["x"] is None
    assert least["F"] == pytest.approx(beta(181, 20).ppf(0.0125 * place_share(1)), abs=1e-9)
    assert found.overall.least == pytest.approx(beta(46, 5).ppf(0.0125 / 3), abs=1e-9), "3 rows leave everything"
    assert calibration_of(told.model_copy(update={"group_conditional": False})) == {"": {"(all)": [1000]}}
    assert calibration_of(None) == {}


def test_the_artefact_says_what_was_calibrated_on_and_what_it_does_not_say_is_not_known() -> None:
    def artefact(document: Any) -> Any:
        return SimpleNamespace(document=lambda name: document if name == "evaluation.json" else None)

    everybody = {
        "group": "(all)",
        "rows": 5,
        "covered": 4,
        "lower": 0.5,
        "upper": 0.9,
        "calibrationRows": 70,
        "threshold": 0.5,
        "own": True,
    }
    told = {"coverage": 0.9, "method": "LAC", "output": "prediction_set", "overall": everybody}
    assert _calibration(artefact({"conformal": told})) == {"": {"(all)": [70]}}
    for other in (None, {}, [], {"conformal": None}, {"conformal": {"coverage": "?"}}):
        assert _calibration(artefact(other)) == {}
    assert _calibration(None) == {}
