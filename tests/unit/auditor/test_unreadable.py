"""Frames damaged before they were shipped: an entry in their place, their bytes aside, the rest ships and counts."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from governed_api.governance import Bias
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.archive.verify.verification import verify
from governed_serving.auditor.service import shipping
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.tail import Tail
from governed_serving.auditor.service.workers.report import ReportWorker
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.journal import JournalReader, RawFrame
from governed_serving.report.writer import ReportWriter

from ..archive.test_app import KEK, Bed
from .records import SPEC
from .test_dead_letters import STREAM, TIME, entries, event, everything, journalled, shipper

BIAS = Bias.model_validate(SPEC["spec"]["governance"]["bias"])
COUNT = 300


@pytest.fixture(autouse=True)
def one_clock() -> Iterator[None]:
    """The archive's, so that it has nothing to say about times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipping, "time", SimpleNamespace(time=lambda: TIME))
        yield


def frames_of(spool: Path, keyset: Keyset) -> list[RawFrame]:
    return list(JournalReader(spool, STREAM, SegmentCipher(keyset)).frames())


def spoil(spool: Path, frame: RawFrame) -> bytes:
    """One byte of a frame's ciphertext; what lies there then."""
    path = spool / "journal" / STREAM / f"{frame.header.first_seq:020d}.seg"
    data = bytearray(path.read_bytes())
    data[frame.offset + 20] ^= 1
    path.write_bytes(data)
    return bytes(data[frame.offset : frame.end])


def test_an_entry_takes_the_place_and_the_rest_ships(tmp_path: Path, keyset: Keyset, bed: Bed) -> None:
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(COUNT)])
    left = spoil(tmp_path, frames_of(tmp_path, keyset)[120])
    client = bed.client()
    one = shipper(tmp_path, client, keyset)
    everything(one)
    found = entries(client)
    assert [e["id"] for e in found if e["type"] == "label"] == [f"request-{n}" for n in range(COUNT) if n != 120]
    (said,) = [e for e in found if e["type"] == "unreadable"]
    assert found.index(said) == 120
    summary = said["summary"]
    assert (summary["frames"], summary["first"], summary["last"]) == (1, 120, 120)
    assert said["digest"] == hashlib.sha256(left).hexdigest()
    assert summary["stream"].startswith(STREAM + ".")
    assert (tmp_path / "journal" / STREAM / summary["kept"]).read_bytes() == left
    one.reader(STREAM).trim(COUNT)
    assert (tmp_path / "journal" / STREAM / summary["kept"]).exists(), "evidence outlives its segment"
    assert one.unreadable == 1
    again = shipper(tmp_path, client, keyset)
    everything(again)
    assert again.unreadable == 1, "counted over a restart"
    assert len(entries(client)) == COUNT
    client.checkpoint()
    assert verify(DirectorySource(bed.root, KEK)).size == COUNT


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_kill_about_the_entry_leaves_it_once(
    tmp_path: Path, keyset: Keyset, bed: Bed, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(6)])
    spoil(tmp_path, frames_of(tmp_path, keyset)[2])
    client = bed.client()
    real = client.append_batch

    def killed(stream: str, first: int, batch: list[bytes]) -> Any:
        if b'"unreadable"' in batch[0]:
            if fails == "after":
                real(stream, first, batch)
            raise KeyboardInterrupt
        return real(stream, first, batch)

    monkeypatch.setattr(client, "append_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        everything(shipper(tmp_path, client, keyset))
    monkeypatch.undo()
    everything(shipper(tmp_path, client, keyset))
    assert [e["type"] for e in entries(client)] == ["label", "label", "unreadable", "label", "label", "label"]


def test_a_chunk_on_its_way_when_it_was_damaged_arrives_once(
    tmp_path: Path, keyset: Keyset, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entries had arrived, the shipper was killed before it knew, and then a frame of the chunk was damaged."""
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(6)])
    frames = frames_of(tmp_path, keyset)
    client = bed.client()
    real = client.append_batch

    def killed(stream: str, first: int, batch: list[bytes]) -> Any:
        real(stream, first, batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "append_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        everything(shipper(tmp_path, client, keyset))
    monkeypatch.undo()
    spoil(tmp_path, frames[5])
    journalled(tmp_path, keyset, [event("request-6")])
    everything(shipper(tmp_path, client, keyset))
    found = entries(client)
    assert [e["id"] for e in found if e["type"] == "label"] == [f"request-{n}" for n in range(7)]
    assert [e["summary"]["first"] for e in found if e["type"] == "unreadable"] == [5]


def test_a_pod_whose_clock_runs_ahead_ships_on_behind_it(
    tmp_path: Path, keyset: Keyset, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused for its time, the entry about the gap would hold up all that follows until the clocks meet."""
    monkeypatch.setattr(shipping, "time", SimpleNamespace(time=lambda: TIME + 365 * 86_400))
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(4)])
    spoil(tmp_path, frames_of(tmp_path, keyset)[1])
    client = bed.client()
    everything(shipper(tmp_path, client, keyset))
    found = entries(client)
    assert [e["id"] for e in found if e["type"] == "label"] == ["request-0", "request-2", "request-3"]
    assert sorted(e["type"] for e in found if e["type"] != "label") == ["received", "unreadable"]


def test_the_fold_goes_on_behind_what_it_cant_read(tmp_path: Path, keyset: Keyset) -> None:
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(20)])
    spoil(tmp_path, frames_of(tmp_path, keyset)[7])
    tail = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
    tail.step()
    assert tail.records == 19
    tail.save()
    again = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
    assert (again.step(), again.durable(STREAM)) == (0, 20)


def test_the_operator_is_told(tmp_path: Path) -> None:
    count, file = [0], tmp_path / "report.json"
    journal: Any = SimpleNamespace()
    state = AuditState(Subject("credit", "r1", "pod-1"), journal, None)
    worker = ReportWorker(state, ReportWriter(file.as_uri()), unreadable=lambda: count[0])
    assert worker.run_once() == 0
    count[0] = 3
    assert worker.run_once() == 1
    told = json.loads(file.read_text())["status"]["revisions"]["r1"]["auditor"]["pod-1"]
    assert told["unreadableFrames"] == 3
