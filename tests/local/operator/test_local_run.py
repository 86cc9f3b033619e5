# ruff: noqa: ASYNC240
"""The local runner with stand-ins: order, files, restarts, stopping, refusals."""

import asyncio
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from governed_api.model import GovernedModel
from governed_api.resolved import ResolvedModel
from governed_operator.local.errors import JobFailed, LocalError, NotReady, PortTaken, StaleRun
from governed_operator.local.process import NICENESS
from governed_operator.local.process_table import started
from governed_operator.local.run import LocalRun, Options, Running
from governed_operator.local.supervision import Backoff
from governed_operator.local.workdir import Workdir
from support.model_ports import free_offset

STANDIN = Path(__file__).parent / "standin"
OFFSET = free_offset()
MANIFEST = {
    "apiVersion": "governedmodels.io/v1alpha1",
    "kind": "GovernedModel",
    "metadata": {"name": "tiny", "namespace": "team"},
    "spec": {
        "lifecycle": {
            "training": {"data": {"inline": "x,y\n0.1,no\n0.9,yes\n", "label": "y", "features": [{"name": "x"}]}}
        },
        "explainer": {},
        "predictor": {"timeout": 1},
    },
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins first on the path; their trace and switches are files in this folder."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(STANDIN), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


class Appending(io.StringIO):
    """A log that is never left open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def write(self, text: str) -> int:
        with self.path.open("a") as file:
            return file.write(text)


def local_run(home: Path, offset: int = OFFSET, patience: int = 5) -> LocalRun:
    backoff = Backoff(first=0.02, cap=0.05, patience=patience)
    options = Options(home / "work", home, offset, backoff=backoff)
    console = Console(file=Appending(home / "log"), width=500)
    return LocalRun(ResolvedModel.of(GovernedModel.model_validate(MANIFEST)), options, console)


def events(home: Path) -> list[str]:
    return [line.split()[1] + (f" {line.split()[2]}" if len(line.split()) == 4 else "") for line in trace(home)]


def trace(home: Path) -> list[str]:
    path = home / "trace"
    return path.read_text().splitlines() if path.exists() else []


def pids(home: Path) -> list[int]:
    return [int(line.split()[-1]) for line in trace(home)]


async def nothing(_: Running) -> None:
    return


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


async def environment(running: Running, port: int) -> dict[str, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        found: dict[str, str] = (await client.get(f"http://127.0.0.1:{port + OFFSET}/")).json()
    assert running.model.name == "tiny"
    return found


async def test_starts_in_order_serves_and_leaves_nothing_running(home: Path) -> None:
    seen: dict[str, dict[str, str]] = {}

    async def when_ready(running: Running) -> None:
        for name, port in (("server", 8080), ("explainer", 8083), ("auditor", 8084), ("archive", 8090)):
            seen[name] = await environment(running, port)
        model = Path(seen["server"]["GOVERNED_MODEL_DIR"]) / "model.onnx"
        assert model.read_text() == "sha256:" + "ab" * 32
        kek = Path(seen["server"]["GOVERNED_KEK_FILE"])
        assert len(kek.read_bytes()) == 32
        assert stat.S_IMODE(kek.stat().st_mode) == 0o600

    await local_run(home)(when_ready)
    order = events(home)
    assert order[:3] == ["archive start", "trainer", "fetch"]
    assert set(order[3:6]) == {"auditor start", "server start", "explainer start"}
    assert order[-1] == "archive stop"
    assert order.index("auditor stop") > max(order.index("server stop"), order.index("explainer stop"))
    assert [started(pid) for pid in pids(home)] == [None] * len(pids(home))
    server = seen["server"]
    assert server["GOVERNED_EXPLAINER_URL"] == f"http://127.0.0.1:{8083 + OFFSET}"
    assert seen["explainer"]["GOVERNED_PREDICTOR_URL"] == f"http://127.0.0.1:{8082 + OFFSET}"
    assert seen["auditor"]["GOVERNED_ARCHIVE_URL"] == f"http://127.0.0.1:{8090 + OFFSET}"
    assert server["GOVERNED_REPORT"] == (home / "work/reports/tiny.json").as_uri()
    assert server["GOVERNED_SPOOL_DIR"] == seen["auditor"]["GOVERNED_SPOOL_DIR"] == str(
        home / "work/volumes/tiny-predictor-0/spool"
    )  # fmt: skip
    assert not Path(server["GOVERNED_MODEL_DIR"]).exists(), "plaintext must go when the run ends"


def threads(pid: int) -> set[int]:
    """Niceness of each; one that answers a request may have ended."""
    found = set[int]()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):
            found.add(os.getpriority(os.PRIO_PROCESS, int(thread)))
    return found


async def test_what_no_client_waits_for_gives_way_to_the_server_once_it_is_ready(home: Path) -> None:
    niceness: dict[str, set[int]] = {}
    at_start: dict[str, str] = {}
    places: set[tuple[int, bool]] = set()

    async def when_ready(running: Running) -> None:
        for name, port in (("server", 8080), ("explainer", 8083), ("auditor", 8084), ("archive", 8090)):
            at_start[name] = (await environment(running, port))["NICENESS_AT_START"]
        for line in trace(home):
            _, name, *event, pid = line.split()
            if event == ["start"]:
                niceness[name] = threads(int(pid))
                places.add((os.getsid(int(pid)), os.getpgid(int(pid)) == int(pid)))

    await local_run(home)(when_ready)
    own = os.nice(0)
    behind = {min(19, own + NICENESS)}
    assert niceness == {"server": {own}, "explainer": behind, "auditor": behind, "archive": behind}
    assert set(at_start.values()) == {str(own)}, "a start that gets a tenth of the weight takes ten times as long"
    assert places == {(os.getsid(0), True)}, (
        "of sessions, each has the same share of a core, however nice its processes"
    )


async def test_no_plaintext_in_the_work_directory(home: Path) -> None:
    async def when_ready(_: Running) -> None:
        files = [p for p in (home / "work").rglob("*") if p.is_file()]
        assert files
        assert not [p for p in files if b"0.9,yes" in p.read_bytes()]

    await local_run(home)(when_ready)


async def test_second_run_reuses_the_artefact_and_the_keys(home: Path) -> None:
    await local_run(home)(nothing)
    kek = (home / "work/secrets/tiny-kek/kek").read_bytes()
    (home / "trace").unlink()
    await local_run(home)(nothing)
    assert "trainer" not in events(home)
    assert (home / "work/secrets/tiny-kek/kek").read_bytes() == kek


async def test_a_killed_container_comes_back(home: Path) -> None:
    async def when_ready(running: Running) -> None:
        first = [int(line.split()[-1]) for line in trace(home) if "server start" in line]
        os.kill(first[0], signal.SIGKILL)

        async def again() -> bool:
            return sum("server start" in line for line in trace(home)) == 2

        await until(again)
        await until(lambda: answers(running))

    async def answers(running: Running) -> bool:
        try:
            return bool(await environment(running, 8080))
        except httpx.HTTPError:
            return False

    await local_run(home)(when_ready)
    assert "was killed by signal 9" in (home / "log").read_text()


async def test_crash_loop_ends_with_the_cause(home: Path) -> None:
    (home / "crash-server").touch()
    with pytest.raises(NotReady, match=r"server exited with code 3 3 times: model.onnx: digest differs"):
        await local_run(home, patience=2)(nothing)
    assert [started(pid) for pid in pids(home)] == [None] * len(pids(home))


async def test_a_job_is_retried_but_not_when_that_is_useless(home: Path) -> None:
    (home / "trainer-exits").write_text("1 1 0")
    await local_run(home)(nothing)
    assert events(home).count("trainer") == 3
    (home / "trainer-exits").write_text("78")
    (home / "work/reports/tiny.json").unlink()
    with pytest.raises(JobFailed, match=r"trainer failed: spec.lifecycle.training.data.label: y is not a column"):
        await local_run(home)(nothing)
    assert events(home).count("trainer") == 4


async def test_taken_port_is_said_before_anything_starts(home: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 8083 + OFFSET))
        other.listen()
        with pytest.raises(PortTaken, match=rf"port {8083 + OFFSET}, which explainer needs, is taken .*--port-offset"):
            await local_run(home)(nothing)
    assert trace(home) == []


@contextmanager
def another_run(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process of its own; it touches ``up`` when it is ready, and waits."""
    program = (
        "import asyncio,sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "import local.operator.test_local_run as t\n"
    )
    program += "async def wait(_): Path(sys.argv[2], 'up').touch(); await asyncio.Event().wait()\n"
    program += "asyncio.run(t.local_run(Path(sys.argv[2]))(wait))"
    run = subprocess.Popen([sys.executable, "-c", program, str(Path(__file__).parents[2]), str(home)])
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def memory_of(home: Path) -> Path:
    return Workdir(home / "work").memory


async def is_up(home: Path) -> None:
    async def up() -> bool:
        return (home / "up").exists()

    await until(up)


async def are_gone(home: Path) -> None:
    async def gone() -> bool:
        return not any(started(p) for p in pids(home))

    await until(gone)


async def test_leftovers_of_a_crashed_run_are_named(home: Path) -> None:
    """Where its caretaker was killed with it."""
    with another_run(home) as crashed:
        await is_up(home)
        with pytest.raises(StaleRun, match=r"is in use by another run: .*governed run \(pid"):
            await local_run(home)(nothing)
        caretaker = json.loads((home / "work/caretaker.json").read_text())["pid"]
        os.kill(caretaker, signal.SIGKILL)
        crashed.kill()
        crashed.wait()
        try:
            with pytest.raises(
                StaleRun, match=r"crashed and left .*tiny-predictor-0/server \(pid \d+\).*stop them first: kill"
            ):
                await local_run(home)(nothing)
            assert memory_of(home).exists()
        finally:
            for pid in {p for p in pids(home) if started(p)}:
                os.kill(pid, signal.SIGKILL)
    await are_gone(home)
    await local_run(home)(nothing)
    assert not memory_of(home).exists(), "a next start sweeps"


async def test_who_kills_a_run_ends_its_processes_in_order_and_its_plaintext(home: Path) -> None:
    with another_run(home) as crashed:
        await is_up(home)
        assert (memory_of(home) / "tiny-predictor-0").is_dir()
        crashed.kill()
        crashed.wait()
        await are_gone(home)
    order = events(home)
    assert {"server stop", "explainer stop", "auditor stop", "archive stop"} <= set(order), (
        "by SIGTERM: each can finish"
    )
    assert order[-2:] == ["auditor stop", "archive stop"], "what ships stops after what writes"

    async def swept() -> bool:
        return not memory_of(home).exists()

    await until(swept)
    await local_run(home)(nothing)


async def test_a_start_waits_for_what_a_killed_run_leaves_and_what_hangs_is_killed(home: Path) -> None:
    with another_run(home) as crashed:
        await is_up(home)
        entries = json.loads((home / "work/run.json").read_text())
        server = entries["tiny-predictor-0/server"]["pid"]
        os.kill(server, signal.SIGSTOP)  # SIGTERM does nothing to it
        entries["tiny-predictor-0/server"]["grace"] = 0.5
        (home / "work/run.json").write_text(json.dumps(entries))
        crashed.kill()
        crashed.wait()
        await local_run(home)(nothing)  # no error: it waited
    assert started(server) is None
    assert events(home).count("archive start") == 2


async def test_a_caretaker_that_was_killed_spoils_nothing(home: Path) -> None:
    async def when_ready(_: Running) -> None:
        os.kill(json.loads((home / "work/caretaker.json").read_text())["pid"], signal.SIGKILL)

    await local_run(home)(when_ready)
    await local_run(home)(nothing)
    assert not (home / "work/caretaker.json").exists()


async def test_lost_key_is_an_error_not_a_new_key(home: Path) -> None:
    await local_run(home)(nothing)
    (home / "work/secrets/tiny-kek/kek").unlink()
    with pytest.raises(LocalError, match="tiny-kek/kek is missing: restore the key"):
        await local_run(home)(nothing)


def test_sigterm_stops_gracefully(home: Path) -> None:
    manifest = home / "tiny.yaml"
    manifest.write_text(json.dumps(MANIFEST))
    words = ["run", str(manifest), "--workdir", str(home / "work"), "--port-offset", str(OFFSET)]
    command = [sys.executable, "-c", "from governed_operator.cli import main; main()", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("ready"):
                break
        run.send_signal(signal.SIGTERM)
        rest = run.stderr.read()
        assert run.wait(60) == 0, rest
    assert events(home)[-1] == "archive stop"
    assert [started(pid) for pid in pids(home)] == [None] * len(pids(home))
