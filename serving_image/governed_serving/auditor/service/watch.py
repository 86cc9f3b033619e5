"""What the process does over and over: fold, judge, report, ship, trim, exchange counts with the other replicas.

A thread each for folding, shipping and exchanging, so that an archive that is away delays no verdict. Counts change in the
folding thread alone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from governed_api.report import PodVerdict
from governed_api.verdict import BiasVerdict, CountedWindow, wire
from governed_serving.archive.errors import ArchiveError
from governed_serving.auditor.service.checks import LEAST_ROWS, Checks, Others
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_resolver import CrossReplicaLabelResolver, Settled
from governed_serving.auditor.service.lane import LANE_ERRORS
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.replicas import Replicas
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.tally import Whole, add_up
from governed_serving.crypto import CryptoError
from governed_serving.fairness.metrics.measures import SMALLEST_GROUP
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.hosting.logs import log
from governed_serving.journal import Journal, JournalError, streams
from governed_serving.records import EventRecord, Frame, timestamp
from governed_serving.report.writer import ReportWriter, of_pod

__all__ = ["Watch"]

POLL = 0.5
SHIP_POLL = 1.0
"""Looks are paced, not chained: what came meanwhile is folded, judged and shipped together. A look costs the same for one record as for
hundreds (an HTTP round trip, a dozen fsyncs), and the server that makes the records wants the same core and the same disk."""
JUDGE_SECONDS = 1.0
JUDGE_SHARE = 0.05
"""Of the time, while records come."""
SNAPSHOT_SECONDS = 30.0
SNAPSHOT_SHARE = 0.01
"""Of the time: with hundreds of thousands of requests remembered the state is tens of megabytes, and the disk is the server's too."""
RECORD_SECONDS = 300.0
"""A verdict goes into the ledger when it changes, and this often while samples come."""
EXCHANGE_POLL = 0.5
REFRESH_SECONDS = 2.0
PUBLISH_SECONDS = 15.0
"""Counts are published this often while they change; at once when they grew by ``GROWTH`` or anything but their number changed."""
GROWTH = 0.05
CHECK_POLL = 1.0
CHECK_SECONDS = 60.0
"""Least time between two looks at fresh rows."""
LEAST_CONVERSATIONS = 8
"""Fresh conversations with words to swap that a look waits for."""
CHECK_LEVEL = 0.95
GRACE_SECONDS = 10.0
"""So long a verdict waits for the other replicas' counts after a start."""

HEAD = ("verdict", "summary", "samples", "ledger_index")
"""What the operator reads of each pod's verdict."""

RETRYABLE_ERRORS = (ArchiveError, JournalError, CryptoError, OSError)


