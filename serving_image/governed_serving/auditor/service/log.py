"""One JSON line per event to stderr; never per request."""

import sys
import time
from typing import Any

import msgspec

from governed_serving.records import timestamp

__all__ = ["log"]


def log(level: str, message: str, **fields: Any) -> None:
    """``level``: info | warning | error."""
    line = {"level": level, "time": timestamp(time.time()), "component": "auditor", "message": message, **fields}
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
    sys.stderr.flush()
