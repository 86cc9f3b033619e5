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
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from governed_api import runtime
from governed_serving.server.rpc.messages import MESSAGES

sys.path.insert(0, str(Path(__file__).parents[2]))

from fair import QUIET, Bare, Others, cpu_seconds
from targets import GOVERNED, TARGETS, Target, credentials, shown_key

from support import raw_http2
from support.model_ports import READINESS, free_offset, unready

PORTS = {
    "server": runtime.PORT_HTTP, "gRPC": runtime.PORT_GRPC, "explainer": runtime.PORT_EXPLAINER,
    "auditor": runtime.PORT_AUDITOR, "archive": runtime.PORT_ARCHIVE,
}  # fmt: skip
VALUES = [None, True, -1, 2**63, 1e308, "", "\u0000", "\ud800", "x" * 200, [], {}, [[[[]]]], {"a": {"b": []}}, 2**31]
HEADERS = [
    b"transfer-encoding: chunked", b"content-encoding: gzip", b"content-length: 5", b"expect: 100-continue",
    b"upgrade: h2c", b"connection: close", b"x-request-id: " + b"y" * 300, b"inference-header-content-length: 9",
    b"host: other", b"content-type: text/plain", b"cookie: " + b"z" * 40_000, b"bad header", b"authorization: Bearer x",
]  # fmt: skip
CANCELLED, INVALID_ARGUMENT, INTERNAL, UNPARSED = 1, 3, 13, b"Error parsing '"
"""gRPC's core answers metadata that are no base64 with INTERNAL, before anything of ours is asked. A call whose path is
no text ends grpcio's server, which is started anew: calls under way are CANCELLED, and counted as closed."""
OF_GRPC = {0: 200, 3: 400, 5: 404, 7: 403, 8: 429, 12: 404, 14: 503, 16: 401}
"""Of gRPC's statuses those that the client is told of its own fault, or of ours that passes; any other is a bug."""
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
    quoted: int = 0
    """Answers with a key in them."""


def mutated(rng: random.Random, port: str, target: Target) -> bytes:
    """One request, seldom a good one."""
    if port == "gRPC" and rng.random() < 0.7:
        return rpc_call(rng, target)
    body = json.dumps(_changed(rng, target.good), ensure_ascii=True).encode()
    if rng.random() < 0.3 and body:
        at = rng.randrange(len(body))
        body = body[:at] + rng.randbytes(rng.randrange(8)) + body[at + rng.randrange(4) :]
    if rng.random() < 0.05:
        body = b"[" * rng.randrange(20_000)
    method = rng.choice(["POST"] * 6 + ["GET", "HEAD", "PUT", "DELETE", "CONNECT", "POST\t"])
    query = ["?x=%00", f"?api_key={target.key}", f"?{target.key}"]
    path = rng.choice(target.paths[port]) + rng.choice([""] * 8 + [*query, "/../..", "%2f", "x" * 5000])
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"host: x"]
    lines += rng.sample(HEADERS, rng.choice([0, 0, 1, 2]))
    if target.key:
        lines += [name + b": " + value for name, value in credentials(rng, target.key)]
    if rng.random() < 0.9:
        lines.append(b"content-length: %d" % (len(body) if rng.random() < 0.9 else rng.randrange(1 << 12)))
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return raw if rng.random() < 0.95 else rng.randbytes(rng.randrange(1, 400))


def rpc_call(rng: random.Random, target: Target) -> bytes:
    """A call of ModelInfer whose metadata and message are changed now and then."""
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "contents": {"bytes_contents": [b"a film"]}}]
    message = bytearray(MESSAGES["ModelInferRequest"](model_name=target.model, inputs=inputs).SerializeToString())
    for _ in range(rng.choice([0, 0, 1, 4])):
        message[rng.randrange(len(message))] = rng.randrange(256)
    if rng.random() < 0.05:
        message += bytes(1 << 20)
    metadata = credentials(rng, target.key) if target.key else []
    metadata += rng.choice(
        [[], [], [], [(b"x", rng.randbytes(9))], [(b"x-governed-promise", b"2")], [(b"y", b"z" * 9000)]]
    )
    path = rng.choice(
        [raw_http2.INFER] * 6 + [b"/grpc.health.v1.Health/Check", b"/x", b"", b"/\xff" + rng.randbytes(5)]
    )
    call = raw_http2.call(path, metadata, bytes(message))
    return call if rng.random() < 0.9 else call[: rng.randrange(24, len(call))]


def _changed(rng: random.Random, value: object, depth: int = 0) -> object:
    if rng.random() < 0.12:
        return rng.choice(VALUES)
    if isinstance(value, dict):
        return {k if rng.random() < 0.95 else "?": _changed(rng, v, depth + 1) for k, v in value.items()}
    return [_changed(rng, v, depth + 1) for v in value] if isinstance(value, list) else value


