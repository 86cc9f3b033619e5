"""Progress as log lines: one JSON object a line, and not one per epoch."""

import io
import json

from governed_serving.trainer.progress import Narrator

ENTRY = {"trainingLoss": 0.5, "validationLoss": 0.25}


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_and_errors() -> None:
    stream = io.StringIO()
    with Narrator(stream) as narrator:
        narrator.say("data ready", rows=3)
        narrator.fail("spec.x: expected a, found b")
    told = lines(stream)
    assert [(t["level"], t["message"]) for t in told] == [
        ("info", "data ready"),
        ("error", "spec.x: expected a, found b"),
    ]
    assert told[0]["rows"] == 3


def test_quick_epochs_are_told_first_and_last() -> None:
    stream = io.StringIO()
    narrator = Narrator(stream, interval=3600)
    narrator._last = float("-inf")
    for epoch in range(1, 101):
        narrator.epoch(epoch, 100, ENTRY)
    assert [t["epoch"] for t in lines(stream)] == [1, 100]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar_and_no_json() -> None:
    stream = Terminal()
    with Narrator(stream) as narrator:
        narrator.epoch(1, 2, ENTRY)
        narrator.epoch(2, 2, ENTRY)
        narrator.say("model ready", digest="sha256:1")
    assert "model ready" in stream.getvalue()
    assert '"level"' not in stream.getvalue()
