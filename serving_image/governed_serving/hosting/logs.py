"""One JSON line per event on stderr, the same in all roles; never one per request."""

import json
import logging
import sys
import time
from typing import Literal

from governed_api.printable import printable

__all__ = ["JsonLines", "install", "log"]

Level = Literal["info", "warning", "error"]

_LEVELS: dict[Level, int] = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger("governed")


class JsonLines(logging.Formatter):
    """level, time (RFC 3339 UTC), component, message, and the event's own fields."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, object] = {"level": record.levelname.lower(), "time": stamp, "component": self._component}
        line |= {"message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return printable(json.dumps(line, ensure_ascii=False, default=str))


def install(component: str) -> None:
    """Send everything that this process logs to stderr as JSON lines; libraries from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(component))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)


def log(level: Level, message: str, *, exception: BaseException | None = None, **fields: object) -> None:
    """Log one event; ``exception`` adds its traceback."""
    _log.log(_LEVELS[level], message, extra={"fields": fields}, exc_info=exception)
