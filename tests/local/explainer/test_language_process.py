"""The explainer's process before a language model's runtime."""

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from governed_api import runtime as rt
from local.explainer.test_process import place, start  # noqa: F401  # the fixture
from unit.explainer.test_language import WordRuntime, body


class Lane(BaseHTTPRequestHandler):
    """The server's internal lane before a runtime."""

    def do_POST(self):
        answer = WordRuntime()(self.path, json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Quiet."""


def test_the_process_explains_a_runtimes_completions(place, tmp_path):  # noqa: F811
    model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "llama", "protocol": "openai"}}
    spec = {
        "name": "chat",
        "namespace": "default",
        "spec": {"predictor": {"model": model}, "explainer": {"sampling": 0.5}},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    lane = ThreadingHTTPServer(("127.0.0.1", 0), Lane)
    threading.Thread(target=lane.serve_forever, daemon=True).start()
    process, client = start(place | {rt.PREDICTOR_URL: f"http://127.0.0.1:{lane.server_port}", rt.MODEL_DIR: ""})
    answer = client.post("/v2/models/chat/explain", content=body("a kind word"))
    client.close()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    lane.shutdown()
    lane.server_close()
    assert process.returncode == 0, log
    assert answer.json()["explanations"][0]["attributions"][1]["attribution"] == pytest.approx(3 * 0.7)
