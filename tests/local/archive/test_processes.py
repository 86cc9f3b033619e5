"""The archive and fetch as processes: environment in, one line on what is wrong, nothing lost by kill -9."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from governed_api.resolved import ResolvedModel
from governed_serving.archive.__main__ import main
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import model_token
from governed_serving.artefact import Feature, Lineage, Manifest, Output, encode_manifest, load, pack
from governed_serving.crypto import Keyring, load_kek
from governed_serving.records import timestamp
from support.ports import free_port
from support.waiting import eventually
from unit.archive import ledgers

pytestmark = pytest.mark.slow

SPEC = {
    "name": "credit",
    "namespace": "default",
    "spec": {
        "lifecycle": {
            "training": {"data": {"generator": {"name": "credit"}, "label": "y", "features": [{"name": "age"}]}},
        }
    },
}

batch = partial(ledgers.batch, time=timestamp(time.time()))
"""Of now: an archive says when older entries came."""


class Process:
    """An archive process on a free port, with its keys and a client."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.monkeypatch, self.capsys = root, monkeypatch, capsys
        for name in ("kek", "root", "model-kek"):
            (root / name).write_bytes(hashlib.sha256(name.encode()).digest())
            (root / name).chmod(0o600)
        self.token = model_token((root / "root").read_bytes(), "default", "credit")
        (root / "token").write_text(self.token)
        (root / "spec.json").write_bytes(ResolvedModel.model_validate(SPEC).dump())
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.child: subprocess.Popen[str] | None = None
        self.witnesses = ""
        self.public_port = 0

    def environment(self) -> dict[str, str]:
        return {
            "GOVERNED_NAMESPACE": "default",
            "GOVERNED_ARCHIVE_ROOT_FILE": str(self.root / "root"),
            "GOVERNED_ARCHIVE_DIR": str(self.root / "archive"),
            "GOVERNED_HTTP_PORT": str(self.port),
            "GOVERNED_KEK_FILE": str(self.root / "kek"),
            "GOVERNED_REPORT": f"file://{self.root}/report.json",
            "GOVERNED_WITNESSES": self.witnesses,
            "GOVERNED_LEDGER_PORT": str(self.public_port or ""),
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "governed_serving.archive", "serve", "--host", "127.0.0.1"]
        self.child = subprocess.Popen(
            command, env={**os.environ, **self.environment()}, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.url + "/healthz/ready", trust_env=False, timeout=30).status_code == 200:
                    return
            except httpx.TransportError:
                assert self.child.poll() is None, self.child.communicate()[1]
                time.sleep(0.02)
        raise TimeoutError("the archive didn't become ready")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        assert self.child is not None
        self.child.send_signal(sign)
        self.child.communicate(timeout=60)
        return self.child.returncode

    def run(self, verb: str, *words: str, **more: str) -> tuple[int, str, str]:
        """Run a verb in this process: (exit code, stdout, stderr)."""
        with self.monkeypatch.context() as patched:
            for name, value in {**self.environment(), **more}.items():
                patched.setenv(name, value)
            code = main([verb, *words])
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Process]:
    process = Process(tmp_path, monkeypatch, capsys)
    yield process
    if process.child and process.child.poll() is None:
        process.stop(signal.SIGKILL)


def test_the_ledger_is_published_on_a_port_of_its_own(process: Process) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        process.public_port = free.getsockname()[1]
    process.start()
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        client.append_batch("s", 0, batch(0, 3, "s").entries)
    public = f"http://127.0.0.1:{process.public_port}/v1/ledger"
    note = eventually(lambda: httpx.get(f"{public}/checkpoint", trust_env=False, timeout=30).text)
    assert note.split("\n")[1] == "3"
    headers = {"authorization": f"Bearer {process.token}", "x-governed-model": "credit"}
    for path in ("entries?start=0&end=3", "find?id=s/1", "receipt?id=s/1", "tile/entries/000.p/3"):
        assert httpx.get(f"{public}/{path}", headers=headers, trust_env=False, timeout=30).status_code in (400, 404)
    assert process.stop() == 0


def test_kill_9_under_load_loses_nothing_that_was_answered(process: Process) -> None:
    process.start()
    answered: dict[str, int] = {}

    def write(stream: str) -> None:
        with ArchiveClient(process.url, process.token, "credit", patience=120.0) as client:
            for start in range(0, 150, 5):
                answer = client.append_batch(stream, start, batch(start, 5, stream).entries)
                answered[f"{stream}/{start}"] = answer.first_index

    threads = [threading.Thread(target=write, args=(f"s{n}",)) for n in range(3)]
    for t in threads:
        t.start()
    deadline = time.monotonic() + 120
    while len(answered) < 20 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.stop(signal.SIGKILL)
    process.start()
    for t in threads:
        t.join(180)
    assert len(answered) == 90
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        entries = client.entries(0, 10_000)
    assert len(entries) == len(set(entries)) == 450
    for name, index in answered.items():
        stream, _, start = name.partition("/")
        assert entries[index] == batch(int(start), 1, stream).entries[0]
    assert process.stop() == 0
    code, out, err = process.run(
        "verify", str(process.root / "archive"), "--checkpoint", str(process.root / "report.json")
    )
    assert code == 0, err
    assert "450 entries" in out


def artefact() -> bytes:
    model = b"not loaded here"
    manifest = Manifest(
        name="credit",
        task="regression",
        features=[Feature("age", "numeric", "FP32")],
        inputs=["age"],
        outputs=[Output("prediction", "FP32", [-1])],
        label="y",
        variant="float",
        lineage=Lineage("d", "t", "c", {}),
        files={"model.onnx": hashlib.sha256(model).hexdigest()},
    )
    return pack({"model.onnx": model, "model.json": encode_manifest(manifest)})


