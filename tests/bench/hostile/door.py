"""Mutated requests at every port of a `governed run`: what is answered, what is logged, what stays in memory.

HTTP/1.1 at the server, explainer, auditor and archive, bytes at the gRPC port; loopback alone, bounded. Then five times
as many clients as the quota lets through: what share of the capacity still becomes answers. Prints a table; exit code 1
when a promise is broken: no status of 500 or more but 503, no traceback in the log, liveness within a second, resident
memory back within a tenth (and 16 MiB), goodput of at least four fifths, refusals by 429 and 503 alone.
"""

import argparse
import http.client
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from governed_api import runtime

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.model_ports import READINESS, free_offset, unready

ROOT = Path(__file__).parents[3]
PORTS = {
    "server": runtime.PORT_HTTP, "gRPC": runtime.PORT_GRPC, "explainer": runtime.PORT_EXPLAINER,
    "auditor": runtime.PORT_AUDITOR, "archive": runtime.PORT_ARCHIVE,
}  # fmt: skip
PATHS = {
    "server": ["/v2/models/admissions/infer", "/v2/models/admissions/explain", "/v1/models/admissions:predict",
               "/v1/chat/completions", "/v2/models/admissions", "/"],
    "gRPC": ["/"],
    "explainer": ["/v2/models/admissions/explain", "/v2/models/admissions/explanations", "/metrics"],
    "auditor": ["/v1/labels", "/v1/reviews", "/v1/acknowledgements", "/v1/verdict", "/v1/reviews/x"],
    "archive": ["/v1/ledger/entries", "/v1/ledger/find", "/v1/blobs/00", "/v1/keysets/x/y", "/v1/ledger/checkpoint"],
}  # fmt: skip
BODY = {
    "id": "a",
    "inputs": [
        {"name": "department", "shape": [1, 1], "datatype": "BYTES", "data": ["A"]},
        {"name": "sex", "shape": [1, 1], "datatype": "BYTES", "data": ["female"]},
    ],
}
VALUES = [None, True, -1, 2**63, 1e308, "", "\u0000", "\ud800", "x" * 200, [], {}, [[[[]]]], {"a": {"b": []}}, 2**31]
HEADERS = [
    b"transfer-encoding: chunked", b"content-encoding: gzip", b"content-length: 5", b"expect: 100-continue",
    b"upgrade: h2c", b"connection: close", b"x-request-id: " + b"y" * 300, b"inference-header-content-length: 9",
    b"host: other", b"content-type: text/plain", b"cookie: " + b"z" * 40_000, b"bad header", b"authorization: Bearer x",
]  # fmt: skip
LATE = 1.0
KEPT = 0.1
SLACK = 16 << 20
OVERLOAD = 5
GOODPUT = 0.8


@dataclass
class Found:
    """Of one port."""

    statuses: Counter[int] = field(default_factory=Counter)
    closed: int = 0
    slowest: float = 0.0


def mutated(rng: random.Random, port: str) -> bytes:
    """One request, seldom a good one."""
    body = json.dumps(_changed(rng, BODY), ensure_ascii=True).encode()
    if rng.random() < 0.3 and body:
        at = rng.randrange(len(body))
        body = body[:at] + rng.randbytes(rng.randrange(8)) + body[at + rng.randrange(4) :]
    if rng.random() < 0.05:
        body = b"[" * rng.randrange(20_000)
    method = rng.choice(["POST"] * 6 + ["GET", "HEAD", "PUT", "DELETE", "CONNECT", "POST\t"])
    path = rng.choice(PATHS[port]) + rng.choice([""] * 8 + ["?x=%00", "/../..", "%2f", "x" * 5000])
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"host: x"]
    lines += rng.sample(HEADERS, rng.choice([0, 0, 1, 2]))
    if rng.random() < 0.9:
        lines.append(b"content-length: %d" % (len(body) if rng.random() < 0.9 else rng.randrange(1 << 12)))
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return raw if rng.random() < 0.95 else rng.randbytes(rng.randrange(1, 400))


def _changed(rng: random.Random, value: object, depth: int = 0) -> object:
    if rng.random() < 0.12:
        return rng.choice(VALUES)
    if isinstance(value, dict):
        return {k if rng.random() < 0.95 else "?": _changed(rng, v, depth + 1) for k, v in value.items()}
    return [_changed(rng, v, depth + 1) for v in value] if isinstance(value, list) else value


def sent(port: int, raw: bytes) -> tuple[int, float]:
    """(status, 0 where the connection was closed without; seconds)."""
    began = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            data = sock.recv(65536)
    except OSError:
        data = b""
    found = re.match(rb"HTTP/1\.1 (\d{3})", data)
    return (int(found[1]) if found else 0), time.monotonic() - began


def attack(offset: int, count: int, seed: int) -> dict[str, Found]:
    """``count`` requests, spread over the ports, eight at a time."""
    found = {name: Found() for name in PORTS}
    lock = threading.Lock()

    def one(number: int) -> None:
        rng = random.Random(seed * 1_000_003 + number)
        name = list(PORTS)[number % len(PORTS)]
        status, seconds = sent(PORTS[name] + offset, mutated(rng, name))
        with lock:
            row = found[name]
            row.statuses[status] += 1
            row.closed += status == 0
            row.slowest = max(row.slowest, seconds)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(count)))
    return found


