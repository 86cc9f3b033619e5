"""Quality and importances of explanations by window: what adds up, what is recorded, what survives a restart, what a
report shows."""

import errno
import json

import numpy as np
import pytest

from governed_api.page.markup import Safe
from governed_serving.crypto import DirectoryStore, Kek, Keyring
from governed_serving.dossier.sections import _quality
from governed_serving.dossier.served import Served, _importances
from governed_serving.explainer.overall.drift import ImportanceMonitor
from governed_serving.explainer.overall.quality_windows import MEASURES, QualityWindows, measured
from governed_serving.explainer.service import watch as watch_module
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.explainer.service.recorder import ExplanationRecorder
from governed_serving.explainer.service.watch import Watch
from governed_serving.records import EventRecord, ExplanationRecord
from support.damage import flipped
from unit.explainer import models
from unit.explainer.beds import Bed, MemoryJournal, Xor

PLAYERS = ("age", "income")


def explanation(age=2.0, income=1.0, order=0.8, width=0.1):
    entries = [
        {"feature": name, "attribution": value, "interval": [value - width, value + width]}
        for name, value in (("age", age), ("income", income))
    ]
    return {
        "method": "exact",
        "exact": width == 0,
        "attributions": entries,
        "fidelity": {"order": order},
        "complexity": 1.9,
        "additivity_residual": -1e-9,
    }


def test_measures_of_one_explanation():
    found = measured(explanation())
    assert found == pytest.approx({"faithfulness": 0.8, "complexity": 1.9, "additivity_gap": 1e-9, "uncertainty": 0.1})
    assert set(measured(explanation() | {"stability": 0.5})) == set(MEASURES)
    assert measured({"method": "anchors", "precision": 1.0}) == {}
    assert "faithfulness" not in measured(explanation() | {"fidelity": {"order": None}})


def test_windows_of_replicas_add_up_to_one_processs():
    rng = np.random.default_rng(0)
    whole, left, right = QualityWindows(60), QualityWindows(60), QualityWindows(60)
    for index in range(200):
        one, time = explanation(order=float(rng.random())), float(rng.uniform(0, 600))
        whole.observe(time, one)
        (left if index % 3 else right).observe(time, one)
    left.merge(right)
    assert [w["start"] for w in left.report()["windows"]] == list(range(0, 600, 60))
    for a, b in zip(left.report()["windows"], whole.report()["windows"], strict=True):
        assert a["explanations"] == b["explanations"]
        for name in a["measures"]:
            assert a["measures"][name] == pytest.approx(b["measures"][name], abs=1e-6)


def test_memory_is_bounded_and_a_window_closes_once():
    windows = QualityWindows(60, kept=3)
    closed = [w.start for time in range(0, 600, 20) for w in windows.observe(float(time), explanation())]
    assert closed == list(range(0, 540, 60))
    assert sorted(windows.windows) == [420, 480, 540]
    assert windows.observe(100.0, explanation()) == []


def watch(folder, journal, now, metrics=None, sealer=None, **monitor):
    names = ExplanationRecorder(journal, "loans", "r1")
    made = ImportanceMonitor(PLAYERS, **monitor)
    return Watch(
        PLAYERS,
        names,
        metrics or ExplainerMetrics("default", "loans"),
        folder,
        sealer or Xor(),
        monitor=made,
        windows=QualityWindows(60),
        clock=lambda: now[0],
    )


