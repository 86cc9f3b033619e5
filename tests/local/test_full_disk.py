"""A disk that is really full (a small tmpfs) under each writer: it ends in a sentence, nothing acknowledged is lost,
and when there is space again it goes on by itself."""

import asyncio
import contextlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_serving.archive.errors import Busy
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.crypto import Kek
from governed_serving.explainer.service.jobs import JobQueue, JobStore
from governed_serving.journal import Journal, JournalFull, JournalReader
from governed_serving.records import EventRecord
from governed_serving.trainer.__main__ import attempt
from governed_serving.trainer.progress import Narrator
from support.waiting import eventually
from unit.archive.ledgers import batch
from unit.auditor.records import people, prediction
from unit.explainer.beds import Xor
from unit.journal.samples import cipher, event
from unit.trainer.manifests import admissions, resolved
from unit.trainer.neighbours import MemoryReport, Workplace

from .auditor.site import Site
from .auditor.test_processes import ledger_ids

pytestmark = pytest.mark.slow


class Disk:
    """A folder of at most so many bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"

    def fill(self) -> None:
        """To the last block."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=60)


async def test_a_server_s_spool(disk: Disk, tmp_path: Path) -> None:
    kept: list[str] = []
    spool = disk.folder / "spool"
    with Journal(spool, "server-a", cipher(tmp_path)) as journal:
        for number in range(50):
            await journal.append(event(number))
            kept.append(f"event-{number}")
        disk.fill()
        refused, said = 0, set[bool]()
        for number in range(50, 2000):
            try:
                await journal.append(event(number))
                kept.append(f"event-{number}")
            except JournalFull as error:
                said.add("free space" in str(error))
                refused += 1
                if refused == 20:
                    break
        assert (refused, said) == (20, {True})
        assert "No space left on device" in journal.obstacle()
        disk.free()
        await journal.append(event(5000))
        kept.append("event-5000")
        eventually(lambda: journal.obstacle() == "", within=30)
    reader = JournalReader(spool, "server-a", cipher(tmp_path))
    found = [record.id for _, record in reader.read() if isinstance(record, EventRecord)]
    assert found == kept, "all that was acknowledged, and nothing that was refused"


def test_an_archive_s_ledger(disk: Disk) -> None:
    folder, kek = disk.folder / "archive", Kek(bytes(32))
    with closing(Archive(folder, kek, "default")) as archive:
        archive.appender.submit(batch(0, 100)).result(20)
        disk.fill()
        problem = _refusal(archive.appender.submit(batch(100, 3000)))
        assert (problem.status, "No space left on device" in str(problem)) == (507, True), problem
        with pytest.raises((OSError, Busy), match="No space left on device"):
            archive.put_reference("credit", "artefact", b'{"digest":"d"}')
        assert archive.ledger.size == 100
        disk.free()
        answer = archive.appender.submit(batch(100, 100)).result(20)
        assert answer.first_index == 100
        archive.put_reference("credit", "artefact", b'{"digest":"d"}')
    found = inspect_folder(folder, kek, Asked())
    assert found.findings.status == "verified", found.findings
    assert found.log is not None
    assert found.log.size == 201


def _refusal(future: "Future[object]") -> Busy:
    with pytest.raises(Busy) as raised:
        future.result(20)
    return raised.value


def test_an_archive_starts_over_a_full_disk_or_says_why_not(disk: Disk) -> None:
    folder, kek = disk.folder / "archive", Kek(bytes(32))
    with closing(Archive(folder, kek, "default")) as archive:
        archive.appender.submit(batch(0, 100)).result(20)
    disk.fill()
    with pytest.raises(OSError, match="No space left on device"):
        Archive(folder, kek, "default")
    disk.free()
    with closing(Archive(folder, kek, "default")) as archive:
        assert archive.ledger.size == 100
        archive.appender.submit(Batch("credit", "server-0", 100, batch(100, 1).entries)).result(20)


