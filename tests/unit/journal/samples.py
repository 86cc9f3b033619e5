"""What several tests of the journal share: a cipher, a schema, records."""

import os
from pathlib import Path

from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.records import EventRecord, PredictionFrame
from support.predictions import Field, Prediction, PredictionSchema, framed

SCHEMA = PredictionSchema(
    "credit",
    "r1",
    "sha256:00",
    (Field("income", "FP32"), Field("years", "INT64"), Field("city", "BYTES"), Field("note", "BYTES")),
    (Field("probabilities", "FP32", 2), Field("label", "INT64")),
)


def cipher(folder: Path, key: bytes = b"k" * 32) -> SegmentCipher:
    """The journal's cipher; the same for the same folder."""
    return SegmentCipher(Keyring(Kek(key), DirectoryStore(folder / "keysets")).keyset("journal"))


def prediction(number: int, rows: int = 1) -> PredictionFrame:
    """A request whose every value tells its number."""
    return framed(asked(number, rows))


def asked(number: int, rows: int = 1) -> Prediction:
    """The same, to be framed with others."""
    return Prediction(
        SCHEMA,
        f"request-{number}",
        1000.0 + number,
        rows,
        ([number + 0.5] * rows, [number] * rows, [f"city {number % 3}"] * rows, [f"secret note {number}"] * rows),
        ([0.25, 0.75] * rows, [number % 2] * rows),
    )


def event(number: int, size: int = 20) -> EventRecord:
    """An event with ``size`` bytes of body."""
    return EventRecord("verdict", f"event-{number}", "credit", "r1", float(number), os.urandom(size))
