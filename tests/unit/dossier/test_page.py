"""The page over a real (small) archive: Berkeley 1973 served, journalled, audited, explained; and what it says when
things are wrong."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governed_api.governance import Bias
from governed_api.page.markup import Safe, tag
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.dossier.__main__ import main
from governed_serving.dossier.dossier import Archived, Dossier, gather
from governed_serving.dossier.laws.judging import judge_clauses
from governed_serving.dossier.page import render_page
from governed_serving.dossier.svg import Estimate, Line, curves, dots, forest, signed_bars, ticks
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import ExplanationRecord, LedgerEntry, canonical
from governed_serving.trainer.audit import audit
from support.predictions import Field, Prediction, PredictionSchema, framed

from .ships import shipped

KEY, MODEL_KEY = bytes(32), bytes([5]) * 32
NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script>&\""
# Bickel, Hammel, O'Connell 1975: department → (men admitted, rejected, women admitted, rejected)
BERKELEY = {
    "A": (512, 313, 89, 19),
    "B": (353, 207, 17, 8),
    "C": (120, 205, 202, 391),
    "D": (138, 279, 131, 244),
    "E": (53, 138, 94, 299),
    "F": (22, 351, 24, 317),
}


def applicants() -> tuple[list[str], list[str], list[bool]]:
    rows = [
        (department, sex, admitted)
        for department, counts in BERKELEY.items()
        for (sex, admitted), count in zip(
            (("male", True), ("male", False), ("female", True), ("female", False)), counts, strict=True
        )
        for _ in range(count)
    ]
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]


def label_audit() -> dict[str, Any]:
    bias = Bias.model_validate(
        {
            "protectedAttributes": [{"name": "sex", "privileged": ["male"]}],
            "strata": ["department"],
            "favorableOutcome": {"label": "admitted"},
            "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
        }
    )
    departments, sexes, admitted = applicants()
    groups = {"sex": np.array(sexes, object), "department": np.array(departments, object)}
    return audit(bias, groups, np.array(admitted))


def documents() -> dict[str, Any]:
    table = label_audit()
    features = [{"name": n, "type": "categorical", "dtype": "BYTES"} for n in ("department", "sex")]
    return {
        "model.json": {
            "name": "admissions",
            "task": "classification",
            "label": "decision",
            "favorable": "admitted",
            "features": features,
        },
        "training.json": {
            "curve": [{"trainingLoss": 0.6 - i / 100, "validationAccuracy": 0.6} for i in range(5)],
            "dataset": {
                "digest": "sha256:" + "a" * 64,
                "source": HOSTILE,
                "rows": 4526,
                "personalData": {"note": {"EMAIL": 3}},
                "schema": [],
            },
        },
        "evaluation.json": {
            "data": table,
            "groups": table,
            "importances": [{"feature": "department", "value": 0.3}],
            "metrics": {"accuracy": 0.68},
            "offers": {
                "sex": {
                    "threshold": 0.5,
                    "thresholds": {"female": 0.31, "male": 0.55},
                    "accuracy_before": 0.68,
                    "accuracy_after": 0.66,
                    "largest_difference_before": 0.1416,
                    "largest_difference_after": 0.0021,
                    "weights": [{"group": "female", "label": 1, "weight": 1.27}],
                }
            },
        },
    }


REPORT = {
    "status": {
        "auditor": {
            "verdict": "Fail",
            "summary": "statisticalParityDifference −0.14",
            "samples": 4526,
            "alarm": {"action": "Rollback", "active": True, "inForce": "None", "acknowledgedBy": "board", "reason": HOSTILE},  # noqa: E501
            "alarms": ["drift/department"],
            "observedAt": "2026-01-01T00:00:00.000Z",
            "metrics": [
                {
                    "name": "statisticalParityDifference", "attribute": "sex", "group": "female", "reference": "male",
                    "value": -0.1416, "lower": -0.18, "upper": -0.1, "thresholdLower": -0.1, "thresholdUpper": None, "verdict": "Fail",  # noqa: E501
                }
            ],
        },
        "trainer": {"phase": "Succeeded", "gates": [{"name": "latency", "measured": 1.1, "budget": 0.8, "verdict": "fail", "message": HOSTILE}]},  # noqa: E501
    }
}  # fmt: skip


async def archived(root: Path, spool: Path) -> None:
    """4,526 applicants served in six requests with one masked note each, and an explanation of the first."""
    archive = Archive(root, Kek(KEY), "default")
    keyset = Keyring(Kek(MODEL_KEY), DirectoryStore(spool.with_name("keys"))).keyset("journal")
    archive.create_keyset("admissions", "journal", (spool.with_name("keys") / "journal.keyset.json").read_bytes())
    cipher = SegmentCipher(keyset)
    fields = (Field("department", "BYTES"), Field("sex", "BYTES"), Field("note", "BYTES"))
    schema = PredictionSchema("admissions", "r1", "sha256:a", fields, (Field("label", "BYTES"),))
    departments, sexes, admitted = applicants()
    journal = Journal(spool, "server-0", cipher)
    for department in BERKELEY:
        place = [i for i, d in enumerate(departments) if d == department]
        columns = [
            [department] * len(place),
            [sexes[i] for i in place],
            ["call <PHONE_NUMBER>"] + ["-"] * (len(place) - 1),
        ]
        labels = ["admitted" if admitted[i] else "rejected" for i in place]
        await journal.append(framed(Prediction(schema, f"req-{department}", 0.0, len(place), columns, [labels])))
    attributions = [
        {"feature": "department", "value": HOSTILE, "attribution": 0.3, "interval": [0.2, 0.4]},
        {"feature": "sex", "value": "male", "attribution": -0.01},
    ]
    pairs = [{"between": ["department", "sex"], "interaction": 0.025, "interval": [None, None]}]
    explanation = {"method": "shap", "target": "admitted", "attributions": attributions, "seed": 7}
    groups = [{"group": "g0", "within": "whole", "members": ["sex"], "attribution": -0.01, "interval": [None, None]}]
    groups += [{"group": f"g{i}", "attribution": i / 100} for i in range(1, 24)]
    shown = {**explanation, "groups": groups, "interactions": pairs, "interactions_left_out": 3}
    body = msgspec.json.encode({"explanations": [shown]})
    await journal.append(ExplanationRecord("req-A", "admissions", "r1", 0.0, body))
    journal.close()
    entries = shipped(archive, "admissions", JournalReader(spool, "server-0", cipher))
    entries.append(LedgerEntry("dataset", "default", "admissions", "d", "2026-01-01T00:00:00.000Z", digest="sha256:a"))
    entries.append(LedgerEntry("verdict", "default", "admissions", "v", "2026-01-01T00:00:00.000Z"))
    entries.append(LedgerEntry("prediction", "default", "other", "req-A", "2026-01-01T00:00:00.000Z"))
    own = [canonical(e) for e in entries if e.model == "admissions"]
    archive.appender.submit(Batch("admissions", "s", 0, own)).result(10)
    archive.appender.submit(Batch("other", "s", 0, [canonical(entries[-1])])).result(10)
    archive.close()


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    await archived(tmp_path / "archive", tmp_path / "spool")
    return tmp_path / "archive"


def dossier(root: Path, kek: Kek | None = Kek(MODEL_KEY)) -> Dossier:
    source = DirectorySource(root, Kek(KEY))
    return gather("admissions", report=REPORT, archive=Archived(source), kek=kek, documents=documents(), made=NOW)


class Structure(HTMLParser):
    """Checks nesting, and collects what a page could load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "action", "data", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def structure(page: str) -> Structure:
    found = Structure()
    found.feed(page)
    assert found.open == []
    return found