def archived(process: Process, packed: bytes, claimed: str = "") -> str:
    """Put an artefact into the archive as the trainer does; its digest."""
    digest = claimed or f"sha256:{hashlib.sha256(packed).hexdigest()}"
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        keyset = Keyring(load_kek(process.root / "model-kek"), client.keysets()).keyset("artefact")
        blob = client.put_blob(keyset.seal(packed, digest.encode()))
        client.put_ref(f"artefact-{digest.removeprefix('sha256:')}", {"blob": blob})
    return digest


def fetched(process: Process, digest: str) -> tuple[int, str, str]:
    return process.run(
        "fetch",
        GOVERNED_SPEC=str(process.root / "spec.json"),
        GOVERNED_MODEL_DIR=str(process.root / "model"),
        GOVERNED_ARTEFACT_DIGEST=digest,
        GOVERNED_KEK_FILE=str(process.root / "model-kek"),
        GOVERNED_ARCHIVE_URL=process.url,
        GOVERNED_ARCHIVE_TOKEN_FILE=str(process.root / "token"),
    )


def test_fetch_brings_the_verified_artefact_and_refuses_another(process: Process) -> None:
    process.start()
    packed = artefact()
    digest = archived(process, packed)
    code, _, err = fetched(process, digest)
    assert code == 0, err
    assert load(process.root / "model", digest).digest == digest
    assert "already" in fetched(process, digest)[2]
    forged = archived(process, packed, "sha256:" + "1" * 64)
    unknown = "sha256:" + "2" * 64
    for wanted, message in ((forged, "expected digest"), (unknown, "knows no artefact")):
        code, _, err = fetched(process, wanted)
        assert (code, err.count("\n")) == (1, 1)
        assert message in err
    assert load(process.root / "model", digest).digest == digest
    status = json.loads((process.root / "report.json").read_text())["status"]
    told = status["revisions"]["local"]["server"]["local"]
    assert (told["ready"], told["verified"]) == (False, False)
    assert "expected digest" in told["message"]


def test_a_changed_blob_is_not_unpacked(process: Process) -> None:
    process.start()
    digest = archived(process, artefact())
    for path in (process.root / "archive" / "blobs").glob("??/*"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    code, _, err = fetched(process, digest)
    assert code == 1
    assert "its content has SHA-256" in err
    assert not (process.root / "model").exists()


def test_start_errors_are_one_line(process: Process) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", process.port))
        taken.listen()
        code, _, err = process.run("serve", "--host", "127.0.0.1")
    assert (code, err.count("\n")) == (1, 1)
    assert f"port {process.port} on 127.0.0.1: expected it to be free" in err
    code, _, err = process.run("serve", GOVERNED_KEK_FILE=str(process.root / "nowhere"))
    assert (code, err.count("\n")) == (1, 1)
    assert "nowhere: not found" in err
    held = Archive(process.root / "archive", load_kek(process.root / "kek"), "default")
    code, _, err = process.run("serve", "--host", "127.0.0.1")
    held.close()
    assert (code, err.count("\n")) == (1, 1)
    assert "in use by another archive process" in err


def test_an_absent_archive_is_said_in_one_line(process: Process) -> None:
    with (
        ArchiveClient(process.url, process.token, "credit", patience=0.2) as client,
        pytest.raises(ArchiveError, match="doesn't answer GET"),
    ):
        client.checkpoint()


def test_a_running_archive_is_backed_up_under_load_and_comes_back_by_the_commands(
    process: Process,
) -> None:
    process.start()
    stop, written = threading.Event(), [0]

    def write() -> None:
        with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
            while not stop.is_set():
                client.append_batch("s", written[0], batch(written[0], 5, "s").entries)
                client.put_blob(b"GMSEAL1\n" + str(written[0]).encode())
                client.put_state("counts", b"GMSEAL1\n" + str(written[0]).encode())
                written[0] += 5

    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        Keyring(load_kek(process.root / "model-kek"), client.keysets()).keyset("journal")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: written[0], lambda n: n >= 20, what="entries")
        archive, file, there = process.root / "archive", process.root / "b.tar", process.root / "there"
        code, said = governed(process, "backup", str(archive), str(file), "--url", process.url)
        assert code == 0, said
        at = written[0]
        eventually(lambda: written[0], lambda n: n > at, what="entries after the backup")
    finally:
        stop.set()
        writer.join()
    assert process.stop() == 0
    code, said = governed(process, "restore", str(file), str(there))
    assert (code, "verified" in said) == (0, True), said
    kept, other = process.root / "archive" / "anchor", process.root / "other"
    code, said = governed(process, "restore", str(file), str(other), "--checkpoint", str(kept))
    assert (code, "the backup has" in said) == (1, True), said
    code, out, err = process.run("verify", str(there))
    assert code == 0, out + err
    # what came back serves on: the process finds its ledger, the report that knows more refuses it
    archive.rename(process.root / "moved")
    there.rename(archive)
    (process.root / "report.json").unlink()
    process.start()
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        assert 0 < client.next_seq("s") <= at


def governed(process: Process, *words: str) -> tuple[int, str]:
    """Run ``governed archive …`` as a person does: (exit code, what it said)."""
    code = "import sys; from governed_operator.cli import main; main()"
    command = [sys.executable, "-c", code, "archive", *words]
    env = {**os.environ, **process.environment()}
    done = subprocess.run(command, env=env, check=False, timeout=120, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
