"""What containers wrote is kept, bounded, and read again in order."""

import os
import stat
from pathlib import Path

import pytest

from governed_operator.local.kept_logs import KeptLogs, Reader, containers


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
