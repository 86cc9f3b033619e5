"""Requests per CPU-second: ours with and without governance, KServe's Python server, MLServer, and ONNX Runtime
alone."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import contenders
import forms
from contenders import Contender

from support.ports import free_block
from unit.server.tabular_model import tabular, write_artefact

PATH = "/v2/models/credit/infer"
CONNECTIONS = 16
PORTS = 20
ROWS = (1, 64)
FORMS = ("tensors", "matrix")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "governed-models" / "bench-serving"
    parser.add_argument("--rounds", type=int, default=5, help="times that each contender has its turn")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one turn")
    parser.add_argument("--cache", type=Path, default=cache, help="where the peers' environments lie")
    parser.add_argument("--port", type=int, help=f"first of {PORTS} ports; free ones by default")
    parser.add_argument(
        "--smoke", action="store_true", help="seconds, to see that ours run: no peers, no numbers to keep"
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with that checkout, not with peers")
    given = parser.parse_args()
    given.port = given.port or free_block(PORTS)
    if given.smoke:
        given.rounds, given.seconds = 1, 0.1
    return given


def bare(rows: int, seconds: float) -> float:
    """Calls per CPU-second of ONNX Runtime in a loop, nothing else: no requests, no merging."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(tabular(), settings, providers=["CPUExecutionProvider"])
    feeds, calls = forms.feeds(rows), 0
    session.run(None, feeds)
    began = time.process_time()
    while time.process_time() - began < seconds:
        session.run(None, feeds)
        calls += 1
    return calls / (time.process_time() - began)


def turn(one: Contender, file: Path, seconds: float) -> tuple[int, float]:
    """(answers, CPU seconds of the server) of one turn. Raises RuntimeError when an answer was not 200."""
    before = one.cpu_seconds()
    command = ["taskset", "-c", "1", sys.executable, str(Path(__file__).parent / "load.py")]
    out = subprocess.run(
        [*command, str(one.port), PATH, str(file), str(CONNECTIONS), str(seconds)], check=True, capture_output=True
    )
    answers, errors = json.loads(out.stdout)
    if errors:
        raise RuntimeError(f"{one.name}: expected answers alone, found {errors} errors beside {answers}")
    return answers, one.cpu_seconds() - before


def measure(folder: Path, made: list[Contender], rounds: int, seconds: float) -> dict[tuple[str, str, int], float]:
    """(name, form, rows) → requests per CPU-second over all rounds."""
    for rows in ROWS:
        for form, body in forms.bodies(rows).items():
            (folder / f"{form}-{rows}.json").write_bytes(body)
    answers: dict[tuple[str, str, int], int] = defaultdict(int)
    cost: dict[tuple[str, str, int], float] = defaultdict(float)
    for number in range(rounds + 1):
        for one in made:
            for form in FORMS if one.peer else (one.form,):
                for rows in ROWS:
                    done, used = turn(one, folder / f"{form}-{rows}.json", seconds if number else 0.5)
                    if number:  # the first round warms up
                        answers[one.name, form, rows] += done
                        cost[one.name, form, rows] += used
    return {key: answers[key] / max(cost[key], 1e-9) for key in answers}


def table(made: list[Contender], rates: dict[tuple[str, str, int], float], alone: dict[int, float]) -> None:
    """Print it; every ratio is to the better peer in its better form, without peers to ours without governance."""
    compared = {c.name for c in made if c.peer} or {made[0].name}
    best = {rows: max(v for (name, _, r), v in rates.items() if r == rows and name in compared) for rows in ROWS}
    print(
        f"\nrequests per CPU-second of the server; {CONNECTIONS} connections, V2 JSON, one core, one ONNX Runtime "
        "thread; × = to the better peer"
    )
    print(f"{'':34}{'1 row':>10}{'×':>7}{'64 rows':>10}{'×':>7}{'RSS MiB':>9}{'start s':>9}")
    print(
        f"{'ONNX Runtime in a loop (calls)':34}{alone[1]:>10,.0f}{alone[1] / best[1]:>7.1f}{alone[64]:>10,.0f}{alone[64] / best[64]:>7.1f}"  # noqa: E501
    )
    for one in made:
        for form in FORMS if one.peer else (one.form,):
            name = f"{one.name} ({'12 tensors' if form == 'tensors' else '1 coded matrix'})"
            cells = "".join(
                f"{rates[one.name, form, r]:>10,.0f}{rates[one.name, form, r] / best[r]:>7.1f}" for r in ROWS
            )
            print(f"{name:34}{cells}{one.resident_mib():>9.0f}{one.start_seconds:>9.2f}")
    print(
        "ours get 12 mixed tensors. governance on: request quota, masking of 4 string fields, encrypted journal "
        "fsynced before each answer"
    )


def main() -> None:
    """Run it."""
    args = options()
    peers = {} if args.smoke or args.against else contenders.PEERS
    pythons = {name: contenders.environment(name, args.cache) for name in peers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_artefact(folder / "artefact")
        (folder / "mixed.onnx").write_bytes(tabular())
        (folder / "matrix.onnx").write_bytes(forms.matrix())
        made = [
            contenders.ungoverned(folder, args.port),
            contenders.governed(folder, args.port + 1),
        ]
        if args.against:
            (folder / "other").mkdir()
            made += contenders.of_checkout(args.against.resolve(), folder / "other", args.port + 12)
        if pythons:
            made += [
                contenders.kserve(folder, args.port + 4, pythons["kserve"]),
                contenders.mlserver(folder, args.port + 8, pythons["mlserver"]),
            ]
        try:
            for one in made:
                one.start(folder / f"{one.port}.log")
            rates = measure(folder, made, args.rounds, args.seconds)
            alone = {rows: bare(rows, 1.0) for rows in ROWS}
            table(made, rates, alone)
            if args.against:
                for mine, other in zip(made[:2], made[2:], strict=True):
                    ratios = [rates[mine.name, "tensors", r] / rates[other.name, "tensors", r] for r in ROWS]
                    print(f"{mine.name} ÷ {other.name}: {ratios[0]:.3f} (1 row), {ratios[1]:.3f} (64 rows)")
        finally:
            for one in made:
                one.stop()


if __name__ == "__main__":
    main()