def sent(port: int, raw: bytes) -> tuple[int, float, bytes]:
    """(status, 0 where the connection was closed without; seconds; the answer's beginning)."""
    began, rpc = time.monotonic(), raw.startswith(b"PRI ")
    data = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(raw)
            if rpc:
                sock.settimeout(5.0)  # one that was cut is never answered
                while raw_http2.status_of(data) is None and (more := sock.recv(65536)):
                    data += more
            else:
                sock.shutdown(socket.SHUT_WR)
                data = sock.recv(65536)
    except OSError:
        pass
    seconds = time.monotonic() - began
    if rpc:
        status = raw_http2.status_of(data)
        if status == INTERNAL and UNPARSED in data:
            status = INVALID_ARGUMENT
        return (0 if status in (None, CANCELLED) else OF_GRPC.get(status, 500)), seconds, data
    found = re.match(rb"HTTP/1\.1 (\d{3})", data)
    return (int(found[1]) if found else 0), seconds, data


def attack(target: Target, offset: int, count: int, seed: int) -> dict[str, Found]:
    """``count`` requests, spread over the ports, eight at a time."""
    ports = {name: port for name, port in PORTS.items() if name != "explainer" or target.explained}
    found = {name: Found() for name in ports}
    secret, lock = target.secret.encode(), threading.Lock()

    def one(number: int) -> None:
        rng = random.Random(seed * 1_000_003 + number)
        name = list(ports)[number % len(ports)]
        status, seconds, data = sent(ports[name] + offset, mutated(rng, name, target))
        with lock:
            row = found[name]
            row.statuses[status] += 1
            row.closed += status == 0
            row.slowest = max(row.slowest, seconds)
            row.quoted += bool(secret) and secret in data

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(count)))
    return found


@dataclass
class Lives:
    """Seconds until liveness was answered, and until a bare server beside was, in the same moments."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def ask(self, target: Target, offset: int, stop: threading.Event) -> None:
        """Again and again, as a kubelet would."""
        raw = b"GET /healthz/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        with Bare() as bare:
            while not stop.wait(0.2):
                for name, port in PORTS.items():
                    if name != "gRPC" and (name != "explainer" or target.explained):
                        status, seconds, _ = sent(port + offset, raw)
                        self.ours.append(seconds if status == 200 else 99.0)
                self.bare.append(sent(bare.port, raw)[1])


def resident(workdir: Path) -> int:
    """Bytes of all processes of the run."""
    known = json.loads((workdir / "run.json").read_text())
    total = 0
    for entry in known.values():
        status = Path(f"/proc/{entry['pid']}/status")
        if status.exists():
            total += int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) * 1024  # type: ignore[index]
    return total


def good(target: Target, offset: int, seconds: float, clients: int) -> Counter[int]:
    """Statuses of good requests that ``clients`` send as fast as they are answered."""
    body, counted, lock = json.dumps(target.good).encode(), Counter[int](), threading.Lock()
    headers = {"content-type": "application/json", **({"x-api-key": target.key} if target.key else {})}
    end = time.monotonic() + seconds

    def client(_: int) -> None:
        own = Counter[int]()
        connection = http.client.HTTPConnection("127.0.0.1", runtime.PORT_HTTP + offset, timeout=30)
        while time.monotonic() < end:
            connection.request("POST", target.path, body, headers)
            answer = connection.getresponse()
            answer.read()
            own[answer.status] += 1
        connection.close()
        with lock:
            counted.update(own)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return counted


def of_run(workdir: Path) -> float:
    """CPU seconds of all processes of the run."""
    known = json.loads((workdir / "run.json").read_text())
    return cpu_seconds([entry["pid"] for entry in known.values()])


@dataclass
class Goodput:
    """Answers at capacity and beyond it, by the clock and for each CPU second of the run."""

    alone: Counter[int]
    together: Counter[int]
    cpu: tuple[float, float]

    @classmethod
    def measured(cls, target: Target, offset: int, workdir: Path, seconds: float) -> "Goodput":
        begin = of_run(workdir)
        alone = good(target, offset, seconds, 4)
        between = of_run(workdir)
        together = good(target, offset, seconds, 4 * OVERLOAD)
        return cls(alone, together, (between - begin, of_run(workdir) - between))

    @property
    def by_clock(self) -> float:
        return self.together[200] / max(self.alone[200], 1)

    @property
    def by_cpu(self) -> float:
        return self.by_clock * self.cpu[0] / max(self.cpu[1], 1e-9)


def served(target: Target, workdir: Path, log: Path, offset: int) -> subprocess.Popen[bytes]:
    """`governed run`, all its processes ready."""
    command = [GOVERNED, "run", str(target.manifest), "--workdir", str(workdir)]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--port-offset", str(offset)], stdout=out, stderr=out)
    ports = {name: port for name, port in READINESS.items() if name != "explainer" or target.explained}
    deadline = time.monotonic() + 600
    while missing := unready(ports, offset):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{', '.join(missing)} not ready: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.5)
    return process


def keyed(target: Target, workdir: Path, offset: int) -> Target:
    """With a key that the server knows by now."""
    if not target.key:
        return target
    target = replace(target, key=shown_key(target, workdir, workdir.parent / "key"))
    deadline = time.monotonic() + 60
    while not good(target, offset, 0.1, 1)[200]:
        assert time.monotonic() < deadline, "the key is known within a minute"
    return target


def broken(found: dict[str, Found], memory: tuple[int, int], log: str) -> list[str]:
    """Promises that did not hold, whatever else the machine does."""
    out = [
        f"{name}: status {status} × {number}"
        for name, row in found.items()
        for status, number in row.statuses.items()
        if status >= 500 and status not in (501, 503, 505)  # 501, 505: methods, codings and versions (RFC 9110)
    ]
    out += [f"{name}: {row.quoted} answers with a key in them" for name, row in found.items() if row.quoted]
    if "Traceback" in log:
        out.append("a traceback in the log: " + log[log.index("Traceback") :][:600])
    before, after = memory
    if after > before * (1 + KEPT) + SLACK:
        out.append(f"memory {before >> 20} MiB before, {after >> 20} MiB after")
    return out


def written(target: Target, folder: Path) -> list[str]:
    """Files with the key's secret in them; the user's own excepted."""
    if not target.secret:
        return []
    done = subprocess.run(["grep", "-rlaF", target.secret, folder], capture_output=True, text=True, check=False)
    names = [name for name in done.stdout.splitlines() if name != str(folder / "key")]
    return [f"the key stands in {name}" for name in names]


@dataclass
class Run:
    """All that one run showed."""

    found: dict[str, Found]
    lives: Lives
    memory: tuple[int, int]
    goodput: Goodput
    others: float
    """Share of the machine's CPU time that was neither ours nor idle."""
    faults: list[str]


