"""Damage in the files that say how far one has got: told, mended, and nothing is done twice or left out by it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from governed_api.governance import Bias
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.shipping import Progress
from governed_serving.auditor.service.tail import Tail
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.journal import Cursor, CursorFiles, Journal, JournalDamaged, JournalReader, cursor_text
from governed_serving.journal import cursor as cursor_module

from ..archive.test_app import Bed
from .records import SPEC
from .test_dead_letters import STREAM, event, everything, journalled, shipper

BIAS = Bias.model_validate(SPEC["spec"]["governance"]["bias"])
UNDER_WAY = Progress("server-pod.a", 7, "ab" * 16, 31, last=9, sent=3, refused="422 too long", dead_letters=2)


def flips(data: bytes) -> Any:
    """(place, the same with a bit of the byte there flipped), for each byte; and a byte more behind it."""
    for at in range(len(data)):
        yield at, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
    yield from ((len(data), data + b"x"), (0, data[1:]), (0, b"x" + data), (9, data[:9] + data[12:]))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(cursor_module, "log", lambda _, message, **__: lines.append(message))
    return lines


@pytest.mark.parametrize("cursor", [UNDER_WAY, Cursor("server-pod.a", 7, "ab" * 16)], ids=["shipped", "sampled"])
def test_each_flipped_bit_of_a_cursor_is_told_and_mended(tmp_path: Path, told: list[str], cursor: Cursor) -> None:
    files = CursorFiles(tmp_path, type(cursor))
    files.save("a", cursor)
    path = tmp_path / "a"
    pristine = path.read_bytes()
    for at, damaged in flips(pristine):
        path.write_bytes(damaged)
        told.clear()
        assert files.load("a", cursor.identity) == cursor, at
        assert (len(told), path.read_bytes()) == (1, pristine), at
    told.clear()
    assert (files.load("a", cursor.identity), told) == (cursor, [])


def test_a_cursor_of_an_older_version_is_taken_as_it_is(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "a").write_bytes(b'{"identity":"server-pod.a","frame":7,"tag":""}')
    assert CursorFiles(tmp_path, Cursor).load("a", "server-pod.a") == Cursor("server-pod.a", 7)
    assert not told


@pytest.mark.parametrize("what", ["both flipped", "cut", "emptied", "of zeros"])
def test_a_cursor_of_which_neither_copy_is_whole_is_never_guessed(tmp_path: Path, what: str) -> None:
    files = CursorFiles(tmp_path, Progress)
    files.save("a", UNDER_WAY)
    data = (tmp_path / "a").read_bytes()
    half = len(data) // 2
    harmed = {
        "both flipped": data.replace(b'"frame":7', b'"frame":6'),
        "cut": data[: half // 2],
        "emptied": b"",
        "of zeros": bytes(len(data)),
    }
    (tmp_path / "a").write_bytes(harmed[what])
    with pytest.raises(JournalDamaged, match="neither of its copies"):
        files.load("a", UNDER_WAY.identity)


def test_no_flipped_byte_of_a_shippers_cursor_ships_a_record_twice(
    tmp_path: Path, keyset: Keyset, bed: Bed, told: list[str]
) -> None:
    client = bed.client()
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(20)])
    everything(shipper(tmp_path, client, keyset))
    path = tmp_path / "cursors" / f"shipped-{STREAM}"
    pristine = path.read_bytes()
    for at in range(len(pristine)):
        path.write_bytes(pristine[:at] + bytes([pristine[at] ^ 0x15]) + pristine[at + 1 :])
        everything(shipper(tmp_path, client, keyset))
        assert (len(told), path.read_bytes()) == (at + 1, pristine)
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(20, 30)])
    everything(shipper(tmp_path, client, keyset))
    assert client.next_seq(json.loads(cursor_text(path.read_bytes())[0])["identity"]) == 30


def test_no_flipped_byte_of_the_folds_state_counts_a_record_twice(tmp_path: Path, keyset: Keyset) -> None:
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(20)])
    tail = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
    assert tail.step() == 20
    tail.save()
    path = tmp_path / "auditor" / "state"
    pristine = path.read_bytes()
    for at in range(len(pristine)):
        path.write_bytes(pristine[:at] + bytes([pristine[at] ^ 0x15]) + pristine[at + 1 :])
        again = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
        assert (again.restarted, again.step(), again.durable(STREAM)) == ("", 0, 20), at
        again.save()
        mended = path.read_bytes()
        assert mended[: len(mended) // 2] == mended[len(mended) // 2 :], at
    path.write_bytes(pristine[: len(pristine) // 2])  # as an older version wrote it
    older = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
    assert (older.restarted, older.step()) == ("", 0)


def test_no_flipped_byte_of_the_acknowledgement_costs_a_frame(tmp_path: Path, keyset: Keyset) -> None:
    journalled(tmp_path, keyset, [event(f"request-{n}") for n in range(5)])
    folder = tmp_path / "journal" / STREAM
    pristine = (folder / ".acknowledged").read_bytes()
    for at in range(len(pristine)):
        spool = tmp_path / str(at)
        shutil.copytree(folder, spool / "journal" / STREAM)
        (spool / "journal" / STREAM / ".acknowledged").write_bytes(
            pristine[:at] + bytes([pristine[at] ^ 0x15]) + pristine[at + 1 :]
        )
        with Journal(spool, STREAM, SegmentCipher(keyset), "PageCache") as journal:
            journal.append_blocking(event("request-5"))
            assert not journal.damage
        assert [seq for seq, _ in JournalReader(spool, STREAM, SegmentCipher(keyset)).read()] == list(range(6)), at
