"""How many generated answers were labelled, by their records: of each revision, words and metadata apart."""

from dataclasses import dataclass

import msgspec

from governed_serving.completions.generated import state_of
from governed_serving.completions.labelling import LABELLED, LabelRecord
from governed_serving.decoding import decode_json
from governed_serving.journal import strings
from governed_serving.records import PredictionFrame

__all__ = ["MarkedAnswers"]


@dataclass
class MarkedAnswers:
    """Complete answers of one revision, and streams that were cut. An answer without a record of labels has none."""

    complete: int = 0
    worded: int = 0
    exempt: int = 0
    """From words: code, JSON that was asked for, answers without text."""
    described: int = 0
    """With metadata in the body."""
    cut: int = 0
    """Streams that ended before words behind them, or metadata, could come."""

    def add(self, frame: PredictionFrame) -> None:
        """Count a frame of a conversation that is over."""
        if state_of(frame) == "cut":
            self.cut += 1
            return
        self.complete += 1
        record = _record(frame)
        self.worded += record.words == "labelled"
        self.exempt += record.words == "exempt"
        self.described += record.metadata


def _record(frame: PredictionFrame) -> LabelRecord:
    """An empty one where there is none, or none that can be read."""
    column = frame.outputs.get(LABELLED)
    try:
        return decode_json(str(strings(column)[0]), type=LabelRecord) if column is not None else LabelRecord()
    except (msgspec.DecodeError, IndexError):
        return LabelRecord()