def attacked(target: Target, folder: Path, options: argparse.Namespace) -> Run:
    workdir, log, offset = folder / "work", folder / "log", free_offset()
    process = served(target, workdir, log, offset)
    try:
        target = keyed(target, workdir, offset)
        attack(target, offset, 200, options.seed + 1)  # what the first ones of a kind leave behind for good
        good(target, offset, 1.0, 2)
        before, lives, stop, others = resident(workdir), Lives(), threading.Event(), Others()
        watcher = threading.Thread(target=lives.ask, args=(target, offset, stop))
        watcher.start()
        found = attack(target, offset, options.requests, options.seed)
        stop.set()
        watcher.join()
        memory = (before, resident(workdir))
        goodput = Goodput.measured(target, offset, workdir, options.seconds)
        share = others.share()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    faults = [*broken(found, memory, log.read_text(errors="replace")), *written(target, folder)]
    return Run(found, lives, memory, goodput, share, faults)


def judged(run: Run, *, smoke: bool) -> list[str]:
    """What is broken."""
    faults, quiet = list(run.faults), run.others <= QUIET
    if quiet and not smoke and max(run.lives.ours, default=99.0) > LATE:
        faults.append(f"liveness took {max(run.lives.ours, default=99.0):.2f} s")
    share = run.goodput.by_clock if quiet else run.goodput.by_cpu
    if not smoke and share < GOODPUT:  # a second means nothing where other tests run beside
        faults.append(f"goodput {share:.2f} of the capacity at {OVERLOAD} × the clients")
    if strange := set(run.goodput.together) - {200, 429, 503}:
        faults.append(f"statuses {sorted(strange)} under overload")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=TARGETS, default="plain", help="keys: callers show keys; texts: they too")
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two loads at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.requests, options.seconds = 1_000, 3.0
    with tempfile.TemporaryDirectory() as folder:
        run = attacked(TARGETS[options.model](Path(folder)), Path(folder), options)
    faults = judged(run, smoke=options.smoke)
    show(run, faults)
    return 1 if faults else 0


def show(run: Run, faults: list[str]) -> None:
    table = Table("port", "requests", "2xx", "4xx", "503", "other 5xx", "closed", "slowest s", title="ours")
    for name, row in run.found.items():
        statuses = row.statuses
        by = [sum(n for s, n in statuses.items() if s // 100 == kind) for kind in (2, 4, 5)]
        table.add_row(
            name, *map(str, (statuses.total(), by[0], by[1], statuses[503], by[2] - statuses[503], row.closed)),
            f"{row.slowest:.2f}",
        )  # fmt: skip
    console = Console(width=110)
    console.print(table)
    lives, goodput = run.lives, run.goodput
    judged_by = "judged" if run.others <= QUIET else f"not judged by the clock, as they took more than {QUIET:.0%}"
    console.print(f"others took {run.others:.0%} of the machine's CPU time: {judged_by}")
    console.print(
        f"liveness: {len(lives.ours)} asked, slowest {max(lives.ours, default=0):.2f} s; "
        f"a bare server beside, {len(lives.bare)} asked, slowest {max(lives.bare, default=0):.2f} s"
    )
    console.print(f"memory: {run.memory[0] >> 20} MiB before, {run.memory[1] >> 20} MiB after")
    console.print(
        f"goodput at {OVERLOAD} × the clients: {goodput.by_clock:.2f} of the capacity by the clock, "
        f"{goodput.by_cpu:.2f} for each CPU second; statuses {dict(sorted(goodput.together.items()))}"
    )
    for fault in faults:
        console.print(f"BROKEN: {fault}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
