"""The folding side of what is watched beside the verdict: every record passes here once, and nothing grows with their
number."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.governance import FavorableOutcome
from governed_serving.artefact import Manifest
from governed_serving.auditor.service.conversations import Conversations
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.labels import Row
from governed_serving.auditor.service.tally import SharedMonitoringState
from governed_serving.completions.generated import state_of
from governed_serving.decoding import decode_json
from governed_serving.fairness.monitoring.monitors import AttributionSums, DriftMonitor, FreshRows, Hysteresis, Seen
from governed_serving.fairness.monitoring.reference import DECISION, SCORE, Distribution
from governed_serving.journal import numbers
from governed_serving.journal.columns import Numbers
from governed_serving.records import Column, ExplanationRecord, Frame, PredictionFrame

__all__ = ["Live"]

_EARLY = 1000


class Live:
    """SharedMonitoringState ``fold``, of the same revision. ``reference`` empty: no drift is measured."""

    def __init__(self, fold: Fold, manifest: Manifest | None, reference: Mapping[str, Distribution]):
        self.drift = DriftMonitor(reference)
        self.fresh = FreshRows()
        self.attributions = AttributionSums(bound=_attribution_bound(fold.bias.favorable_outcome))
        self.alarms = Hysteresis()
        self.flips: dict[str, list[int]] = {}
        """What was swapped → rows, flipped."""
        self.flips_since: dict[str, float] = {}
        """The same → since when it is, seconds since the epoch."""
        self.inputs: dict[str, list[float]] = {}
        """:meth:`InputDrift.sums` of the last look at fresh rows."""
        self.window_closed = False
        """A window of drift closed and hasn't been looked at."""
        self.unmatched = 0
        """Explanations whose prediction isn't known."""
        self._fold = fold
        self._manifest = manifest
        self._texts = frozenset(f.name for f in manifest.features if f.type == "text") if manifest else frozenset()
        self.conversations = Conversations()
        self._early: OrderedDict[str, tuple[list[dict[str, float]], float]] = OrderedDict()

    def record(self, record: Frame) -> None:
        """Fold one record, after :class:`Fold` has."""
        if self._fold.revision and record.revision != self._fold.revision:
            return
        if isinstance(record, PredictionFrame):
            self._predictions(record)
        elif isinstance(record, ExplanationRecord):
            self._explanation(record)

    def _predictions(self, frame: PredictionFrame) -> None:
        if self._fold.bias.favorable_outcome.pattern is not None:
            self._completion(frame)
            return
        rows = int(np.frombuffer(frame.rows, "<i4").sum())
        seen = {name: _seen(column) for name, column in frame.features.items() if column.width == 1}
        self.fresh.add(seen, rows)
        if self.drift.reference:
            self.window_closed |= self.drift.add(self._measured(seen, frame, rows), rows)
        for request in [i for i in frame.ids if i in self._early] if self._early else []:
            self._joined(self._fold.labels.rows_of(request), *self._early.pop(request))

    def _completion(self, frame: PredictionFrame) -> None:
        """Of generated text the attributes are looked at, and prompts kept in which words can be swapped."""
        if state_of(frame) != "complete":
            return
        seen = {name: _seen(frame.features[name]) for name in self._fold.axes if name in frame.features}
        self.fresh.add(seen, int(np.frombuffer(frame.rows, "<i4").sum()))
        self.conversations.add(frame)
        for request in [i for i in frame.ids if i in self._early] if self._early else []:
            self._joined(self._fold.labels.rows_of(request), *self._early.pop(request))

    def _measured(self, seen: Seen, frame: PredictionFrame, rows: int) -> Seen:
        """Texts as their lengths, and the outputs."""
        columns: dict[str, tuple[NDArray[np.generic], Sequence[str] | None]] = {}
        for name, (values, words) in seen.items():
            if name in self._texts and words is not None:
                columns[name] = (np.array([len(word) for word in words], np.float64)[values], None)
            else:
                columns[name] = (values, words)
        label = frame.outputs.get("label")
        if label is not None and label.width == 1:
            columns[DECISION] = _decision(label)
        columns[SCORE] = (self._fold.scores(frame.outputs, rows), None)
        return columns

    def _explanation(self, record: ExplanationRecord) -> None:
        try:
            explained = [self._attributions(attributions) for attributions in decode_json(record.body)["explanations"]]
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            return
        explanations = [attributions for attributions in explained if attributions]
        rows = self._fold.labels.rows_of(record.id)
        if rows or not explanations:
            self._joined(rows, explanations, record.time)
            return
        self._early[record.id] = (explanations, record.time)
        if len(self._early) > _EARLY:
            self._early.popitem(last=False)
            self.unmatched += 1

    def _attributions(self, explanation: Mapping[str, Any]) -> dict[str, float]:
        """Feature → attribution towards the favourable outcome; empty when it is about something else, or in another
        unit than the model's output (log-odds)."""
        if explanation.get("scale", "output") != "output" or explanation.get("space", "output") != "output":
            return {}
        entries = explanation.get("attributions", [])
        sign = self._fold.direction(explanation.get("target"))
        names = [entry.get("feature") or entry.get("group") for entry in entries]
        if sign == 0 or not all(names):
            return {}
        return {str(n): sign * float(entry["attribution"]) for n, entry in zip(names, entries, strict=True)}

    def _joined(self, rows: list[Row], explanations: list[dict[str, float]], when: float) -> None:
        attributes = [a.name for a in self._fold.bias.protected_attributes]
        for row, attributions in zip(rows, explanations, strict=False):
            values = dict(zip(self._fold.axes, row.key, strict=True))
            self.attributions.add({name: values[name] for name in attributes}, attributions, when)

    def beside(self) -> SharedMonitoringState:
        """What the other replicas need of this."""
        return SharedMonitoringState(
            self.drift.last_window(), self.attributions.table(), self.flips, self.inputs, self.flips_since
        )

    def dump(self) -> dict[str, object]:
        """For the snapshot; fresh rows are left out, they come again."""
        return {
            "drift": self.drift.dump(),
            "attributions": self.attributions.dump(),
            "alarms": msgspec.to_builtins(self.alarms),
            "flips": self.flips,
            "flipsSince": self.flips_since,
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Inverse of :meth:`dump`."""
        self.drift.load(dumped["drift"])
        self.attributions.load(dumped["attributions"])
        self.alarms = msgspec.convert(dumped["alarms"], Hysteresis)
        self.flips = {name: list(counts) for name, counts in dumped["flips"].items()}
        self.flips_since = {name: float(when) for name, when in dumped.get("flipsSince", {}).items()}


def _seen(column: Column) -> tuple[Numbers, list[str] | None]:
    return numbers(column), column.values if column.dtype == "BYTES" else None


def _decision(label: Column) -> tuple[Numbers, list[str]]:
    """Classes as words, whatever their type on the wire."""
    values, words = _seen(label)
    if words is not None:
        return values, words
    names, codes = np.unique(values, return_inverse=True)
    return codes, [str(name) for name in names.tolist()]


def _attribution_bound(outcome: FavorableOutcome) -> float | None:
    """What a Shapley value can't exceed: it is a mean of differences between two outputs of a known range."""
    if outcome.label is not None:
        return 1.0
    return None if outcome.range is None else outcome.range.max - outcome.range.min
