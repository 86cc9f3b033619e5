"""Commands that speak to an auditor beside a foreign runtime show the token of its port."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from governed_api.runtime import POD_TOKEN_HEADER
from governed_operator.cli import app
from governed_operator.local.workdir import Workdir

TOKEN = "ab" * 32


class Auditor(BaseHTTPRequestHandler):
    shown: list[str | None] = []

    def do_GET(self) -> None:
        self.shown.append(self.headers[POD_TOKEN_HEADER])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"open": []}')

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def auditor() -> Iterator[str]:
    Auditor.shown.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Auditor) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def contests(auditor: str, *more: str, environment: dict[str, str] | None = None) -> str:
    answer = CliRunner().invoke(app, ["contests", "chat", "--url", auditor, *more], env=environment)
    return answer.output + answer.stderr + f"exit {answer.exit_code}"


def test_the_token_of_a_file_or_of_the_environment_is_shown(auditor: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert "exit 0" in contests(auditor, "--pod-token-file", str(tmp_path / "token"))
    assert "exit 0" in contests(auditor, environment={"GOVERNED_POD_TOKEN_FILE": str(tmp_path / "token")})
    assert Auditor.shown == [TOKEN, TOKEN]


def test_a_local_run_s_token_is_found_by_its_workdir(auditor: str, tmp_path: Path) -> None:
    path = Workdir(tmp_path / "work").pod_token("chat")
    assert "exit 0" in contests(auditor, "--workdir", str(tmp_path / "work"))
    path.parent.mkdir(parents=True)
    try:
        path.write_text(TOKEN)
        assert "exit 0" in contests(auditor, "--workdir", str(tmp_path / "work"))
    finally:
        path.unlink()
        for folder in list(path.parents)[:3]:
            folder.rmdir()
    assert Auditor.shown == [None, TOKEN], "a pod of ours alone has none"


def test_a_named_file_that_is_not_there_is_an_error_in_words(auditor: str, tmp_path: Path) -> None:
    said = contests(auditor, "--pod-token-file", str(tmp_path / "none"))
    assert "expected the token of the auditor's port" in said
    assert "exit 1" in said
    assert Auditor.shown == []
