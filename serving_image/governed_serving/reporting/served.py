"""What was served, recomputed from the ledger: predictions opened with the model's key, counted by group and stratum.

Independent of the auditor's own state: whoever has the ledger and the key comes to the same counts.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from governed_serving.archive.sources import LogSource
from governed_serving.auditor.cells import Cells, CodedColumn
from governed_serving.auditor.grouping import MISSING, Grouping, outcomes
from governed_serving.crypto import Kek, Keyring, SegmentCipher
from governed_serving.explainer.overall.quality_windows import QualityWindows
from governed_serving.generated import outcomes_of, searcher, state_of
from governed_serving.journal import numbers, open_chunk
from governed_serving.records import Column, ExplanationRecord, PredictionFrame

__all__ = ["Served", "fold_served"]

_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]{2,30})>")


@dataclass
class Served:
    """Counts over the opened chunks. ``masked``: field → entity → placeholders seen; ``importances``: |attribution|; ``quality``: of
    the explanations, by hour."""

    cells: Cells | None = None
    requests: int = 0
    rows: int = 0
    chunks: int = 0
    chunks_known: int = 0
    masked: dict[str, dict[str, int]] = field(default_factory=dict)
    explanations: int = 0
    importances: dict[str, list[float]] = field(default_factory=dict)
    quality: QualityWindows = field(default_factory=QualityWindows)


def fold_served(
    source: LogSource, kek: Kek, model: str, chunks: Iterable[str], about: dict[str, Any], limit: int = 2000
) -> Served:
    """Open the journal chunks (blob addresses) of ``model`` and count.

    ``about``: ``axes`` (protected attributes, then strata), ``features`` of model.json (for the bands of numeric axes),
    ``favorable`` and ``threshold``, or ``pattern`` of generated text. At most the ``limit`` newest chunks are opened. Raises CryptoError, JournalError.
    """
    cipher = SegmentCipher(Keyring(kek, source.keysets(model)).keyset("journal", create=False))
    addresses = list(dict.fromkeys(chunks))
    axes = list(dict.fromkeys(about["axes"]))
    served = Served(Cells(axes) if axes else None, chunks_known=len(addresses))
    groupings = [_grouping(name, about.get("features", [])) for name in axes]
    for address in addresses[-limit:]:
        try:
            chunk = source.blob_bytes(address)
        except FileNotFoundError:
            continue  # deleted under retention: verification says whether with a receipt
        served.chunks += 1
        for _, frame in open_chunk(chunk, cipher):
            if isinstance(frame, PredictionFrame) and frame.model == model:
                _fold(served, frame, groupings, about)
            elif isinstance(frame, ExplanationRecord) and frame.model == model:
                _importances(served, frame)
    return served


def _grouping(name: str, features: list[dict[str, Any]]) -> Grouping:
    found = next((f for f in features if f["name"] == name), {})
    numeric = found.get("type") == "numeric"
    return Grouping.of(name, found.get("min"), found.get("max")) if numeric else Grouping(name)


def _fold(served: Served, frame: PredictionFrame, groupings: list[Grouping], about: dict[str, Any]) -> None:
    if state_of(frame) == "started":
        return  # the completion comes with the same features
    total = int(np.frombuffer(frame.rows, "<i4").sum())
    served.requests += len(frame.ids)
    served.rows += total
    for name, column in frame.features.items():
        for entity, times in _masked(column):
            counts = served.masked.setdefault(name, {})
            counts[entity] = counts.get(entity, 0) + times
    favourable = _favourable(frame, about)
    if served.cells is None or favourable is None or len(favourable) != total:
        return
    columns: dict[str, CodedColumn] = {}
    for grouping in groupings:
        found = frame.features.get(grouping.name)
        if found is None:
            columns[grouping.name] = (np.zeros(total, np.int32), [MISSING])
        else:
            words = found.values if found.dtype == "BYTES" else None
            columns[grouping.name] = grouping.encode(numbers(found), words)
    served.cells.add(columns, favourable)


def _masked(column: Column) -> Iterator[tuple[str, int]]:
    """(entity, times) of placeholders in a text column; each distinct text is searched once."""
    if column.dtype != "BYTES":
        return
    times = np.bincount(numbers(column), minlength=len(column.values)).tolist()
    for value, count in zip(column.values, times, strict=True):
        for entity in _PLACEHOLDER.findall(value):
            yield entity, count


def _favourable(frame: PredictionFrame, about: dict[str, Any]) -> Any:
    if state_of(frame):
        pattern = about.get("pattern")
        return outcomes_of(frame, searcher(pattern)) if pattern and state_of(frame) == "complete" else None
    threshold = about.get("threshold")
    column = frame.outputs.get("label" if threshold is None else "prediction")
    if column is None or column.width != 1:
        return None
    words = column.values if column.dtype == "BYTES" else None
    return outcomes(numbers(column), words, about.get("favorable"), threshold)


def _importances(served: Served, frame: ExplanationRecord) -> None:
    try:
        explanations = msgspec.json.decode(frame.body).get("explanations", [])
    except (msgspec.DecodeError, AttributeError):
        return
    for one in explanations:
        served.explanations += 1
        served.quality.observe(frame.time, one)
        for entry in one.get("attributions", []):
            name = entry.get("feature") or entry.get("group")
            if name and isinstance(entry.get("attribution"), int | float):
                served.importances.setdefault(str(name), []).append(abs(float(entry["attribution"])))
