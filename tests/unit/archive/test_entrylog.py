"""Segments byte for byte: what a kill, a full disk or a stranger may leave of them, and what is read of it."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from governed_serving.archive.errors import LedgerDamaged
from governed_serving.archive.ledger.entrylog import Batch, EntryLog

MAGIC = b"GMLEDG1\n"


class OpenCipher:
    """Hides nothing: the data between what it is bound to and a ``!``, so that a test can say what lies on the disk."""

    def __init__(self) -> None:
        self.opened = 0

    def seal(self, data: bytes, aad: bytes) -> bytes:
        return struct.pack(">H", len(aad)) + aad + data + b"!"

    def open(self, data: bytes, aad: bytes) -> bytes:
        (length,) = struct.unpack(">H", data[:2])
        if data[2 : 2 + length] != aad or not data.endswith(b"!"):
            raise ValueError("not what was sealed")
        self.opened += 1
        return data[2 + length : -1]


def made(first: int, count: int = 1, seq: int | None = None) -> tuple[int, Batch]:
    return first, Batch("credit", "s", first if seq is None else seq, [entry(first + i) for i in range(count)])


def entry(number: int) -> bytes:
    return b"entry %d" % number


def frame(first: int, batch: Batch) -> bytes:
    aad = b"governed ledger 1\0the/log\0" + struct.pack(">QI", first, len(batch.entries))
    body = struct.pack(">H", len(aad)) + aad + msgspec.msgpack.encode(batch) + b"!"
    return struct.pack(">IQI", len(body), first, len(batch.entries)) + body


def opened(root: Path, at_least: int = 0, **how: bool) -> EntryLog:
    log = EntryLog(root, OpenCipher(), "the/log")
    log.recover(at_least, **how)
    return log


def written(root: Path, *batches: tuple[int, Batch]) -> bytes:
    """A log of one segment; its bytes."""
    log = opened(root)
    for one in batches:
        log.append([one])
    log.close()
    return (root / f"{0:020d}.seg").read_bytes()


def read(log: EntryLog) -> list[bytes]:
    return list(log.read(0, 1 << 40))


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


THREE = (made(0, 2), made(2, 1), made(3, 4))


def test_a_segment_has_the_bytes_that_are_described(tmp_path: Path) -> None:
    root = tmp_path / "a" / "log"
    log = opened(root)
    log.append([THREE[0], THREE[1]])
    log.append([THREE[2]])
    assert files(root) == {f"{0:020d}.seg": MAGIC + b"".join(frame(*one) for one in THREE)}
    assert log.end == 7
    log.roll(7)
    log.append([made(7, 2)])
    assert files(root)[f"{7:020d}.seg"] == MAGIC + frame(*made(7, 2))
    assert {path.stat().st_mode & 0o777 for path in root.iterdir()} == {0o600}
    assert (log.segments, log.end) == ([0, 7], 9)
    log.close()


def test_one_segment_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handles() -> list[str]:
        links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        return sorted(Path(os.readlink(link)).name for link in links if str(tmp_path) in _target(link))

    log = opened(tmp_path)
    for first in (0, 1, 2):
        log.append([made(first)])
        log.roll(first + 1)
        assert handles() == [f"{first + 1:020d}.seg"]
    log.close()
    assert handles() == []
    monkeypatch.delattr(os, "close")
    log.close()


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # that of the listing itself
        return ""


def test_a_log_that_only_was_read_has_nothing_to_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EntryLog(tmp_path, OpenCipher(), "the/log")
    monkeypatch.delattr(os, "close")
    log.close()


def test_every_cut_leaves_whole_frames_and_keeps_what_was_torn(tmp_path: Path) -> None:
    data = written(tmp_path / "whole", *THREE)
    ends = [len(MAGIC)]
    for one in THREE:
        ends.append(ends[-1] + len(frame(*one)))
    for cut in range(len(data) + 1):
        root = tmp_path / str(cut)
        root.mkdir()
        segment = root / f"{0:020d}.seg"
        segment.write_bytes(data[:cut])
        frames = sum(end <= cut for end in ends[1:])
        count = [0, 2, 3, 7][frames]
        log = opened(root, count)
        whole = ends[frames]
        torn = {f"{0:020d}.torn-{whole}": data[whole:cut]} if cut > whole else {}
        assert files(root) == {segment.name: data[:whole], **torn}, cut
        assert (log.end, read(log)) == (count, [entry(i) for i in range(count)])
        log.append([made(count, 2)])
        assert segment.read_bytes() == data[:whole] + frame(*made(count, 2))
        log.close()
        assert read(opened(root, count + 2)) == [entry(i) for i in range(count + 2)]


@pytest.mark.parametrize("tail", [b"", b"\0" * 15, b"\0" * 16, b"\0" * 100])
def test_fewer_entries_than_were_signed_change_nothing(tmp_path: Path, tail: bytes) -> None:
    data = written(tmp_path, *THREE) + tail
    (tmp_path / f"{0:020d}.seg").write_bytes(data)
    with pytest.raises(LedgerDamaged, match=r"^7 entries can be read, but a checkpoint over 8 was signed") as damaged:
        opened(tmp_path, 8)
    assert damaged.value.index == 7
    assert str(damaged.value).endswith(
        "; restore the archive from a backup, or serve it with --accept-loss, which an entry will say for ever"
    )
    assert files(tmp_path) == {f"{0:020d}.seg": data}
    assert opened(tmp_path, 7).end == 7


def test_no_log_where_entries_were_signed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamaged, match="0 entries can be read, but a checkpoint over 1"):
        opened(tmp_path / "log", 1)
    assert not (tmp_path / "log").exists()
    assert opened(tmp_path / "log").end == 0


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_changed_last_frame_may_be_a_torn_write(tmp_path: Path) -> None:
    """A disk may have the size of a file before its content."""
    data = written(tmp_path, *THREE)
    (tmp_path / f"{0:020d}.seg").write_bytes(changed(data, len(data) - 1))
    log = opened(tmp_path)
    whole = len(data) - len(frame(*THREE[2]))
    assert (log.end, read(log)) == (3, [entry(0), entry(1), entry(2)])
    assert files(tmp_path)[f"{0:020d}.torn-{whole}"] == changed(data, len(data) - 1)[whole:]


@pytest.mark.parametrize(("place", "bad", "last"), [(0, 0, 1), (1, 2, 2)])
def test_a_changed_frame_before_one_that_opens_is_no_torn_write(
    tmp_path: Path, place: int, bad: int, last: int
) -> None:
    data = written(tmp_path, *THREE)
    end = len(MAGIC) + sum(len(frame(*one)) for one in THREE[: place + 1])
    data = changed(data, end - 1)
    segment = tmp_path / f"{0:020d}.seg"
    segment.write_bytes(data)
    with pytest.raises(LedgerDamaged, match=rf"^entries {bad} to {last} can't be read, later ones can") as damaged:
        opened(tmp_path)
    assert damaged.value.index == bad
    assert files(tmp_path) == {segment.name: data}
    log = opened(tmp_path, accept_loss=True)
    whole = end - len(frame(*THREE[place]))
    assert (log.end, read(log)) == (bad, [entry(i) for i in range(bad)])
    assert files(tmp_path) == {segment.name: data[:whole], f"{0:020d}.torn-{whole}": data[whole:]}


def test_what_was_trimmed_is_not_remembered(tmp_path: Path) -> None:
    data = written(tmp_path, *THREE)
    (tmp_path / f"{0:020d}.seg").write_bytes(changed(data, len(data) - 1))
    log = EntryLog(tmp_path, OpenCipher(), "the/log")
    with pytest.raises(LedgerDamaged, match=r"entries 3 to 6 in 0{20}\.seg don't decrypt") as damaged:
        read(log)
    assert damaged.value.index == 3
    log.recover(0)
    assert [first for first, _ in log.batches()] == [0, 2]


def rolled(root: Path) -> EntryLog:
    """Segments of entries 0-2, 3-6, 7 and none."""
    log = opened(root)
    log.append([THREE[0]])
    log.append([THREE[1]])
    log.roll(3)
    log.append([THREE[2]])
    log.roll(7)
    log.append([made(7)])
    log.roll(8)
    return log


def test_every_range_and_every_start_is_read(tmp_path: Path) -> None:
    log = rolled(tmp_path)
    whole = [entry(i) for i in range(8)]
    for start in range(10):
        for end in range(11):
            assert list(log.read(start, end)) == whole[start:end], (start, end)
        firsts = [first for first, _ in log.batches(start)]
        assert firsts == [first for first in (0, 2, 3, 7) if first >= start], start
    assert log.opens()
    assert not opened(tmp_path / "none").opens()
    assert EntryLog(tmp_path, OpenCipher(), "another/log").opens() is False
    assert (log.segments, log.end) == ([0, 3, 7, 8], 8)


def test_the_bytes_of_the_first_entries_are_whole_frames(tmp_path: Path) -> None:
    log = rolled(tmp_path)
    names = [f"{first:020d}.seg" for first in (0, 3, 7, 8)]
    whole = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    none, two = len(MAGIC), len(MAGIC + frame(*THREE[0]))
    extents = {
        0: [none], 1: [none], 2: [two], 3: whole[:1], 4: [whole[0], none], 6: [whole[0], none],
        7: whole[:2], 8: whole[:3], 9: whole,
    }  # fmt: skip
    for size, lengths in extents.items():
        assert log.extent(size) == list(zip(names, lengths, strict=False)), size


def test_what_lies_behind_whole_frames_is_told_of(tmp_path: Path) -> None:
    log = rolled(tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    names = [f"{first:020d}.seg" for first in (0, 3, 7, 8)]
    ends = [3, 7, 8, 8]
    assert list(log.coverage()) == [(n, e, sizes[n], sizes[n]) for n, e in zip(names, ends, strict=True)]
    assert sizes[names[3]] == len(MAGIC)
    for name, tail in zip(names, (b"x", b"\0" * 16, frame(9, made(9)[1]), b"y" * 40), strict=True):
        with (tmp_path / name).open("ab") as file:
            file.write(tail)
        sizes[name] += len(tail)
    found = list(log.coverage())
    assert [size - whole for _, _, whole, size in found] == [1, 16, len(frame(9, made(9)[1])), 40]
    assert [(name, end, size) for name, end, _, size in found] == [
        (n, e, sizes[n]) for n, e in zip(names, ends, strict=True)
    ]


def test_a_frame_without_a_body_is_a_frame_that_opens_with_no_key(tmp_path: Path) -> None:
    data = written(tmp_path, THREE[0]) + struct.pack(">IQI", 0, 2, 3)
    (tmp_path / f"{0:020d}.seg").write_bytes(data)
    assert list(EntryLog(tmp_path, OpenCipher(), "the/log").coverage()) == [(f"{0:020d}.seg", 5, len(data), len(data))]
    assert opened(tmp_path).end == 2


@pytest.mark.parametrize(("name", "index"), [(0, 0), (3, 3)])
def test_a_missing_segment_is_named_by_its_first_entry(tmp_path: Path, name: int, index: int) -> None:
    rolled(tmp_path).check_segments()
    (tmp_path / f"{name:020d}.seg").unlink()
    after = {0: 3, 3: 7}[name]
    with pytest.raises(LedgerDamaged, match=rf"^entries {index} to {after - 1} are missing") as damaged:
        EntryLog(tmp_path, OpenCipher(), "the/log").check_segments()
    assert damaged.value.index == index


def test_what_is_there_is_read_although_the_first_segment_is_missing(tmp_path: Path) -> None:
    rolled(tmp_path).close()
    (tmp_path / f"{0:020d}.seg").unlink()
    log = EntryLog(tmp_path, OpenCipher(), "the/log")
    assert [first for first, _ in log.batches()] == [3, 7]
    assert list(log.read(0, 8)) == []
    assert list(log.read(3, 8)) == [entry(i) for i in range(3, 8)]


def test_no_segment_is_looked_into_that_holds_nothing_of_what_was_asked_for(tmp_path: Path) -> None:
    log = rolled(tmp_path)
    for first in (0, 7, 8):
        (tmp_path / f"{first:020d}.seg").unlink()
    assert list(log.read(3, 7)) == [entry(i) for i in range(3, 7)]
    assert list(log.read(0, 0)) == []
    starting = log.batches(3)
    assert next(starting)[0] == 3
    with pytest.raises(FileNotFoundError):
        next(starting)


def test_no_frame_is_decrypted_that_holds_nothing_of_what_was_asked_for(tmp_path: Path) -> None:
    written(tmp_path, *THREE)
    cipher = OpenCipher()
    log = EntryLog(tmp_path, cipher, "the/log")
    assert list(log.read(2, 3)) == [entry(2)]
    assert cipher.opened == 1


@pytest.mark.parametrize("harm", ["cut", "more"])
def test_an_earlier_segment_has_no_torn_end(tmp_path: Path, harm: str) -> None:
    rolled(tmp_path).close()
    segment = tmp_path / f"{0:020d}.seg"
    data = segment.read_bytes()
    segment.write_bytes(data[:-1] if harm == "cut" else data + b"x")
    good = len(data) - (len(frame(*THREE[1])) if harm == "cut" else 0)
    log = EntryLog(tmp_path, OpenCipher(), "the/log")
    for look in (read, lambda log: list(log.batches()), EntryLog.check_segments):
        with pytest.raises(LedgerDamaged, match=rf"can't be read past byte {good} of {len(data)}|{good} of") as damaged:
            look(log)
        assert damaged.value.index == (2 if harm == "cut" else 3)


def test_another_file_is_no_segment(tmp_path: Path) -> None:
    rolled(tmp_path).close()
    path = tmp_path / f"{3:020d}.seg"
    path.write_bytes(b"GMLEDG2\n" + path.read_bytes()[8:])
    with pytest.raises(LedgerDamaged, match=rf"^{path.name} doesn't begin like a ledger segment") as damaged:
        read(EntryLog(tmp_path, OpenCipher(), "the/log"))
    assert damaged.value.index == 3


def test_a_reader_sees_what_a_writer_has_added(tmp_path: Path) -> None:
    """The first look falls on an empty segment."""
    writer = opened(tmp_path)
    reader = EntryLog(tmp_path, OpenCipher(), "the/log")
    assert list(reader.read(0, 1)) == []
    assert list(reader.batches()) == []
    for one in (*THREE, made(7), made(8, 3)):
        writer.append([one])
        first, end = one[0], one[0] + len(one[1].entries)
        assert list(reader.read(first, first + 1)) == [entry(first)]
        assert list(writer.read(0, end)) == [entry(i) for i in range(end)]
        assert [index for index, _ in writer.batches()][-1] == first
    assert list(reader.batches()) == list(writer.batches())


def test_a_walk_over_a_log_that_was_empty_sees_what_has_come(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    reader = EntryLog(tmp_path, OpenCipher(), "the/log")
    assert list(reader.batches()) == []
    writer.append([THREE[0]])
    assert list(reader.batches()) == [THREE[0]]


def test_the_writer_sees_each_frame_in_whatever_segment(tmp_path: Path) -> None:
    log = rolled(tmp_path)
    for first in range(8, 11):
        log.append([made(first)])
        assert [index for index, _ in log.batches()] == [0, 2, 3, *range(7, first + 1)]


def test_what_was_read_last_is_remembered_and_no_more(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for first in range(70):
        log.append([made(first)])
        log.roll(first + 1)
    cipher = log._cipher = OpenCipher()
    assert read(log) == [entry(i) for i in range(70)]
    assert cipher.opened == 70
    assert (len(log._frames), len(log._places)) == (64, 64)
    assert list(log.read(6, 70)) == [entry(i) for i in range(6, 70)]
    assert cipher.opened == 70
    assert list(log.read(5, 6)) == [entry(5)]
    assert cipher.opened == 71
    log.forget()
    assert list(log.read(69, 70)) == [entry(69)]
    assert cipher.opened == 72


def test_the_last_segment_is_looked_at_again_only_when_more_is_asked_for(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([THREE[0], THREE[1]])
    assert list(log.read(0, 3)) == [entry(0), entry(1), entry(2)]
    (tmp_path / f"{0:020d}.seg").unlink()
    assert list(log.read(0, 3)) == [entry(0), entry(1), entry(2)]
    with pytest.raises(FileNotFoundError):
        list(log.read(0, 4))


def test_what_is_forgotten_is_read_from_the_disk_again(tmp_path: Path) -> None:
    log = rolled(tmp_path)
    assert len(read(log)) == 8
    segment = tmp_path / f"{3:020d}.seg"
    segment.write_bytes(segment.read_bytes()[:-1])
    assert len(read(log)) == 8
    log.forget()
    with pytest.raises(LedgerDamaged, match="can't be read past byte"):
        read(log)


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_segment_is_full_at_65536_entries(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([(0, Batch("m", "s", 0, [b""] * 65_535))])
    assert not log.full
    log.append([(65_535, Batch("m", "s", 65_535, [b""]))])
    assert log.full
    log.roll(65_536)
    assert not log.full
    log.close()
    log = opened(tmp_path)
    assert (log.full, log.end) == (False, 65_536)


@pytest.mark.parametrize("less", [0, 1])
def test_a_segment_is_full_at_32_mebibytes(tmp_path: Path, less: int) -> None:
    log = opened(tmp_path)
    around = len(MAGIC) + len(frame(0, Batch("m", "s", 0, [b"x" * 70_000]))) - 70_000
    log.append([(0, Batch("m", "s", 0, [b"x" * ((32 << 20) - around - less)]))])
    assert (tmp_path / f"{0:020d}.seg").stat().st_size == (32 << 20) - less
    assert log.full is not bool(less)


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """(what, name, size of the file then) of every fsync, in order."""
    done: list[tuple[str, str, int]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append(("folder" if path.is_dir() else "file", path.name, path.stat().st_size if path.is_file() else 0))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return done


def test_each_append_is_durable_once_and_a_new_segment_with_its_name(
    tmp_path: Path, disk: list[tuple[str, str, int]]
) -> None:
    root, name = tmp_path / "log", f"{0:020d}.seg"
    log = opened(root)
    assert disk == [("file", name, 8), ("folder", "log", 0)]
    disk.clear()
    log.append([THREE[0], THREE[1]])
    size = len(MAGIC + frame(*THREE[0]) + frame(*THREE[1]))
    assert disk == [("file", name, size)]
    disk.clear()
    log.roll(3)
    assert disk == [("file", f"{3:020d}.seg", 8), ("folder", "log", 0)]
    log.close()


def test_what_was_trimmed_is_gone_for_good_before_anything_is_written(
    tmp_path: Path, disk: list[tuple[str, str, int]]
) -> None:
    data = written(tmp_path, *THREE)
    (tmp_path / f"{0:020d}.seg").write_bytes(data + b"torn")
    disk.clear()
    opened(tmp_path)
    assert disk == [("file", f"{0:020d}.seg", len(data))]


def test_a_write_that_takes_several_turns_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: real(handle, bytes(data)[:7], offset))
    for one in THREE:
        log.append([one])
    assert files(tmp_path) == {f"{0:020d}.seg": MAGIC + b"".join(frame(*one) for one in THREE)}


def _full_after_a_part(real: Callable[..., int]) -> Callable[..., int]:
    turns = iter([True])

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        if next(turns, False):
            return real(handle, bytes(data)[:20], offset)
        raise OSError(28, "No space left on device")

    return pwrite


@pytest.mark.parametrize("where", ["pwrite", "fsync"])
def test_nothing_stays_of_an_append_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    log = opened(tmp_path)
    log.append([THREE[0]])
    before = files(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, where, _full_after_a_part(os.pwrite) if where == "pwrite" else full)
        with pytest.raises(OSError, match="No space"):
            log.append([THREE[1], THREE[2]])
    assert files(tmp_path) == before
    assert (log.end, read(log)) == (2, [entry(0), entry(1)])
    log.append([THREE[1]])
    assert (log.end, read(log)) == (3, [entry(0), entry(1), entry(2)])
