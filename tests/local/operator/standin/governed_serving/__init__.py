"""Stand-ins for the serving side: tiny programs that keep the contract of environment, ports and probes."""

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def log(message: str, level: str = "info", **fields: object) -> None:
    print(json.dumps({"level": level, "time": "", "message": message, **fields}), file=sys.stderr, flush=True)


def trace(event: str) -> None:
    """One line per event into a file of the test's."""
    path = os.environ.get("HOME")
    with Path(path or ".", "trace").open("a") as file:
        file.write(f"{time.monotonic():.4f} {event} {os.getpid()}\n")


def write_report(part: str, content: dict[str, object]) -> None:
    path = Path(os.environ["GOVERNED_REPORT"].removeprefix("file://"))
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | {part: content}))


def serve(name: str) -> None:
    """Answers every GET with the environment as JSON until SIGTERM."""
    trace(f"{name} start")
    os.environ["NICENESS_AT_START"] = str(os.getpriority(os.PRIO_PROCESS, 0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(dict(os.environ)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["GOVERNED_HTTP_PORT"])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log("listening", port=server.server_port)
    signal.sigwait({signal.SIGTERM})
    trace(f"{name} stop")
