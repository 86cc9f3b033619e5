"""The explainer as a process: starts from its environment alone, keeps a queued job over kill -9, drains on SIGTERM."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from governed_api import runtime
from governed_serving.artefact import encode_manifest, pack, write
from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.client import _HEADER
from governed_serving.explainer.game import InterventionalGame
from governed_serving.explainer.players import Players
from governed_serving.explainer.shapley.exact import exact_shapley
from support.ports import free_port
from unit.explainer import models
from unit.explainer.test_live_and_predictor import answer


class Predictor(BaseHTTPRequestHandler):
    """The server's internal lane; answers 503 while ``away`` is set."""

    away = threading.Event()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.away.is_set():
            self.send_response(503)
            self.end_headers()
            return
        found = answer(httpx.Request("POST", "http://x", content=body, headers={_HEADER: self.headers[_HEADER]}))
        self.send_response(200)
        self.send_header(_HEADER, found.headers[_HEADER])
        self.send_header("content-length", str(len(found.content)))
        self.end_headers()
        self.wfile.write(found.content)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def place(tmp_path):
    """Environment of one explainer beside a predictor of its own."""
    table = {name: values.tolist() for name, values in models.table(30, 1).items()}
    files = {"model.onnx": b"\x08\x09", "background.json": json.dumps({"columns": table}).encode()}
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files["model.json"] = encode_manifest(msgspec.structs.replace(models.manifest(), files=listed))
    write(pack(files), tmp_path / "model")
    (tmp_path / "kek").write_bytes(bytes(range(32)))
    (tmp_path / "kek").chmod(0o600)
    spec = {
        "name": "loans",
        "namespace": "default",
        "spec": {
            "predictor": {"model": {"storageUri": "file:x", "digest": "sha256:" + "0" * 64}},
            "explainer": {"sampling": 0.5},
        },
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Predictor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        **os.environ,
        runtime.SPEC: str(tmp_path / "spec.json"),
        runtime.KEK_FILE: str(tmp_path / "kek"),
        runtime.MODEL_DIR: str(tmp_path / "model"),
        runtime.SPOOL_DIR: str(tmp_path / "spool"),
        runtime.PREDICTOR_URL: f"http://127.0.0.1:{server.server_port}",
        runtime.HTTP_PORT: str(free_port()),
        "GOVERNED_HOST": "127.0.0.1",
    }
    Predictor.away.clear()
    server.shutdown()
    server.server_close()


def start(environment):
    """A process that is ready, and a client of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "governed_serving.explainer"], env=environment, stderr=subprocess.PIPE, text=True
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{environment[runtime.HTTP_PORT]}", timeout=30, trust_env=False)
    wait(lambda: client.get("/healthz/ready").status_code == 200, process)
    return process, client


def wait(condition, process, seconds=180):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "not in time"
        threading.Event().wait(0.05)


def test_process_serves_keeps_jobs_over_kill_and_drains(place):
    process, client = start(place)
    body = models.request(models.table(1, 9), "asked")
    first = client.post("/v2/models/loans/explain", content=body)
    assert first.status_code == 200, first.text
    Predictor.away.set()
    accepted = client.post("/v2/models/loans/explanations", content=models.request(models.table(1, 9), "later"))
    assert accepted.status_code == 202
    process.kill()
    process.communicate()
    client.close()
    Predictor.away.clear()
    process, client = start(place)
    wait(lambda: client.get(accepted.headers["location"]).json()["status"] == "done", process)
    assert client.post("/v2/models/loans/explain", content=body).content == first.content
    client.close()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert [json.loads(line)["message"] for line in log.splitlines()][-1] == "stopped"


def refusal(environment: dict[str, str]) -> str:
    """The one line of an explainer that doesn't start, which ends with exit status 1."""
    done = subprocess.run(
        [sys.executable, "-m", "governed_serving.explainer"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()  # no traceback
    message: str = json.loads(line)["message"]
    return message


@pytest.mark.parametrize("lost", [runtime.SPEC, runtime.KEK_FILE])
def test_a_missing_variable_is_one_line_and_exit_1(place, lost):
    del place[lost]
    assert lost in refusal(place)


def test_a_tampered_background_is_refused(place):
    path = os.path.join(place[runtime.MODEL_DIR], "background.json")
    with open(path, "ab") as file:
        file.write(b" ")
    assert "background.json: expected SHA-256" in refusal(place)


@pytest.fixture
def with_alibi(place):
    """The environment of an explainer whose engine is alibi, from an environment of its own."""
    if not os.access(os.environ.get(runtime.ALIBI_PYTHON, ""), os.X_OK):
        pytest.skip("no environment with alibi: tests/run makes one where pip can; or set GOVERNED_ALIBI_PYTHON")
    spec = json.loads(Path(place[runtime.SPEC]).read_text())
    spec["spec"]["explainer"] = {"engine": "alibi", "acceptLicence": "BSL-1.1"}
    Path(place[runtime.SPEC]).write_text(json.dumps(spec))
    return place


def test_alibi_explains_in_our_form_and_agrees_with_ours(with_alibi):
    process, client = start(with_alibi)
    path = "/v2/models/loans/explain"
    asked = models.request(models.table(2, 9), "asked", method="shap")
    answer = client.post(path, content=asked)
    assert answer.status_code == 200, answer.text
    assert client.post(path, content=asked).content == answer.content  # the same id, the same bits
    rows, background = models.table(2, 9), models.table(30, 1)
    players = Players.of_groups(list(rows), {})
    oracle = exact_shapley(InterventionalGame(BlackBox(models.probabilities), rows, background, players))
    for row, exact in zip(answer.json()["explanations"], oracle, strict=True):
        assert row["engine"]["alibi"] == "0.9.6"
        assert abs(row["additivity_residual"]) < 1e-6
        found = [one["attribution"] for one in row["attributions"]]
        np.testing.assert_allclose(found, exact.values[:, 1], atol=1e-5)
    anchors = client.post(path, content=models.request(models.table(1, 9), "ruled", method="anchors"))
    assert anchors.status_code == 200, anchors.text
    (rule,) = anchors.json()["explanations"]
    assert rule["certified"] == (rule["precision"] >= 0.95)
    assert {one["player"] for one in rule["anchor"]} <= set(rows)
    assert rule["evaluations"] > 100
    cut = client.post(path, content=models.request(models.table(1, 9), "cut", method="anchors", max_evaluations=50))
    assert cut.status_code == 400
    assert "can't be cut short" in cut.json()["error"]
    client.close()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def test_an_engine_without_its_environment_is_one_line_and_exit_1(place):
    spec = json.loads(Path(place[runtime.SPEC]).read_text())
    spec["spec"]["explainer"] = {"engine": "alibi", "acceptLicence": "BSL-1.1"}
    Path(place[runtime.SPEC]).write_text(json.dumps(spec))
    assert "set GOVERNED_ALIBI_PYTHON" in refusal(place | {runtime.ALIBI_PYTHON: "/nowhere/python"})
