"""Log lines of many containers on one terminal: a coloured prefix, JSON lines made readable."""

import json
from collections import deque

from rich.console import Console
from rich.text import Text

from governed_operator.local.kept_logs import KeptLogs

COLOURS = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta")
LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}
KEPT = 20


class Logs:
    """Writes to ``console`` and to files (``kept``); has the last lines of each container for error messages."""

    def __init__(self, console: Console, *, quiet: bool = False, kept: KeptLogs | None = None) -> None:
        self.console = console
        self._kept = kept
        self._quiet, self._told = quiet, False
        self._colours: dict[str, str] = {}
        self._last: dict[str, deque[tuple[str, str]]] = {}

    def line(self, container: str, text: str) -> None:
        """One line as a container wrote it."""
        if self._kept is not None:
            self._kept.line(container, text)
            self._tell_dropped(self._kept)
        level, message = readable(text)
        self._last.setdefault(container, deque(maxlen=KEPT)).append((level, message))
        if self._quiet and level not in LEVELS:
            return
        self.show(container, level, message)

    def _tell_dropped(self, kept: KeptLogs) -> None:
        if kept.dropped and not self._told:
            self._told = True
            self.note(f"lines can't be kept, governed logs will lack them: {kept.trouble}; make room", "yellow")

    def close(self) -> None:
        """The run is over: how many lines were not kept."""
        if self._kept is not None and self._kept.dropped:
            self.note(f"{self._kept.dropped:,} lines of containers were not kept: {self._kept.trouble}", "yellow")

    def show(self, container: str, level: str, message: str) -> None:
        """Print what a line says."""
        colour = self._colours.setdefault(container, COLOURS[len(self._colours) % len(COLOURS)])
        prefix = Text(f"{container:>9} │ ", style=colour)
        self.console.print(prefix + Text(message, style=LEVELS.get(level, "")), soft_wrap=True)

    def note(self, text: str, style: str = "dim") -> None:
        """A line of the runner's own."""
        self.console.print(Text(f"{'governed':>9} │ {text}", style=style), soft_wrap=True)

    def cause(self, container: str) -> str:
        """The last error that a container logged, otherwise its last line."""
        lines = self._last.get(container, deque())
        errors = [message for level, message in lines if level in ("error", "critical")]
        return (errors or [message for _, message in lines] or ["it wrote nothing"])[-1]


def readable(text: str) -> tuple[str, str]:
    """(level, message with fields) of a JSON log line; a line of another form is its own message."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):  # brackets in brackets
        return "", text
    if not isinstance(entry, dict) or "message" not in entry:
        return "", text
    fields = entry.get("fields")
    own = {k: v for k, v in entry.items() if k not in ("level", "time", "message", "fields")}
    extra = own | (fields if isinstance(fields, dict) else {})
    tail = "".join(f" {k}={v}" for k, v in extra.items())
    return str(entry.get("level", "")).lower(), f"{entry['message']}{tail}"
