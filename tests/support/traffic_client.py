"""Runs in a pod, with the standard library alone: closed-loop V2 requests to a model until told to stop.

    python traffic_client.py URL CONNECTIONS ROWS_FILE STATE_FOLDER

One JSON line an answer in STATE_FOLDER/answers.jsonl: {"at": seconds, "id": request id} or {"at", "status"} or
{"at", "failed": what happened to a request that had been sent}. What was never accepted (connection refused, or closed
while idle before the request) is sent again, as every load balancer and client library does, and counted in "again".
STATE_FOLDER/flowing appears with the first answer. Ends when STATE_FOLDER/stop appears, or after ten minutes; a request
then under way is brought to its end, which takes PATIENCE and an answer's TIMEOUT at most.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

LONGEST = 600.0
PATIENCE = 40.0
"""Seconds in which a connection, and on it an answer to one request, must be had."""
TIMEOUT = 30.0
PAUSE = 0.01
BACK_OFF = 0.1
"""Before a request is sent again: a process that is being killed closes its connections a moment before it stops
listening."""
RENEW = 50
"""Answers after which a connection is given up: a Service shares connections among pods, not requests, and new pods get
none of the old."""


def connect(host: str, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.connect()
    connection.sock.settimeout(TIMEOUT)
    return connection


class Client(threading.Thread):
    """One connection, one request at a time."""

    def __init__(self, url: str, bodies: list[bytes], folder: Path, started: float) -> None:
        super().__init__(daemon=True)
        self.parts = urlsplit(url)
        self.bodies, self.folder, self.started = bodies, folder, started
        self.lines: list[str] = []
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        number = 0
        while not (self.folder / "stop").exists() and time.monotonic() - self.started < LONGEST:
            if number % RENEW == 0 and self.connection is not None:
                self.connection.close()
                self.connection = None
            answer = self.ask(self.bodies[number % len(self.bodies)])
            self.note(**answer)
            if "id" in answer and not (self.folder / "flowing").exists():
                (self.folder / "flowing").touch()
            number += 1
            time.sleep(PAUSE)

    def note(self, **found: object) -> None:
        self.lines.append(json.dumps({"at": round(time.monotonic() - self.started, 3), **found}))

    def ask(self, body: bytes) -> dict[str, object]:
        again = 0
        began = time.monotonic()
        while True:
            fresh = self.connection is None
            try:
                if self.connection is None:
                    self.connection = connect(str(self.parts.hostname), self.parts.port or 80)
            except OSError as error:  # nobody there yet: nothing was sent
                again += 1
                if time.monotonic() - began > PATIENCE:
                    return {"failed": f"no connection for {PATIENCE:.0f} s; last: {type(error).__name__}: {error}"}
                time.sleep(BACK_OFF)
                continue
            try:
                self.connection.request("POST", self.parts.path, body, {"content-type": "application/json"})
                answer = self.connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                self.connection = None
                if (
                    isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError)
                    and not fresh
                ):
                    again += 1  # closed while idle: the server never took this request … or was killed with it
                    self.note(lost=type(error).__name__)
                    time.sleep(BACK_OFF)
                    continue
                return {"failed": f"{type(error).__name__}: {error}"}
            if answer.getheader("connection", "").lower() == "close":
                self.connection.close()
                self.connection = None
            if answer.status != 200:
                return {"status": answer.status, "text": text[:200].decode(errors="replace")}
            return {"id": json.loads(text)["id"], **({"again": again} if again else {})}


def main() -> None:
    url, connections, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    bodies = [json.dumps(body).encode() for body in json.loads(rows.read_text())]
    started = time.monotonic()
    clients = [Client(url, bodies, folder, started) for _ in range(connections)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    lines = sorted((line for client in clients for line in client.lines), key=lambda line: json.loads(line)["at"])
    scratch = folder / "answers.tmp"
    scratch.write_text("\n".join(lines) + "\n")
    scratch.rename(folder / "answers.jsonl")


main()
