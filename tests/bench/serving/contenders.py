"""Processes that are compared: how each starts, on which port, and what it has cost so far."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")
PEERS = {"kserve": ["kserve==0.21.0", "onnxruntime"], "mlserver": ["mlserver==1.7.1", "onnxruntime"]}


@dataclass
class Contender:
    """A server. ``form``: which body it gets; ``peer``: counts in the comparison's denominator."""

    name: str
    command: list[str]
    port: int
    form: str
    env: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    peer: bool = False
    process: subprocess.Popen[bytes] | None = None
    start_seconds: float = 0.0

    def start(self, log: Path) -> None:
        """Start, pinned to one core, and wait until it is ready. Raises RuntimeError with the log's end."""
        began = time.monotonic()
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", "0", *self.command],
                env=os.environ | self.env,
                cwd=self.folder,
                stdout=out,
                stderr=out,
            )
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() - began > 300:
                raise RuntimeError(f"{self.name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        self.start_seconds = time.monotonic() - began

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def cpu_seconds(self) -> float:
        """User and system time of the process, all threads."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def resident_mib(self) -> float:
        """Resident memory now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment(name: str, cache: Path) -> Path:
    """The peer's own virtual environment below ``cache``; made when it isn't there. Returns its Python."""
    folder = cache / name
    done = folder / ".complete"
    if not done.exists():
        print(f"installing {' '.join(PEERS[name])} into {folder} …", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *PEERS[name]], check=True)
        done.touch()
    return folder / "bin" / "python"


def governed(folder: Path, port: int) -> Contender:
    """The product: quota, masking of every string, encrypted journal, fsync before each answer."""
    masking = {"fields": ["housing", "purpose", "region", "sex"]}
    spec = {
        "predictor": {"model": {"storageUri": "file:m.onnx", "digest": "sha256:" + "0" * 64}},
        "quota": {"requests": [{"limit": 1_000_000_000, "window": "1m"}], "maxConcurrent": 1000},
        "governance": {"privacy": {"masking": masking}, "audit": {"durability": "Fsync", "spoolSize": "8Gi"}},
    }
    resource = {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": "credit"},
        "spec": spec,
    }
    (folder / "spec.json").write_bytes(ResolvedModel.of(GovernedModel.model_validate(resource)).dump())
    (folder / "kek").write_bytes(os.urandom(32))
    (folder / "kek").chmod(0o600)
    (folder / "spool").mkdir()
    env = {
        "GOVERNED_SPEC": f"{folder}/spec.json",
        "GOVERNED_MODEL_DIR": f"{folder}/artefact",
        "GOVERNED_SPOOL_DIR": f"{folder}/spool",
        "GOVERNED_KEK_FILE": f"{folder}/kek",
        "GOVERNED_HTTP_PORT": str(port),
        "GOVERNED_HOST": "127.0.0.1",
        "GOVERNED_THREADS": "1",
        "GOVERNED_REVISION": "r1",
    }
    return Contender("ours, governance on", [sys.executable, "-m", "governed_serving.server"], port, "tensors", env)


def ungoverned(folder: Path, port: int) -> Contender:
    """The same server composed without duties."""
    command = [sys.executable, str(HERE / "ungoverned.py"), str(port), str(folder / "artefact")]
    return Contender("ours, governance off", command, port, "tensors")


PREPARE = """
import json, sys
from pathlib import Path
import contenders
from unit.server.tabular_model import write_artefact
folder, port = Path(sys.argv[1]), int(sys.argv[2])
write_artefact(folder / "artefact")
made = contenders.ungoverned(folder, port), contenders.governed(folder, port + 1)
print(json.dumps([[one.name, one.command, one.port, one.form, one.env] for one in made]))
"""


def of_checkout(root: Path, folder: Path, port: int) -> list[Contender]:
    """The same two servers as another checkout makes and runs them, with this one's environment of packages."""
    rooms = [root / room for room in ("crds", "operator", "serving_image", "tests", "tests/bench/serving")]
    path = os.pathsep.join(map(str, rooms))
    command = [sys.executable, "-c", PREPARE, str(folder), str(port)]
    out = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True)
    made = [Contender(*fields) for fields in json.loads(out.stdout.splitlines()[-1])]
    for one in made:
        one.name = f"{one.name}, {root.name}"
        one.env["PYTHONPATH"] = path
    return made


def kserve(folder: Path, port: int, python: Path) -> Contender:
    """KServe's Python server."""
    command = [
        str(python),
        str(HERE / "peers" / "kserve_server.py"),
        str(port),
        f"{folder}/mixed.onnx",
        f"{folder}/matrix.onnx",
    ]
    return Contender("KServe 0.21.0", command, port, "tensors", peer=True)


def mlserver(folder: Path, port: int, python: Path) -> Contender:
    """MLServer with its runtime in the serving process."""
    home = folder / "mlserver"
    home.mkdir()
    quiet = {"version": 1, "disable_existing_loggers": True, "root": {"level": "ERROR"}}
    (home / "logging.json").write_text(json.dumps(quiet))
    settings = {
        "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "metrics_endpoint": None, "parallel_workers": 0,  # noqa: E501
        "debug": False, "logging_settings": str(home / "logging.json"),
    }  # fmt: skip
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model-settings.json").write_text(
        json.dumps({"name": "credit", "implementation": "mlserver_runtime.Credit"})
    )
    env = {"MIXED": f"{folder}/mixed.onnx", "SINGLE": f"{folder}/matrix.onnx", "PYTHONPATH": str(HERE / "peers")}
    command = [str(python), "-m", "mlserver.cli.main", "start", "."]
    if (python.parent / "mlserver").exists():
        command = [str(python), str(python.parent / "mlserver"), "start", "."]
    return Contender("MLServer 1.7.1", command, port, "tensors", env, home, peer=True)


Maker = Callable[[Path, int], Contender]
