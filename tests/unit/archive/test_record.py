"""What a frame holds of the entry that names it, ready for JSON: its own rows and no others', or why there is none."""

from typing import Any

import msgspec
import pytest

from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.verify.record import opened_frame
from governed_serving.records import Column, EventRecord, ExplanationRecord, LedgerEntry, PredictionFrame, SubjectFrame
from support.predictions import Field, Prediction, PredictionSchema, framed

SCHEMA = PredictionSchema(
    "credit", "r1", "sha256:a", (Field("age", "FP32"), Field("job", "BYTES")), (Field("label", "INT64"),)
)
FRAME = framed(
    Prediction(SCHEMA, "a", 1.0, 2, [[1.0, 2.0], ["x", "y"]], [[10, 20]]),
    Prediction(SCHEMA, "b", 1.0, 1, [[3.0], ["z"]], [[30]]),
    Prediction(SCHEMA, "a", 1.0, 1, [[4.0], ["w"]], [[40]]),
)
EVENT = EventRecord("label", "a", "credit", "r1", 1.0, b'{"label":1}')


def entry(id: str, index: int | None = None, type: str = "prediction") -> LedgerEntry:
    return LedgerEntry(type, "default", "credit", id, "2026-01-01T00:00:00.000Z", frame=7, index=index)


@pytest.mark.parametrize(
    ("id", "index", "age", "job", "label"),
    [
        ("a", 0, [1.0, 2.0], ["x", "y"], [10, 20]),
        ("b", 1, [3.0], ["z"], [30]),
        ("a", 2, [4.0], ["w"], [40]),
        ("a", None, [1.0, 2.0], ["x", "y"], [10, 20]),
        ("b", 0, [3.0], ["z"], [30]),
    ],
)
def test_a_request_has_its_own_rows(id: str, index: int | None, age: object, job: object, label: object) -> None:
    assert opened_frame(FRAME, entry(id, index)) == {
        "id": id,
        "revision": "r1",
        "artefact": "sha256:a",
        "features": {"age": age, "job": job},
        "outputs": {"label": label},
    }


def test_a_tensor_that_was_kept_by_its_digest_says_which() -> None:
    column = Column("FP32", b"", shape=[3, 224, 224], sha256="ab" * 32)
    frame = msgspec.structs.replace(FRAME, features={"image": column})
    content: Any = opened_frame(frame, entry("b", 1))
    assert content["features"] == {"image": {"datatype": "FP32", "shape": [3, 224, 224], "sha256": "ab" * 32}}


def test_an_entry_about_a_request_that_the_frame_has_not_is_refused() -> None:
    with pytest.raises(ArchiveError, match="frame 7 holds 3 requests, none with id c"):
        opened_frame(FRAME, entry("c"))


@pytest.mark.parametrize(
    ("body", "told"), [(b'{"label":1}', {"label": 1}), (b"[1,2]", [1, 2]), (b"no \xff JSON", "no \ufffd JSON")]
)
def test_what_was_said_of_a_request_is_told_with_its_kind(body: bytes, told: object) -> None:
    event = msgspec.structs.replace(EVENT, body=body)
    assert opened_frame(event, entry("a", type="label")) == {"type": "label", "id": "a", "body": told}


def test_an_entry_about_another_request_than_its_frame_is_refused() -> None:
    with pytest.raises(ArchiveError, match="frame 7 is about a, the entry about b"):
        opened_frame(EVENT, entry("b", type="label"))


SEALED = SubjectFrame("credit", "r1", "sha256:a", ["a"], FRAME.times, FRAME.rows, "ab", "subject-ab", b"")
PERSONAL = msgspec.structs.replace(EVENT, summary={"subject": "ab", "key": "subject-ab"})
EXPLANATION = ExplanationRecord("a", "credit", "r1", 1.0, b"{}")


@pytest.mark.parametrize("frame", [None, SEALED, PERSONAL, EXPLANATION], ids=["gone", "sealed", "personal", "another"])
def test_of_an_erased_person_and_of_a_frame_that_is_gone_nothing_is_told(frame: Any) -> None:
    assert isinstance(FRAME, PredictionFrame)
    assert opened_frame(frame, entry("a")) is None
