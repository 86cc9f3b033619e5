"""What is posted as a label: validated once, and held against the label that the prediction has.

The first label of a prediction counts. The same one again is answered alike and recorded once; another is refused: a
verdict that holds at any time can't rest on labels that were chosen after it was seen. A wrong one is corrected by
naming it, with a reason: whoever doesn't know the label that counts can't replace it, the same correction again changes
nothing, and of two at once one is refused. What two replicas, or two requests at once, let in all the same is told
apart when it is counted (`LabelJoin.dropped`).
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from governed_api.governance import FavorableOutcome
from governed_api.names import request_id_fault
from governed_serving.auditor.service.errors import Contradicting, Unusable
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.labels import LabelJoin
from governed_serving.auditor.service.texts import text_fault
from governed_serving.decoding import decode_json
from governed_serving.fairness.counts.truth import PostedLabel, RowTruths, read_truth

__all__ = ["MAX_LABELS", "LabelDoor", "UncheckedLabel", "parse_labels"]

MAX_LABELS = 10_000
MAX_REASON = 500
RECENT = 50_000
"""Labels that were let in and may not have been counted yet."""
SHOWN = 100
"""Ids in an answer."""
_SCALARS = (str, int, float, bool)
REMEDY = (
    "the first label counts, since no verdict may rest on labels that were chosen after it was seen; leave these out "
    'and post the others again, and correct a wrong label with {"id": …, "label": …, "correct": true, "was": …, '
    '"reason": …}, where was is the label that the prediction has'
)


class UncheckedLabel(msgspec.Struct):
    """One of the labels that were posted, before it is known to be one."""

    id: str
    label: Any
    correct: bool = False
    was: Any = None
    reason: str = ""


class Labels(msgspec.Struct):
    """Body of POST /v1/labels."""

    labels: list[UncheckedLabel]


def parse_labels(body: bytes) -> list[UncheckedLabel]:
    """Raises Unusable."""
    try:
        labels = decode_json(body, type=Labels).labels
    except msgspec.DecodeError as error:
        raise Unusable(f'body: expected {{"labels": [{{"id": …, "label": …}}]}} ({error})') from None
    if len(labels) > MAX_LABELS:
        raise Unusable(f"labels: expected at most {MAX_LABELS}, found {len(labels)}; send them in parts")
    return labels


class LabelDoor:
    """``fold`` has the rules and the labels that were counted. Not safe for threads: whoever calls holds the lock of
    ``fold``."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self.refused: Counter[str] = Counter(unusable=0, contradicting=0)
        """Labels that were turned away, by reason."""

    def admit(self, labels: Sequence[UncheckedLabel]) -> list[PostedLabel]:
        """Those that are to be recorded: the ones that aren't known yet. All are let in or none. Raises Unusable,
        Contradicting."""
        taken: dict[str, bytes] = {}
        contradicting, accepted = list[str](), list[PostedLabel]()
        for unchecked in labels:
            label, was, said = self._checked(unchecked)
            counts = taken.get(label.id) or self._counting(label.id)
            if counts == was if counts is not None else was is None or self._may_have_one(label.id):
                taken[label.id] = said
                accepted.append(label)
            elif counts != said and not (was is not None and self._fold.labels.is_doubtful(label.id)):
                contradicting.append(label.id)
            elif counts != said:
                accepted.append(label)  # the ledger knows whether another replica has what it corrects
        if contradicting:
            self.refused["contradicting"] += len(contradicting)
            raise Contradicting(_contradiction(contradicting), contradicting[:SHOWN])
        self._recent.update(taken)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return accepted

    def forget(self, labels: Sequence[PostedLabel]) -> None:
        """They were let in, and could not be recorded."""
        for label in labels:
            self._recent.pop(label.id, None)

    def _counting(self, request: str) -> bytes | None:
        """Of what the label of a request says; None: it has none, or it isn't known here."""
        if (recent := self._recent.get(request)) is not None:
            return recent
        told = self._fold.labels.told(request)
        return None if told is None or told.truths is None else _digest(told.truths, told.places)

    def _may_have_one(self, request: str) -> bool:
        """Whether a label that isn't known here may be there all the same: another replica's, a forgotten one."""
        told = self._fold.labels.told(request)
        return told is None or told.labelled or self._fold.labels.doubt

    def _checked(self, unchecked: UncheckedLabel) -> tuple[PostedLabel, bytes | None, bytes]:
        """The label, and what it corrects (None: nothing) and says. Raises Unusable."""
        try:
            label, said = self._read(unchecked.id, unchecked.label)
            if not unchecked.correct:
                if unchecked.was is not None or unchecked.reason:
                    raise Unusable(
                        f'labels: request {label.id}: was and reason belong to a correction ("correct": true)'
                    )
                return label, None, said
            was = self._corrected(unchecked, label, said)
        except Unusable:
            self.refused["unusable"] += 1
            raise
        reason, before = unchecked.reason.strip(), unchecked.was
        return PostedLabel(id=label.id, label=label.label, correct=True, was=before, reason=reason), was, said

    def _corrected(self, unchecked: UncheckedLabel, label: PostedLabel, said: bytes) -> bytes:
        """Of what a correction replaces. Raises Unusable."""
        about = f"labels: correction of request {label.id}"
        if fault := text_fault(unchecked.reason.strip(), MAX_REASON):
            raise Unusable(f"{about}: reason: {fault}")
        if unchecked.was is None:
            raise Unusable(f"{about}: expected the label that it replaces, as was")
        before, was = self._read(label.id, unchecked.was)
        if len(before.values) != len(label.values):
            raise Unusable(f"{about}: expected was and label of as many rows")
        if was == said:
            raise Unusable(f"{about}: was and label say the same of its outcome: there is nothing to correct")
        return was

    def _read(self, request: str, value: Any) -> tuple[PostedLabel, bytes]:
        """A label, and what it says. Raises Unusable."""
        fold = self._fold
        label, truths = checked(fold.bias.favorable_outcome, UncheckedLabel(request, value), fold.classes)
        _check_rows(fold.labels, label)
        return label, _digest(truths.numbers, fold.read_label(label).places)