def test_the_page_is_one_file_that_loads_and_runs_nothing(root: Path) -> None:
    page = render_page(dossier(root))
    found = structure(page)
    assert "script" not in found.seen
    assert all(link.startswith("#") for link in found.links)
    assert re.search(r"url\(|@import|http://|https://", page) is None
    assert "default-src &#x27;none&#x27;" in page
    assert "compliant" not in page.lower()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 2
    assert found.seen["svg"] == found.seen["desc"] >= 6


def test_simpsons_paradox_is_seen_in_the_data_and_in_what_was_served(root: Path) -> None:
    found = dossier(root)
    page = render_page(found)
    assert "SPD −0.141645, DIR 0.681830" in page
    assert "Thresholds per group in place of 0.5: female 0.3100, male 0.5500" in page
    assert "Nothing of this is applied by itself" in page
    assert "Acknowledged by board" in page
    assert "Alarms raised: drift/department" in page
    assert "χ² 92.205" in page
    ends = r"\[[−+]0\.\d{4}, [−+]0\.\d{4}\]"
    assert re.search(
        rf"Simpson&#x27;s paradox. </strong>In all, female differs by −0.1416 {ends}; compared within department by "
        rf"\+0.0184 {ends}. The change is −0.1601 {ends}. That the difference within has this sign isn&#x27;t shown",
        page,
    )
    assert "adjusted for department" in page
    assert re.search(r"department A.{0,900}\+0\.203 \[\+0\.11", page, re.S)
    assert found.served is not None
    assert found.served.cells is not None
    counted = found.served.cells.by("sex")
    assert dict(zip(counted.groups, counted.counts[:, 1].sum(1).tolist(), strict=True)) == {"female": 557, "male": 1198}
    assert found.served.cells.rows == 4526


