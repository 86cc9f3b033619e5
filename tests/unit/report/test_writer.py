"""The report's writer: own part only, at once when it matters, seldom otherwise, never in the way."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from governed_api.report import PodVerdict
from governed_api.verdict import BiasVerdict
from governed_serving.report import ReportWriter
from governed_serving.report.writer import Clocks, merge_patch, of_pod

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Server:
    """Answers PATCH with the given statuses, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[httpx.Request] = []
        self.clock = 0.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.statuses.pop(0) if self.statuses else 200, text="because")

    def writer(self, account: Path) -> ReportWriter:
        return ReportWriter(
            "https://kubernetes.default.svc/apis/governedmodels.io/v1alpha1/namespaces/ns/governancereports/credit",
            account=account,
            transport=httpx.MockTransport(self),
            clocks=Clocks(lambda: self.clock, lambda _: None, lambda: NOW, self.later),
        )

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        self.timers.append((self.clock + seconds, call))

    def pass_time(self) -> None:
        """To the timer that is due, which goes off."""
        when, call = self.timers.pop(0)
        self.clock = when
        call()


@pytest.mark.parametrize("status", ["", "/status"])
def test_an_annotation_of_another_report_of_the_namespace(tmp_path: Path, status: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/governancereports/")[2]
        return httpx.Response(200, json={"metadata": {"annotations": {"a": f"of {name}"}}})

    base = "https://kubernetes.default.svc/apis/governedmodels.io/v1alpha1/namespaces/ns/governancereports/credit"
    writer = ReportWriter(base + status, account=tmp_path, transport=httpx.MockTransport(answer))
    assert (writer.annotation("a", report="loans"), writer.annotation("b", report="loans")) == ("of loans", "")
    assert writer.annotation("a") == f"of credit{status}"
    assert not writer.local


def test_what_waits_goes_out_when_it_is_due_without_another_change(tmp_path: Path) -> None:
    server = Server()
    writer = server.writer(tmp_path)
    assert writer.update("trainer", {"phase": "Running"})
    assert server.timers == []
    for progress in (0.1, 0.2, 0.3):
        server.clock += 50
        assert not writer.update("trainer", {"progress": progress})
    assert len(server.timers) == 1, "one timer, however many changes wait"
    server.pass_time()
    assert server.clock == 300
    assert json.loads(server.requests[-1].content)["status"]["trainer"]["progress"] == 0.3
    assert (writer.waiting, server.timers) == (False, [])


def test_a_report_that_cant_be_written_is_tried_more_and_more_seldom(tmp_path: Path) -> None:
    server = Server(*[403] * 12)
    writer = server.writer(tmp_path)
    assert not writer.update("trainer", {"phase": "Running"})
    waits = []
    while server.timers:
        waits.append(server.timers[0][0] - server.clock)
        server.pass_time()
    assert len(server.requests) == 13
    assert not writer.waiting
    assert 5 <= waits[0] <= 10
    assert all(150 <= wait <= 300 for wait in waits[7:])
    assert waits[5] > waits[0]


def test_parts_of_several_writers_are_merged_in_the_file(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/reports/credit.json"
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "credit.json").write_text(
        '{"kind": "GovernanceReport", "status": {"server": {"ready": true}}}'
    )
    writers = [ReportWriter(url, clocks=Clocks(now=lambda: NOW)) for _ in range(4)]

    def work(number: int) -> None:
        for i in range(20):
            writers[number].update(of_pod("r1", "server", f"pod-{number}"), {"requests": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert writers[0].update("trainer", {"phase": "Running", "progress": 0.5})
    assert writers[0].update("trainer", {"phase": "Succeeded", "progress": None})
    found = json.loads((tmp_path / "reports" / "credit.json").read_text())
    assert found["kind"] == "GovernanceReport"
    assert found["status"]["server"] == {"ready": True}
    assert found["status"]["trainer"] == {"observedAt": "2026-01-01T00:00:00.000Z", "phase": "Succeeded"}
    pods = found["status"]["revisions"]["r1"]["server"]
    assert {k: v["requests"] for k, v in pods.items()} == {f"pod-{n}": 19 for n in range(4)}


def test_the_cluster_gets_a_merge_patch_of_the_status(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    server = Server()
    assert server.writer(tmp_path).update("archive", {"size": 3})
    request = server.requests[0]
    assert request.method == "PATCH"
    assert request.url.path.endswith("/governancereports/credit/status")
    assert request.headers["content-type"] == "application/merge-patch+json"
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.content) == {"status": {"archive": {"observedAt": "2026-01-01T00:00:00.000Z", "size": 3}}}


STALE = {
    "verdict": "Fail",
    "ledgerIndex": 7,
    "slices": {"found": [1]},
    "missing": {"age": 3},
    "attributes": {"age": {}},
}
"""What an earlier revision's auditor left."""


def test_all_of_a_part_is_told_in_the_file_whoever_wrote_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "credit.json"
    path.write_text(json.dumps({"status": {"auditor": STALE, "trainer": {"metrics": {"auc": 1, "old": 2}}}}))
    writer = ReportWriter(f"file://{path}", clocks=Clocks(now=lambda: NOW))
    writer.update("auditor", PodVerdict(verdict="Unknown", samples=0))
    writer.update("trainer", {"metrics": {"auc": 0.5}})
    status = json.loads(path.read_bytes())["status"]
    assert status["auditor"] == {"observedAt": "2026-01-01T00:00:00.000Z", "verdict": "Unknown", "samples": 0}
    assert status["trainer"]["metrics"] == {"auc": 0.5}
    writer.update("auditor", {"refused": "why"})
    writer.update("auditor", {"samples": 3})
    assert json.loads(path.read_bytes())["status"]["auditor"]["refused"] == "why", "named fields leave the others"


def test_the_cluster_is_told_what_of_a_part_goes(tmp_path: Path) -> None:
    class Answering(Server):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            answer = super().__call__(request)
            return httpx.Response(200, json={"status": {"auditor": STALE}}) if request.method == "GET" else answer

    server = Answering()
    writer = server.writer(tmp_path)
    verdict = BiasVerdict(verdict="Unknown", samples=0, missing={"sex": 1}, attributes={})
    assert writer.update("auditor", verdict)
    assert [r.method for r in server.requests] == ["GET", "PATCH"]
    told = json.loads(server.requests[-1].content)["status"]["auditor"]
    left = merge_patch(STALE, told)
    assert left == {"observedAt": left["observedAt"], "verdict": "Unknown", "samples": 0, "attributes": {},
                    "missing": {"sex": 1}}  # fmt: skip
    assert not writer.update("auditor", verdict.changed(samples=2))
    assert not writer.update("auditor", {"openContests": 1})
    server.pass_time()
    told = json.loads(server.requests[-1].content)["status"]["auditor"]
    assert (told["samples"], told["openContests"], told["slices"]) == (2, 1, None), "named fields behind all of it"


def test_a_changed_verdict_goes_at_once_and_the_rest_waits(tmp_path: Path) -> None:
    server = Server()
    writer = server.writer(tmp_path)
    assert writer.update("auditor", {"verdict": "Unknown", "samples": 1})
    for samples in range(2, 50):
        server.clock += 1
        assert not writer.update("auditor", {"verdict": "Unknown", "samples": samples})
    assert writer.update("auditor", {"verdict": "Fail", "samples": 50})
    server.clock += 299
    assert not writer.update("auditor", {"verdict": "Fail", "samples": 51})
    server.clock += 1
    assert writer.update("auditor", {"verdict": "Fail", "samples": 52})
    assert [json.loads(r.content)["status"]["auditor"]["samples"] for r in server.requests] == [1, 50, 52]


def test_several_parts_go_in_one_write_and_each_counts_as_changed_by_itself(tmp_path: Path) -> None:
    server = Server()
    writer = server.writer(tmp_path)
    own = of_pod("r1", "auditor", "p")
    assert writer.update_all({own: {"verdict": "Pass"}, ("auditor",): {"verdict": "Pass", "samples": 4}})
    (request,) = server.requests
    status = json.loads(request.content)["status"]
    assert status["revisions"]["r1"]["auditor"]["p"] == {"observedAt": "2026-01-01T00:00:00.000Z", "verdict": "Pass"}
    assert status["auditor"]["samples"] == 4
    assert not writer.update(own, {"verdict": "Pass", "samples": 5})
    assert writer.waiting
    assert writer.update(own, {"verdict": "Fail", "samples": 6})
    assert not writer.waiting
    assert not writer.update(own, {"samples": 7})
    assert writer.update(own, {"samples": 8}, at_once=True)


def test_conflicts_and_server_errors_are_tried_again(tmp_path: Path) -> None:
    server = Server(409, 503, 500)
    writer = server.writer(tmp_path)
    assert writer.update("archive", {"size": 3})
    assert len(server.requests) == 4
    assert writer.failures == 0


def test_a_refusal_is_said_once_and_kept_for_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(403, 403)
    writer = server.writer(tmp_path)
    assert not writer.update("auditor", {"verdict": "Pass"})
    assert not writer.update("auditor", {"verdict": "Fail"})
    assert len(server.requests) == 1
    server.clock += 6
    assert not writer.update("auditor", {"samples": 3})
    assert writer.failures == 2
    assert capsys.readouterr().err.count("403 because") == 1
    assert writer.flush()
    assert json.loads(server.requests[-1].content)["status"]["auditor"]["verdict"] == "Fail"


def test_a_broken_file_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    path.write_text("{")
    writer = ReportWriter(f"file://{path}")
    assert not writer.update(of_pod("r1", "server", "p"), {"ready": True})
    assert writer.failures == 1
    assert "report not written, retrying" in capsys.readouterr().err


def test_other_addresses_are_refused() -> None:
    with pytest.raises(ValueError, match="file:// or https://"):
        ReportWriter("/tmp/report.json")


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_is_rfc_7396(target: dict, patch: dict, result: dict) -> None:
    assert merge_patch(target, patch) == result
