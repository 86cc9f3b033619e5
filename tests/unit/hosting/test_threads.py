"""Threads that live as long as their process: whatever one is made to raise is told, and the thread goes on."""

import asyncio
from pathlib import Path

import pytest

from governed_serving.archive.errors import Busy
from governed_serving.archive.ledger import appender
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.ledger import Appended
from governed_serving.auditor.service.scheduling import Loop, Scheduler
from governed_serving.journal import PROBE_SECONDS, Journal, JournalError, JournalReader
from governed_serving.journal import segment as segment_module
from governed_serving.journal import writer as writer_module
from support.waiting import eventually
from unit.access.people import caller, document, sealed
from unit.access.test_document import A, files, names
from unit.archive.ledgers import batch
from unit.archive.test_appender import HeldLedger
from unit.auditor.test_workers import Scripted
from unit.journal.samples import cipher, prediction


class PanickingLedger(HeldLedger):
    """Raises each of ``errors`` once, in place of appending and of signing."""

    def __init__(self, *errors: BaseException) -> None:
        super().__init__()
        self.open.set()
        self.appending, self.signing = list(errors), list(errors)

    def append_group(self, batches: list[Batch]) -> list[Appended]:
        if self.appending:
            raise self.appending.pop(0)
        return super().append_group(batches)

    def checkpoint(self) -> None:
        if self.signing:
            raise self.signing.pop(0)


def test_whatever_appending_and_signing_raise_the_next_batch_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "_CHECKPOINT_SECONDS", 0.0)
    errors = [type("Panic", (BaseException,), {})("a panic"), SystemExit(0), RuntimeError("a bug"), KeyError("a")]
    ledger = PanickingLedger(*errors)
    writing = appender.Appender(ledger)  # type: ignore[arg-type]
    for number, error in enumerate(errors):
        with pytest.raises(Busy, match=str(error) or "SystemExit"):
            writing.submit(batch(number, 1, "same")).result(60)
    writing.submit(batch(0, 1, "same")).result(60)
    eventually(lambda: not ledger.signing)
    writing.close()
    assert len(ledger.groups) == 1


@pytest.mark.parametrize(
    "error", [SystemExit(0), StopIteration(), type("Panic", (BaseException,), {})("a panic")], ids=repr
)
def test_a_vital_worker_that_panics_is_told_and_runs_again(error: BaseException) -> None:
    worker = Scripted(error, 1, vital=True)
    loop = Loop(worker, (OSError,))
    assert loop.look() == 0
    assert loop.failure is not None
    assert not loop.failure.expected
    assert type(error).__name__ in loop.failure.text
    assert (loop.look(), loop.failure) == (1, None)


def test_a_worker_that_fails_when_asked_whether_it_is_behind_goes_on() -> None:
    class Unsure(Scripted):
        @property
        def behind(self) -> bool:
            if self.runs < 3:
                raise RuntimeError("who knows")
            return False

    worker = Unsure(1, 1, 1, 1)
    worker.longest_pause = 0.001
    scheduler = Scheduler([[worker]], ())
    scheduler.start()
    eventually(lambda: worker.runs >= 3)
    scheduler.stop(60)


async def test_a_cipher_that_panics_costs_its_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cryptography is written in Rust: what it panics with is no Exception, and ended the thread that writes."""
    with Journal(tmp_path, "server-a", cipher(tmp_path)) as journal:
        await journal.append(prediction(0))
        assert journal._segment is not None
        key = type(journal._segment._key)
        with monkeypatch.context() as patched:
            patched.setattr(key, "seal", lambda *_: (_ for _ in ()).throw(type("Panic", (BaseException,), {})("boom")))
            with pytest.raises(JournalError, match=r"can't be written \(Escaped: Panic: boom\)"):
                await asyncio.wait_for(journal.append(prediction(1)), 60)
            with pytest.raises(JournalError, match="Panic"):
                await asyncio.to_thread(journal.append_blocking, prediction(2), 60)
        await asyncio.wait_for(journal.append(prediction(3)), 60)
        with monkeypatch.context() as patched:
            patched.setattr(segment_module.SegmentFile, "sync", lambda _: (_ for _ in ()).throw(MemoryError()))
            with pytest.raises(JournalError, match="MemoryError"):
                await asyncio.wait_for(journal.append(prediction(4)), 60)
        await asyncio.wait_for(journal.append(prediction(5)), 60)
        assert journal.obstacle() == ""
    found = [frame.ids[0] for _, frame in JournalReader(tmp_path, "server-a", cipher(tmp_path)).read()]
    assert [f"request-{n}" for n in (0, 3, 5)] == [id for id in found if id != "request-4"]


def test_a_look_at_the_volume_that_fails_unexpectedly_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    with Journal(tmp_path, "server-a", cipher(tmp_path), clock=lambda: now[0]) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(writer_module, "write_probe", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug")))
            assert "can't be looked at (RuntimeError" in journal.obstacle()
        now[0] += PROBE_SECONDS
        assert journal.obstacle() == ""


def test_a_look_that_fails_unexpectedly_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ended would leave whoever is revoked known for ever."""
    documents, path = files(tmp_path)
    look, panics = documents.look, [SystemExit(0), RuntimeError("a bug"), type("Panic", (BaseException,), {})("a")]

    def looked() -> None:
        if panics:
            raise panics.pop()
        look()

    documents.start()
    monkeypatch.setattr(documents, "look", looked)
    path.write_bytes(sealed(document(caller("team", A), sequence=2)))
    eventually(lambda: names(documents, A) == ["team"])
    documents.stop()
    assert (panics, documents.gate.bad_documents) == ([], 3)