def test_example_masking_and_proof_are_shown(root: Path) -> None:
    found = dossier(root)
    assert found.served is not None
    assert found.served.masked == {"note": {"PHONE_NUMBER": 6}}
    assert found.example is not None
    assert found.example.id == "req-A"
    assert found.example.prediction is not None
    assert len(found.example.prediction.outputs["label"]) == 933
    page = render_page(found)
    assert "Inclusion proof: explanation req-A" in page
    assert "department = &lt;script&gt;" in page
    assert found.ledger is not None
    assert found.ledger.counts["prediction"] == 6


def test_interactions_of_the_example_are_drawn_and_the_others_counted(root: Path) -> None:
    page = render_page(dossier(root))
    assert "Strongest interactions" in page
    assert "department × sex" in page
    assert "3 weaker pairs are not shown." in page


def test_groups_of_a_hierarchy_are_drawn_and_the_smaller_ones_counted(root: Path) -> None:
    page = render_page(dossier(root))
    assert "Groups of the hierarchy" in page
    assert "g23" in page
    assert "4 smaller ones are not shown." in page


def test_without_a_key_content_stays_closed_and_is_said_so(root: Path) -> None:
    page = render_page(dossier(root, None))
    assert "No model key was given" in page
    assert "PHONE_NUMBER" not in page
    wrong = render_page(dossier(root, Kek(bytes([6]) * 32)))
    assert "Not shown: served predictions" in wrong


