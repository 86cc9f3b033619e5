"""A verdict's JSON is a contract: with pods' reports, with ledgers that are years old, and with whoever reads
/v1/verdict."""

import json
from typing import Any

import numpy as np
import pytest

from governed_api.governance import Bias
from governed_api.report import AuditorReport, PodVerdict
from governed_api.verdict import BiasVerdict, MetricFinding, wire
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.metrics.verdict import judge

SPEC: dict[str, Any] = {
    "protectedAttributes": [{"name": "sex", "privileged": ["m"]}, {"name": "race"}],
    "strata": ["dept"],
    "favorableOutcome": {"label": "yes"},
    "intersections": True,
    "minSamples": 100,
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
}


def cells() -> Cells:
    """Men get it in 150 of 300 cases, women in 60 of 300; one race, one department, five rows of a third sex."""
    made = Cells(("sex", "race", "dept"))
    for sex, favoured, count in (("m", 150, 300), ("f", 60, 300), ("x", 2, 5)):
        column = {
            name: (np.zeros(count, np.int64), [value]) for name, value in (("sex", sex), ("race", "a"), ("dept", "d"))
        }
        made.add(column, np.arange(count) < favoured)
    return made


def test_the_wire_has_the_names_and_the_nulls_that_it_always_had() -> None:
    told = wire(judge(Bias.model_validate(SPEC), cells()))
    assert list(told) == [
        "verdict", "summary", "samples", "metrics", "labelled", "favorableOutcome", "confidenceLevel", "missing", "references",  # noqa: E501
        "slices", "groups", "strata", "attributes", "intersections",
    ]  # fmt: skip
    women, tiny = told["metrics"][0], told["metrics"][1]
    assert set(women) == {
        "name", "attribute", "group", "reference", "value", "lower", "upper", "thresholdLower", "thresholdUpper", "samples",  # noqa: E501
        "verdict", "message", "logEvidence", "fixedSample", "discovered",
    }  # fmt: skip
    assert (women["group"], women["value"], women["verdict"]) == ("f", pytest.approx(-0.3), "Fail")
    assert (tiny["group"], tiny["value"], tiny["thresholdUpper"]) == ("x", None, None), (
        "what isn't defined is told as null"
    )
    assert "fixedSample" not in tiny, "what there isn't is left out"
    assert told["groups"]["sex"] == [
        {"group": "f", "rows": 300, "favorable": 60, "rate": 0.2},
        {"group": "m", "rows": 300, "favorable": 150, "rate": 0.5},
    ]
    assert told["strata"][0]["strata"] == {"d": pytest.approx(-0.3)}
    assert set(told["attributes"]["sex"]) == {"spread", "impactRatios", "excluded", "chiSquare"}
    assert set(told["attributes"]["sex"]["chiSquare"]) == {"statistic", "pValue"}
    assert told["intersections"]["suppressed"] == 1
    assert {"group": "m ∧ a", "rows": 300, "favorable": 150, "rate": 0.5, "impactRatio": 1.0} in told["intersections"][
        "groups"
    ]
    assert told["favorableOutcome"] == {"label": "yes"}


def test_whoever_reads_it_back_has_the_same() -> None:
    verdict = judge(Bias.model_validate(SPEC), cells())
    line = json.dumps(wire(verdict))
    again = BiasVerdict.model_validate_json(line)
    assert json.dumps(wire(again)) == line
    assert (again.metrics[0].attribute, again.intersections.groups[0].group) == ("sex", "f ∧ a")


@pytest.mark.parametrize(
    "old",
    [
        {"verdict": "Unknown", "summary": "no samples yet", "samples": 0, "metrics": []},
        {
            "verdict": "Fail",
            "metrics": [{"name": "m", "attribute": "a", "group": "g", "reference": "r", "verdict": "Fail"}],
        },
        {"verdict": "Pass", "attributes": {"sex": {}}, "intersections": {}, "alarm": {"active": True}},
    ],
    ids=["first", "before bounds were told", "parts left out"],
)
def test_an_old_ledger_is_read(old: dict[str, Any]) -> None:
    read = BiasVerdict.model_validate(old)
    assert wire(read) == old, "a default is never written as if it had been recorded"
    assert read.favorable_outcome is None
    assert all(metric.threshold_lower is None for metric in read.metrics)


def test_what_a_newer_auditor_says_is_kept() -> None:
    told = wire(judge(Bias.model_validate(SPEC), cells()))
    told["metrics"][0]["power"] = 0.8
    told["favorableOutcome"]["unit"] = "EUR"
    told["horizon"] = {"rows": 9}
    assert wire(BiasVerdict.model_validate(told)) == told


def test_the_operator_reads_the_same_verdict() -> None:
    told = wire(judge(Bias.model_validate(SPEC), cells()).changed(ledger_index=7, revision="r1"))
    report = AuditorReport.model_validate(told)
    assert (report.verdict, report.ledger_index, report.revision) == ("Fail", 7, "r1")
    assert [m.verdict for m in report.metrics] == [m["verdict"] for m in told["metrics"]]
    assert set(PodVerdict.model_fields) - {"in_force", "observed_at", "refused"} <= set(BiasVerdict.model_fields)


def test_a_field_that_is_taken_back_is_not_told() -> None:
    recorded = judge(Bias.model_validate(SPEC), cells()).changed(id="verdict-1", ledger_index=3)
    assert {"id", "ledgerIndex"} <= set(wire(recorded))
    assert "ledgerIndex" not in wire(recorded.without("ledger_index"))
    assert recorded.without("ledger_index").ledger_index is None
    assert isinstance(recorded.without("id").metrics[0], MetricFinding)
