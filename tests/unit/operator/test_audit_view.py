"""What the terminal shows of evidence, whichever release wrote it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from governed_api.evidence import TrainingReport
from governed_api.report import AuditorReport
from governed_operator.local.audit_view import bias_table, data_audit, gate_table
from governed_operator.local.errors import LocalError
from governed_operator.local.reports import training_report
from governed_operator.local.workdir import Workdir

AUDIT: dict[str, Any] = {
    "groups": [{"group": "f", "rows": 1835, "favorable": 557, "rate": 0.3035}],
    "disparities": [{"group": "f", "reference": "m", "spd": -0.141645, "dir": 0.68183}],
    "chiSquare": 92.205,
    "strata": {
        "dept": {
            "byStratum": [{"stratum": "A", "group": "f", "reference": "m", "spd": 0.2035, "dir": None}],
            "adjusted": [{"group": "f", "spd": -0.1416, "adjustedSpd": 0.0184, "reverses": True}],
            "simpson": True,
        }
    },
}
METRIC = {"name": "statisticalParityDifference", "attribute": "sex", "group": "f", "reference": "m", "verdict": "Fail"}


def shown(*parts: RenderableType) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def test_the_audit_tells_of_the_whole_the_strata_and_the_paradox() -> None:
    report = TrainingReport.model_validate({"phase": "Succeeded", "dataAudit": {"sex": AUDIT}})
    text = shown(data_audit(report.data_audit))
    assert "f against m: SPD -0.141645, DIR 0.681830, χ² 92.205" in text
    assert "adjusted for dept: the sign flips (Simpson's paradox)" in text
    assert "+0.2035" in text


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        ({"reverses": True, "adjustedInterval": [-0.01, 0.05]}, "the adjusted difference may be chance", "confounding"),
        ({"reverses": True, "shown": True, "adjustedInterval": [0.01, 0.03]}, "sign flips", "may be chance"),
        ({"reverses": True}, "sign flips", "may be chance"),
        (
            {"confounded": True, "adjustedInterval": [-0.03, -0.01]},
            "half or more goes with dept (confounding)",
            "flips",
        ),
    ],
)
def test_a_reversal_is_told_from_confounding_and_chance(found: dict[str, Any], said: str, unsaid: str) -> None:
    one = {"group": "f", "spd": -0.1416, "adjustedSpd": 0.0184, **found}
    audit = {**AUDIT, "strata": {"dept": {**AUDIT["strata"]["dept"], "adjusted": [one]}}}
    text = shown(
        data_audit(TrainingReport.model_validate({"phase": "Succeeded", "dataAudit": {"sex": audit}}).data_audit)
    )
    assert said in text
    assert unsaid not in text


@pytest.mark.parametrize("left_out", ["chiSquare", "strata", "groups"])
def test_what_an_earlier_release_left_out_is_left_out(left_out: str) -> None:
    audit = {name: value for name, value in AUDIT.items() if name != left_out}
    report = TrainingReport.model_validate({"phase": "Succeeded", "dataAudit": {"sex": audit}})
    assert "f against m" in shown(data_audit(report.data_audit))


def test_gates_and_metrics_without_a_figure_are_shown_as_such() -> None:
    report = TrainingReport.model_validate(
        {"phase": "Succeeded", "gates": [{"name": "latency", "verdict": "not applicable"}]}
    )
    verdict = AuditorReport.model_validate({"verdict": "Fail", "metrics": [METRIC], "power": 0.8})
    text = shown(gate_table(report.gates), bias_table(verdict.metrics))
    assert "latency" in text
    assert "[–, –]" in text


def test_a_report_of_another_shape_is_one_line(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    workdir.reports.mkdir(parents=True)
    path = workdir.reports / "m.json"
    assert training_report(workdir, "m") is None
    path.write_text(json.dumps({"status": {"trainer": {"phase": "Succeeded", "dataAudit": {"sex": {"groups": 3}}}}}))
    with pytest.raises(LocalError, match=r"m\.json: trainer\.dataAudit\.sex\.groups"):
        training_report(workdir, "m")
