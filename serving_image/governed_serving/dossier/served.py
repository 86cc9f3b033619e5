"""What was served, recomputed from the ledger: predictions opened with the model's key, counted by group and stratum.

Independent of the auditor's own state: whoever has the ledger and the key comes to the same counts. Labels are joined
whenever they came: also those of requests that an earlier revision answered, which the auditor of the present one has
nothing to do with.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api.governance import FavorableOutcome
from governed_api.printable import printable
from governed_serving.archive.verify.sources import LogSource
from governed_serving.completions.generated import outcomes_of, searcher, state_of
from governed_serving.crypto import Kek, Keyring, SegmentCipher, Subjects
from governed_serving.decoding import decode_json
from governed_serving.dossier.marked_answers import MarkedAnswers
from governed_serving.explainer.overall.quality_windows import QualityWindows
from governed_serving.fairness.counts.cells import UNKNOWN, Cells, CodedColumn
from governed_serving.fairness.counts.grouping import MISSING, Grouping, outcomes
from governed_serving.fairness.counts.truth import SHOWN_CHARACTERS, PostedLabel, RowTruths, posted, read_truth, word_of
from governed_serving.journal import numbers, open_chunk
from governed_serving.records import Column, EventRecord, ExplanationRecord, Frame, PredictionFrame

__all__ = ["REVISION", "JournalChunks", "Served", "ServedRules", "fold_served"]

MOST_STRANGE, OTHERS = 100, "(others)"
"""Texts that are told apart of labels that name no class, and what the rest is called."""
REVISION = "(revision)"
"""The axis of who decided."""

_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]{2,30})>")


@dataclass
class Served:
    """Counts over the opened chunks, whose last axis is ``REVISION``. ``labels``: rows whose label is known;
    ``strange``: labels that name no class of the model, by what they say, counted in nothing else (rows).
    ``masked``: field → entity → placeholders seen; ``kinds``: kind of attribution → feature → sizes; ``quality``: of
    the explanations, by hour; ``marked``: revision → which of its generated answers were labelled."""

    cells: Cells | None = None
    requests: int = 0
    rows: int = 0
    labels: int = 0
    strange: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    chunks_known: int = 0
    left_out: int = 0
    """Older chunks of predictions, or of labels, beyond the most that are opened."""
    masked: dict[str, dict[str, int]] = field(default_factory=dict)
    marked: dict[str, MarkedAnswers] = field(default_factory=dict)
    explanations: int = 0
    kinds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    quality: QualityWindows = field(default_factory=QualityWindows)


MOST_CHUNKS = 2000
"""Of the journal that are opened, the newest."""


@dataclass(frozen=True)
class ServedRules:
    """What is counted: ``axes`` (protected attributes, then strata), the ``groupings`` of numeric ones, and what is
    favourable: a class (one of ``classes``, where they are known), a score from a threshold on, or generated text in
    which a pattern is found."""

    axes: Sequence[str]
    groupings: Mapping[str, Grouping] = field(default_factory=dict)
    label: str | None = None
    threshold: float | None = None
    pattern: str | None = None
    classes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class JournalChunks:
    """Blob addresses in the order of the ledger, and those of them in which labels are."""

    every: Sequence[str]
    labelled: Sequence[str] = ()


def fold_served(
    source: LogSource,
    kek: Kek,
    model: str,
    chunks: JournalChunks,
    rules: ServedRules,
    limit: int = MOST_CHUNKS,
) -> Served:
    """Open the journal chunks of ``model`` and count.

    At most the ``limit`` newest chunks are opened. Raises CryptoError, JournalError.
    """
    store = source.keysets(model)
    cipher = SegmentCipher(Keyring(kek, store).keyset("journal", create=False), Subjects(kek, store))
    addresses = list(dict.fromkeys(chunks.every))
    axes = list(dict.fromkeys(rules.axes))
    served = Served(Cells([*axes, REVISION]) if axes else None, chunks_known=len(addresses))
    served.left_out = max(len(addresses) - limit, 0)
    groupings = [rules.groupings.get(name, Grouping(name)) for name in axes]
    labelled = list(dict.fromkeys(chunks.labelled))[-limit:]
    truths = _truths(source, cipher, model, labelled, rules, served.strange) if axes else {}
    for address in addresses[-limit:]:
        frames = _opened(source, cipher, address)
        served.chunks += frames is not None
        for frame in frames or []:
            if isinstance(frame, PredictionFrame) and frame.model == model:
                _fold(served, frame, groupings, rules, truths)
            elif isinstance(frame, ExplanationRecord) and frame.model == model:
                _importances(served, frame)
    return served


def _opened(source: LogSource, cipher: SegmentCipher, address: str) -> list[Frame] | None:
    """None for a chunk that was deleted under retention: verification says whether with a receipt."""
    try:
        chunk = source.blob_bytes(address)
    except FileNotFoundError:
        return None
    return [frame for _, frame in open_chunk(chunk, cipher)]


def _truths(
    source: LogSource,
    cipher: SegmentCipher,
    model: str,
    chunks: list[str],
    rules: ServedRules,
    strange: dict[str, int],
) -> dict[str, list[int]]:
    """Request → its labels (favourable or not): the first one in the ledger counts, until a correction takes the place
    of what counts. Older ledgers have labels that name no class: they would count as unfavourable, so they are counted
    in ``strange`` alone."""
    named = {"label": rules.label, "threshold": rules.threshold, "pattern": rules.pattern}
    chosen = {name: value for name, value in named.items() if value not in (None, "")}
    if not chosen:
        return {}
    outcome = FavorableOutcome(**chosen)
    by_id: dict[str, RowTruths] = {}
    corrections: list[PostedLabel] = []
    for address in chunks:
        for frame in _opened(source, cipher, address) or []:
            if isinstance(frame, EventRecord) and (frame.type, frame.model) == ("label", model):
                with suppress(ValueError, msgspec.DecodeError):  # posted under other rules: the auditor drops it, too
                    label = posted(frame.body)
                    if words := _strange_words(label, rules):
                        _count(words, strange)
                        continue
                    if label.correct:  # another replica may have shipped the label behind its correction
                        corrections.append(msgspec.structs.replace(label, id=frame.id))
                    else:
                        by_id.setdefault(frame.id, read_truth(outcome, label))
    for label in corrections:
        with suppress(ValueError):
            truth_before = by_id.get(label.id)
            of_a_class = not _strange_words(label.before, rules)
            if truth_before == read_truth(outcome, label.before) if of_a_class else truth_before is None:
                by_id[label.id] = read_truth(outcome, label)
    return {request: truth.labels for request, truth in by_id.items()}


def _strange_words(label: PostedLabel, rules: ServedRules) -> list[str]:
    """What a label says that is no class of the model, where these are known."""
    if rules.label is None or not rules.classes:
        return []
    return [word for word in map(word_of, label.values) if word not in rules.classes]


def _count(words: list[str], strange: dict[str, int]) -> None:
    for word in words:
        shown = printable(word[:SHOWN_CHARACTERS])
        shown = shown if shown in strange or len(strange) < MOST_STRANGE else OTHERS
        strange[shown] = strange.get(shown, 0) + 1


def _fold(
    served: Served,
    frame: PredictionFrame,
    groupings: list[Grouping],
    rules: ServedRules,
    truths: Mapping[str, list[int]],
) -> None:
    if state_of(frame) == "started":
        return  # the completion comes with the same features
    if state_of(frame):
        served.marked.setdefault(frame.revision, MarkedAnswers()).add(frame)
    total = int(np.frombuffer(frame.rows, "<i4").sum())
    served.requests += len(frame.ids)
    served.rows += total
    for name, column in frame.features.items():
        for entity, times in _masked(column):
            counts = served.masked.setdefault(name, {})
            counts[entity] = counts.get(entity, 0) + times
    favourable = _favourable(frame, rules)
    if served.cells is None or favourable is None or len(favourable) != total:
        return
    columns: dict[str, CodedColumn] = {}
    for grouping in groupings:
        drawn = frame.features.get(grouping.name)
        if drawn is None:
            columns[grouping.name] = (np.zeros(total, np.int32), [MISSING])
        else:
            words = drawn.values if drawn.dtype == "BYTES" else None
            columns[grouping.name] = grouping.encode(numbers(drawn), words)
    columns[REVISION] = (np.zeros(total, np.int32), [frame.revision])
    truth = _known(frame, total, truths) if truths else None
    served.labels += 0 if truth is None else int((truth != UNKNOWN).sum())
    served.cells.add(columns, favourable, truth)


def _known(frame: PredictionFrame, total: int, truths: Mapping[str, list[int]]) -> NDArray[np.int8]:
    """The label of each row; ``UNKNOWN`` where there is none, or not one for each row of the request."""
    truth = np.full(total, UNKNOWN, np.int8)
    ends = np.frombuffer(frame.rows, "<i4").cumsum().tolist()
    for request, start, end in zip(frame.ids, [0, *ends[:-1]], ends, strict=True):
        if len(labels := truths.get(request, ())) == end - start:
            truth[start:end] = labels
    return truth


def _masked(column: Column) -> Iterator[tuple[str, int]]:
    """(entity, times) of placeholders in a text column; each distinct text is searched once."""
    if column.dtype != "BYTES":
        return
    times = np.bincount(numbers(column).ravel(), minlength=len(column.values)).tolist()
    for value, count in zip(column.values, times, strict=True):
        for entity in _PLACEHOLDER.findall(value):
            yield entity, count


def _favourable(frame: PredictionFrame, rules: ServedRules) -> NDArray[np.bool_] | None:
    if state_of(frame):
        return outcomes_of(frame, searcher(rules.pattern)) if rules.pattern and state_of(frame) == "complete" else None
    column = frame.outputs.get("label" if rules.threshold is None else "prediction")
    if column is None or column.width != 1:
        return None
    words = column.values if column.dtype == "BYTES" else None
    return outcomes(numbers(column), words, rules.label, rules.threshold)


def _importances(served: Served, frame: ExplanationRecord) -> None:
    """Attributions of one kind alone can be averaged: those of outputs don't add up with log-odds or coefficients."""
    try:
        explanations = decode_json(frame.body).get("explanations", [])
    except (msgspec.DecodeError, AttributeError):
        return
    for explanation in explanations:
        served.explanations += 1
        served.quality.observe(frame.time, explanation)
        for entry in explanation.get("attributions", []):
            name = entry.get("feature") or entry.get("group")
            if name and isinstance(entry.get("attribution"), int | float):
                kind = ", ".join([_KINDS.get(explanation.get("method"), "Shapley values"), *_scale(explanation)])
                sizes = served.kinds.setdefault(kind, {})
                sizes.setdefault(str(name), []).append(abs(float(entry["attribution"])))


_KINDS = {"lime": "coefficients of lime", "owen": "Owen values", "text": "values of a text's parts"}


def _scale(explanation: Mapping[str, object]) -> list[str]:
    return ["in log-odds"] if explanation.get("scale") == "logit" else []
