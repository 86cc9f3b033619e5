"""One JSON line per event on stderr; never one per request."""

import json
import logging
import sys
import time
from typing import Any

__all__ = ["JsonLines", "event", "install"]

_log = logging.getLogger("governed.server")


class JsonLines(logging.Formatter):
    """level, time (RFC 3339 UTC), message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"level": record.levelname.lower(), "time": stamp, "message": record.getMessage()}
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | ({"fields": fields} if fields else {}), ensure_ascii=False, default=str)


def install(level: int = logging.INFO) -> None:
    """Send everything that this process logs to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(level)


def event(message: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log one event; ``error`` adds its traceback."""
    _log.log(level, message, extra={"fields": fields}, exc_info=error)