async def test_a_closed_window_is_recorded_and_state_survives_a_restart(tmp_path):
    journal, now, metrics = MemoryJournal(), [0.0], ExplainerMetrics("default", "loans")
    first = watch(tmp_path, journal, now, metrics)
    for order in (0.6, 0.8):
        await first.observe({"explanations": [explanation(order=order)]})
    assert (
        b'governed_explainer_quality{measure="faithfulness",model_name="loans",namespace="default"} 0.7'
        in metrics.text()
    )
    first.save()
    assert b"faithfulness" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    second = watch(tmp_path, journal, now)
    now[0] = 61.0
    await second.observe({"explanations": [explanation()]})
    (event,) = journal.records
    assert isinstance(event, EventRecord)
    assert (event.type, event.id) == ("explanationQuality", "explanation-quality-0")
    assert (event.summary["explanations"], event.summary["faithfulness"]) == (2, pytest.approx(0.7))
    assert json.loads(event.body)["measures"]["faithfulness"]["least"] == 0.6
    assert second.monitor.report()["reference"]["samples"] == 3


@pytest.mark.parametrize("name", ["importances.state", "quality.state"])
async def test_a_damaged_state_is_begun_anew_and_stops_no_start(tmp_path, name):
    keyset = Keyring(Kek(bytes(32)), DirectoryStore(tmp_path / "keysets")).keyset("journal")
    journal, folder = MemoryJournal(), tmp_path / "kept"
    first = watch(folder, journal, [0.0], sealer=keyset)
    await first.observe({"explanations": [explanation()]})
    first.save()
    (folder / name).write_bytes(flipped((folder / name).read_bytes()))
    second = watch(folder, journal, [0.0], sealer=keyset)
    lost = name.startswith("importances")
    assert (second.monitor.report()["reference"]["samples"], len(second.windows.windows)) == (
        (0, 1) if lost else (1, 0)
    )
    assert (folder / f"{name}.damaged").exists()
    second.save()
    watch(folder, journal, [0.0], sealer=keyset)


async def test_a_full_disk_costs_neither_an_answer_nor_the_end_of_the_process(tmp_path, monkeypatch, caplog):
    journal, now = MemoryJournal(), [0.0]
    made = watch(tmp_path, journal, now)
    await made.observe({"explanations": [explanation()]})
    made.save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(watch_module, "replace_file", full)
        now[0] = 61.0
        await made.observe({"explanations": [explanation()]})
        made.save()
    assert [record.type for record in journal.records] == ["explanationQuality"], "what must be provable is recorded"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert caplog.text.count("couldn't be saved; free space on the spool") == 2
    made.save()
    assert watch(tmp_path, journal, now).monitor.report()["reference"]["samples"] == 2


async def test_importances_that_move_raise_an_alarm_of_their_own_kind(tmp_path):
    journal, metrics = MemoryJournal(), ExplainerMetrics("default", "loans")
    made = watch(tmp_path, journal, [0.0], metrics, reference=20, window=20)
    rng = np.random.default_rng(1)
    for index in range(40):
        age = rng.uniform(0.9, 1.1) * (2 if index < 20 else 0.2)
        await made.observe({"explanations": [explanation(age=age)]})
    (alarm,) = journal.records
    assert (alarm.type, alarm.id) == ("importanceDrift", "importance-drift-1")
    assert alarm.summary["player"] in PLAYERS  # of two shares, one falls by what the other gains
    assert b"governed_explainer_importance_alarms_total" in metrics.text()
    assert made.monitor.distance > 0.3


async def test_a_report_recomputes_the_windows_from_the_ledger(tmp_path):
    bed = Bed(tmp_path)
    for index in range(3):
        await bed.client.post("/v2/models/loans/explain", content=models.request(models.table(2, index), f"q{index}"))
    served = Served()
    for index, record in enumerate(bed.journal.records):
        assert isinstance(record, ExplanationRecord)
        _importances(served, ExplanationRecord(record.id, "loans", "r1", 3600.0 * (index // 2), record.body))
    report = served.quality.report()["windows"]
    assert [(w["start"], w["explanations"], w["exact"]) for w in report] == [(0, 4, 4), (3600, 2, 2)]
    assert report[0]["measures"]["faithfulness"]["mean"] > 0.3
    page = _quality(served.quality)
    assert isinstance(page, Safe)
    assert "1970-01-01T01:00:00" in page
    assert "faithfulness" in page
