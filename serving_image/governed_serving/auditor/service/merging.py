"""Neighbouring prediction frames as one: folding costs the same for one row as for hundreds, and a quiet server writes
a frame per request."""

from collections.abc import Iterable, Iterator

from governed_serving.completions.generated import state_of
from governed_serving.journal.columns import joined
from governed_serving.records import Column, Frame, PredictionFrame

__all__ = ["merged"]

MAX_REQUESTS = 4096
"""Of one merged frame."""


def merged(records: Iterable[Frame]) -> Iterator[Frame]:
    """The same records in the same order, with runs of prediction frames of one kind put together.

    Completions stay apart: how far one had come is said of its frame.
    """
    run: list[PredictionFrame] = []
    kind: tuple[object, ...] | None = None
    requests = 0
    for record in records:
        if isinstance(record, PredictionFrame) and not state_of(record):
            own = _kind(record)
            if run and (own != kind or requests + len(record.ids) > MAX_REQUESTS):
                yield _one(run)
                run, requests = [], 0
            run.append(record)
            kind, requests = own, requests + len(record.ids)
            continue
        if run:
            yield _one(run)
            run, requests = [], 0
        yield record
    if run:
        yield _one(run)


def _kind(frame: PredictionFrame) -> tuple[object, ...]:
    """Frames alike can be merged; a tensor of a shape that its request chose is like none but itself."""
    parts = (*frame.features.values(), *frame.outputs.values())
    if any(column.shape is not None for column in parts):
        return (id(frame),)
    columns = [[(name, c.dtype, c.width) for name, c in part.items()] for part in (frame.features, frame.outputs)]
    return frame.model, frame.revision, frame.artefact, columns


def _one(run: list[PredictionFrame]) -> PredictionFrame:
    first = run[0]
    if len(run) == 1:
        return first
    return PredictionFrame(
        first.model,
        first.revision,
        first.artefact,
        [identity for frame in run for identity in frame.ids],
        b"".join([frame.times for frame in run]),
        b"".join([frame.rows for frame in run]),
        _columns([frame.features for frame in run]),
        _columns([frame.outputs for frame in run]),
    )


def _columns(parts: list[dict[str, Column]]) -> dict[str, Column]:
    return {name: joined([part[name] for part in parts]) for name in parts[0]}
