"""The life of a process that serves HTTP: port bound first, not ready at SIGTERM, drained, one line and exit code 1 when it can't."""

from governed_serving.hosting.host import Host, Problem, listen, run, web_server
from governed_serving.hosting.logs import log

__all__ = ["Host", "Problem", "listen", "log", "run", "web_server"]
