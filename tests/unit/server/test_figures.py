"""What a server reports of itself: figures of its own requests, seldom when stable, within seconds on trial."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api.latency import quantile
from governed_serving.report import ReportWriter
from governed_serving.report.writer import Clocks
from governed_serving.server.errors import (
    DeadlineExceeded,
    JournalUnavailable,
    NoRoom,
    PredictionFailed,
    ServerError,
)
from governed_serving.server.explanation import ExplanationRefused
from governed_serving.server.figures import SNAPSHOT, WINDOW, Figures
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.reporting import TICK, Reporting
from governed_serving.server.settings import ServerSettings

Status = dict[str, Any]


class Bed:
    """A server's metrics and reporting, and the patches that an API server gets."""

    def __init__(self, folder: Path, track: str) -> None:
        self.clock, self.up = 0.0, True
        self.patches: list[Status] = []
        self.metrics = ServerMetrics("ns", "credit")
        environment = {
            "GOVERNED_SPEC": "spec",
            "GOVERNED_REVISION": "r1",
            "GOVERNED_POD_NAME": "pod-1",
            "GOVERNED_TRACK": track,
        }
        interval = TICK if track == "canary" else None
        writer = ReportWriter(
            "https://kubernetes.default.svc/x", account=folder, interval=interval,
            clocks=Clocks(lambda: self.clock, lambda _: None, later=lambda *_: None),
            transport=httpx.MockTransport(self._answer),
        )  # fmt: skip
        self.reporting = Reporting(ServerSettings.from_environment(environment), lambda: self.metrics, writer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            return httpx.Response(403)
        self.patches.append(json.loads(request.content)["status"]["revisions"]["r1"]["server"]["pod-1"])
        return httpx.Response(200)

    def serve(self, requests: int, code: int = 200) -> None:
        self.metrics.requests["infer", code] += requests
        for _ in range(requests):
            self.metrics.seconds.observe(0.004)

    def run(self, seconds: float, per_tick: int = 0) -> None:
        for _ in range(int(seconds / TICK)):
            self.clock += TICK
            self.serve(per_tick)
            self.reporting.look()


def test_errors_that_clients_alone_bring_about_are_not_held_against_a_revision(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "canary")
    for error in (NoRoom("bodies"), ExplanationRefused("budget", "out-of-time")):
        bed.metrics.counted("infer", error.status, client_made=error.client_made)
    for error in (ServerError("bug"), PredictionFailed("model"), JournalUnavailable("disk"), DeadlineExceeded("slow")):
        bed.metrics.counted("infer", error.status, client_made=error.client_made)
    bed.metrics.counted("infer", 413, client_made=True)
    bed.metrics.counted("infer", 200)
    figures = Figures(lambda: bed.metrics).take()
    assert (figures["requests"], figures["errors"]) == (8, 4)


def test_on_trial_every_tick_with_requests_is_told_and_idleness_is_silent(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "canary")
    bed.reporting.say(ready=True, verified=True)
    bed.run(30, per_tick=2)
    assert [p.get("requests") for p in bed.patches] == [None, 2, 4, 6, 8, 10, 12]
    assert (bed.patches[0]["ready"], bed.patches[0]["verified"]) == (True, True)
    before = len(bed.patches)
    bed.run(120)
    assert len(bed.patches) == before


def test_a_stable_server_tells_its_first_requests_soon_and_then_seldom(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "stable")
    bed.reporting.say(ready=True, verified=True)
    bed.run(3600, per_tick=50)
    told = [p["requests"] for p in bed.patches[1:]]
    assert told[0] == 50
    assert len(told) <= 12 + 10  # each five minutes, and at each doubling
    bed.serve(1, code=503)
    bed.run(TICK)
    assert bed.patches[-1]["errors"] == 1


def test_errors_are_the_services_own_and_latencies_are_recent(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "canary")
    clock = [0.0]
    figures = Figures(lambda: bed.metrics, lambda: clock[0])
    figures.take()
    bed.serve(3, code=400)
    bed.serve(2, code=429)
    bed.serve(4, code=500)
    found = figures.take()
    assert (found["requests"], found["errors"], sum(found["latencyCounts"])) == (9, 4, 9)
    median = quantile(found["latencyCounts"], 0.5)
    assert median is not None
    assert 0.0032 < median < 0.005
    for _ in range(int(2 * WINDOW / SNAPSHOT)):
        clock[0] += SNAPSHOT
        found = figures.take()
    assert (found["requests"], found["errors"], found["latencyCounts"]) == (9, 4, [])


def test_what_could_not_be_written_is_written_when_the_api_server_is_back(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "stable")
    bed.up = False
    bed.reporting.say(ready=False, verified=False, message="digest differs")
    bed.run(10)
    assert not bed.patches
    bed.up = True
    bed.run(10)
    assert {k: bed.patches[-1][k] for k in ("ready", "verified", "message")} == {
        "ready": False, "verified": False, "message": "digest differs",
    }  # fmt: skip


@pytest.mark.parametrize("told", [False, True])
def test_figures_are_taken_only_where_there_is_a_report(tmp_path: Path, told: bool) -> None:
    asked: list[bool] = []
    environment = {"GOVERNED_SPEC": str(tmp_path)}
    if told:
        environment["GOVERNED_REPORT"] = (tmp_path / "report.json").as_uri()
    reporting = Reporting(ServerSettings.from_environment(environment), lambda: asked.append(True))
    reporting.say(ready=True, verified=None)
    reporting.look()
    assert (bool(asked), (tmp_path / "report.json").exists()) == (told, told)
