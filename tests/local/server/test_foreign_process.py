"""The process before a foreign runtime: waits for it, governs it, streams through real sockets."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from governed_serving.crypto import DirectoryStore, Keyring, SegmentCipher, load_kek
from governed_serving.journal import JournalReader, strings
from governed_serving.records import PredictionFrame
from local.server.test_process import Server, start  # noqa: F401  # the fixture


class Runtime(BaseHTTPRequestHandler):
    """Speaks just enough of OpenAI's protocol, in two chunks."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        self._reply(b"{}")

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(message)
        if not message.get("stream"):
            self._reply(
                json.dumps(
                    {"choices": [{"message": {"content": "hello 13812345678"}}], "usage": {"total_tokens": 4}}
                ).encode()
            )
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for text in ("hello 138", "12345678"):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def runtime() -> Iterator[str]:
    Runtime.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def spec() -> dict[str, Any]:
    model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "llama", "protocol": "openai", "model": "inner"}}
    masking = {"privacy": {"masking": {"action": "Replace"}}}
    return {
        "predictor": {"model": model},
        "governance": masking,
        "quota": {"tokens": [{"limit": 10000, "window": "1h"}]},
    }


def test_chat_is_masked_streamed_and_recorded(start: Callable[..., Server], tmp_path: Path) -> None:  # noqa: F811
    with runtime() as url:
        server = start(spec(), GOVERNED_UPSTREAM_URL=url).ready()
        message = {"messages": [{"role": "user", "content": "call 13812345678"}], "max_tokens": 9}
        whole = server.http.post("/v1/chat/completions", json=message)
        streamed = server.http.post("/v1/chat/completions", json=message | {"stream": True})
        foreign = server.http.post("/v2/models/credit/infer", json={"inputs": []})
        metrics = server.http.get("/metrics").text
        assert server.stop() == 0
    assert whole.json()["choices"][0]["message"]["content"] == "hello <PHONE_NUMBER>"
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = [line for line in streamed.text.split("\n\n") if line]
    assert [json.loads(e[6:])["choices"][0]["delta"]["content"] for e in events[:-1]] == [
        "hello ",
        "",
        "<PHONE_NUMBER>",
    ]
    assert events[-1] == "data: [DONE]"
    assert [m["messages"][0]["content"] for m in Runtime.seen] == ["call <PHONE_NUMBER>"] * 2
    assert foreign.status_code == 404
    assert (
        'governed_requests_total{code="200",component="server",model_name="credit",name="credit",namespace="default",verb="chat"} 2.0'  # noqa: E501
        in metrics
    )
    keyset = Keyring(load_kek(tmp_path / "kek"), DirectoryStore(tmp_path / "spool" / "keysets")).keyset("journal")
    frames = [f for _, f in JournalReader(tmp_path / "spool", "server-local", SegmentCipher(keyset)).read()]
    states = [
        (f.ids[0], strings(f.outputs["state"])[0], strings(f.outputs["completion"])[0])
        for f in frames
        if isinstance(f, PredictionFrame)
    ]
    first, second = whole.headers["x-request-id"], streamed.headers["x-request-id"]
    assert states == [
        (first, "started", ""),
        (first, "complete", "hello <PHONE_NUMBER>"),
        (second, "started", ""),
        (second, "complete", "hello <PHONE_NUMBER>"),
    ]


def test_not_ready_until_the_runtime_answers(start: Callable[..., Server]) -> None:  # noqa: F811
    server = start(spec(), GOVERNED_UPSTREAM_URL="http://127.0.0.1:1")
    server.until(lambda: "the runtime does not answer" in server.http.get("/healthz/ready").json().get("error", ""))
    assert server.http.get("/healthz/live").status_code == 200
    refused = server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
    assert refused.status_code == 503
    assert server.stop() == 0
