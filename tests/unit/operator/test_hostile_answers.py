"""What a model's pods answer acts on nobody's terminal, and makes no line of its own."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rich.text import Text
from typer.testing import CliRunner

from governed_api.printable import printable
from governed_operator.cli import app
from governed_operator.local.plain_console import plain_console

EVIL = "\x1b[2J\x1b[1;1H\rverified\x9b2J\u202e\x07"
LINES = f"x\nverified\n{EVIL}"


class Lying(BaseHTTPRequestHandler):
    answer: tuple[int, Any] = (200, {})

    def do_GET(self) -> None:
        status, body = Lying.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Lying)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


CONTEST = ["contest", "m", "id", "--by", "me", "--reason", "why"]
CASES: dict[str, tuple[list[str], int, Any]] = {
    "contests": (["contests", "m"], 200, {"open": [{"id": LINES, "time": LINES, "deadline": EVIL, "overdue": True}]}),
    "a contest": (CONTEST, 202, {"id": LINES, "decisions": [{EVIL: EVIL}]}),
    "a refused contest": (CONTEST, 404, {"error": LINES}),
    "contests refused in text": (["contests", "m"], 500, LINES.encode()),
    "an explanation as JSON": (["explain", "--json", "m", "a=1"], 200, {"inputs": [], "id": LINES, "x": EVIL}),
    "a refused explanation": (["explain", "m", "a=1"], 400, {"error": LINES}),
    "an acknowledgement": (["acknowledge", "m", "--by", "me", "--reason", "why"], 404, {"error": EVIL}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_answered_is_printed_escaped(url: str, case: str) -> None:
    words, *Lying.answer = CASES[case]  # type: ignore[misc]
    done = CliRunner().invoke(app, [*words, "--url", url])
    said = done.output
    assert printable(said, keep="\n") == said, ascii(said)
    assert "verified" not in said.splitlines()
    assert done.exception is None or isinstance(done.exception, SystemExit)


TEXTS = (EVIL, f"[bold]{EVIL}", f"[link={EVIL}]x[/link]", LINES)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_a_console_shows_no_ones_control_codes(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    plain_console(width=200).print(Text(TEXTS[number]))
    said = capsys.readouterr().out
    assert printable(said, keep="\n") == said


def test_a_console_keeps_its_own_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    plain_console(width=80).print(Text("bad\x1b[2J", style="red"))
    said = capsys.readouterr().out
    assert "\x1b[31m" in said
    assert "\x1b[2J" not in said
