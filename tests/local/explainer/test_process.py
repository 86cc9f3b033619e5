"""The explainer as a process: starts from its environment alone, keeps a queued job over kill -9, drains on SIGTERM."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import msgspec
import numpy as np
import pytest

from governed_api import runtime
from governed_serving.artefact import encode_manifest, pack, write
from governed_serving.blackbox.client import _HEADER
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield {
        **os.environ,
        runtime.SPEC: str(tmp_path / "spec.json"),
        runtime.KEK_FILE: str(tmp_path / "kek"),
        runtime.MODEL_DIR: str(tmp_path / "model"),
        runtime.SPOOL_DIR: str(tmp_path / "spool"),
        runtime.PREDICTOR_URL: f"http://127.0.0.1:{server.server_port}",
        runtime.HTTP_PORT: str(port),
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


@pytest.mark.parametrize("lost", [runtime.SPEC, runtime.KEK_FILE])
def test_a_missing_variable_is_one_line_and_exit_1(place, lost):
    del place[lost]
    done = subprocess.run(
        [sys.executable, "-m", "governed_serving.explainer"],
        env=place,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert lost in json.loads(line)["message"]


def test_a_tampered_background_is_refused(place):
    path = os.path.join(place[runtime.MODEL_DIR], "background.json")
    with open(path, "ab") as file:
        file.write(b" ")
    done = subprocess.run(
        [sys.executable, "-m", "governed_serving.explainer"],
        env=place,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    assert "background.json: expected SHA-256" in done.stderr
    assert np.sum([line.startswith("Traceback") for line in done.stderr.splitlines()]) == 0
