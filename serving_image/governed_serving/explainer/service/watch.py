"""What explanations say over time: global importances and their drift, quality by window; kept sealed over a
restart."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from governed_serving.crypto import CryptoError
from governed_serving.durable import replace_file, set_aside
from governed_serving.explainer.engines.captum import GRADIENT_METHODS
from governed_serving.explainer.overall.drift import ImportanceMonitor
from governed_serving.explainer.overall.quality_windows import QualityWindow, QualityWindows
from governed_serving.explainer.scales import OUTPUT
from governed_serving.explainer.service.jobs import Sealer
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.explainer.service.protocol import Answer
from governed_serving.explainer.service.recorder import ExplanationRecorder
from governed_serving.explainer.service.rendering import Explanation
from governed_serving.hosting import log

__all__ = ["Counted", "Watch"]


@dataclass(frozen=True)
class Counted:
    """Whose attributions importances count: values of one ``scale``, Shapley values of single players or, with
    ``owen``, Owen values of the manifest's hierarchy. Others don't add up with them."""

    scale: str = OUTPUT
    owen: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def has(self, explanation: Explanation) -> bool:
        """Whether its attributions are of this kind."""
        scale, method = explanation.get("scale", OUTPUT), explanation["method"]
        return scale == self.scale and method not in NO_SHAPLEY and (method == "owen") == bool(self.owen)

    def told(self) -> dict[str, object]:
        return {"scale": self.scale, "values": "Owen" if self.owen else "Shapley"}


NO_SHAPLEY = frozenset({"lime", "text", *GRADIENT_METHODS})
"""Methods whose attributions are coefficients, gradients, or of tokens."""


class Watch:
    """Folds every answer; an alarm and a closed window go into the journal, hence the ledger. State lies in
    ``folder``."""

    def __init__(
        self,
        players: tuple[str, ...],
        recorder: ExplanationRecorder,
        metrics: ExplainerMetrics,
        folder: Path,
        sealer: Sealer,
        *,
        counted: Counted = Counted(),
        monitor: ImportanceMonitor | None = None,
        windows: QualityWindows | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.monitor, self.windows = monitor or ImportanceMonitor(players), windows or QualityWindows()
        self.left_out = 0
        """Explanations since the start that importances don't count, as their values are of another kind."""
        self._counted = counted
        self._players, self._recorder, self._metrics, self._sealer, self._clock = (
            players,
            recorder,
            metrics,
            sealer,
            clock,
        )
        self._importances, self._quality = folder / "importances.state", folder / "quality.state"
        self._restore(self._importances, b"importances", self.monitor.restore)
        self._restore(self._quality, b"quality", self.windows.restore)

    def _restore(self, path: Path, name: bytes, restore: Callable[[bytes], object]) -> None:
        """What was saved, if it can be read; what is damaged is told, and begun anew."""
        try:
            restore(self._sealer.open(path.read_bytes(), name))
        except FileNotFoundError:
            return
        except (CryptoError, msgspec.DecodeError, OSError) as error:
            kept, why = set_aside(path), f"{type(error).__name__}: {error}"
            log("error", "what explanations said so far can't be read; it is begun anew", path=str(kept), error=why)

    async def observe(self, answer: Answer) -> None:
        """One answer, all its rows. Raises the journal's error when what it caused can't be recorded."""
        now = self._clock()
        for explanation in answer["explanations"]:
            await self._drift(explanation)
            for window in self.windows.observe(now, explanation):
                await self._closed(window)
        self._metrics.graded(self.windows.latest())

    async def _drift(self, explanation: Explanation) -> None:
        """Attributions over the model's own players, of the kind that the manifest asks for, move the global
        importances; guesses without an interval don't."""
        entries = explanation.get("attributions", [])
        names = tuple(entry.get("feature", entry.get("group")) for entry in entries)
        if entries and not self._counted.has(explanation):
            self.left_out += 1
            return
        if names != self._players or any(None in entry.get("interval", ()) for entry in entries):
            return
        alarm = self.monitor.observe(np.array([entry["attribution"] for entry in entries]))
        self._metrics.drift.set(self.monitor.distance)
        if alarm is None:
            return
        plain = msgspec.to_builtins(alarm)
        self._metrics.alarmed()
        log("warning", "global importances drift", **plain)
        identifier = f"importance-drift-{alarm.window}"
        summary = {"kind": "importanceDrift", **plain}
        await self._recorder.event("importanceDrift", identifier, msgspec.json.encode(plain), summary)

    def importances(self) -> dict[str, object]:
        """Of /importances: shares, with their unit and what they are of."""
        told = {"unit": "mean share of the sum of |attributions|, 0 to 1", **self._counted.told()}
        return {**self.monitor.report(), **told, "left_out": self.left_out}

    async def _closed(self, window: QualityWindow) -> None:
        report = window.report()
        means = {name: round(measure["mean"], 6) for name, measure in report["measures"].items()}
        summary = {"start": window.start, "seconds": self.windows.length, "explanations": window.explanations, **means}
        identifier = f"explanation-quality-{window.start}"
        await self._recorder.event("explanationQuality", identifier, msgspec.json.encode(report), summary)
        self.save()

    def save(self) -> None:
        """Sealed, replaced as a whole. Where the disk takes nothing, what was saved before stays, and the log says so:
        what explanations said is in the ledger, so neither an answer nor the end of the process hangs on it."""
        try:
            replace_file(self._importances, self._sealer.seal(self.monitor.dump(), b"importances"))
            replace_file(self._quality, self._sealer.seal(self.windows.dump(), b"quality"))
        except OSError as error:
            log("error", "what explanations said so far couldn't be saved; free space on the spool", error=str(error))
