"""The process: ready only when verified, drained on SIGTERM, one line and exit code 1 when it can't serve."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api.model import GovernedModel
from governed_api.report import ServerReport
from governed_api.resolved import ResolvedModel
from governed_serving.crypto import DirectoryStore, Keyring, SegmentCipher, load_kek
from governed_serving.hosting.turns import SHORT, turn
from governed_serving.journal import JournalReader
from governed_serving.records import PredictionFrame
from governed_serving.server.background.priority import LAST
from support.damage import flipped
from support.ports import free_port
from support.waiting import eventually
from unit.server.tabular_model import v2_body, write_artefact

DIGEST = "sha256:" + "0" * 64
SERVED = {"predictor": {"model": {"storageUri": "file:m.onnx", "digest": DIGEST}}}


class Server:
    """One process over ``folder``."""

    def __init__(self, folder: Path, spec: dict[str, Any] | None = None, **env: str) -> None:
        resource = {
            "apiVersion": "governedmodels.io/v1alpha1",
            "kind": "GovernedModel",
            "metadata": {"name": "credit"},
            "spec": SERVED | (spec or {}),
        }
        (folder / "spec.json").write_bytes(ResolvedModel.of(GovernedModel.model_validate(resource)).dump())
        if not (folder / "artefact").exists():
            write_artefact(folder / "artefact")
        if not (folder / "kek").exists():
            (folder / "kek").write_bytes(os.urandom(32))
            (folder / "kek").chmod(0o600)
        (folder / "spool").mkdir(exist_ok=True)
        self.folder, self.port, self.internal = folder, free_port(), free_port()
        variables = {
            "GOVERNED_SPEC": str(folder / "spec.json"),
            "GOVERNED_MODEL_DIR": str(folder / "artefact"),
            "GOVERNED_SPOOL_DIR": str(folder / "spool"),
            "GOVERNED_KEK_FILE": str(folder / "kek"),
            "GOVERNED_HTTP_PORT": str(self.port),
            "GOVERNED_INTERNAL_PORT": str(self.internal),
            "GOVERNED_HOST": "127.0.0.1",
            "GOVERNED_THREADS": "1",
            "GOVERNED_REVISION": "r1",
        }
        self.log = (folder / "log").open("w")
        command = [sys.executable, "-m", "governed_serving.server"]
        self.process = subprocess.Popen(command, env=os.environ | variables | env, stderr=self.log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.lines()
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.02)

    def ready(self) -> "Server":
        self.until(lambda: self.http.get("/healthz/ready").status_code == 200)
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def lines(self) -> list[dict[str, Any]]:
        """Of the log; one that is being written isn't there yet."""
        lines = (self.folder / "log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def launch(*args: Any, **kwargs: Any) -> Server:
        made.append(Server(tmp_path, *args, **kwargs))
        return made[-1]

    yield launch
    for server in made:
        server.close()


def journalled(folder: Path) -> list[str]:
    """What clients called the requests in the journal, read as the auditor does."""
    keyset = Keyring(load_kek(folder / "kek"), DirectoryStore(folder / "spool" / "keysets")).keyset(
        "journal", create=False
    )
    reader = JournalReader(folder / "spool", "server-local", SegmentCipher(keyset))
    return [i for _, frame in reader.read() if isinstance(frame, PredictionFrame) for i in frame.client_ids]


def test_serves_records_and_drains(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start().ready()
    for k in range(5):
        assert server.http.post("/v2/models/credit/infer", json=v2_body(identity=str(k))).status_code == 200
    internal = httpx.post(
        f"http://127.0.0.1:{server.internal}/v2/models/credit/infer", json=v2_body(identity="not recorded"), timeout=180
    )
    assert internal.status_code == 200
    assert server.stop() == 0
    assert journalled(tmp_path) == [str(k) for k in range(5)]
    messages = [line["message"] for line in server.lines()]
    assert messages[0] == "ready"
    assert messages[-1] == "stopped"
    assert b"8200" not in b"".join(p.read_bytes() for p in (tmp_path / "spool").rglob("*") if p.is_file())


def test_who_still_comes_after_sigterm_is_answered(start: Callable[..., Server], tmp_path: Path) -> None:
    """A Service's endpoints lag behind: until its ports are closed, a pod that leaves says so to probes and turns
    nobody away."""
    server = start(GOVERNED_DRAIN_SECONDS="5").ready()
    server.process.send_signal(signal.SIGTERM)
    server.until(lambda: server.http.get("/healthz/ready").status_code == 503)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as newcomer:
        for k, client in enumerate((server.http, newcomer, server.http)):
            answer = client.post("/v2/models/credit/infer", json=v2_body(identity=str(k)))
            assert answer.status_code == 200, answer.text
    assert server.process.wait(120) == 0
    assert journalled(tmp_path) == ["0", "1", "2"]


def test_reports_that_the_artefact_is_verified_and_what_it_answered(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    where = {"GOVERNED_REPORT": (tmp_path / "report.json").as_uri(), "GOVERNED_POD_NAME": "pod-7"}
    server = start(GOVERNED_TRACK="canary", **where).ready()

    def told() -> dict[str, Any]:
        if not (tmp_path / "report.json").exists():
            return {}
        found = json.loads((tmp_path / "report.json").read_text())["status"]["revisions"]["r1"]["server"]["pod-7"]
        return dict(found)

    server.until(lambda: bool(told().get("ready")))
    assert told()["verified"] is True
    for _ in range(8):
        assert server.http.post("/v2/models/credit/infer", json=v2_body()).status_code == 200
    assert server.http.post("/v2/models/credit/infer", json={}).status_code == 400
    server.until(lambda: told().get("requests") == 9)
    assert (told()["errors"], sum(told()["latencyCounts"])) == (0, 8)
    ServerReport.model_validate(told())


def test_a_tampered_artefact_is_reported(start: Callable[..., Server], tmp_path: Path) -> None:
    write_artefact(tmp_path / "artefact")
    model = tmp_path / "artefact" / "model.onnx"
    model.write_bytes(flipped(model.read_bytes()))
    server = start(GOVERNED_REPORT=(tmp_path / "report.json").as_uri())
    assert server.process.wait(120) == 1
    status = json.loads((tmp_path / "report.json").read_text())["status"]
    found = status["revisions"]["r1"]["server"]["local"]
    assert (found["ready"], found["verified"]) == (False, False)
    assert "model.onnx" in found["message"]


def test_a_new_journal_key_is_taken_while_serving(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(spec={"governance": {"encryption": {"rotation": "1s"}}}).ready()
    assert server.http.post("/v2/models/credit/infer", json=v2_body(identity="before")).status_code == 200
    Keyring(load_kek(tmp_path / "kek"), DirectoryStore(tmp_path / "spool" / "keysets")).rotate("journal")
    server.until(lambda: any("new key" in line["message"] for line in server.lines()))
    assert server.http.post("/v2/models/credit/infer", json=v2_body(identity="after")).status_code == 200
    assert server.stop() == 0
    assert journalled(tmp_path) == ["before", "after"]
    assert len(list((tmp_path / "spool" / "journal" / "server-local").glob("*.seg"))) == 2


def test_killed_in_the_middle_loses_no_answered_request(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start().ready()
    answered: list[str] = []

    def client(number: int) -> None:
        with httpx.Client(base_url=str(server.http.base_url), timeout=30) as http:
            for k in range(125):
                body = v2_body(identity=f"{number}-{k}")
                try:
                    answer = http.post("/v2/models/credit/infer", json=body)
                except httpx.TransportError:
                    return  # killed: this one was not answered
                answered.append(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        server.until(lambda: len(answered) >= 300)
        server.process.kill()
        for one in clients:
            one.result()
    server.process.wait()
    assert 300 <= len(answered) < 1000
    again = start().ready()
    assert again.http.post("/v2/models/credit/infer", json=v2_body(identity="after")).status_code == 200
    again.stop()
    recorded = journalled(tmp_path)
    assert set(answered) <= set(recorded)
    assert len(recorded) == len(set(recorded))
    assert recorded[-1] == "after"


LANE = "/v2/models/credit/infer"


def rows_asked(server: Server, rows: int = 3) -> list[float]:
    """Answers of the process for the explainer's rows, asked as the explainer asks: again until there is one."""
    found: list[float] = []

    def asked() -> bool:
        answer = httpx.post(f"http://127.0.0.1:{server.internal}{LANE}", json=v2_body(rows), timeout=180)
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
            return False
        assert answer.status_code == 200, answer.text
        found[:] = answer.json()["outputs"][0]["data"]
        return True

    server.until(asked)
    return found


def child_of(server: Server) -> int:
    """Pid of the process for the explainer's rows; 0 when there is none."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return True


def internal_counts(server: Server) -> dict[str, str]:
    lines = server.http.get("/metrics").text.splitlines()
    return {line.split("{")[0]: line.split()[-1] for line in lines if line.startswith("governed_internal_")}


def goes_last(thread: int) -> bool:
    """By a small weight where the kernel has short turns for the server, else only when nobody wants the core."""
    kind = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
    return kind == ((os.SCHED_OTHER, LAST) if turn() else (os.SCHED_IDLE, 19))


def test_rows_nobody_waits_for_have_a_process_that_comes_again_when_it_is_killed(start: Callable[..., Server]) -> None:
    server = start().ready()
    assert not child_of(server), "it costs the model's memory again, so it waits until somebody asks"
    first = rows_asked(server)
    assert first == server.http.post(LANE, json=v2_body(3)).json()["outputs"][0]["data"], "the same bits"
    pid = child_of(server)
    server_turns = {turn(int(name)) for name in os.listdir(f"/proc/{server.process.pid}/task")}
    assert server_turns <= {SHORT, 0}, "all its threads get the core from who has longer turns; 0: a kernel before 6.12"
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    assert SHORT not in {turn(thread) for thread in threads}
    assert all(map(goes_last, threads))
    os.kill(pid, signal.SIGKILL)
    assert rows_asked(server) == first
    assert child_of(server) not in (0, pid)
    server.until(lambda: internal_counts(server)["governed_internal_rows_total"] == "6.0")  # told beside the answer
    assert internal_counts(server)["governed_internal_restarts_total"] == "1.0"
    assert [line["why"] for line in server.lines() if line["level"] == "error"] == ["exit code -9"]


def test_the_process_for_rows_starts_like_any_other_and_only_then_takes_what_is_left(
    start: Callable[..., Server],
) -> None:
    """Held up at its spec, in the middle of its start; on a busy machine what is left is nothing for minutes."""
    server = start().ready()
    spec = server.folder / "spec.json"
    content = spec.read_bytes()
    spec.unlink()
    os.mkfifo(spec)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rows_asked, server)
        feeding = eventually(lambda: os.open(spec, os.O_WRONLY | os.O_NONBLOCK), lambda _: True, within=300)
        pid = child_of(server)
        starting = os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid), turn(pid) != SHORT
        os.write(feeding, content)
        os.close(feeding)
        assert asked.result(300) == rows_asked(server)
    assert starting == (os.SCHED_OTHER, os.nice(0), True)
    assert all(goes_last(int(thread)) for thread in os.listdir(f"/proc/{pid}/task"))


def test_the_process_for_rows_ends_with_the_server_however_that_ends(start: Callable[..., Server]) -> None:
    server = start().ready()
    rows_asked(server)
    killed = child_of(server)
    server.process.kill()
    server.process.wait()
    server.until(lambda: gone(killed))
    again = start(GOVERNED_DRAIN_SECONDS="1").ready()
    first = rows_asked(again)
    asked = child_of(again)
    os.kill(asked, signal.SIGTERM)  # as reaches a whole group, before the server has drained
    again.process.send_signal(signal.SIGTERM)
    assert rows_asked(again) == first
    assert child_of(again) == asked
    assert again.process.wait(120) == 0
    assert gone(asked)
    assert again.lines()[-1]["message"] == "stopped"


def refused(server: Server) -> str:
    assert server.process.wait(120) == 1
    (line,) = server.lines()[-1:]
    assert line["level"] == "error"
    return str(line["message"])


def test_a_tampered_artefact_is_not_served(start: Callable[..., Server], tmp_path: Path) -> None:
    model = write_artefact(tmp_path / "artefact") / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert "model.onnx: expected SHA-256" in refused(start())


def test_a_taken_port_is_named(start: Callable[..., Server]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        message = refused(start(GOVERNED_HTTP_PORT=str(port)))
    assert f"port {port} on 127.0.0.1: expected it to be free" in message
    assert "GOVERNED_HTTP_PORT" in message


def test_a_key_that_others_can_read_is_refused(start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "kek").write_bytes(os.urandom(32))
    (tmp_path / "kek").chmod(0o644)
    assert "kek" in refused(start())


def test_a_missing_variable_is_named(start: Callable[..., Server]) -> None:
    assert "GOVERNED_KEK_FILE" in refused(start(GOVERNED_KEK_FILE=""))
