"""Serving latency with sampled explanations and auditing on against off, in one run: real processes, as ``governed
run`` starts them.

Both models run from the same sample. Turns alternate; whose turn it isn't is stopped (SIGSTOP), so that its backlog
costs the other nothing. All processes of a model share one core, the load comes from the other one, at a fixed rate.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import yaml
from table import show

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.model_ports import free_offset, readiness_of, unready

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "crds" / "samples"
RATE, SECONDS, WARM, ROUNDS = 150.0, 6.0, 2.0, 24
ROWS = 4000
"""Of the training data."""
SHARE = 0.05
"""Of requests explained: more than the explainer manages, so that it is never idle."""


@dataclass
class Model:
    name: str
    folder: Path
    offset: int
    process: subprocess.Popen | None = None
    ports: dict[str, int] = field(default_factory=dict)
    rounds: list[np.ndarray] = field(default_factory=list)

    def start(self, manifest: dict) -> None:
        self.ports = readiness_of(manifest)
        self.folder.mkdir()
        (self.folder / "model.yaml").write_text(yaml.safe_dump(manifest))
        command = [str(Path(sys.executable).with_name("governed")), "run", "model.yaml", "--workdir", "work"]
        with (self.folder / "log").open("wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", "0", *command, "--port-offset", str(self.offset)],
                cwd=self.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> None:
        """Until all its processes are ready: the explainer and the auditor are asked as well, and start in their own
        time. Raises RuntimeError with the log's end."""
        deadline = time.monotonic() + seconds
        while missing := unready(self.ports, self.offset):
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")[-1500:]
                raise RuntimeError(f"{self.name}: {', '.join(missing)} not ready after {seconds:g} s: {log}")
            time.sleep(0.5)

    def tell(self, number: signal.Signals) -> None:
        """To the containers' processes (each leads a group, with the ones it started) and to the runner that watches
        them."""
        known = json.loads((self.folder / "work" / "run.json").read_text())
        pids = [entry["pid"] for name, entry in known.items() if name != "governed run"]
        for pid in [self.process.pid, *pids] if number == signal.SIGSTOP else [*pids, self.process.pid]:
            os.killpg(pid, number)

    def turn(self, bodies: Path) -> None:
        self.tell(signal.SIGCONT)
        load = [sys.executable, str(Path(__file__).with_name("load_at_rate.py")), str(8080 + self.offset)]
        what = ["/v2/models/credit/infer", str(bodies), str(RATE), str(SECONDS), str(WARM)]
        done = subprocess.run(["taskset", "-c", "1", *load, *what], capture_output=True, text=True, check=True)
        self.tell(signal.SIGSTOP)
        found = json.loads(done.stdout)
        if found["failed"]:
            raise RuntimeError(f"{self.name}: expected answers alone, found {found['failed']} failures")
        self.rounds.append(np.array(found["latencies"]))

    def counted(self, name: str, port: int) -> float:
        """Sum of a counter of the explainer's or auditor's."""
        self.tell(signal.SIGCONT)
        self.wait(120)
        text = httpx.get(f"http://127.0.0.1:{port + self.offset}/metrics", timeout=120, trust_env=False).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.tell(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.tell(signal.SIGKILL)
                self.process.wait()


def _manifest(explained: bool) -> dict:
    manifest = yaml.safe_load((SAMPLES / "credit.yaml").read_text())
    manifest["metadata"].pop("annotations")
    spec = manifest["spec"]
    training = spec["lifecycle"]["training"]
    training["data"]["generator"]["rows"], training["loop"]["epochs"] = ROWS, 4
    spec["lifecycle"].pop("gates"), spec["lifecycle"].pop("compression")
    spec["quota"] = {}
    if explained:
        spec["explainer"]["sampling"] = SHARE
    else:
        spec.pop("explainer"), spec["governance"].pop("bias")
    return manifest


def _bodies(path: Path) -> None:
    sample = json.loads((SAMPLES / "credit.requests.json").read_text())
    tensors = [
        [
            {"name": n, "shape": [1, 1], "datatype": "BYTES" if isinstance(v, str) else "FP32", "data": [v]}
            for n, v in row.items()
        ]
        for row in sample["instances"]
    ]
    path.write_text(json.dumps([{"inputs": inputs} for inputs in tensors]))


def _p99(rounds: list[np.ndarray]) -> float:
    return float(np.percentile(np.concatenate(rounds), 99))


def measure(alibi_python: str) -> None:  # noqa: ARG001  no peer governs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an ended bench leaves no stopped processes behind
    with tempfile.TemporaryDirectory() as folder:
        off = Model("off", Path(folder, "off"), free_offset())
        on = Model("on", Path(folder, "on"), free_offset())
        bodies = Path(folder, "bodies.json")
        _bodies(bodies)
        try:
            for model in (off, on):
                model.start(_manifest(model is on))
                model.wait(400)
                model.tell(signal.SIGSTOP)
            for number in range(ROUNDS):
                for model in (off, on) if number % 2 else (on, off):
                    model.turn(bodies)
            explained = on.counted("governed_explainer_sampled_total", 8083)
            evaluated = on.counted("governed_explainer_evaluations_total", 8083)
        finally:
            for model in (off, on):
                model.stop()
    _show(off, on, explained, evaluated)


def _show(off: Model, on: Model, explained: float, evaluated: float) -> None:
    rng = np.random.default_rng(0)
    picks = rng.integers(0, ROUNDS, (2000, ROUNDS))
    ratios = [_p99([on.rounds[i] for i in pick]) / _p99([off.rounds[i] for i in pick]) for pick in picks]
    low, high = np.percentile(ratios, [2.5, 97.5])
    turns = np.array([_p99([a]) / _p99([b]) for a, b in zip(on.rounds, off.rounds, strict=True)])
    from_turns, to_turns = np.percentile(np.median(turns[picks], axis=1), [2.5, 97.5])
    rows = []
    for model, what in ((off, "neither explainer nor bias rules"), (on, f"{SHARE:.0%} explained, bias audited")):
        pooled = np.concatenate(model.rounds)
        rows.append([what, len(pooled), *(float(np.percentile(pooled, q)) for q in (50, 90, 99, 99.9))])
    show(
        f"Serving latency at {RATE:g} requests/s, all processes of a model on one core, {ROUNDS} turns of "
        f"{SECONDS:g} s each",
        ["", "requests", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"],
        rows,
        f"p99 on ÷ off: {_p99(on.rounds) / _p99(off.rounds):.3f} (95 % over turns: {low:.3f} to {high:.3f}); "
        "target ≤ 1.1. "
        f"Turn by turn, where a stall of this machine spoils one of many: median {np.median(turns):.3f} "
        f"({from_turns:.3f} to {to_turns:.3f}). "
        f"Meanwhile explained: {explained:.0f} requests, {evaluated:.0f} model rows",
    )
