"""Progress for people (a bar, when stderr is a terminal) or for log collectors (JSON lines)."""

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class Narrator:
    """Says what the Job is doing; a context manager that owns the terminal's bar."""

    def __init__(self, stream: TextIO | None = None, interval: float = 1.0) -> None:
        stream = stream or sys.stderr
        self._stream, self._interval, self._last = stream, interval, 0.0
        self._bar: Progress | None = None
        if stream.isatty():
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=stream), transient=True)

    def __enter__(self) -> "Narrator":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, message: str, **fields: object) -> None:
        """One event."""
        if self._bar:
            told = Text(" ").join([Text(message), *(Text(f"{k}={v}", style="dim") for k, v in fields.items())])
            self._bar.console.print(told)
        else:
            self._line("info", message, fields)

    def fail(self, message: str) -> None:
        """The one-line reason why the Job ends without a model."""
        if self._bar:
            self._bar.console.print(Text(f"error: {message}", style="red"))
        else:
            self._line("error", message, {})

    def epoch(self, done: int, total: int, entry: dict[str, float]) -> None:
        """``done`` of ``total`` epochs; lines are at most one a second, and the last."""
        loss = f"loss {entry['trainingLoss']:.4f} / {entry['validationLoss']:.4f}"
        if self._bar:
            if not self._bar.tasks:
                self._bar.add_task("training", total=total, detail="")
            self._bar.update(self._bar.tasks[0].id, completed=done, detail=loss)
        elif done == total or time.monotonic() - self._last >= self._interval:
            self._last = time.monotonic()
            self._line("info", "training", {"epoch": done, "epochs": total, **entry})

    def _line(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        print(
            json.dumps({"level": level, "time": now, "message": message, **fields}, ensure_ascii=False, default=str),
            file=self._stream,
            flush=True,
        )
