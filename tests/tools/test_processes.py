"""A bed's process counts as gone only when nothing of it is left that another could stumble over."""

import socket
import sys
from pathlib import Path

from support.processes import Process
from support.waiting import eventually

LISTENER = """
import ctypes, socket, sys, threading, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
threading.Thread(target=time.sleep, args=(60,)).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_whose_first_thread_has_ended_still_holds_its_port(tmp_path: Path) -> None:
    """What a SIGKILL leaves for a moment, made to last: the first thread is a zombie, another one still runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listener = Process("listener", [sys.executable, "-c", LISTENER, str(port)], str(tmp_path / "log"))
    listener.start()
    try:
        eventually(lambda: "up" in listener.tail() and _state(listener.pid) == "Z", within=90, every=0.02)
        assert listener.alive
    finally:
        listener.stop(hard=True)
    assert not listener.alive
    socket.create_server(("127.0.0.1", port)).close()
