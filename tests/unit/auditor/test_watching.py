"""From the journal to an alarm that a person sees: folded, checked twice, recorded, in metrics and report; over a
restart as well."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from governed_serving.auditor.service.checks import Checks
from governed_serving.auditor.service.decision_review import DecisionReview
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.workers import check as checking
from governed_serving.blackbox.errors import PredictorAway
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.fairness.monitoring.inputs import InputDrift
from governed_serving.fairness.monitoring.reference import read
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import EventRecord
from governed_serving.report.writer import ReportWriter

from .chunks import OneChunk
from .test_monitors import BIAS, MANIFEST, frame, reference
from .workers import Workers

KNOWN = read(reference())


class Place:
    """A spool, and one auditor's parts over it."""

    def __init__(self, root: Path, keyset: Keyset, decide: Any, background: Any = None) -> None:
        self.root, self.cipher = root, SegmentCipher(keyset)
        fold = Fold(BIAS, "r1", MANIFEST)
        self.live = Live(fold, MANIFEST, KNOWN)
        self.journal = Journal(root, "auditor-pod", self.cipher, "PageCache")
        tail = Tail(root, keyset, self.cipher, fold, self.live)
        self.checks = Checks(self.live, fold.protected, MANIFEST, background or {}, decide)
        report = ReportWriter(f"file://{root}/report.json")
        self.workers = Workers("loans", self.journal, tail, self.checks, report)

    def events(self) -> list[EventRecord]:
        found = JournalReader(self.root, "auditor-pod", self.cipher).read()
        return [r for _, r in found if isinstance(r, EventRecord) and r.summary.get("subject")]


def serve(place: Place, part: int, shift: float) -> None:
    with Journal(place.root, "server-pod", place.cipher, "PageCache") as journal:
        journal.append_blocking(frame(2000, shift, 2000 * part, seed=part))


def test_an_alarm_is_raised_recorded_and_ended(tmp_path: Path, keyset: Keyset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "CHECK_SECONDS", 0.0)
    place = Place(tmp_path, keyset, lambda columns: columns["sex"] == "m")
    for part, shift in enumerate((12.0, 12.0, 0.0, 0.0)):
        serve(place, part, shift)
        place.workers.fold_all()
        place.workers.look()
        if part == 1:
            raised = dict(place.live.alarms.raised)
            metrics = AuditorMetrics("default", "loans")
            metrics.findings(place.checks.findings, raised)
            text = metrics.text().decode()
            place.workers.state.counted.save()
            place.journal.close()
            place = Place(tmp_path, keyset, lambda columns: columns["sex"] == "m")
    assert set(raised) == {"drift/income", "flips/sex=f", "flips/sex=m"}, "no other column has moved"
    assert 'governed_auditor_alarm{kind="drift",name="loans",namespace="default",subject="income"} 1.0' in text
    assert 'kind="flips",name="loans",namespace="default",subject="sex=m"' in text
    told = [(e.summary["subject"], e.summary["state"]) for e in place.events()]
    assert ("drift/income", "raised") in told
    assert told[-1] == ("drift/income", "ended")
    assert told.count(("flips/sex=m", "raised")) == 1, "an alarm that lasts is not told again, after a restart neither"
    assert sorted(place.live.alarms.raised) == ["flips/sex=f", "flips/sex=m"]
    report = json.loads((tmp_path / "report.json").read_bytes())["status"]["auditor"]
    assert report["alarms"] == ["flips/sex=f", "flips/sex=m"]
    rows, flipped = place.live.flips["flips/sex=m"]
    assert (flipped, rows > 200) == (rows, True), "whoever is made a man is favoured"


