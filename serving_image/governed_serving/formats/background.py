"""Background rows of a model that others exported: CSV with a column for each feature."""

import csv
import io
import math
from collections.abc import Sequence

from governed_api.datatypes import BYTES
from governed_api.json_types import Scalar
from governed_serving.artefact import Feature, MalformedArtefact

__all__ = ["BACKGROUND_BYTES", "MAX_ROWS", "background_columns", "header_of"]

MAX_ROWS = 10_000
BACKGROUND_BYTES = 256 << 20
"""Largest file of background rows that is read."""
WHERE = "explainer.background"


def header_of(content: bytes) -> list[str]:
    """Names of the columns. Raises MalformedArtefact."""
    try:
        header = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedArtefact(f"{WHERE}: expected CSV in UTF-8, found: {error}") from error
    if not header or not all(header) or len(set(header)) < len(header):
        raise MalformedArtefact(
            f"{WHERE}: expected a header that names each column once, found {', '.join(header)[:200] or 'none'}"
        )
    return header


def background_columns(content: bytes, features: Sequence[Feature]) -> dict[str, list[Scalar]]:
    """Feature → values, None where one is missing, as background.json has them; further columns are left out. Raises
    MalformedArtefact naming row and column."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = list(reader.fieldnames or [])
        rows = [row for row, _ in zip(reader, range(MAX_ROWS + 1), strict=False)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedArtefact(f"{WHERE}: expected CSV in UTF-8, found: {error}") from error
    if absent := [feature.name for feature in features if header.count(feature.name) != 1]:
        raise MalformedArtefact(
            f"{WHERE}: expected one column {absent[0]!r}, as the model's input is named, found the header "
            f"{', '.join(header)[:200] or 'of no column'}"
        )
    if not 1 <= len(rows) <= MAX_ROWS:
        count = "none" if not rows else "more"
        raise MalformedArtefact(f"{WHERE}: expected 1 to {MAX_ROWS} rows below its header, found {count}")
    return {
        feature.name: [_value(row.get(feature.name), feature, number) for number, row in enumerate(rows, 2)]
        for feature in features
    }


def _value(text: str | None, feature: Feature, line: int) -> Scalar:
    if feature.dtype == BYTES:
        return text or ""
    where = f"{WHERE}: line {line}, column {feature.name!r}"
    if not (text or "").strip():
        if feature.missing == "refuse":
            raise MalformedArtefact(
                f"{where}: expected a number, found none; say missing: Accept of this input, or fill it"
            )
        return None
    try:
        number = float(text or "")
    except ValueError:
        raise MalformedArtefact(f"{where}: expected a number, found {str(text)[:80]!r}") from None
    if not math.isfinite(number):
        raise MalformedArtefact(f"{where}: expected a finite number, found {str(text)[:80]!r}")
    return number if feature.dtype.startswith("FP") else int(number)
