"""An auditor's workers over one spool, run by hand: no thread, no sleep."""

from governed_serving.auditor.service.checks import Checks
from governed_serving.auditor.service.process import EXPECTED
from governed_serving.auditor.service.scheduling import Loop
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.workers.check import CheckWorker
from governed_serving.auditor.service.workers.fold import FoldWorker
from governed_serving.auditor.service.workers.judge import JudgeWorker
from governed_serving.auditor.service.workers.report import ReportWorker
from governed_serving.journal import Journal
from governed_serving.report.writer import ReportWriter


class Workers:
    """``report`` None: nobody is told."""

    def __init__(
        self, model: str, journal: Journal, tail: Tail, checks: Checks, report: ReportWriter | None = None
    ) -> None:
        assert tail.live is not None
        self.state = AuditState(Subject(model, "r1"), journal, tail)
        self.fold, self.judge = FoldWorker(self.state), JudgeWorker(self.state)
        self.check = CheckWorker(self.state, tail.live, checks)
        self.checking = Loop(self.check, EXPECTED)
        self.report = ReportWorker(self.state, report) if report is not None else None

    def fold_all(self) -> None:
        """What is in the journal, judged and told."""
        while self.fold.run_once():
            self.judge.run_once()
        self.judge.run_once()
        self._tell()

    def look(self) -> None:
        """One look at what is watched beside the verdict."""
        self.checking.look()
        self._tell()

    def _tell(self) -> None:
        if self.report is not None:
            self.report.run_once()
