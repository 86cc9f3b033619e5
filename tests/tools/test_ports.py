"""No port is given twice, and a model is ready when all of its processes are."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.model_ports import READINESS, free_offset, readiness_of, unready
from support.places import ROOT
from support.ports import PORT_RANGE, free_block, free_port, free_shift

CLAIMS = """
import sys
from support.ports import free_port, free_shift
port = free_port() if len(sys.argv) == 1 else free_shift((0,), range(int(sys.argv[1]), int(sys.argv[1]) + 1))
print(port, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that has claimed a port and doesn't listen there yet."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMS], cwd=ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.communicate()


def only(port: int) -> range:
    return range(port, port + 1)


def test_a_port_that_another_process_was_given_is_free_again_when_it_ends(
    other: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = other
    with pytest.raises(RuntimeError, match="expected free ports"):
        free_shift((0,), only(port))
    with pytest.raises(RuntimeError, match="expected free ports"):
        free_shift((0, 1), only(port - 1))
    process.communicate()
    assert free_shift((0,), only(port)) == port


def test_a_port_that_this_process_was_given_is_nobody_elses() -> None:
    port = free_port()
    assert port in PORT_RANGE
    with pytest.raises(RuntimeError, match="expected free ports"):
        free_shift((0,), only(port))
    refused = subprocess.run(
        [sys.executable, "-c", CLAIMS, str(port)], cwd=ROOT / "tests", capture_output=True, text=True, check=False
    )
    assert "expected free ports" in refused.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_not_given(address: str) -> None:
    with socket.create_server((address, 0)) as taken, pytest.raises(RuntimeError, match="expected free ports"):
        free_shift((0,), only(taken.getsockname()[1]))


def test_offsets_and_blocks_overlap_with_nothing() -> None:
    given = [port + offset for offset in (free_offset(), free_offset()) for port in READINESS.values()]
    given += [*range(block := free_block(20), block + 20), free_port()]
    assert len(set(given)) == len(given)
    assert set(given) <= set(PORT_RANGE)


class Unwell(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Well(Unwell):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_a_model_is_ready_when_each_of_its_processes_is() -> None:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Well, Unwell)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    well, unwell = (server.server_port for server in servers)
    assert unready({"server": well, "explainer": unwell, "archive": free_port()}, 0) == ["explainer", "archive"]
    assert unready({"server": well}, 0) == []
    for server in servers:
        server.shutdown()
        server.server_close()


def test_only_a_model_with_an_explainer_is_asked_for_one() -> None:
    assert "explainer" not in readiness_of({"spec": {"governance": {}}})
    assert set(readiness_of({"spec": {"explainer": {}}})) == {"server", "explainer", "auditor", "archive"}
