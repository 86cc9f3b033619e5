"""What the process does over and over: fold, judge, report, ship, trim. Two threads, so that an archive that is away delays no verdict."""

import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from governed_serving.archive.errors import ArchiveError
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.log import log
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.verdict import judge
from governed_serving.crypto import CryptoError
from governed_serving.journal import Journal, JournalError, streams
from governed_serving.records import EventRecord, Frame, timestamp
from governed_serving.reporting.writer import ReportWriter, of_pod

__all__ = ["Watch"]

POLL = 0.05
SHIP_POLL = 0.2
SNAPSHOT_SECONDS = 10.0
RECORD_SECONDS = 300.0
"""A verdict goes into the ledger when it changes, and this often while samples come."""

HEAD = ("verdict", "summary", "samples", "ledgerIndex")
"""What the operator reads of each pod's verdict."""

TROUBLE = (ArchiveError, JournalError, CryptoError, OSError)


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
        clock: Callable[[], float] = time.time,
    ):
        self.model, self.revision = model, revision
        self._own = of_pod(revision or "local", "auditor", pod)
        self._on_trial = on_trial
        self.tail, self.shipper = tail, shipper
        self.verdict: dict[str, Any] = {"verdict": "Unknown", "summary": "no samples yet", "samples": 0, "metrics": []}
        self.trouble: dict[str, str] = {}
        self.ship_failures = 0
        self.unrecorded = 0
        self._spool, self._journal, self._report, self._clock = spool, journal, report, clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._drained = threading.Event()
        self._judged: tuple[int, int, str] = (-1, -1, "")
        self._judge_again = 0.0
        self._evidence = ""
        self._recorded: tuple[str, ...] = ()
        self._recorded_at = 0.0
        self._snapshot_at = time.monotonic()
        self._threads = [threading.Thread(target=self._folding, name="folding", daemon=True)]
        if shipper is not None:
            self._threads.append(threading.Thread(target=self._shipping, name="shipping", daemon=True))

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
        if isinstance(record, EventRecord) and record.type == "verdict" and record.id == self.verdict.get("id"):
            self.verdict = {**self.verdict, "ledgerIndex": index}
            self._tell()

    @property
    def backlog(self) -> int:
        """Bytes in the spool's journal."""
        root = self._spool / "journal"
        return sum(path.stat().st_size for path in root.glob("*/*.seg")) if root.is_dir() else 0

    # ---- folding ----

    def _folding(self) -> None:
        while not self._stop.is_set():
            if not self._guarded("folding", self.fold_once):
                self._stop.wait(POLL)
        while self._guarded("folding", self.fold_once):
            continue
        self._guarded("folding", self._last_record)
        self._drained.set()

    def _guarded(self, what: str, work: Callable[[], int]) -> int:
        """Run ``work``; trouble is logged once per streak, kept for the probes, and waited out."""
        try:
            done = work()
        except TROUBLE as error:
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
        count = self.tail.step()
        if not count or time.monotonic() >= self._judge_again:
            self._judge_if_changed()
        if time.monotonic() - self._snapshot_at >= SNAPSHOT_SECONDS:
            self.tail.save()
            self._snapshot_at = time.monotonic()
        return count

    def _judge_if_changed(self) -> None:
        """While records pour in, judging may take a tenth of the time."""
        assert self.tail is not None
        fold = self.tail.fold
        state = (fold.rows, fold.labels.joined, fold.alarm.acknowledged_by)
        if state == self._judged:
            return
        began = time.monotonic()
        self._judged = state
        self._judge(fold)
        now = time.monotonic()
        self._judge_again = now + max(0.2, 10 * (now - began))

    def _judge(self, fold: Fold) -> None:
        cells = fold.cells()
        found = judge(fold.bias, cells)
        if fold.absent:
            found["summary"] = f"predictions don't carry {', '.join(sorted(fold.absent))}; {found['summary']}"
        digest = sha256(msgspec.json.encode(cells.dump())).hexdigest()
        window = {"type": fold.bias.window.type, "rows": found["samples"], "folded": fold.rows}
        fold.alarm.observe(found["verdict"], fold.rows, self._clock())
        found["alarm"] = fold.alarm.report()
        known: dict[str, Any] = {k: v for k, v in self.verdict.items() if k in ("id", "ledgerIndex")}
        now = self._clock()
        about = {"revision": self.revision, "window": window, "evidence": digest, "time": timestamp(now)}
        self.verdict = {**found, **known, **about}
        state = (
            found["verdict"],
            *(f"{m['attribute']}/{m['group']}/{m['name']}/{m['verdict']}" for m in found["metrics"]),
        )
        if state != self._recorded or now - self._recorded_at >= RECORD_SECONDS:
            self._record(state, cells.dump())
        self._tell()

    def _last_record(self) -> int:
        if self.tail is not None:
            self._judge_if_changed()
            if self.verdict.get("evidence", "") != self._evidence:
                self._record(self._recorded, self.tail.fold.cells().dump())
            self.tail.save()
        return 0

    def _record(self, state: tuple[str, ...], counts: dict[str, Any]) -> None:
        """The verdict and the counts it rests on, into the journal and so into the ledger."""
        now = self._clock()
        name = f"verdict-{self.revision or 'model'}-{timestamp(now)}"
        body = msgspec.json.encode({"verdict": self.verdict, "counts": counts})
        summary = {k: self.verdict[k] for k in ("verdict", "samples", "summary", "evidence")}
        try:
            self._journal.append_blocking(
                EventRecord("verdict", name, self.model, self.revision, now, body, summary), 30
            )
        except (JournalError, TimeoutError) as error:
            self.unrecorded += 1
            log("error", "a verdict could not be recorded", error=str(error))
            return
        self._recorded, self._recorded_at, self._evidence = state, now, self.verdict["evidence"]
        self.verdict = {k: v for k, v in {**self.verdict, "id": name}.items() if k != "ledgerIndex"}

    def _tell(self) -> None:
        if self._report is None:
            return
        part = {k: v for k, v in self.verdict.items() if k not in ("id", "strata", "groups", "intersections")}
        own = {k: part[k] for k in HEAD if k in part}
        with self._lock:
            self._report.update_all({self._own: own} if self._on_trial else {self._own: own, ("auditor",): part})

    # ---- shipping ----

    def _shipping(self) -> None:
        pause = SHIP_POLL
        while not self._drained.is_set():
            before = self.ship_failures
            shipped = self._guarded("shipping", self.ship_once)
            failed = "shipping" in self.trouble
            self.ship_failures = before + failed
            pause = min(pause * 2, 30.0) if failed else SHIP_POLL
            if failed or not shipped:
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
