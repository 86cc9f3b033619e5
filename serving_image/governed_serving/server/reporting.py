"""What this pod's server tells the operator: its own entry of the GovernanceReport, below its revision and pod."""

import asyncio
from collections.abc import Callable

from governed_api import runtime
from governed_serving.report.writer import ReportWriter, of_pod
from governed_serving.server.figures import Figures, ServedFigures
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.settings import ServerSettings

__all__ = ["Reporting"]

TICK = 5.0
"""Seconds between looks at the figures, and between writes while on trial."""


class Reporting:
    """Without GOVERNED_REPORT nothing is written."""

    def __init__(
        self, settings: ServerSettings, metrics: Callable[[], ServerMetrics | None], writer: ReportWriter | None = None
    ) -> None:
        self._path = of_pod(settings.revision, "server", settings.pod)
        self._trial = settings.track == runtime.TRACK_CANARY
        self._figures = Figures(metrics)
        self._writer = writer
        self._written = ServedFigures()
        if writer is None and settings.report:
            self._writer = ReportWriter(settings.report, interval=TICK if self._trial else None)

    def say(self, *, ready: bool, verified: bool | None, message: str = "") -> None:
        """What is known of this pod, now. Blocks; never raises."""
        if self._writer:
            verification = {} if verified is None else {"verified": verified}
            self._writer.update(self._path, {"ready": ready, "message": message, **verification})

    def look(self) -> None:
        """Write figures that changed, and what could not be written before. Blocks; never raises."""
        if self._writer is None:
            return
        figures = self._figures.take()
        changed = bool(figures) and figures != self._written
        if not changed and not self._writer.waiting:
            return
        at_once = changed and (self._trial or self._figures.significant(figures))
        if self._writer.update(self._path, figures, at_once=at_once) and figures:
            self._written = figures
            self._figures.told(figures)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            await asyncio.to_thread(self.look)