def liveness(offset: int, stop: threading.Event, slowest: list[float]) -> None:
    """Asks every port's liveness again and again, as a kubelet would."""
    while not stop.wait(0.2):
        for name, port in PORTS.items():
            if name != "gRPC":
                raw = b"GET /healthz/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                status, seconds = sent(port + offset, raw)
                slowest.append(seconds if status == 200 else 99.0)


def resident(workdir: Path) -> int:
    """Bytes of all processes of the run."""
    known = json.loads((workdir / "run.json").read_text())
    total = 0
    for entry in known.values():
        status = Path(f"/proc/{entry['pid']}/status")
        if status.exists():
            total += int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) * 1024  # type: ignore[index]
    return total


def good(offset: int, seconds: float, clients: int) -> Counter[int]:
    """Statuses of good requests that ``clients`` send as fast as they are answered."""
    body, counted, lock = json.dumps(BODY).encode(), Counter[int](), threading.Lock()
    end = time.monotonic() + seconds

    def client(_: int) -> None:
        own = Counter[int]()
        connection = http.client.HTTPConnection("127.0.0.1", runtime.PORT_HTTP + offset, timeout=30)
        while time.monotonic() < end:
            connection.request("POST", PATHS["server"][0], body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            own[answer.status] += 1
        connection.close()
        with lock:
            counted.update(own)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return counted


def served(workdir: Path, log: Path, offset: int) -> subprocess.Popen[bytes]:
    """`governed run`, all its processes ready."""
    sample = ROOT / "crds" / "samples" / "admissions.yaml"
    command = [str(Path(sys.executable).with_name("governed")), "run", str(sample), "--workdir", str(workdir)]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--port-offset", str(offset)], stdout=out, stderr=out)
    deadline = time.monotonic() + 300
    while missing := unready(READINESS, offset):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{', '.join(missing)} not ready: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.5)
    return process


def broken(found: dict[str, Found], memory: tuple[int, int], log: str) -> list[str]:
    """Promises that did not hold, whatever else the machine does."""
    out = [
        f"{name}: status {status} × {number}"
        for name, row in found.items()
        for status, number in row.statuses.items()
        if status >= 500 and status not in (501, 503, 505)  # 501, 505: methods, codings and versions (RFC 9110)
    ]
    if "Traceback" in log:
        out.append("a traceback in the log: " + log[log.index("Traceback") :][:600])
    before, after = memory
    if after > before * (1 + KEPT) + SLACK:
        out.append(f"memory {before >> 20} MiB before, {after >> 20} MiB after")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two loads at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.requests, options.seconds = 1_000, 3.0
    with tempfile.TemporaryDirectory() as folder:
        workdir, log, offset = Path(folder, "work"), Path(folder, "log"), free_offset()
        process = served(workdir, log, offset)
        try:
            attack(offset, 200, options.seed + 1)  # what the first ones of a kind leave behind for good
            good(offset, 1.0, 2)
            before, lives, stop = resident(workdir), list[float](), threading.Event()
            watcher = threading.Thread(target=liveness, args=(offset, stop, lives))
            watcher.start()
            found = attack(offset, options.requests, options.seed)
            stop.set()
            watcher.join()
            memory = (before, resident(workdir))
            alone, together = good(offset, options.seconds, 4), good(offset, options.seconds, 4 * OVERLOAD)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
        faults = broken(found, memory, log.read_text())
    goodput = together[200] / max(alone[200], 1)
    if not options.smoke:  # a second means nothing where other tests run beside
        if max(lives, default=99.0) > LATE:
            faults.append(f"liveness took {max(lives, default=99.0):.2f} s")
        if goodput < GOODPUT:
            faults.append(f"goodput {goodput:.2f} of the capacity at {OVERLOAD} × the clients")
    if strange := set(together) - {200, 429, 503}:
        faults.append(f"statuses {sorted(strange)} under overload")
    show(found, lives, memory, goodput, faults)
    return 1 if faults else 0


def show(
    found: dict[str, Found], lives: list[float], memory: tuple[int, int], goodput: float, faults: list[str]
) -> None:
    table = Table("port", "requests", "2xx", "4xx", "503", "other 5xx", "closed", "slowest s", title="ours")
    for name, row in found.items():
        statuses = row.statuses
        by = [sum(n for s, n in statuses.items() if s // 100 == kind) for kind in (2, 4, 5)]
        table.add_row(
            name, *map(str, (statuses.total(), by[0], by[1], statuses[503], by[2] - statuses[503], row.closed)),
            f"{row.slowest:.2f}",
        )  # fmt: skip
    console = Console(width=110)
    console.print(table)
    console.print(f"liveness: {len(lives)} asked, slowest {max(lives, default=0):.2f} s")
    console.print(f"memory: {memory[0] >> 20} MiB before, {memory[1] >> 20} MiB after")
    console.print(f"goodput at {OVERLOAD} × the clients: {goodput:.2f} of the capacity")
    for fault in faults:
        console.print(f"BROKEN: {fault}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
