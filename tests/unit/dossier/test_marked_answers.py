"""Which generated answers count as labelled, by the records that the gateway itself writes."""

import json
from array import array
from typing import Any

import pytest

from governed_serving.completions.labelling import LABELLED
from governed_serving.dossier.marked_answers import MarkedAnswers
from governed_serving.journal.columns import pack
from governed_serving.records import PredictionFrame


def frame(state: str, labelled: Any = None) -> PredictionFrame:
    texts = {"completion": "x", "state": state}
    if labelled is not None:
        texts[LABELLED] = labelled if isinstance(labelled, str) else json.dumps(labelled)
    outputs = {name: pack("BYTES", 1, [[text]], 1) for name, text in texts.items()}
    return PredictionFrame(
        "m", "r", "a", ["i"], array("d", [0.0]).tobytes(), array("i", [1]).tobytes(), {}, outputs, [], [], {}
    )


PUT = {"explicit": "Suffix", "text": "sha256:t", "choices": {"0": "put"}, "implicit": "AIGC", "content": "sha256:c"}


@pytest.mark.parametrize(
    ("state", "labelled", "counts"),
    [
        ("complete", PUT, {"complete": 1, "worded": 1, "described": 1}),
        ("complete", PUT | {"choices": {"0": "carried", "1": "json"}}, {"complete": 1, "worded": 1, "described": 1}),
        ("complete", PUT | {"choices": {"0": "json", "1": "code"}}, {"complete": 1, "exempt": 1, "described": 1}),
        ("complete", PUT | {"choices": {"0": "put", "1": "unfinished"}}, {"complete": 1, "described": 1}),
        ("complete", {"implicit": "AIGC", "content": "sha256:c"}, {"complete": 1, "described": 1}),
        ("complete", {"explicit": "Suffix", "choices": {"0": "put"}}, {"complete": 1, "worded": 1}),
        ("complete", PUT | {"choices": {"0": "of a later version"}}, {"complete": 1}),
        ("complete", "{", {"complete": 1}),
        ("complete", None, {"complete": 1}),
        ("cut", PUT, {"cut": 1}),
    ],
)
def test_what_counts(state: str, labelled: Any, counts: dict[str, int]) -> None:
    counted = MarkedAnswers()
    counted.add(frame(state, labelled))
    assert counted == MarkedAnswers(**counts)
