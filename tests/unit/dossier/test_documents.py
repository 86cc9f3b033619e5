"""Documents of any age and shape: a page comes of all of them, and says what it couldn't read."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from governed_api.evidence import DatasetManifest, Evaluation, GateTable, TrainingReport
from governed_serving.dossier.documents import read_documents, read_report
from governed_serving.dossier.dossier import Dossier, gather
from governed_serving.dossier.laws.judging import judge_clauses
from governed_serving.dossier.page import render_page

NOW = datetime(2026, 1, 2, tzinfo=UTC)
METRIC = {"name": "m", "attribute": "sex", "group": "f", "reference": "m", "verdict": "Fail"}
DISPARITY = {"group": "f", "reference": "m", "spd": -0.1}


def gathered(report: Any = None, documents: Any = None) -> Dossier:
    return gather("m", report=report or {}, documents=documents, made=NOW)


@pytest.mark.parametrize(
    ("documents", "named"),
    [
        ({"evaluation.json": [1, 2]}, "evaluation.json"),
        ({"evaluation.json": {"groups": ["sex"]}}, "evaluation.json (groups"),
        (
            {"evaluation.json": {"data": {"sex": {"disparities": [{"group": "f", "spd": "much"}]}}}},
            "data.sex.disparities.0.spd",
        ),
        ({"evaluation.json": {"importances": {"age": 1}}}, "importances"),
        ({"evaluation.json": {"offers": {"sex": {"threshold": 0.5}}}}, "offers.sex.thresholds"),
        ({"training.json": {"curve": [{"loss": None}]}}, "training.json (curve.0.loss"),
        ({"training.json": {"dataset": {"rows": "many"}}}, "dataset.rows"),
        ({"gates.json": {"gates": [{"name": "latency", "verdict": "maybe"}]}}, "gates.json (gates.0.verdict"),
        ({"model.json": {"features": [{"type": "numeric"}]}}, "model.json (features.0.name"),
        ({"model.json": "a model"}, "model.json"),
    ],
)
def test_a_document_of_another_shape_is_left_out_and_named(documents: dict[str, Any], named: str) -> None:
    found = gathered(documents=documents)
    assert any(note.startswith("Not shown: ") and named in note for note in found.notes), found.notes
    page = render_page(found)
    assert "Not shown: " in page
    assert judge_clauses(found)


@pytest.mark.parametrize(
    ("report", "named"),
    [
        ({"status": "soon"}, ""),
        ({"auditor": {"summary": "no verdict"}}, "auditor's part of the report (verdict"),
        ({"auditor": {"verdict": "Perhaps"}}, "auditor's part of the report (verdict"),
        ({"auditor": {"verdict": "Fail", "metrics": [{**METRIC, "value": "low"}]}}, "metrics.0.value"),
        ({"auditor": {"verdict": "Fail", "alarm": "loud"}}, "alarm"),
        ({"trainer": {"phase": "Resting"}}, "trainer's part of the report (phase"),
        ({"trainer": {"phase": "Succeeded", "artefact": "sha256:a"}}, "artefact"),
        ({"server": {"masking": [3]}}, "server's part of the report (masking"),
    ],
)
def test_a_report_of_another_shape_is_left_out_and_named(report: dict[str, Any], named: str) -> None:
    found = gathered(report)
    assert all(named in note for note in found.notes if note.startswith("Not shown: "))
    assert sum(note.startswith("Not shown: ") for note in found.notes) == bool(named)
    assert "<h1>m</h1>" in render_page(found)


def test_one_part_that_is_wrong_costs_no_other() -> None:
    found = gathered(
        {"auditor": {"verdict": "Perhaps"}, "trainer": {"phase": "Failed", "message": "out of memory"}},
        {"gates.json": 7, "evaluation.json": {"metrics": {"accuracy": 0.75}}},
    )
    assert found.auditor is None
    assert found.report.trainer is not None
    assert (found.report.trainer.message, found.metrics) == ("out of memory", {"accuracy": 0.75})
    page = render_page(found)
    assert "No live verdict has been reported yet." in page
    assert "75.0%" in page


def test_what_an_earlier_release_left_out_is_no_evidence_and_no_error() -> None:
    """A verdict without bounds, alarm and outcome, an audit without strata, a data set without a scan."""
    found = gathered(
        {"auditor": {"verdict": "Fail", "metrics": [METRIC]}},
        {
            "evaluation.json": {"data": {"sex": {"groups": [{"group": "f", "rows": 9, "favorable": 1}], "disparities": [DISPARITY]}}},  # noqa: E501
            "training.json": {"dataset": {"digest": "sha256:a", "label": "decision"}},
        },
    )  # fmt: skip
    assert found.notes == ["No archive was given: what follows rests on the report alone and is not proved."]
    page = render_page(found)
    assert "SPD −0.100000, DIR not defined" in page
    assert "No scan for personal data is recorded." in page
    clauses = {c.id: c for c in judge_clauses(found)}
    assert "scan for personal data" in [f.what for f in clauses["iso-42001/data"].in_state("missing")]


def test_what_a_newer_release_adds_is_passed_over() -> None:
    notes: list[str] = []
    report = {
        "trainer": {
            "phase": "Succeeded",
            "energy": {"kWh": 3},
            "gates": [{"name": "g", "verdict": "pass", "unit": "s"}],
        }
    }
    documents = {"evaluation.json": {"metrics": {}, "robustness": 1, "data": {"sex": {"gini": 0.2}}}, "carbon.json": {}}
    read = read_report(copy.deepcopy(report), notes)
    assert read.trainer is not None
    assert [gate.name for gate in read.trainer.gates] == ["g"]
    assert list(read_documents(documents, notes).evaluation.data) == ["sex"]  # type: ignore[union-attr]
    assert notes == []


def test_nothing_is_nothing() -> None:
    found = gathered({"status": {}}, {"training.json": {"dataset": {}}, "evaluation.json": {}})
    assert (found.data, found.data_audit, found.gates, found.watched, found.pattern) == (None, {}, [], [], "")
    assert (found.evaluation, found.documents.gates) == (Evaluation(), None)


@pytest.mark.parametrize("kind", [DatasetManifest, Evaluation, GateTable, TrainingReport])
def test_names_are_those_of_the_json(kind: Any) -> None:
    """The page and the terminal read what the trainer wrote, whichever release did."""
    known = {
        DatasetManifest: {"digest", "sourceDigest", "source", "licence", "consentBasis", "rows", "schema", "label", "personalData", "masked", "audit"},  # noqa: E501
        Evaluation: {"rows", "metrics", "groups", "offers", "importances", "data", "unmitigated", "mitigation", "conformal"},  # noqa: E501
        GateTable: {"gates"},
        TrainingReport: {"observedAt", "revision", "phase", "message", "progress", "trainingHash", "artefact", "metrics", "gates", "data", "dataAudit"},  # noqa: E501
    }  # fmt: skip
    assert {field.alias for field in kind.model_fields.values()} == known[kind]
