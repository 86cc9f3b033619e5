"""Journal records → counts: what a verdict rests on, and how far it has been read."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.artefact import Manifest
from governed_serving.auditor.service.labels import REPETITIONS, Correction, LabelJoin, Read, Row, Waiting
from governed_serving.auditor.service.tally import Tally
from governed_serving.completions.generated import Search, outcomes_of, searcher, state_of
from governed_serving.decoding import decode_json
from governed_serving.fairness.counts.cells import Cells, CodedColumn
from governed_serving.fairness.counts.coverage import CoverageCounts, packed
from governed_serving.fairness.counts.grouping import MISSING, Grouping, groupings, outcomes
from governed_serving.fairness.counts.scores import plain_subject
from governed_serving.fairness.counts.truth import PostedLabel, places_of, posted, read_truth, word_of
from governed_serving.fairness.counts.windows import Joined, Window
from governed_serving.fairness.metrics.coverage import Calibration
from governed_serving.fairness.metrics.measures import SCORE_METRICS
from governed_serving.fairness.metrics.roster import Roster
from governed_serving.fairness.monitoring.alarms import Alarm
from governed_serving.journal import numbers
from governed_serving.records import Column, EventRecord, Frame, PredictionFrame

__all__ = ["Fold"]


class Fold:
    """Counts of one revision. Deterministic: the same records give the same state, in any split over streams.

    ``manifest`` gives numeric attributes their bands. Records of other revisions are passed over. Raises
    PatternRefused.
    """

    def __init__(self, bias: Bias, revision: str, manifest: Manifest | None = None, label_capacity: int = 200_000):
        self.bias = bias
        self.revision = revision
        names = [a.name for a in bias.protected_attributes]
        self.axes = tuple(dict.fromkeys([*names, *bias.strata]))
        self._groupings = groupings(bias, manifest)
        subjects = [(name,) for name in names] + ([tuple(names)] if bias.intersections else [])
        scored = subjects if any(m.name in SCORE_METRICS for m in bias.metrics) else []
        declared, pattern = bias.favorable_outcome.range, bias.favorable_outcome.pattern
        limits = None if declared is None else (declared.min, declared.max)
        self.window = Window(self.axes, bias.window.samples if bias.window.type == "sliding" else None, scored, limits)
        self._search = searcher(pattern) if pattern is not None else None
        self._favorable_class = _class_index(bias, manifest)
        self.classes = {str(c): place for place, c in enumerate(manifest.classes)} if manifest else dict[str, int]()
        """What a label may name → its place; empty: not known."""
        self.promised = manifest.coverage if manifest else None
        """Chance with which prediction sets or intervals hold the truth; None: there are none."""
        self.calibration: Calibration = {}
        """Rows that the thresholds of these come from; empty: not known."""
        self.coverage = CoverageCounts(self.axes, names)
        self.first_coverage = CoverageCounts(self.axes, names)
        """As if no label had been corrected."""
        self.labels = LabelJoin(label_capacity)
        self.alarm = Alarm(bias.action, bias.min_samples)
        self.roster = Roster()
        """Whom judging compares; replaced as a whole."""
        self.requests = 0
        self.rows = 0
        self.unusable = 0
        """Rows without an output that says whether it favours, such as completions that were cut."""
        self.absent: set[str] = set()
        """Axes that predictions don't carry."""

    def record(self, record: Frame) -> None:
        """Fold one record."""
        if self.revision and record.revision != self.revision:
            return
        if isinstance(record, PredictionFrame):
            self._predictions(record)
        elif isinstance(record, EventRecord) and record.type == "label":
            self._label(record)
        elif isinstance(record, EventRecord) and record.type == "acknowledgement":
            self._acknowledge(record)

    def cells(self) -> Cells:
        """Counts of the window."""
        return self.window.total()

    @property
    def protected(self) -> dict[str, Grouping]:
        """Protected attributes and how they are grouped."""
        names = {a.name for a in self.bias.protected_attributes}
        return {g.name: g for g in self._groupings if g.name in names}

    @property
    def bands(self) -> dict[str, list[float]]:
        """Axis → inner borders of its bands; without those that have none."""
        return {g.name: list(g.edges) for g in self._groupings if g.edges}

    @property
    def rules(self) -> list[object]:
        """What is counted, JSON-ready: counts made under other rules don't add up with these."""
        groupings = [[g.name, *g.edges] for g in self._groupings]
        outcome, window = self.bias.favorable_outcome, self.bias.window
        pattern = [] if outcome.pattern is None else [outcome.pattern]
        scored = [plain_subject(subject) for subject in self.window.scored] + ["exact"] * bool(self.window.scored)
        declared = [] if self.window.limits is None else [list(self.window.limits)]
        return [groupings, outcome.label, outcome.threshold, window.type, window.samples, scored, *pattern, *declared]

    def tally(self) -> Tally:
        """What the other replicas need of these counts."""
        return Tally(
            self.window.dump(),
            self.requests,
            self.rows,
            self.unusable,
            self.labels.joined,
            sorted(self.absent),
            msgspec.structs.replace(self.alarm),
            roster=self.roster,
            coverage=self.coverage.dump(),
            first_coverage=self.first_coverage.dump() if self.labels.corrected else {},
            corrected=self.labels.corrected,
        )

    def rows_of(self, frame: PredictionFrame, number: int) -> list[Row]:
        """The rows of request ``number`` of any replica's frame; changes nothing, so that any thread may ask."""
        read = self._read(frame)
        if read is None:
            return []
        ends = np.frombuffer(frame.rows, "<i4").cumsum()
        rows = range(int(ends[number - 1]) if number else 0, int(ends[number]))
        return [
            Row(
                int(read.bucket[row]),
                tuple(words[int(codes[row])] for codes, words in (read.columns[axis] for axis in self.axes)),
                int(read.outcome[row]),
                float("nan") if read.score is None else float(read.score[row]),
                b"" if read.held is None else read.held[row].tobytes(),
            )
            for row in rows
        ]

    def settle(self, request: str, rows: Iterable[Row], dropped: str) -> None:
        """The ledger has told what becomes of a label: of one that waits, or of one that was joined and may be a
        repetition."""
        for joined in self.labels.confirm(request, dropped if dropped in REPETITIONS else ""):
            self.window.correct(joined, back=True)
            self._cover(joined, back=True)
        for joined in self.labels.settle(request, list(rows), dropped):
            self.window.correct(joined)
            self._cover(joined)

    def settle_correction(self, request: str, rows: Iterable[Row], dropped: str) -> None:
        """The ledger has told what becomes of a correction."""
        self.labels.settle_correction(request, list(rows), dropped)
        self._amended()

    def _predictions(self, frame: PredictionFrame) -> None:
        if self._search is not None and state_of(frame) == "started":
            return
        rows = np.frombuffer(frame.rows, "<i4")
        read = self._read(frame)
        if read is None:
            self.unusable += int(rows.sum())
            return
        self.absent.update(axis for axis in self.axes if axis not in frame.features)
        self.window.add(read.columns, read.outcome, read.bucket, read.score)
        self.requests += len(frame.ids)
        self.rows += len(read.outcome)
        self._joined(self.labels.remember(frame.ids, rows, self.axes, read))

    def _read(self, frame: PredictionFrame) -> Read | None:
        """None when no output says whether it favours."""
        rows = np.frombuffer(frame.rows, "<i4")
        total = int(rows.sum())
        favourable = self._outcome(frame.outputs) if self._search is None else self._generated(frame, self._search)
        if favourable is None or len(favourable) != total:
            return None
        columns = {g.name: self._axis(g, frame.features.get(g.name), total) for g in self._groupings}
        times = np.frombuffer(frame.times, "<f8")
        bucket = self.window.bucket_of(times if total == len(times) else np.repeat(times, rows))
        score = self.scores(frame.outputs, total) if self.window.scored else None
        return Read(columns, favourable, bucket, score, self._held(frame.outputs, total))

    def direction(self, target: object) -> int:
        """Whether more of ``target`` (a class; None: a prediction) favours a person: 1, −1, or 0 when that can't be
        said."""
        outcome = self.bias.favorable_outcome
        if outcome.pattern is not None:
            return 0
        if outcome.threshold is not None or word_of(target) == outcome.label:
            return 1
        return -1 if len(self.classes) == 2 else 0

    def scores(self, outputs: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        """Prediction of a regression, probability of the favourable class, or NaN where there is neither."""
        prediction, probabilities = outputs.get("prediction"), outputs.get("probabilities")
        if prediction is not None and prediction.width == 1 and prediction.dtype != "BYTES":
            return numbers(prediction).astype(np.float32)
        place = self._favorable_class
        if probabilities is not None and place is not None and place < probabilities.width:
            return numbers(probabilities).reshape(rows, -1)[:, place].astype(np.float32)
        return np.full(rows, np.nan, np.float32)

    def _held(self, outputs: Mapping[str, Column], rows: int) -> NDArray[np.uint8] | None:
        """Prediction sets, or intervals, with a promised coverage."""
        column = outputs.get("prediction_set" if self.classes else "prediction_interval")
        if self.promised is None or column is None or column.width != (len(self.classes) or 2):
            return None
        return packed(numbers(column).reshape(rows, column.width))

    @staticmethod
    def _axis(grouping: Grouping, column: Column | None, rows: int) -> CodedColumn:
        if column is None:
            return np.zeros(rows, np.int32), [MISSING]
        return grouping.encode(numbers(column), column.values if column.dtype == "BYTES" else None)

    def _outcome(self, outputs: Mapping[str, Column]) -> NDArray[np.bool_] | None:
        wanted = self.bias.favorable_outcome
        column = outputs.get("label") if wanted.threshold is None else outputs.get("prediction")
        if column is None and len(outputs) == 1:
            column = next(iter(outputs.values()))
        if column is None or column.width != 1:
            return None
        words = column.values if column.dtype == "BYTES" else None
        return outcomes(numbers(column), words, wanted.label, wanted.threshold)

    @staticmethod
    def _generated(frame: PredictionFrame, search: Search) -> NDArray[np.bool_] | None:
        """None for a completion that isn't complete: what a person was told of it isn't known."""
        return outcomes_of(frame, search) if state_of(frame) == "complete" else None

    def label_of(self, event: EventRecord) -> Waiting | Correction:
        """What a label event says. Raises ValueError, msgspec.DecodeError."""
        label = posted(event.body)
        now = self.read_label(label, event.time)
        return Correction(self.read_label(label.before), now) if label.correct else now

    def read_label(self, label: PostedLabel, time: float = 0.0) -> Waiting:
        """A label as the counts need it. Raises ValueError."""
        outcome = self.bias.favorable_outcome
        truth = read_truth(outcome, label, self.classes)
        places = places_of(outcome, label, self.classes) if self.promised is not None else []
        return Waiting(truth.labels, time, truth.numbers, places)

    def _label(self, event: EventRecord) -> None:
        """It was validated when it was posted; what was posted under other rules, or written by others, may still be
        unreadable."""
        try:
            label = self.label_of(event)
        except (ValueError, msgspec.DecodeError):
            self.labels.dropped["unreadable"] += 1
            return
        if isinstance(label, Correction):
            self.labels.correct(event.id, label)
            self._amended()
        else:
            self._joined(self.labels.label(event.id, label.labels, label.time, label.truths, label.places))

    def _acknowledge(self, event: EventRecord) -> None:
        if event.summary.get("kind") == "alarm":
            body = decode_json(event.body)
            self.alarm.acknowledge(body["by"], body["reason"], event.time)

    def _joined(self, rows: Iterable[Joined]) -> None:
        for row in rows:
            self.window.relabel(row)
            self._cover(row)
        self._amended()

    def _cover(self, row: Joined, back: bool = False) -> None:
        for counts in (self.coverage, self.first_coverage):
            counts.add(row.key, row.covered, back=back)

    def _amended(self) -> None:
        for before, after in self.labels.amended():
            self.window.amend(before, after)
            self.coverage.add(before.key, before.covered, back=True)
            self.coverage.add(after.key, after.covered)

    def dump(self) -> dict[str, object]:
        """For the snapshot."""
        return {
            "revision": self.revision,
            "window": self.window.dump(),
            "labels": self.labels.dump(),
            "counts": [self.requests, self.rows, self.unusable],
            "absent": sorted(self.absent),
            "alarm": msgspec.to_builtins(self.alarm),
            "roster": msgspec.to_builtins(self.roster),
            "coverage": self.coverage.dump(),
            "firstCoverage": self.first_coverage.dump(),
        }

    def load(self, dumped: Mapping[str, Any]) -> bool:
        """Inverse of :meth:`dump`; False (and nothing is loaded) for another revision or other axes."""
        if dumped["revision"] != self.revision or tuple(dumped["window"]["axes"]) != self.axes:
            return False
        samples = self.window.samples
        window = Window.load(dumped["window"])
        if (window.scored, window.limits) != (self.window.scored, self.window.limits):
            return False
        self.window = window
        self.window.samples = samples
        self.labels.load(dumped["labels"])
        self.requests, self.rows, self.unusable = dumped["counts"]
        self.roster = msgspec.convert(dumped.get("roster", {}), Roster)
        self.coverage.load(dumped.get("coverage", {}))
        self.first_coverage.load(dumped.get("firstCoverage", {} if self.labels.corrected else self.coverage.dump()))
        self.absent = set(dumped["absent"])
        self.alarm = msgspec.convert({**dumped["alarm"], "action": self.alarm.action, "calm": self.alarm.calm}, Alarm)
        return True


def _class_index(bias: Bias, manifest: Manifest | None) -> int | None:
    classes = [str(c) for c in manifest.classes] if manifest else []
    wanted = bias.favorable_outcome.label
    return classes.index(wanted) if wanted in classes else None
