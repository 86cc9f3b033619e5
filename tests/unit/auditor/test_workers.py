"""Workers run once, and the scheduler that runs them over and over: nothing that a worker raises ends it or stays
unseen."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from governed_api.governance import Bias
from governed_api.verdict import BiasVerdict
from governed_serving.archive.errors import Unreachable
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import Settled
from governed_serving.auditor.service.labels import Row
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.process import EXPECTED
from governed_serving.auditor.service.replicas import OtherReplicas
from governed_serving.auditor.service.scheduling import Loop, Scheduler, Worker
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.workers.exchange import ExchangeWorker
from governed_serving.auditor.service.workers.fold import FoldWorker
from governed_serving.auditor.service.workers.judge import JudgeWorker
from governed_serving.auditor.service.workers.report import ReportWorker
from governed_serving.auditor.service.workers.ship import ShipWorker, backlog
from governed_serving.crypto import SegmentCipher
from governed_serving.journal import Journal, JournalError, JournalReader
from governed_serving.records import EventRecord
from governed_serving.report.writer import ReportWriter
from support.waiting import eventually

from .records import SPEC, local_keyset, people, prediction

BIAS = Bias.model_validate(SPEC["spec"]["governance"]["bias"])


class Scripted(Worker):
    """Does as it is told, run by run; afterwards nothing."""

    every = 0.001

    def __init__(self, *script: Any, name: str = "scripted", vital: bool = False, wakes: tuple[str, ...] = ()) -> None:
        self.script, self.name, self.vital, self.wakes = list(script), name, vital, wakes
        self.runs = 0
        self.finished = threading.Event()

    def run_once(self) -> int:
        self.runs += 1
        step = self.script.pop(0) if self.script else 0
        if isinstance(step, BaseException):
            raise step
        return int(step)

    def finish(self) -> None:
        super().finish()
        self.finished.set()


# ---- the scheduler ----


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("down"),
        OSError("disk"),
        TypeError("a bug"),
        RecursionError("deep"),
        MemoryError(),
        AssertionError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_worker_raises_is_counted_and_it_is_run_again(error: Exception) -> None:
    worker = Scripted(1, error, error, 1)
    loop = Loop(worker, EXPECTED)
    assert (loop.look(), loop.failure) == (1, None)
    for streak in (1, 2):
        assert loop.look() == 0
        assert loop.failure is not None
        assert (loop.failure.streak, loop.failures) == (streak, streak)
        assert type(error).__name__ in loop.failure.text
        assert loop.failure.expected is isinstance(error, EXPECTED)
    assert (loop.look(), loop.failure, loop.failures) == (1, None, 2), "what is over is over, and stays counted"


def test_the_pause_doubles_up_to_a_limit_and_ends_with_the_streak() -> None:
    worker = Scripted(*[OSError("disk")] * 10, 1)
    worker.every, worker.longest_pause = 0.5, 30.0
    loop = Loop(worker, EXPECTED)
    pauses = []
    for _ in range(11):
        loop.look()
        pauses.append(loop.pause())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0, 0.5]


def test_who_is_behind_does_not_pause_and_who_fails_does() -> None:
    class Behind(Scripted):
        behind = True  # type: ignore[assignment]

    loop = Loop(Behind(1, OSError("disk")), EXPECTED)
    loop.look()
    assert loop.pause() == 0
    loop.look()
    assert loop.pause() > 0


def test_one_worker_that_fails_stops_no_other_and_goes_on_by_itself() -> None:
    failing, other = Scripted(*[ValueError("a bug")] * 2, name="failing"), Scripted(name="other")
    failing.longest_pause = 0.001
    scheduler = Scheduler([[failing, other]], EXPECTED)
    scheduler.start()
    eventually(lambda: failing.runs >= 4 and other.runs >= 4, within=60)
    assert scheduler.failing == {}
    assert scheduler.failures == {"failing": 2, "other": 0}
    scheduler.stop(20)
    assert failing.finished.is_set()
    assert other.finished.is_set()


def test_stages_end_one_after_another_and_finish_what_is_left() -> None:
    order: list[str] = []

    class Ordered(Scripted):
        def finish(self) -> None:
            super().finish()
            order.append(self.name)

    first, second, third = (Ordered(name=name) for name in ("first", "second", "third"))
    scheduler = Scheduler([[first], [second], [third]], EXPECTED)
    scheduler.start()
    eventually(lambda: min(w.runs for w in (first, second, third)) > 0, within=60)
    third.script += [5, OSError("disk"), 7]
    scheduler.stop(20)
    assert order[:2] == ["first", "second"]
    assert scheduler.failures == {"first": 0, "second": 0, "third": 1}, "an error at the end is counted as any other"
    assert third.runs >= 3


def test_who_did_something_wakes_who_has_to_go_on() -> None:
    judge = Scripted(name="judging")
    judge.every = 3600.0
    fold = Scripted(name="folding", wakes=("judging", "nobody"))
    scheduler = Scheduler([[fold], [judge]], EXPECTED)
    scheduler.start()
    eventually(lambda: judge.runs == 1, within=60)
    fold.script.append(1)
    eventually(lambda: judge.runs >= 2, within=60, what="woken an hour early")
    scheduler.stop(20)


@pytest.mark.parametrize(
    ("vital", "error", "unready"),
    [
        (True, TypeError("a bug"), True),
        (True, Unreachable("down"), False),
        (False, TypeError("a bug"), False),
    ],
    ids=["unexpected", "expected", "beside the verdict"],
)
def test_readiness_tells_of_what_nobody_expected(vital: bool, error: Exception, unready: bool) -> None:
    worker = Scripted(*[error] * 1000, name="judging", vital=vital)
    worker.longest_pause = 0.001
    scheduler = Scheduler([[worker]], EXPECTED)
    scheduler.start()
    eventually(lambda: worker.runs >= 2, within=60)
    assert ("judging stalled, retrying" in scheduler.why_not_ready()) is unready
    assert "judging" in scheduler.failing
    metrics = AuditorMetrics("default", "loans")
    metrics.workers(scheduler.failures, scheduler.failing)
    text = metrics.text().decode()
    assert 'governed_auditor_worker_failing{name="loans",namespace="default",worker="judging"} 1.0' in text
    assert 'governed_auditor_worker_failures_total{name="loans",namespace="default",worker="judging"} 0.0' not in text
    worker.script.clear()
    scheduler.stop(20)


# ---- the workers, by hand ----


class Desk:
    """An auditor over a spool into which a server writes; its clocks stand still unless told."""

    def __init__(self, root: Path, replicas: Any = None) -> None:
        self.root, self.keyset = root, local_keyset(root)
        self.cipher = SegmentCipher(self.keyset)
        self.now, self.monotonic = 1_000.0, 50.0
        fold = Fold(BIAS, "r1")
        self.journal = Journal(root, "auditor-pod", self.cipher, "PageCache")
        self.tail = Tail(root, self.keyset, self.cipher, fold, Live(fold, None, {}))
        self.state = AuditState(Subject("loans", "r1", "pod"), self.journal, self.tail)
        self.fold = FoldWorker(self.state, lambda: self.monotonic)
        clocks: dict[str, Callable[[], float]] = {"clock": lambda: self.now, "monotonic": lambda: self.monotonic}
        self.judge = JudgeWorker(self.state, replicas, **clocks)
        self.written = 0

    def serve(self, count: int, decision: str | None = None) -> None:
        rows = people(count, self.written)
        with Journal(self.root, "server-pod", self.cipher, "PageCache") as journal:
            for number, (sex, decided) in enumerate(rows, self.written):
                journal.append_blocking(prediction(number, sex, decision or decided))
        self.written += count

    def events(self) -> list[EventRecord]:
        found = JournalReader(self.root, "auditor-pod", self.cipher).read()
        return [r for _, r in found if isinstance(r, EventRecord)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_folding_counts_once_and_judging_has_nothing_to_do_twice(desk: Desk) -> None:
    assert (desk.fold.run_once(), desk.judge.run_once()) == (0, 1), "nothing yet is a verdict, too"
    desk.serve(300)
    assert (desk.fold.run_once(), desk.fold.run_once()) == (301, 0), "the verdict's own record passes by"
    assert (desk.judge.run_once(), desk.judge.run_once()) == (1, 0)
    assert (desk.state.verdict.samples, desk.state.verdict.window.folded) == (300, 300)


def test_while_records_pour_in_judging_is_paced_and_catches_up_after(desk: Desk) -> None:
    desk.serve(50)
    desk.fold.run_once()
    assert desk.judge.run_once() == 1
    desk.serve(50)
    desk.fold.run_once()
    assert desk.judge.run_once() == 0, "a second has not passed, and more may come"
    desk.fold.run_once()
    assert desk.judge.run_once() == 1, "nothing more came"
    desk.serve(50)
    desk.fold.run_once()
    desk.monotonic += 2
    assert desk.judge.run_once() == 1, "the second is over"


@pytest.mark.parametrize("labelled", [True, False])
def test_while_records_pour_in_a_label_shows_within_seconds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    judged = desk.judge._judge

    def slowly(*counted: Any) -> None:
        judged(*counted)
        desk.monotonic += 0.5

    monkeypatch.setattr(desk.judge, "_judge", slowly)
    desk.serve(300)
    desk.fold.run_once()
    assert desk.judge.run_once() == 1
    desk.serve(50)
    desk.fold.run_once()
    if labelled:
        told = EventRecord("label", "request-0", "loans", "r1", 1.0, b'{"label":"yes"}', {})
        desk.state.counted.fold.record(told)
    desk.monotonic += 2.4
    assert desk.judge.run_once() == 0
    desk.monotonic += 0.2
    assert desk.judge.run_once() == int(labelled), "the next paced look is ten seconds away"
    assert desk.state.verdict.labelled == int(labelled)


def test_a_verdict_is_recorded_when_it_changes_and_by_and_by(desk: Desk) -> None:
    for count in (300, 10, 10):
        desk.serve(count)
        desk.fold.run_once()
        desk.fold.run_once()
        desk.judge.run_once()
    assert [e.summary["samples"] for e in desk.events()] == [300], "the same verdict over more rows waits"
    desk.now += 301
    desk.serve(10)
    desk.fold.run_once()
    desk.fold.run_once()
    desk.judge.run_once()
    assert [e.summary["samples"] for e in desk.events()] == [300, 330]
    body = msgspec.json.decode(desk.events()[-1].body)
    assert (body["verdict"]["samples"], body["verdict"]["id"]) == (330, desk.events()[0].id), (
        "it names the one before it"
    )


def test_a_verdict_that_the_archive_does_not_take_is_said_again(desk: Desk) -> None:
    """It was recorded while the archive was away for hours, and nobody has asked since."""
    desk.serve(300)
    desk.fold.run_once()
    desk.fold.run_once()
    desk.judge.run_once()
    (first,) = desk.events()
    desk.state.refused(EventRecord("verdict", "another", "loans", "r1", 1.0, b"{}"))
    desk.state.refused(prediction(1, "f", "yes"))
    desk.now += 301
    assert desk.judge.run_once() == 0, "what stands in for another record is nothing to say"
    desk.state.refused(first)
    assert desk.judge.run_once() == 1
    again = desk.events()[-1]
    assert again.id != first.id
    assert (again.time, again.summary) == (desk.now, first.summary)
    assert first.summary["inForce"] == "Alert", (
        "the ledger says what the alarm demands, so that no pod's word is needed"
    )
    assert desk.state.verdict.id == again.id
    assert "ledger_index" not in desk.state.verdict.model_fields_set
    desk.state.refused(again)
    desk.now += 299
    assert desk.judge.run_once() == 0, "a clock that is wrong stays wrong: no flood of dead letters"
    desk.now += 2
    assert desk.judge.run_once() == 1
    assert len(desk.events()) == 3


def test_the_last_verdict_is_recorded_when_the_process_ends(desk: Desk) -> None:
    for count in (300, 10):
        desk.serve(count)
        desk.fold.run_once()
        desk.fold.run_once()
        desk.judge.run_once()
    desk.serve(5)
    desk.fold.finish()
    desk.judge.finish()
    assert [e.summary["samples"] for e in desk.events()] == [300, 315]
    assert desk.tail.durable("server-pod") > 0, "the counts are kept"
    desk.judge.finish()
    assert len(desk.events()) == 2, "what is recorded already is not recorded again"


def test_a_journal_without_room_costs_the_record_and_not_the_verdict(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise JournalError("no room")

    desk.serve(300)
    desk.fold.run_once()
    with monkeypatch.context() as patched:
        patched.setattr(desk.journal, "append_blocking", full)
        assert desk.judge.run_once() == 1
    assert (desk.state.unrecorded, desk.state.verdict.id, desk.state.verdict.samples) == (1, "", 300)
    desk.serve(1)
    desk.fold.run_once()
    desk.fold.run_once()
    desk.judge.run_once()
    assert [e.summary["samples"] for e in desk.events()] == [301], "the next look tries again"


def test_an_error_while_judging_leaves_the_verdict_to_be_made_at_the_next_look(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.serve(300)
    desk.fold.run_once()
    loop = Loop(desk.judge, EXPECTED)

    def odd(*_: Any) -> None:
        raise ZeroDivisionError("odd counts")

    with monkeypatch.context() as patched:
        patched.setattr("governed_serving.auditor.service.workers.judge.judge", odd)
        assert loop.look() == 0
    assert loop.failure is not None
    assert not loop.failure.expected
    assert (loop.look(), desk.state.verdict.samples) == (1, 300)


def test_labels_that_were_settled_elsewhere_are_folded(desk: Desk) -> None:
    desk.serve(10)
    desk.fold.run_once()
    desk.tail.fold.labels.label("elsewhere", [1])
    desk.state.settled.append(Settled("elsewhere", [Row(0, ("F",), 0, float("nan"))]))
    assert desk.fold.run_once() == 1
    assert (desk.tail.fold.labels.joined, desk.tail.fold.labels.waiting, len(desk.state.settled)) == (1, 0, 0)


def test_a_verdict_waits_for_the_others_for_a_moment_and_no_longer(tmp_path: Path) -> None:
    replicas = SimpleNamespace(others=None, tallies=(), running=())
    desk = Desk(tmp_path, replicas)
    desk.serve(300)
    desk.fold.run_once()
    assert desk.judge.run_once() == 0
    desk.monotonic += 11
    assert desk.judge.run_once() == 1
    own = desk.tail.fold.tally()
    replicas.others = OtherReplicas([own], [own], {"b": "00ff"})
    desk.monotonic += 11
    assert desk.judge.run_once() == 1
    assert (desk.state.verdict.samples, desk.state.verdict.replicas) == (600, {"b": "00ff"})


def test_counts_are_told_to_the_others_when_they_grew_and_at_the_end(desk: Desk) -> None:
    told: list[tuple[int, bool]] = []

    class Others:
        tallies: tuple[Any, ...] = ()
        refreshed = 0

        def refresh(self) -> None:
            self.refreshed += 1

        def publish(self, tally: Any, _: str, final: bool) -> None:
            told.append((tally.rows, final))

    others = Others()
    exchange = ExchangeWorker(desk.state, others, None, lambda: desk.monotonic)  # type: ignore[arg-type]
    for rows, seconds in ((100, 0), (1, 1), (10, 1), (1, 20)):
        desk.serve(rows)
        desk.fold.run_once()
        desk.monotonic += seconds
        assert exchange.run_once() == 0
    assert told == [(100, False), (111, False), (112, False)], "1 % more waits; a tenth more doesn't, nor 20 seconds"
    exchange.finish()
    assert told[-1] == (112, True)
    assert others.refreshed == 3, "looked at every other second"


def test_what_is_shipped_and_counted_is_trimmed_and_not_before(desk: Desk) -> None:
    trimmed: list[int] = []
    shipper = SimpleNamespace(
        step=lambda: 7,
        behind=False,
        next_frame=lambda stream: 5 if stream == "server-pod" else 0,
        reader=lambda stream: SimpleNamespace(trim=trimmed.append if stream == "server-pod" else lambda _: None),
    )
    ship = ShipWorker(desk.state, desk.root, shipper)  # type: ignore[arg-type]
    desk.serve(300)
    assert ship.run_once() == 7
    desk.fold.run_once()
    desk.tail.save()
    ship.run_once()
    assert trimmed == [0, 5]
    assert backlog(desk.root) > 0


def test_the_report_tells_each_verdict_once_and_where_it_is_in_the_ledger(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = ReportWorker(desk.state, ReportWriter(f"file://{path}"))
    assert (report.run_once(), path.exists()) == (0, False), "there is no verdict to tell of yet"
    desk.serve(300)
    desk.fold.run_once()
    desk.judge.run_once()
    assert (report.run_once(), report.run_once()) == (1, 0)
    event = desk.events()[0]
    desk.state.shipped(event, 41)
    desk.state.shipped(msgspec.structs.replace(event, id="another"), 42)
    assert report.run_once() == 1
    status = json.loads(path.read_bytes())["status"]
    head = status["revisions"]["r1"]["auditor"]["pod"]
    assert status["auditor"]["ledgerIndex"] == head["ledgerIndex"] == 41
    assert (head["samples"], head["inForce"]) == (300, status["auditor"]["alarm"]["inForce"])
    assert not {"id", "groups", "strata", "replicas"} & set(status["auditor"])
    assert status["auditor"]["alarms"] == []


def test_what_an_earlier_revision_reported_does_not_outlive_the_first_look(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    earlier = {"verdict": "Unknown", "evidence": "ab" * 32, "ledgerIndex": 3, "deadLetters": 2, "slices": {"found": []},
               "references": {"religion": "none"}}  # fmt: skip
    path.write_text(json.dumps({"status": {"auditor": earlier}}))
    desk.serve(300)
    desk.fold.run_once()
    report = ReportWorker(desk.state, ReportWriter(f"file://{path}"))
    desk.judge.run_once()
    assert report.run_once() == 1
    told = json.loads(path.read_bytes())["status"]["auditor"]
    assert not {"ledgerIndex", "deadLetters"} & set(told)
    assert "religion" not in told["references"]
    assert told["evidence"] == desk.state.verdict.evidence


def test_a_verdict_that_says_otherwise_names_no_entry_before_it_is_recorded(desk: Desk) -> None:
    desk.serve(300)
    desk.fold.run_once()
    desk.judge.run_once()
    desk.state.shipped(desk.events()[0], 41)
    said = desk.state.verdict
    assert desk.state.replace_verdict(said.without("id", "ledger_index")).ledger_index == 41
    word = "Fail" if said.verdict == "Pass" else "Pass"
    found = desk.state.replace_verdict(said.without("id", "ledger_index").changed(verdict=word))
    assert {"id", "ledger_index"} & found.model_fields_set == set()


def without_nulls(value: Any) -> Any:
    """As a merge patch leaves it (RFC 7396), lists as they are."""
    return {k: without_nulls(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def test_what_the_report_adds_to_a_recorded_verdict_is_marked_as_of_the_moment(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = ReportWorker(
        desk.state, ReportWriter(f"file://{path}"), lambda: 1, lambda: 2, contests=lambda: (3, 4), refused=lambda: "why"
    )
    desk.serve(300)
    desk.fold.run_once()
    desk.judge.run_once()
    recorded = desk.events()[0]
    desk.state.shipped(recorded, 41)
    report.run_once()
    told = json.loads(path.read_bytes())["status"]["auditor"]
    body = without_nulls(json.loads(recorded.body)["verdict"])
    added = {name for name, value in told.items() if body.get(name) != without_nulls(value)}
    assert added >= {"deadLetters", "unreadableFrames", "openContests", "overdueContests", "ledgerIndex", "observedAt"}
    assert added <= BiasVerdict.of_the_moment() | {"revision"}


def test_a_place_in_the_ledger_belongs_to_the_verdict_that_has_it(desk: Desk) -> None:
    desk.serve(300)
    desk.fold.run_once()
    desk.judge.run_once()
    first = desk.events()[0]
    desk.state.shipped(first, 41)
    desk.now += 301
    desk.serve(10)
    desk.fold.run_once()
    desk.fold.run_once()
    desk.judge.run_once()
    assert (desk.state.verdict.id, desk.state.verdict.ledger_index) == (desk.events()[-1].id, None)
    desk.state.shipped(first, 41)
    assert desk.state.verdict.ledger_index is None
    desk.state.shipped(desk.events()[-1], 352)
    assert desk.state.verdict.ledger_index == 352
