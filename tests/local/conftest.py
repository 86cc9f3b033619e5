"""`governed run` as a person starts it, and what a test needs to know of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.fixtures import pytest_configure_node as pytest_configure_node
from support.fixtures import tell as tell
from support.model_ports import free_offset, readiness_of, unready
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "crds" / "samples"
GOVERNED = [str(Path(sys.executable).with_name("governed"))]


def governed(*arguments: str | Path, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    assert arguments[0] != "run" or "--port-offset" in arguments, "tests beside it serve as well"
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [*GOVERNED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)


@dataclass
class Served:
    """A model that `governed run` serves."""

    name: str
    workdir: Path
    offset: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{8080 + self.offset}/v2/models/{self.name}"

    @property
    def auditor(self) -> str:
        return f"http://127.0.0.1:{8084 + self.offset}"

    def pids(self) -> dict[str, int]:
        """Container name → process id, the runner itself left out."""
        known = json.loads((self.workdir / "run.json").read_text())
        return {name: entry["pid"] for name, entry in known.items() if name != "governed run"}

    @property
    def explainer(self) -> str:
        return f"http://127.0.0.1:{8083 + self.offset}"

    def ready(self) -> bool:
        return self.answers(f"{self.url}/ready")

    @staticmethod
    def answers(url: str) -> bool:
        try:
            return httpx.get(url, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


def start(sample: Path, workdir: Path, log: Path, name: str, *more: str) -> Served:
    offset, ports = free_offset(), readiness_of(next(yaml.safe_load_all(sample.read_text())))
    command = [*GOVERNED, "run", str(sample), "--workdir", str(workdir), "--port-offset", str(offset), *more]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    served = Served(name, workdir, offset, process)

    def up() -> bool:
        if process.poll() is not None:  # not an assertion, which would be waited for
            pytest.fail(f"{sample} isn't served: {log.read_text()[-3000:]}")
        return not unready(ports, offset)

    eventually(up, within=300, what=f"all processes of {sample.name} are ready")
    return served


def in_ledger(served: Served, kind: str = "prediction") -> set[str]:
    """Ids of the entries of a kind in the ledger, read with the operator's token."""
    (token,) = served.workdir.glob("secrets/*-operator/operator-token")
    headers = {"authorization": f"Bearer {token.read_text().strip()}", "x-governed-model": served.name}
    base = f"http://127.0.0.1:{8090 + served.offset}/v1/ledger"
    found: set[str] = set()
    start = 0
    with httpx.Client(headers=headers, trust_env=False, timeout=30) as client:
        while entries := client.get(f"{base}/entries", params={"start": start, "end": start + 1000}).json()["entries"]:
            found.update(e["id"] for e in entries if e and e["type"] == kind)
            start += len(entries)
    return found


@pytest.fixture(scope="session")
def admissions_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """README command one, once per session: its work directory and what it printed."""
    workdir = tmp_path_factory.mktemp("admissions")
    done = governed(
        "run", SAMPLES / "admissions.yaml", "--once", "--workdir", workdir, "--port-offset", str(free_offset())
    )
    return workdir, done


@pytest.fixture
def admissions(admissions_once: tuple[Path, Any], tmp_path: Path) -> Iterator[Served]:
    """The trained model, served from the same work directory (no second training)."""
    served = start(SAMPLES / "admissions.yaml", admissions_once[0], tmp_path / "log", "admissions")
    yield served
    if served.process.poll() is None:
        assert served.stop() == 0
