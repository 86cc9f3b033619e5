"""What is posted as a label: validated once, and held against the label that the prediction has.

The first label of a prediction counts. The same one again is answered alike and recorded once; another is refused: a
verdict that holds at any time can't rest on labels that were chosen after it was seen. What two replicas, or two
requests at once, let in all the same is told apart when it is counted (`LabelJoin.dropped`).
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
from governed_serving.decoding import decode_json
from governed_serving.fairness.counts.truth import PostedLabel, RowTruths, read_truth

__all__ = ["MAX_LABELS", "LabelDoor", "UncheckedLabel", "parse_labels"]

MAX_LABELS = 10_000
RECENT = 50_000
"""Labels that were let in and may not have been counted yet."""
SHOWN = 100
"""Ids in an answer."""
_SCALARS = (str, int, float, bool)
REMEDY = (
    "the first label counts, since no verdict may rest on labels that were chosen after it was seen; leave these out "
    "and post the others again, and record a wrong first label with `governed contest`"
)


class UncheckedLabel(msgspec.Struct):
    """One of the labels that were posted, before it is known to be one."""

    id: str
    label: Any


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
            label, truths = self._checked(unchecked)
            first, said = taken.get(label.id) or self._first(label.id), _digest(truths.numbers)
            if first is None:
                taken[label.id] = said
                accepted.append(label)
            elif first != said:
                contradicting.append(label.id)
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

    def _first(self, request: str) -> bytes | None:
        """Of the truths of the label that a request has; None: it has none, or they aren't known here."""
        told = self._fold.labels.told(request)
        return self._recent.get(request) if told is None or told.truths is None else _digest(told.truths)

    def _checked(self, unchecked: UncheckedLabel) -> tuple[PostedLabel, RowTruths]:
        """Raises Unusable."""
        try:
            fold = self._fold
            label, truths = checked(fold.bias.favorable_outcome, unchecked, fold.classes)
            _check_rows(fold.labels, label)
        except Unusable:
            self.refused["unusable"] += 1
            raise
        return label, truths


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


def _digest(truths: Sequence[float]) -> bytes:
    """Of a label's truths: what is kept of it doesn't grow with its rows."""
    return hashlib.blake2b(np.array(truths, "<f8").tobytes(), digest_size=16).digest()


def _check_rows(known: LabelJoin, label: PostedLabel) -> None:
    told = known.told(label.id)
    if told is not None and told.rows not in (None, found := len(label.values)):
        raise Unusable(f"labels: request {label.id}: expected a label for each of its {told.rows} rows, found {found}")


def _contradiction(requests: Sequence[str]) -> str:
    listed = ", ".join(requests[:3]) + (f" and {len(requests) - 3} more" if len(requests) > 3 else "")
    return f"labels: another label than the one that the prediction has, for {listed}; nothing was recorded: {REMEDY}"
