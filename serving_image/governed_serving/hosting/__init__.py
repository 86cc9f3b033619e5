"""The life of a process that serves HTTP: port bound first, not ready at SIGTERM, drained, one line and exit code 1
when it can't."""

from governed_serving.hosting.door import Door, DoorGuard, exception_handlers
from governed_serving.hosting.guard import Guard
from governed_serving.hosting.heap import start_is_over
from governed_serving.hosting.host import CannotServe, Host, listen, run, web_server
from governed_serving.hosting.logs import log
from governed_serving.hosting.turns import give_way, short_turns

__all__ = [
    "CannotServe",
    "Door",
    "DoorGuard",
    "Guard",
    "Host",
    "exception_handlers",
    "give_way",
    "listen",
    "log",
    "run",
    "short_turns",
    "start_is_over",
    "web_server",
]
