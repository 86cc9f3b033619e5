"""The operator's bench runs at a smoke size: it cannot rot unseen."""

import subprocess
import sys

from support.places import ROOT


def test_it_runs_and_prints_its_table() -> None:
    bench = ROOT / "tests" / "bench" / "operator" / "many_models.py"
    command = [sys.executable, str(bench), "--smoke", "--no-ceiling"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all Ready" in done.stdout
    assert "not Ready in time" not in done.stdout, done.stdout
