"""What containers wrote is kept, bounded, and read again in order."""

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from governed_operator.local.kept_logs import KeptLogs, Reader, containers
from governed_operator.local.logs import Logs, readable


def texts(lines: list[tuple[str, str, str]]) -> list[str]:
    return [text for _, _, text in lines]


def test_lines_come_back_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    kept = KeptLogs(tmp_path)
    for number in range(6):
        kept.line("server" if number % 2 else "auditor", f"line {number}")
    lines = Reader(tmp_path).last(10)
    assert sorted(texts(lines)) == [f"line {n}" for n in range(6)]
    assert [time for time, _, _ in lines] == sorted(time for time, _, _ in lines)
    assert {(whose, int(text[-1]) % 2) for _, whose, text in lines} == {("server", 1), ("auditor", 0)}
    assert texts(Reader(tmp_path, "server").last(2)) == ["line 3", "line 5"]
    assert stat.S_IMODE((tmp_path / "server.log").stat().st_mode) == 0o600


def test_a_container_s_files_are_bounded_and_the_newest_lines_stay(tmp_path: Path) -> None:
    kept = KeptLogs(tmp_path, file_bytes=1000)
    for number in range(200):
        kept.line("server", f"line {number}")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000
    lines = texts(Reader(tmp_path).last(1000))
    assert lines == [f"line {n}" for n in range(200 - len(lines), 200)]
    assert 25 < len(lines) < 60
    assert kept.dropped == 0


@pytest.mark.parametrize("text", ["", "\x1b[2J", "a\nb", "über 模型", "\udcff half", "x" * 5000, "{"], ids=range(7))
def test_a_line_of_any_content_is_kept(tmp_path: Path, text: str) -> None:
    kept = KeptLogs(tmp_path, file_bytes=1000)
    kept.line("server", text)
    kept.line("server", "after")
    lines = texts(Reader(tmp_path).last(10))
    assert lines[-1] == "after"
    assert len(lines) >= 2
    assert text == lines[0] or not text.isprintable()


def test_what_is_new_is_told_once_over_the_change_of_files(tmp_path: Path) -> None:
    kept, reader, told = KeptLogs(tmp_path, file_bytes=1000), Reader(tmp_path), list[str]()
    kept.line("server", "line 0")
    told += texts(reader.last(10))
    assert reader.new() == []
    for number in range(1, 100):
        kept.line("server", f"line {number}")
        told += texts(reader.new()) if number % 7 == 0 else []
    told += texts(reader.new())
    assert told == [f"line {n}" for n in range(100)]


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    kept, reader = KeptLogs(tmp_path), Reader(tmp_path)
    kept.line("server", "one")
    with (tmp_path / "server.log").open("a") as file:
        file.write("2026-11-30T00:00:00.000000Z tw")
    assert texts(reader.last(10)) == ["one"]
    with (tmp_path / "server.log").open("a") as file:
        file.write("o\n")
    assert texts(reader.new()) == ["two"]


def test_a_container_that_begins_later_is_followed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.last(10) == []
    KeptLogs(tmp_path).line("trainer", "epoch 1")
    assert [(whose, text) for _, whose, text in reader.new()] == [("trainer", "epoch 1")]
    assert containers(tmp_path) == ["trainer"]
    assert containers(tmp_path / "none") == []


def test_a_folder_that_takes_nothing_ends_nobody_and_is_counted(tmp_path: Path) -> None:
    kept = KeptLogs(tmp_path / "gone")
    kept.line("server", "lost")
    (tmp_path / "elsewhere").write_text("")
    os.symlink(tmp_path / "elsewhere", tmp_path / "server.log")
    linked = KeptLogs(tmp_path)
    linked.line("server", "lost")
    assert (kept.dropped, linked.dropped) == (1, 1)
    assert (tmp_path / "elsewhere").read_text() == "", "a link leads out of the folder"


def a_full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """What makes writing take half of what it is given, as where the disk becomes full, and what ends that."""
    write = os.write

    def half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2])

    return lambda full: monkeypatch.setattr(os, "write", half if full else write)


def test_what_is_missing_is_said_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, full = KeptLogs(tmp_path), a_full_disk(monkeypatch)
    kept.line("server", "first")
    kept.line("auditor", "first")
    full(True)
    for number in range(3):
        kept.line("server", f"lost {number}")
    kept.line("auditor", "lost")
    full(False)
    kept.line("server", "second")
    kept.line("server", "third")
    kept.line("auditor", "second")
    gap = "missing before the next, not kept: No space left on device"
    lines = [readable(text) for text in texts(Reader(tmp_path, "server").last(10))]
    assert lines == [("", "first"), ("warning", f"3 lines are {gap}"), ("", "second"), ("", "third")]
    lines = [readable(text) for text in texts(Reader(tmp_path, "auditor").last(10))]
    assert lines == [("", "first"), ("warning", f"1 line is {gap}"), ("", "second")]
    assert kept.dropped == 4


def test_a_gap_that_can_t_be_said_yet_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, full = KeptLogs(tmp_path), a_full_disk(monkeypatch)
    for turn in range(5):
        full(turn < 4)
        kept.line("server", f"line {turn}")
    first, second = (readable(text) for text in texts(Reader(tmp_path).last(10)))
    assert first[1].startswith("4 lines are missing before the next")
    assert second == ("", "line 4")


def test_the_runner_says_once_and_at_its_end_that_lines_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, full = io.StringIO(), a_full_disk(monkeypatch)
    logs = Logs(Console(file=out, width=200), kept=KeptLogs(tmp_path))
    logs.line("server", "kept")
    logs.close()
    assert "kept:" not in out.getvalue()
    full(True)
    logs.line("server", "lost")
    logs.line("server", "lost too")
    assert out.getvalue().count("governed logs will lack them: No space left on device; make room") == 1
    logs.close()
    assert out.getvalue().splitlines()[-1].endswith("2 lines of containers were not kept: No space left on device")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '{"message": 7}', "null"])
def test_a_line_of_any_form_is_shown(text: str) -> None:
    level, message = readable(text)
    assert level == ""
    assert message
