"""A process of any role: port first, not ready at SIGTERM while requests finish, the same log lines, exit codes."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import httpx
import pytest

from support.ports import free_port

PROGRAM = """
import asyncio, gc, sys
from governed_serving import hosting
from governed_serving.environment import missing

leaving = begun = False

async def app(scope, receive, send):
    global begun
    if scope["path"] == "/slow":
        begun = True
        while not leaving:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    missing = {"/begun": not begun, "/frozen": gc.get_freeze_count() < 10_000}
    status = 404 if missing.get(scope["path"]) else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

def leave():
    global leaving
    leaving = True

async def work():
    if WHAT == "missing":
        raise missing("GOVERNED_SPEC", "the path of the resolved spec")
    if WHAT == "bug":
        raise RuntimeError("a bug")
    host = hosting.Host()
    sock = hosting.listen("127.0.0.1", PORT)
    await host.serve(hosting.web_server(app, grace=5), sock, leave)
    hosting.log("info", "stopped", answered=1)

sys.exit(hosting.run("tester", work))
"""


def start(what: str = "", port: int = 0) -> subprocess.Popen[str]:
    program = f"WHAT, PORT = {what!r}, {port}\n{PROGRAM}"
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    _, errors = process.communicate(timeout=120)
    return [json.loads(line) for line in errors.splitlines()]


def answered(url: str) -> None:
    """Wait for 200."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False, timeout=120).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise TimeoutError(url)


@pytest.fixture
def port() -> int:
    return free_port()


def test_requests_in_flight_are_answered_after_sigterm_and_the_exit_code_is_0(port: int) -> None:
    process = start(port=port)
    url = f"http://127.0.0.1:{port}"
    slow: list[int] = []
    thread = threading.Thread(
        target=lambda: slow.append(httpx.get(f"{url}/slow", timeout=20, trust_env=False).status_code)
    )
    try:
        answered(f"{url}/ready")
        thread.start()
        answered(f"{url}/begun")
        process.send_signal(signal.SIGTERM)
        thread.join(60)
        assert slow == [200]
        found = lines(process)
    finally:
        process.kill()
    assert process.returncode == 0
    assert [line["message"] for line in found] == ["draining", "stopped"]
    assert {line["component"] for line in found} == {"tester"}
    assert (found[-1]["level"], found[-1]["answered"]) == ("info", 1)
    assert found[-1]["time"].endswith("Z")


def test_what_the_start_made_is_out_of_the_collectors_sight(port: int) -> None:
    process = start(port=port)
    try:
        answered(f"http://127.0.0.1:{port}/frozen")
    finally:
        process.kill()
        process.communicate(timeout=120)


def test_a_taken_port_is_one_line_and_exit_code_1(port: int) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        process = start(port=port)
        (line,) = lines(process)
    assert process.returncode == 1
    assert f"port {port} on 127.0.0.1: expected it to be free" in line["message"]
    assert "GOVERNED_HTTP_PORT" in line["message"]


def test_a_missing_variable_is_named_and_a_bug_keeps_its_traceback() -> None:
    process = start("missing")
    (line,) = lines(process)
    assert process.returncode == 1
    assert "GOVERNED_SPEC: expected the path of the resolved spec, found nothing; set it" in line["message"]
    process = start("bug")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "RuntimeError: a bug" in errors
