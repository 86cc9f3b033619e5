"""Predictions as tests write them down: one request each, made a frame by ``framed`` as the server's recorder makes one
of a batch."""

from array import array
from collections.abc import Sequence

import msgspec

from governed_serving.journal.columns import Values, pack
from governed_serving.journal.errors import RecordRefused
from governed_serving.records import Column, PredictionFrame

__all__ = ["Field", "Prediction", "PredictionSchema", "framed"]


class Field(msgspec.Struct, frozen=True):
    """A column: V2 datatype, ``width`` values per row."""

    name: str
    dtype: str
    width: int = 1


class PredictionSchema(msgspec.Struct, frozen=True):
    """What all predictions of one model revision have in common. Made once; compared by identity."""

    model: str
    revision: str
    artefact: str
    features: tuple[Field, ...]
    outputs: tuple[Field, ...]


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One answered request. ``features`` and ``outputs`` hold a sequence per field of the schema, in its order.

    Each is a flat row-major list of Python values or an ndarray with ``rows`` × width values; text is masked already.
    ``time`` is seconds since the epoch.
    """

    schema: PredictionSchema
    id: str
    time: float
    rows: int
    features: Sequence[Values]
    outputs: Sequence[Values]


def framed(*batch: Prediction) -> PredictionFrame:
    """The frame of ``batch`` (one schema). Raises :class:`RecordRefused` naming the first column that doesn't fit."""
    schema = batch[0].schema
    rows = [p.rows for p in batch]
    total = sum(rows)
    return PredictionFrame(
        schema.model,
        schema.revision,
        schema.artefact,
        [p.id for p in batch],
        array("d", [p.time for p in batch]).tobytes(),
        array("i", rows).tobytes(),
        _columns(schema.features, [p.features for p in batch], total),
        _columns(schema.outputs, [p.outputs for p in batch], total),
    )


def _columns(fields: tuple[Field, ...], requests: list[Sequence[Values]], rows: int) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    try:
        for field, parts in zip(fields, zip(*requests, strict=True), strict=True):
            columns[field.name] = pack(field.dtype, field.width, parts, rows)
    except RecordRefused as error:
        raise RecordRefused(f"column {field.name!r}: {error}") from None
    except ValueError:
        raise RecordRefused(
            f"expected {len(fields)} columns in every request, found {sorted({len(r) for r in requests})}"
        ) from None
    return columns
