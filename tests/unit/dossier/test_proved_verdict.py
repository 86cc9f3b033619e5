"""Of a report and a ledger that differ about the newest verdict, the ledger counts where the report says Pass."""

from datetime import UTC, datetime

import pytest

from governed_api.verdict import BiasVerdict
from governed_serving.dossier.documents import Report
from governed_serving.dossier.dossier import Dossier, LedgerView, _hold_verdict, _note
from governed_serving.records import LedgerEntry


def entry(word: str, revision: str = "r1") -> LedgerEntry:
    summary = {"verdict": word}
    return LedgerEntry("verdict", "default", "credit", "v", "2026-01-01T00:00:00.000Z", revision, summary=summary)


def held(told: str, *words: str, revision: str = "r1", error: str = "") -> tuple[str, list[str]]:
    """(verdict that is shown, notes) of a report's ``told`` beside a ledger in which ``words`` were said in turn."""
    verdict = BiasVerdict(verdict=told, summary="s", samples=10**9, metrics=[], revision=revision, ledger_index=99)
    dossier = Dossier("credit", datetime.now(UTC), report=Report(auditor=verdict))
    view = LedgerView(entries={"verdict": [(n, entry(word)) for n, word in enumerate(words)]}, error=error)
    _hold_verdict(dossier, view)
    assert dossier.auditor is not None
    return dossier.auditor.verdict, dossier.notes


@pytest.mark.parametrize(
    ("told", "words", "shown"),
    [
        ("Pass", ("Fail", "Pass"), "Pass"),
        ("Pass", ("Pass", "Fail"), "Fail"),
        ("Pass", ("Pass", "Unknown"), "Unknown"),
        ("Pass", ("Pass", "Perfect"), "Unknown"),
        ("Pass", (), "Unknown"),
        ("Fail", ("Pass",), "Fail"),
        ("Fail", (), "Fail"),
        ("Unknown", ("Pass",), "Unknown"),
    ],
)
def test_a_pass_is_what_the_newest_entry_says(told: str, words: tuple[str, ...], shown: str) -> None:
    found, notes = held(told, *words)
    assert found == shown
    assert bool(notes) == (shown != told)


def test_the_note_says_what_differs() -> None:
    assert held("Pass", "Pass", "Fail")[1] == [
        "The report says Pass, the newest in the ledger, entry 1, says Fail: the ledger counts."
    ]
    assert held("Pass")[1] == ["The report says Pass, no entry of the ledger does: the ledger counts."]


@pytest.mark.parametrize("alarms", [1, 600])
def test_alarms_after_the_verdict_change_nothing_of_it(alarms: int) -> None:
    """Their entries have the same type and no verdict in them: no clause is proved by one, and none pushes it out."""
    alarm = LedgerEntry(
        "verdict", "default", "credit", "a", "2026-01-01T00:00:01.000Z", "r1", summary={"kind": "drift"}
    )
    verdict = BiasVerdict(verdict="Pass", summary="s", samples=9, metrics=[], revision="r1", ledger_index=0)
    dossier, view = Dossier("credit", datetime.now(UTC), report=Report(auditor=verdict)), LedgerView()
    for index, one in enumerate([entry("Pass"), *[alarm] * alarms]):
        _note(view, index, one)
    _hold_verdict(dossier, view)
    assert (dossier.auditor and dossier.auditor.verdict, dossier.notes) == ("Pass", [])
    assert (view.index("verdict"), view.counts["verdict"]) == (0, alarms + 1)


def test_entries_of_another_revision_prove_nothing_of_this_one() -> None:
    assert held("Pass", "Pass", revision="r2")[0] == "Unknown"
    assert held("Pass", "Pass", revision="")[0] == "Pass"


def test_of_a_ledger_that_cannot_be_read_another_part_speaks() -> None:
    assert held("Pass", error="damaged") == ("Pass", [])