class Watch:
    """``tail`` None: no bias rules, records are only shipped. ``shipper`` None: no archive, records are only judged."""

    def __init__(
        self,
        model: str,
        revision: str,
        spool: Path,
        journal: Journal,
        tail: Tail | None,
        shipper: Shipper | None,
        report: ReportWriter | None,
        *,
        pod: str = "local",
        on_trial: bool = False,
        replicas: Replicas | None = None,
        elsewhere: CrossReplicaLabelResolver | None = None,
        checks: Checks | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self.model, self.revision = model, revision
        self._own = of_pod(revision or "local", "auditor", pod)
        self._on_trial = on_trial
        self.tail, self.shipper, self.replicas = tail, shipper, replicas
        self.verdict = BiasVerdict(verdict="Unknown", summary="no samples yet", samples=0, metrics=[])
        self.trouble: dict[str, str] = {}
        self.ship_failures = 0
        self.unrecorded = 0
        self._spool, self._journal, self._report, self._clock = spool, journal, report, clock
        self._lock = threading.Lock()
        self._counts = threading.Lock()
        """Held while counts change, and while another thread reads them."""
        self._stop = threading.Event()
        self._drained = threading.Event()
        self._judged: tuple[Any, ...] = ()
        self._judge_again = 0.0
        self._evidence = ""
        self._recorded: tuple[str, ...] = ()
        self._recorded_at = 0.0
        self._snapshot_due = time.monotonic() + SNAPSHOT_SECONDS
        self._elsewhere, self.checks = elsewhere, checks
        self._checked_at = float("-inf")
        self._settled: deque[Settled] = deque()
        self._begun = time.monotonic()
        self._refreshed_at = self._published_at = float("-inf")
        self._published: tuple[Any, ...] = ()
        self._threads = [threading.Thread(target=self._folding, name="folding", daemon=True)]
        if shipper is not None:
            self._threads.append(threading.Thread(target=self._shipping, name="shipping", daemon=True))
        if replicas is not None:
            self._threads.append(threading.Thread(target=self._exchanging, name="exchanging", daemon=True))
        if checks is not None:
            self._threads.append(threading.Thread(target=self._checking, name="checking", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float) -> None:
        """Fold, record and ship what is left, for at most ``patience`` seconds."""
        self._stop.set()
        for thread in self._threads:
            thread.join(patience)

    def shipped(self, record: Frame, index: int) -> None:
        """Told by the shipper: where the last verdict is in the ledger."""
        if isinstance(record, EventRecord) and record.type == "verdict" and record.id == self.verdict.id:
            self.verdict = self.verdict.changed(ledger_index=index)
            self._tell()

    @property
    def backlog(self) -> int:
        """Bytes in the spool's journal."""
        root = self._spool / "journal"
        return sum(path.stat().st_size for path in root.glob("*/*.seg")) if root.is_dir() else 0

    # ---- folding ----

    def _folding(self) -> None:
        while not self._stop.is_set():
            self._guarded("folding", self.fold_once)
            if self.tail is None or not self.tail.behind:
                self._stop.wait(POLL)
        while self._guarded("folding", self.fold_once):
            continue
        self._guarded("folding", self._last_record)
        self._drained.set()

    def _guarded(self, what: str, work: Callable[[], int]) -> int:
        """Run ``work``; trouble is logged once per streak, kept for the probes, and waited out."""
        try:
            done = work()
        except RETRYABLE_ERRORS as error:
            text = f"{type(error).__name__}: {error}"
            if self.trouble.get(what) != text:
                log("error", f"{what} is held up", error=text)
            self.trouble[what] = text
            self._stop.wait(1.0)
            return 0
        if self.trouble.pop(what, None) is not None:
            log("info", f"{what} goes on")
        return done

    def fold_once(self) -> int:
        """Fold what is new, judge it, keep it. Number of records."""
        if self.tail is None:
            return 0
        with self._counts:
            count = self.tail.step()
            while self._settled:
                self.tail.settle(*self._settled.popleft())
            if not count or time.monotonic() >= self._judge_again:
                self._judge_if_changed()
        if (began := time.monotonic()) >= self._snapshot_due:
            self.tail.save()
            now = time.monotonic()
            self._snapshot_due = now + max(SNAPSHOT_SECONDS, (now - began) / SNAPSHOT_SHARE)
        return count

    def _judge_if_changed(self) -> None:
        """While records pour in, judging may take a share of the time and no more."""
        assert self.tail is not None
        fold = self.tail.fold
        if self.replicas and not self.replicas.known and time.monotonic() - self._begun < GRACE_SECONDS:
            return
        sources = dict(self.replicas.sources) if self.replicas else {}
        state = (fold.rows, fold.labels.joined, fold.alarm.acknowledged_by, sources)
        if state == self._judged:
            return
        began = time.monotonic()
        self._judged = state
        self._judge(fold, sources)
        now = time.monotonic()
        self._judge_again = now + max(JUDGE_SECONDS, (now - began) / JUDGE_SHARE)

    def _whole(self, fold: Fold) -> Whole:
        return add_up(fold.tally(), self.replicas.tallies if self.replicas else [])

    def _judge(self, fold: Fold, sources: dict[str, str]) -> None:
        whole, now = self._whole(fold), self._clock()
        cells = whole.cells
        found = judge(fold.bias, cells)
        fold.alarm.observe(found.verdict, whole.rows, now)
        for other in self.replicas.tallies if self.replicas else []:
            fold.alarm.hear(other.alarm)
        known = {name: getattr(self.verdict, name) for name in self.verdict.model_fields_set & {"id", "ledger_index"}}
        self.verdict = found.changed(
            summary=_summary_with_gaps(found, whole.absent),
            alarm=fold.alarm.report(),
            revision=self.revision,
            window=CountedWindow(type=fold.bias.window.type, rows=found.samples, folded=whole.rows),
            evidence=sha256(msgspec.json.encode(cells.dump())).hexdigest(),
            time=timestamp(now),
            replicas=sources,
            **known,
        )
        state = (
            found.verdict,
            *(f"{m.attribute}/{m.group}/{m.name}/{m.verdict}" for m in found.metrics),
            self.verdict.alarm.in_force,
        )
        if state != self._recorded or now - self._recorded_at >= RECORD_SECONDS:
            self._record(state, cells.dump())
        self._tell()

    def _last_record(self) -> int:
        if self.tail is not None:
            self._judge_if_changed()
            if self.verdict.evidence != self._evidence:
                self._record(self._recorded, self._whole(self.tail.fold).cells.dump())
            self.tail.save()
        return 0

    def _record(self, state: tuple[str, ...], counts: dict[str, Any]) -> None:
        """The verdict and the counts it rests on, into the journal and so into the ledger."""
        now = self._clock()
        name = f"verdict-{self.revision or 'model'}-{timestamp(now)}"
        verdict = wire(self.verdict)
        body = msgspec.json.encode({"verdict": verdict, "counts": counts})
        summary = {name: verdict[name] for name in ("verdict", "samples", "summary", "evidence")}
        try:
            self._journal.append_blocking(
                EventRecord("verdict", name, self.model, self.revision, now, body, summary), 30
            )
        except (JournalError, TimeoutError) as error:
            self.unrecorded += 1
            log("error", "a verdict could not be recorded", error=str(error))
            return
        self._recorded, self._recorded_at, self._evidence = state, now, self.verdict.evidence
        self.verdict = self.verdict.without("ledger_index").changed(id=name)

    def _tell(self) -> None:
        if self._report is None:
            return
        part = self.verdict.without("id", "strata", "groups", "intersections", "replicas")
        if self.checks is not None and self.tail is not None and self.tail.live is not None:
            part = part.changed(alarms=sorted(self.tail.live.alarms.raised))
        own = {name: getattr(part, name) for name in HEAD if name in part.model_fields_set}
        if "alarm" in part.model_fields_set:
            own["in_force"] = part.alarm.in_force
        head = wire(PodVerdict(**own))
        with self._lock:
            self._report.update_all(
                {self._own: head} if self._on_trial else {self._own: head, ("auditor",): wire(part)}
            )

    # ---- shipping ----

    def _shipping(self) -> None:
        pause = SHIP_POLL
        while not self._drained.is_set():
            before = self.ship_failures
            self._guarded("shipping", self.ship_once)
            failed = "shipping" in self.trouble
            self.ship_failures = before + failed
            pause = min(pause * 2, 30.0) if failed else SHIP_POLL
            if failed or not (self.shipper and self.shipper.behind):
                (self._stop if failed and not self._stop.is_set() else self._drained).wait(pause)
        while self._guarded("shipping", self.ship_once):
            continue

    def ship_once(self) -> int:
        """Ship one chunk per stream, trim what is both shipped and counted. Number of entries."""
        assert self.shipper is not None
        count = self.shipper.step()
        for stream in streams(self._spool):
            upto = self.shipper.next_frame(stream)
            if self.tail is not None:
                upto = min(upto, self.tail.durable(stream))
            self.shipper.reader(stream).trim(upto)
        return count

    # ---- exchanging ----

    def _exchanging(self) -> None:
        while not self._drained.is_set():
            self._guarded("exchanging", self.exchange_once)
            self._drained.wait(EXCHANGE_POLL)
        self._guarded("exchanging", lambda: self._publish(final=True))

    def exchange_once(self) -> int:
        """Read the others' counts, publish ours, look for predictions of labels that wait. Number of labels settled."""
        assert self.replicas is not None
        if time.monotonic() - self._refreshed_at >= REFRESH_SECONDS:
            self.replicas.refresh()
            self._refreshed_at = time.monotonic()
        self._publish(final=False)
        if self._elsewhere is None or self.tail is None or self._settled:
            return 0
        with self._counts:
            labels = self.tail.fold.labels
            labels.doubt = bool(self.replicas.tallies)
            waiting, doubtful = labels.all_waiting(), labels.all_doubtful()
        settled = self._elsewhere.look(waiting, doubtful)
        self._settled.extend(settled)
        return len(settled)

    def _publish(self, final: bool) -> int:
        assert self.replicas is not None
        assert self.tail is not None
        with self._counts:
            state = _outline(self.tail.fold)
            if not (final or self._worth_publishing(state)):
                return 0
            tally = self.tail.fold.tally()
            if self.tail.live is not None:
                tally = msgspec.structs.replace(tally, beside=self.tail.live.beside())
        self.replicas.publish(tally, self.revision, final)
        self._published, self._published_at = state, time.monotonic()
        return 0

    def _worth_publishing(self, state: tuple[Any, ...]) -> bool:
        before = self._published
        if not before or state == before:
            return not before
        grown = any(now > (1 + GROWTH) * then for now, then in zip(state[:2], before[:2], strict=True))
        due = time.monotonic() - self._published_at >= PUBLISH_SECONDS
        return grown or due or state[2:] != before[2:]

    # ---- checking ----

    def _checking(self) -> None:
        while not self._stop.is_set():
            self._guarded("checking", self.check_once)
            self._stop.wait(CHECK_POLL)

    def check_once(self) -> int:
        """Look at what is due: a window of drift, fresh rows, explanations. Number of alarms raised or ended."""
        assert self.checks is not None
        assert self.tail is not None
        assert self.tail.live is not None
        live, due = self.tail.live, time.monotonic() - self._checked_at >= CHECK_SECONDS
        others = self._others()
        with self._counts:
            closed = live.drift.compared(one.drift for one in others.running) if live.window_closed else None
            live.window_closed = False
            rows = live.fresh.take() if due and live.fresh.seen >= LEAST_ROWS else None
            gaps = (
                live.attributions.gaps(CHECK_LEVEL, SMALLEST_GROUP, (o.attributions for o in others.every))
                if rows
                else None
            )
            talks = live.conversations.take() if due and live.conversations.seen >= LEAST_CONVERSATIONS else None
        if closed is None and rows is None and talks is None:
            return 0
        self.checks.others = others
        looked = []
        if closed is not None:
            self.checks.drifts(closed)
            looked.append("drift/")
        if rows is not None and gaps is not None:
            self._checked_at = time.monotonic()
            self.checks.gaps(gaps)
            self.checks.rows(rows, self._lane_away, LANE_ERRORS)
            looked += ["explanations/", "proxies/", "flips/", "drift/(all inputs)"]
        if talks is not None:
            self._checked_at = time.monotonic()
            going = (talk for talk in talks if not self._stop.is_set())
            self.checks.conversations(going, self._lane_away, LANE_ERRORS)
            looked.append("flips/")
        return self._alarms(live, tuple(looked))

    def _others(self) -> Others:
        if self.replicas is None:
            return Others()
        every, running = self.replicas.tallies, self.replicas.running
        return Others([tally.beside for tally in every], [tally.beside for tally in running])

    def _lane_away(self, error: Exception) -> None:
        log("warning", "counterfactuals: the predictor doesn't answer; they are asked again", error=str(error))

    def _alarms(self, live: Live, looked: tuple[str, ...]) -> int:
        assert self.checks is not None
        changed = 0
        for one in self.checks.publish():
            whole = one.subject == "drift/(all inputs)"
            if not one.subject.startswith(looked) or (whole and "drift/(all inputs)" not in looked):
                continue
            now = self._clock()
            with self._counts:
                state = live.alarms.observe(one.subject, breach=one.breach, calm=one.calm, now=now)
            if state:
                changed += 1
                log("warning" if state == "raised" else "info", f"alarm {state}", subject=one.subject, **one.figures)
                self._note(one.subject, state, one.figures, now)
        if changed:
            self._tell()
        return changed

    def _note(self, subject: str, state: str, figures: dict[str, Any], now: float) -> None:
        """An alarm that was raised or has ended, into the ledger."""
        summary = {"kind": subject.split("/", 1)[0], "subject": subject, "state": state, **figures}
        name = f"alarm-{self.revision or 'model'}-{timestamp(now)}"
        event = EventRecord("verdict", name, self.model, self.revision, now, msgspec.json.encode(summary), summary)
        try:
            self._journal.append_blocking(event, 30)
        except (JournalError, TimeoutError) as error:
            self.unrecorded += 1
            log("error", "an alarm could not be recorded", subject=subject, error=str(error))


def _outline(fold: Fold) -> tuple[Any, ...]:
    """Two counts, and what is told at once when it changes."""
    return fold.rows, fold.labels.joined, frozenset(fold.absent), fold.alarm.active, fold.alarm.acknowledged_by


def _summary_with_gaps(found: BiasVerdict, absent: frozenset[str]) -> str:
    """The summary, with the attributes that predictions don't carry, or not always."""
    summary = found.summary
    if absent:
        summary = f"predictions don't carry {', '.join(sorted(absent))}; {summary}"
    for name, rows in found.missing.items():
        if name not in absent:
            summary += f"; {name} missing in {rows} of {found.samples}"
    return summary
