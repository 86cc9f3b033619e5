"""Every bench runs at a smoke size, without peers: it cannot rot unseen. What it measures is for people with a quiet
machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[1] / "bench"
EXPLAIN = ("exact", "sampled", "coverage", "trees", "text", "serving", "engines")
OF_A_CLUSTER = {"operator"}  # tests/apiserver runs it

COMMANDS = [
    *(
        (bench,)
        for bench in sorted(p.parent.name for p in BENCHES.glob("*/run"))
        if bench not in {"explain", *OF_A_CLUSTER}
    ),
    *(("explain", question) for question in EXPLAIN),
    ("hostile", "--verifier", "go"),
    ("hostile", "flips"),
    ("hostile", "door"),
    ("hostile", "door", "--model", "keys"),
    ("hostile", "door", "--model", "texts"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_runs_and_prints_its_table(command: tuple[str, ...]) -> None:
    bench, *words = command
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [BENCHES / bench / "run", *words, "--smoke"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ours" in done.stdout or len(done.stdout.splitlines()) > 5, done.stdout


def test_the_questions_of_the_explanation_bench_are_all_asked() -> None:
    program = (BENCHES / "explain" / "__main__.py").read_text()
    asked = program[program.index("QUESTIONS = {") :].split("}", 1)[0]
    assert asked.count(": ") == len(EXPLAIN)
    assert all(f'"{question}"' in asked for question in EXPLAIN)