def checked(
    outcome: FavorableOutcome, unchecked: UncheckedLabel, classes: Mapping[str, int]
) -> tuple[PostedLabel, RowTruths]:
    """The one place where a label is validated. Raises Unusable."""
    if fault := request_id_fault(unchecked.id):
        raise Unusable(f"labels: id: {fault}")
    values = unchecked.label if isinstance(unchecked.label, list) else [unchecked.label]
    if not values or not all(isinstance(v, _SCALARS) for v in values):
        raise Unusable(f"labels: request {unchecked.id}: expected a value or one per row, found {unchecked.label!r}")
    label = PostedLabel(id=unchecked.id, label=unchecked.label)
    try:
        return label, read_truth(outcome, label, classes)
    except ValueError as error:
        why = str(error) if outcome.threshold is None else f"expected numbers, found {unchecked.label!r}"
        raise Unusable(f"labels: request {unchecked.id}: {why[:500]}") from None


def _digest(truths: Sequence[float], places: Sequence[int]) -> bytes:
    """Of what a label says (-0.0 says 0.0): what is kept of it doesn't grow with its rows."""
    said = (np.array(truths, "<f8") + 0.0).tobytes() + np.array(places, "<i4").tobytes()
    return hashlib.blake2b(said, digest_size=16).digest()


def _check_rows(known: LabelJoin, label: PostedLabel) -> None:
    told = known.told(label.id)
    if told is not None and told.rows not in (None, count := len(label.values)):
        raise Unusable(f"labels: request {label.id}: expected a label for each of its {told.rows} rows, found {count}")


def _contradiction(requests: Sequence[str]) -> str:
    listed = ", ".join(requests[:3]) + (f" and {len(requests) - 3} more" if len(requests) > 3 else "")
    told = "another label than the one that the prediction has, or a correction of a label that it doesn't have"
    return f"labels: {told}, for {listed}; nothing was recorded: {REMEDY}"
