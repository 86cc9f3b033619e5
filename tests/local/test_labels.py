"""Answers of `governed run` before a runtime are labelled, and `governed detect` proves by the ledger that they are
ours: a whole one, a stream as curl saves it, the text that somebody copied."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.ports import free_port
from support.waiting import eventually

from .conftest import Served, governed, start

WORDS = "本内容由人工智能生成"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
RUNTIME = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

END = {"delta": {}, "finish_reason": "stop"}

class Runtime(BaseHTTPRequestHandler):
    def do_GET(self):
        self.said("application/json", b"{}")

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        parts = [{"delta": {"content": part}} for part in ("One.", "\\n", "Two.")]
        if message.get("stream"):
            events = [*(json.dumps({"choices": [one]}) for one in [*parts, END]), "[DONE]"]
            self.said("text/event-stream", b"".join(f"data: {one}\\n\\n".encode() for one in events))
        else:
            message = {"role": "assistant", "content": "One.\\nTwo."}
            choice = {"message": message, "finish_reason": "stop"}
            self.said("application/json", json.dumps({"choices": [choice]}).encode())

    def said(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Runtime).serve_forever()
"""


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[Served]:
    """Archive, server and a runtime that always says the same, each a process."""
    (tmp_path / "runtime.py").write_text(RUNTIME)
    port = free_port()
    command = [sys.executable, str(tmp_path / "runtime.py"), str(port)]
    runtime = {"image": "none", "command": command, "port": port, "protocol": "openai", "healthPath": "/"}
    model = {"modelFormat": {"name": "runtime"}, "runtime": runtime}
    manifest = {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": "talks"},
        "spec": {"predictor": {"model": model}, "governance": {"labelling": {"producer": "Example"}}},
    }
    (tmp_path / "talks.yaml").write_text(json.dumps(manifest))  # JSON is YAML
    served = start(tmp_path / "talks.yaml", tmp_path / "work", tmp_path / "log", "talks")
    try:
        yield served
    finally:
        if served.process.poll() is None:
            assert served.stop() == 0


def test_what_was_answered_is_detected_and_what_was_changed_is_not(labelled: Served, tmp_path: Path) -> None:
    def asked(**more: object) -> bytes:
        address = f"http://127.0.0.1:{8080 + labelled.offset}/v1/chat/completions"
        answer = httpx.post(address, json=CHAT | more, trust_env=False, timeout=60)
        assert answer.status_code == 200
        assert json.loads(answer.headers["x-governed-aigc"])["ContentProducer"] == "Example"
        return answer.content

    whole, stream = asked(), asked(stream=True)
    text: str = json.loads(whole)["choices"][0]["message"]["content"]
    assert text == f"One.\nTwo.\n\n{WORDS}"
    assert WORDS in stream.decode()
    contents = {"whole": whole, "stream": stream, "text": text.replace("\n", "\r\n").encode("utf-8-sig")}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        detect = ("detect", tmp_path / name, "--against", labelled.workdir)
        found = eventually(
            lambda words=detect: governed(*words), lambda done: done.returncode == 0, within=300, what=name
        )
        assert found.stdout.endswith("proved: ours\n")
    (tmp_path / "whole").write_bytes(whole.replace(b"Two.", b"Ten."))
    refuted = governed("detect", tmp_path / "whole", "--against", labelled.workdir)
    assert (refuted.returncode, refuted.stderr) == (1, "")
    assert "it was changed since" in refuted.stdout
