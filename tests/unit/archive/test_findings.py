"""What inspections find: what is wrong, and what couldn't be looked at."""

import pytest

from governed_serving.archive.errors import Busy, Unreachable
from governed_serving.archive.verify.findings import EXIT_STATUS, Findings


@pytest.mark.parametrize(
    ("error", "status"),
    [(Unreachable("it doesn't answer"), 3), (Busy("full"), 3), (ValueError("changed"), 1), (OSError("gone"), 1)],
    ids=["unreachable", "busy", "changed", "gone"],
)
def test_what_cannot_be_looked_at_for_now_is_not_what_was_tampered_with(error: Exception, status: int) -> None:
    findings = Findings()
    with findings.looking_at("ledger"):
        raise error
    assert EXIT_STATUS[findings.status] == status


def test_what_holds_and_what_no_look_can_show_is_no_failure() -> None:
    """The status that a shell takes for success."""
    findings = Findings()
    findings.hold("ledger", "3 entries")
    findings.note("content", "nobody can tell")
    assert EXIT_STATUS[findings.status] == 0
