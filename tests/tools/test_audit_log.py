"""What an audit log says while it is written."""

from pathlib import Path

import pytest

from support.audit_log import whole_lines


@pytest.mark.parametrize(
    ("at_the_mark", "then", "seen"),
    [
        ("", "{1}\n{2}\n", ["{1}\n", "{2}\n"]),
        ("{1}\n", "{2}\n", ["{2}\n"]),
        ("{1}\n{2", "}\n{3}\n", ["{3}\n"]),
        ("{1}\n", "{2}\n{3", ["{2}\n"]),
        ("{1}\n{2", "", []),
        ("{1}\n", "", []),
        ("{ü", "ü}\n{ä}\n", ["{ä}\n"]),
    ],
    ids=["empty", "whole", "half at the mark", "half now", "still half", "nothing new", "of several bytes"],
)
def test_a_line_that_is_half_there_is_no_line(tmp_path: Path, at_the_mark: str, then: str, seen: list[str]) -> None:
    log = tmp_path / "audit.log"
    log.write_text(at_the_mark)
    mark = log.stat().st_size
    log.write_text(at_the_mark + then)
    with log.open(errors="replace") as handle:
        handle.seek(max(mark - 1, 0))
        assert list(whole_lines(handle, mark)) == seen