def test_what_other_replicas_saw_counts_in_every_finding(
    tmp_path: Path, keyset: Keyset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three replicas has shifted rows: the windows of all are one, and so are the rows in which the attribute
    was swapped."""
    monkeypatch.setattr(checking, "CHECK_SECONDS", 0.0)
    background = {"income": np.random.default_rng(3).normal(50, 10, 500).tolist(), "sex": ["f", "m"] * 250}
    other = Place(tmp_path / "other", keyset, lambda columns: columns["sex"] == "m", background)
    serve(other, 0, 0.0)
    other.workers.fold_all()
    other.workers.look()
    told = msgspec.structs.replace(other.live._fold.tally(), beside=other.live.beside())
    ended = msgspec.structs.replace(told, beside=msgspec.structs.replace(told.beside, drift={}, inputs={}))

    place = Place(tmp_path / "own", keyset, lambda columns: columns["sex"] == "m", background)
    serve(place, 0, 12.0)
    place.workers.fold_all()
    place.workers.check.replicas = SimpleNamespace(tallies=[told, told, ended], running=[told, told])  # type: ignore[assignment]
    place.workers.look()
    found = {one.subject: one for one in place.checks.findings}
    alone = {one.column: one.psi for one in place.live.drift.compared()}
    assert found["drift/income"].value < alone["income"] / 4
    assert found["drift/income"].value == place.live.drift.compared([told.beside.drift] * 2)[0].psi
    whole = found["drift/(all inputs)"].figures
    (own,) = place.live.inputs.values()
    assert whole["rows"] == 3 * own[0] == 1500, "a sample of each that runs"
    assert whole["mmd2"] < other_alone(place, background) / 2
    rows, flipped = place.live.flips["flips/sex=m"]
    others = told.beside.flips["flips/sex=m"]
    assert found["flips/sex=m"].figures["rows"] == rows + 3 * others[0] > rows > 0
    assert found["flips/sex=m"].figures["flipped"] == flipped + 3 * others[1]


def other_alone(place: Place, background: Any) -> float:
    """MMD² of the shifted replica's last look by itself."""
    inputs = InputDrift(background, (), 200)
    fresh = {"income": np.zeros(1, np.float32), "sex": np.array(["f"], object)}
    assert inputs.sums(fresh).keys() == place.live.inputs.keys(), "another process gives the columns the same name"
    found = inputs.compared(place.live.inputs)
    assert found is not None
    return found[0].statistic


def test_a_predictor_that_is_away_is_counted_and_the_rest_goes_on(tmp_path: Path, keyset: Keyset) -> None:
    def away(_: Any) -> Any:
        raise PredictorAway("not there")

    place = Place(tmp_path, keyset, away)
    serve(place, 0, 0.0)
    place.workers.fold_all()
    place.workers.look()
    assert place.checks.flip_failures == 1
    assert any(one.subject.startswith("proxies/") for one in place.checks.findings)
    assert place.workers.checking.failure is None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What an explainer, which answers all, was asked."""
    found: list[dict[str, Any]] = []

    class Answer:
        def json(self) -> dict[str, Any]:
            return {"explanations": []}

    def post(url: str, *, json: dict[str, Any], **_: Any) -> Answer:
        found.append({"url": url, **json})
        return Answer()

    monkeypatch.setattr("httpx.post", post)
    return found


def test_a_review_puts_the_very_row_to_the_explainer(
    tmp_path: Path, keyset: Keyset, asked: list[dict[str, Any]]
) -> None:
    place = Place(tmp_path, keyset, None)
    serve(place, 0, 0.0)
    chunk = JournalReader(tmp_path, "server-pod", place.cipher).chunk(0)
    assert chunk is not None
    why = DecisionReview(OneChunk("loans", chunk.data), place.cipher, "http://127.0.0.1:1")  # type: ignore[arg-type]
    entry = {"id": "request-7", "blob": chunk.digest, "frame": 0, "index": 7, "ledgerIndex": 3}
    assert set(why.of(entry)) == {"explanation", "counterfactual"}
    shown = frame(2000, 0.0, 0, seed=0)
    income = float(np.frombuffer(shown.features["income"].data, "<f4")[7])
    assert [one["parameters"] for one in asked] == [{}, {"method": "counterfactual"}]
    for one in asked:
        assert (one["url"], one["id"]) == ("http://127.0.0.1:1/v2/models/loans/explain", "request-7")
        tensors = {t["name"]: t for t in one["inputs"]}
        assert (tensors["income"]["data"], tensors["income"]["shape"]) == ([income], [1, 1])
        assert tensors["sex"]["data"][0] in ("f", "m")
    nobody = DecisionReview(OneChunk("loans", b""), place.cipher, "")  # type: ignore[arg-type]
    assert "runs no explainer" in nobody.of(entry)["explanation"]["error"]