def test_a_tampered_ledger_heads_the_page(root: Path) -> None:
    segment = next((root / "ledger" / "log").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    page = render_page(dossier(root))
    assert "The ledger does not verify." in page
    assert page.index("does not verify") < page.index("Model and lineage")
    verdicts = {c.id: c.verdict for c in judge_clauses(dossier(root))}
    assert verdicts["eu-ai-act/logs"] == "fail"


def test_clauses_name_what_is_there_and_what_is_missing(root: Path) -> None:
    found = {c.id: c for c in judge_clauses(dossier(root))}
    decisions = found["cn-pipl/automated-decisions"]
    assert decisions.verdict == "fail"
    assert "live bias verdict is Fail" in decisions.in_state("contradicted")[0].what
    assert [f.what for f in decisions.in_state("present")] == ["1 explanations by request id"]
    data = found["iso-42001/data"]
    assert data.verdict == "no evidence"
    assert "licence of the data" in [f.what for f in data.in_state("missing")]
    assert found["cn-generative-ai/inputs"].verdict == "not applicable"
    logs = found["eu-ai-act/logs"]
    assert logs.verdict == "no evidence"
    assert "log of 183 days (this one began 1970-01-01" not in logs.in_state("missing")[0].what
    assert found["us-nyc-ll144/bias-audit"].verdict == "no evidence", "training labels are no impact ratios"
    assert {c.verdict for c in judge_clauses(Dossier("m", NOW))} == {"no evidence"}


def test_an_empty_dossier_still_makes_a_page() -> None:
    page = render_page(gather("m", report={}, made=NOW))
    structure(page)
    assert "No archive was given" in page


def test_the_page_says_the_bands_of_numbers() -> None:
    audit = {"age": {"groups": [{"group": "< 25", "rows": 9, "favorable": 3, "rate": 1 / 3}]}}
    status = {"auditor": {"verdict": "Unknown", "attributes": {"age": {}}, "bands": {"age": [25.0, 40.5]}}}
    told = {"status": {**status, "trainer": {"phase": "Succeeded", "dataAudit": audit}}}
    page = render_page(gather("m", report=told, made=NOW))
    assert "with borders at 25, 40.5; a value on a border belongs to the band above it" in page
    assert "borders" not in render_page(gather("m", report=REPORT, made=NOW))


def test_the_page_says_who_has_labels_and_what_the_others_could_make_of_a_metric() -> None:
    metric = {
        "name": "equalOpportunityDifference",
        "attribute": "sex",
        "group": "f",
        "reference": "m",
        "verdict": "Pass",
    }
    share = {"group": "f", "outcome": "unfavorable", "rows": 1000, "labelled": 500, "share": 0.5}
    verdict = {"verdict": "Pass", "labels": {"sex": [share]}}
    told = {**verdict, "metrics": [{**metric, "worstCase": {"lower": -0.3125, "upper": 0.0}}]}
    page = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    structure(page)
    assert "500 of 1,000" in page
    assert "−0.312" in page or "-0.312" in page
    silent = {"status": {"auditor": {**verdict, "metrics": [metric]}}}
    assert "not come" not in render_page(gather("m", report=silent, made=NOW))


def test_the_page_says_which_pass_rests_on_a_margin_and_what_it_promises() -> None:
    metric = {"name": "statisticalParityDifference", "attribute": "sex", "group": "f", "reference": "m"}
    metric |= {"verdict": "Pass", "value": -0.1, "lower": -0.115, "upper": -0.085, "thresholdLower": -0.1}
    told = {"verdict": "Pass", "metrics": [{**metric, "margin": 0.03, "withinMargin": True}]}
    page = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    structure(page)
    assert "≥ −0.1; margin 0.03" in page
    assert re.search(r"Pass</span> within the margin", page)
    assert "within the allowed bounds widened by the margin" in page
    told["metrics"] = [metric]
    without = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    assert "margin" not in without[without.index("<body") :]


@pytest.mark.parametrize("by_group", [True, False])
def test_the_page_says_what_coverage_was_promised_and_what_was_found(by_group: bool) -> None:
    one = {"group": "(all)", "rows": 1000, "covered": 912, "coverage": 0.912, "lower": 0.885, "upper": 0.934}
    one |= {"size": 1.25, "calibrationRows": 500, "threshold": 0.3125, "own": True}
    told = {"coverage": 0.9, "method": "LAC", "output": "prediction_set", "groupConditional": by_group, "overall": one}
    told |= {
        "minGroupRows": 100,
        "groups": {"sex": [{**one, "group": HOSTILE, "own": False, "covered": 34, "rows": 40}]},
    }
    documents = {"evaluation.json": {"conformal": told}}
    page = render_page(gather("m", report={}, made=NOW, documents=documents))
    structure(page)
    assert re.search(r"912 of 1,000.{0,80}91\.2 %.{0,80}88\.5 %.{0,80}1\.25.{0,80}0\.312", page, re.S)
    assert "34 of 40" in page
    assert "500, shared" in page
    assert ("have no promise each" in page) is by_group
    assert ("not for each group" in page) is not by_group


@pytest.mark.parametrize("reached", [True, False])
def test_the_page_says_what_training_was_mitigated_by(reached: bool) -> None:
    steps = [
        {"training": 0.25, "validation": 0.26, "accuracy": 0.875},
        {"training": 0.01, "validation": 0.03, "accuracy": 0.8125},
    ]
    told = {"method": "reductions", "constraint": "equalizedOdds", "maxDisparity": 0.0202, "steps": steps}
    documents = {"evaluation.json": {"mitigation": {**told, "shipped": 1, "reached": reached}}}
    page = render_page(gather("m", report={}, made=NOW, documents=documents))
    structure(page)
    assert "trained with mitigation of bias (reductions, equalizedOdds)" in page
    assert re.search(r"0\.25.{0,60}0\.26.{0,60}87\.5 %.{0,200}0\.01.{0,60}0\.03.{0,60}81\.2 %.{0,60}ships", page, re.S)
    assert ("(0.0202) was not reached" in page) is not reached
    without = render_page(gather("m", report={}, made=NOW, documents={"evaluation.json": {}}))
    assert "mitigation of bias" not in without


def test_the_page_shows_thresholds_by_group() -> None:
    rule = {"rows": 310, "favorable": 120, "upper": 0.61, "upperShare": 0.25, "lower": 0.4, "lowerShare": 0.75}
    rates = {"selectionRate": 0.492, "truePositiveRate": 0.81, "falsePositiveRate": None}
    fitted = {
        "objective": "accuracy", "attributes": ["sex"], "subject": "applicant", "key": "sha256:0123abcd", "rows": 620,
        "accuracy": 0.8, "groups": [{"group": "sex=<f>", **rule, **rates}], "heldOutDrawn": 17, "heldOutBase": 3,
    }  # fmt: skip
    told = {"method": "thresholds", "constraint": "demographicParity", "thresholds": fitted}
    page = render_page(gather("m", report={}, made=NOW, documents={"evaluation.json": {"mitigation": told}}))
    structure(page)
    assert "mitigated after training (thresholds, demographicParity)" in page
    assert "trained with mitigation" not in page
    assert "fitted on 620 rows that nothing else uses" in page
    cells = r"sex=&lt;f&gt;.{0,60}310.{0,60}25\.0 % above 0\.61, 75\.0 % above 0\.4.{0,90}49\.2 %.{0,60}81\.0 %.{0,60}–"
    assert re.search(cells, page, re.S)
    assert "the input applicant, under a key with SHA-256 0123abcd" in page
    assert "17 decisions are drawn, and 3 are by the model" in page


def test_a_subgroup_says_in_which_stratum_and_by_what_it_differs() -> None:
    one = {"measure": "truePositiveRate", "values": {"sex": "f"}, "within": {"department": "A"}, "rows": 40}
    told = {"verdict": "Pass", "slices": {"lookedAt": 9, "found": [one]}}
    page = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    structure(page)
    assert "department A" in page
    assert "selected of those who should be" in page


def test_live_coverage_is_told_by_group() -> None:
    def of(group: str, rows: int, covered: int, verdict: str) -> dict[str, object]:
        found = {"group": group, "rows": rows, "covered": covered, "verdict": verdict, "lower": 0.7, "upper": 0.8}
        return found | {"coverage": covered / rows if rows else None}

    told = {
        "promised": 0.9,
        "overall": of("(all)", 0, 0, "Unknown"),
        "groups": {"sex": [of(HOSTILE, 1234, 925, "Fail")]},
    }
    report = {"status": {"auditor": {"verdict": "Pass", "coverage": told}}}
    page = render_page(gather("m", report=report, made=NOW))
    structure(page)
    assert re.search(r"sex .{0,300}925 of 1,234.{0,200}75\.0 %.{0,200}Fail", page, re.S)
    assert "90.0 % of rows like the calibration rows" in page.replace("90 %", "90.0 %")


def test_subgroups_that_were_found_are_told() -> None:
    one = {"values": {"sex": "f", "race": HOSTILE}, "rows": 1234, "rate": 0.125, "difference": -0.375}
    one |= {"lower": -0.5, "upper": -0.25, "logEvidence": 12.5}
    told = {"verdict": "Pass", "slices": {"lookedAt": 90, "leftOut": 7, "found": [one]}}
    page = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    structure(page)
    assert "90 combinations of two or three values, one protected at least," in page
    assert "7 smaller ones were not" in page
    assert re.search(r"sex f, race .{0,300}1,234.{0,200}12\.5 %.{0,200}0\.375.{0,200}0\.5.{0,20}0\.25", page, re.S)
    told["slices"] = {"lookedAt": 90, "leftOut": 0, "found": []}
    nothing = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    assert "None was found." in nothing
    assert "smaller ones were not" not in nothing
    plain = {"status": {"auditor": {"verdict": "Pass"}}}
    assert "Subgroups" not in render_page(gather("m", report=plain, made=NOW))


def test_calibration_is_drawn_with_its_bands() -> None:
    bins = [
        {"low": 0.2, "high": 0.3, "rows": 40, "score": 0.25, "rate": 0.5, "lower": 0.125, "upper": 0.875},
        {"low": 0.7, "high": 0.8, "rows": 60, "score": 0.75, "rate": 0.625, "lower": 0.375, "upper": 0.8125},
    ]
    told = {"verdict": "Pass", "calibration": {"sex": [{"group": HOSTILE, "bins": bins}, {"group": "m", "bins": []}]}}
    page = render_page(gather("m", report={"status": {"auditor": told}}, made=NOW))
    structure(page)
    assert len(re.findall(r'<polygon points="[^"]+" class="reach s0"/?>', page)) == 1
    assert "Calibration by sex, of rows with labels" in page
    assert re.search(r"0\.2 to 0\.3.{0,200}40.{0,200}0\.25.{0,200}0\.5.{0,200}\[0\.125, 0\.875\]", page, re.S)
    plain = {"status": {"auditor": {"verdict": "Pass"}}}
    assert "Calibration by" not in render_page(gather("m", report=plain, made=NOW))


def test_the_command_writes_the_page_or_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, key in (("kek", KEY), ("model-kek", MODEL_KEY)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    report = tmp_path / "report.json"
    report.write_bytes(msgspec.json.encode(REPORT))
    words = [
        "html",
        "--model",
        "admissions",
        "--report",
        str(report),
        "--archive",
        str(root),
        "--output",
        str(tmp_path / "page.html"),
    ]
    words += ["--model-key", str(tmp_path / "model-kek")]
    assert main([*words, "--key-file", str(tmp_path / "kek")]) == 0
    structure((tmp_path / "page.html").read_text())
    capsys.readouterr()
    for bad, message in (
        (["--key-file", str(tmp_path / "none")], "No such file"),
        (["--key-file", str(tmp_path / "kek"), "--checkpoint", str(report)], "no status.archive.checkpoint"),
    ):
        assert main([*words, *bad]) == 1
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_the_console_is_told_the_same_as_the_page_and_of_one_decision_its_proofs(root: Path, tmp_path: Path) -> None:
    for name, key in (("kek", KEY), ("model-kek", MODEL_KEY)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    out = tmp_path / "facts.json"
    words = ["facts", "--model", "admissions", "--archive", str(root), "--output", str(out)]
    words += ["--key-file", str(tmp_path / "kek"), "--model-key", str(tmp_path / "model-kek")]

    def told(*more: str) -> Any:
        assert main([*words, *more]) == 0
        return msgspec.json.decode(out.read_bytes())

    whole = told()
    assert (whole["ledger"]["error"], whole["ledger"]["size"]) == ("", 11)
    assert (whole["ledger"]["counts"]["prediction"], whole["ledger"]["explained"]) == (6, 1)
    assert {one["type"] for one in whole["ledger"]["recent"]} >= {"prediction", "verdict"}
    assert len([one for one in whole["ledger"]["recent"] if one["type"] == "prediction"]) == 5
    assert {clause["verdict"] for clause in whole["clauses"]} >= {"no evidence"}
    assert HOSTILE not in whole["page"]
    assert "<style" not in whole["page"]
    one = told("--id", "req-A")
    assert [entry["type"] for entry in one["entries"]] == ["prediction", "explanation"]  # not the other model's
    assert all(entry["hashes"] for entry in one["entries"])
    assert one["request"]["features"]["note"][0] == "call <PHONE_NUMBER>"
    assert one["explanations"][0]["attributions"][0]["feature"] == "department"
    assert told("--id", "nobody")["entries"] == []


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6), count=st.integers(2, 9))
def test_ticks_are_round_and_cover(low: float, width: float, count: int) -> None:
    marks = ticks(low, low + width, count)
    assert marks[0] <= low + width * 1e-6 + 1e-9
    assert marks[-1] >= low + width - width * 1e-6 - 1e-9
    assert 2 <= len(marks) <= count + 3
    steps = {round(b - a, 6) for a, b in pairwise(marks)}
    assert max(steps) - min(steps) <= 1e-5 * max(1.0, abs(max(steps)))


def test_plots_say_their_values_and_survive_nothing() -> None:
    plot = forest("t", [Estimate("a", 0.1, 0.0, None), Estimate("b", None)], "x", (-0.1, None))
    assert "a +0.100 [+0.000, ∞]; b not defined" in plot
    assert "allowed by the manifest" in plot
    assert "loss over epoch: l from 1 to 0.5" in curves("t", [Line("l", [(1, 1.0), (2, 0.5)])], "epoch", "loss")
    assert "g: a 50 %" in dots("t", {"g": [Estimate("a", 0.5)]}, ["a"], "x")
    assert "a −0.200" in signed_bars("t", [Estimate("a", -0.2)], "x")
    assert (curves("t", [], "", ""), dots("t", {}, [], ""), forest("t", [], ""), signed_bars("t", [], "")) == (
        "",
        "",
        "",
        "",
    )


def test_long_labels_keep_both_ends_and_guides_are_in_no_series() -> None:
    label = "adjustedStatisticalParityDifference, a very long name of a group"
    for drawn in (forest("t", [Estimate(label, 0.1, 0.0, 0.2)], "x"), signed_bars("t", [Estimate(label, 0.1)], "x")):
        (shown,) = re.findall(r"<text[^>]*>(adjusted[^<]*)</text>", drawn)
        assert len(shown) == 28
        assert shown.endswith("ame of a group")
        assert "…" in shown
    chart = curves("t", [Line("own", [(0, 0.0), (1, 1.0)]), Line("guide", [(0, 0.0), (1, 1.0)], guide=True)], "x", "y")
    assert 'class="curve guide"' in chart
    assert "guide</text>" not in chart
    assert "own</text>" in chart


def test_markup_escapes_what_it_did_not_make() -> None:
    assert (
        tag("a", "<b>", title='"', class_="x", data_n=1.5, hidden=False)
        == '<a title="&quot;" class="x" data-n="1.5">&lt;b&gt;</a>'
    )
    assert tag("p", Safe("<i/>"), None, [1, "&"]) == "<p><i/>1&amp;</p>"