async def test_an_explainer_s_jobs(disk: Disk) -> None:
    """A job whose state can't be saved is finished once it can, computed once, without a restart."""
    computed = Counter[str]()
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: bytes, id: str) -> bytes:
        computed[id] += 1
        started.set()
        await go_on.wait()
        return b'{"big": "%s"}' % (b"x" * 50_000)

    async def deliver(_: str, __: bytes) -> str:
        return ""

    async def soon(_: float) -> None:
        await asyncio.sleep(0.02)

    said: list[str] = []
    store = JobStore(disk.folder / "jobs", Xor())
    queue = JobQueue(store, work, deliver, pause=soon, log=lambda _, what, **__: said.append(what))
    running = asyncio.create_task(queue.run())
    queue.submit("a", b"row", "")
    queue.submit("b", b"row", "")
    await asyncio.wait_for(started.wait(), 20)
    disk.fill()
    go_on.set()
    with pytest.raises(OSError, match="No space left on device"):
        queue.submit("c", b"row" * 10_000, "")
    async with asyncio.timeout(20):
        while queue.unsaved < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert "job state not saved: spool unwritable" in said
    job = store.load("a")
    assert job is not None
    assert job.status == "running", "as it last was there"
    disk.free()
    async with asyncio.timeout(20):
        while not all((job := store.load(id)) and job.status == "done" for id in ("a", "b")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert computed == {"a": 1, "b": 1}
    running.cancel()


def test_an_auditor_s_state(disk: Disk, tmp_path: Path) -> None:
    """It goes on auditing, ships what was journalled, and forgets nothing once there is space."""
    site = Site(tmp_path)
    site.spool = disk.folder / "spool"
    site.start_archive()
    try:
        site.start_auditor()
        rows = people(300, seed=1)
        with site.writer() as journal:
            for number, (sex, decision) in enumerate(rows[:200]):
                journal.append_blocking(prediction(number, sex, decision))
            eventually(lambda: site.get("/v1/verdict")["samples"] == 200, within=120)
            disk.fill()
            assert httpx.get(f"{site.url}/healthz/live", trust_env=False, timeout=30).status_code == 200
            label = {"labels": [{"id": "0", "label": "yes"}]}
            answer = httpx.post(f"{site.url}/v1/labels", json=label, trust_env=False, timeout=60)
            assert answer.status_code in (200, 202, 503, 507), answer.text
            disk.free()
            for number, (sex, decision) in enumerate(rows[200:], 200):
                journal.append_blocking(prediction(number, sex, decision))
        eventually(lambda: site.get("/v1/verdict")["samples"] == 300, within=120)
        eventually(lambda: len(ledger_ids(site, "prediction")) == 300, within=120)
        assert set(ledger_ids(site, "prediction").values()) == {1}
        assert "Traceback" not in (tmp_path / "auditor.log").read_text()
    finally:
        site.close()


class _Watched(MemoryReport):
    """Fills the disk as soon as a message begins with ``at``."""

    def __init__(self, disk: Disk, at: str) -> None:
        super().__init__()
        self._disk, self._at = disk, at

    def update(self, part: str, values: dict[str, Any]) -> bool:
        if self._at and str(values["message"]).startswith(self._at):
            self._at = ""
            self._disk.fill()
        return super().update(part, values)


def _trained(place: Workplace, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status of a training that keeps its state after each epoch, and what it said."""
    model, report = resolved(admissions(checkpointEpochs=1)), place.report
    with Narrator(interval=0) as narrator:
        status = attempt(lambda: place.job(model).run(), model, report, narrator)  # type: ignore[arg-type]
    return status, capsys.readouterr().err


@pytest.mark.parametrize("at", ["reading data", "training", "epoch 1"])
def test_a_trainer_s_data_volume(disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str) -> None:
    place, undisturbed = Workplace(disk.folder), Workplace(tmp_path)
    place.report = _Watched(disk, at)
    status, said = _trained(place, capsys)
    told, last = place.report.parts[-1], json.loads(said.strip().splitlines()[-1])
    assert (status, told["phase"], told["message"]) == (1, "Failed", last["message"]), said
    assert "No space left on device" in last["message"]
    assert str(disk.folder / "data") in last["message"]
    assert "Traceback" not in said
    assert (place.archive.blobs, place.archive.refs, place.archive.entries) == ({}, {}, []), "nothing is half there"
    disk.free()
    assert _trained(place, capsys)[0] == _trained(undisturbed, capsys)[0] == 0
    made, right = place.report.parts[-1]["artefact"], undisturbed.report.parts[-1]["artefact"]
    assert made["digest"] == right["digest"], "it went on from nothing that was cut"
