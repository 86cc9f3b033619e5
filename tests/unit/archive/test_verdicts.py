"""What the archive says of the newest verdicts: of whom, from which entry, and what no entry can make it say."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from governed_api.report import RecordedVerdict
from governed_serving.archive import serve, verdicts
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verdicts import REVISIONS
from governed_serving.crypto import Kek

from .ledgers import leaf

KEK = Kek(bytes(32))
EVERYTHING = 10**9


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with closing(Archive(tmp_path / "archive", KEK, "default")) as found:
        yield found


def judge(archive: Archive, revision: str = "r1", model: str = "credit", **summary: Any) -> int:
    """A verdict's entry, as any pod of the model may have it appended; its index."""
    seq = archive.ledger.next_seq(model, "auditor-p.1") or 0
    entry = leaf(f"verdict-{seq}", "verdict", model, revision=revision, summary=summary)
    return archive.ledger.append(Batch(model, "auditor-p.1", seq, [entry])).first_index


def newest(archive: Archive, size: int = EVERYTHING) -> dict[tuple[str, str], tuple[int, str]]:
    return {(v.model, v.revision): (v.ledger_index, v.verdict) for v in archive.verdicts.newest(size)}


def test_of_each_models_revisions_the_newest_entry_under_the_checkpoint(archive: Archive) -> None:
    judge(archive, verdict="Fail", samples=10)
    judge(archive, "r2", verdict="Unknown", samples=3)
    passed = judge(archive, verdict="Pass", samples=20, inForce="None")
    judge(archive, model="other", verdict="Fail", samples=7, inForce="Rollback")
    assert newest(archive, passed) == {("credit", "r1"): (0, "Fail"), ("credit", "r2"): (1, "Unknown")}
    whole = {("credit", "r1"): (2, "Pass"), ("credit", "r2"): (1, "Unknown"), ("other", "r1"): (3, "Fail")}
    assert newest(archive) == whole, "what came under the checkpoint since is read again"
    assert archive.verdicts.newest(EVERYTHING)[0] == RecordedVerdict(
        model="other", revision="r1", ledger_index=3, verdict="Fail", samples=7, in_force="Rollback"
    )


def test_they_are_known_after_a_start(tmp_path: Path) -> None:
    with closing(Archive(tmp_path / "archive", KEK, "default")) as first:
        first.put_reference("credit", "retention", b"{}")
        index = judge(first, verdict="Fail")
    with closing(Archive(tmp_path / "archive", KEK, "default")) as again:
        assert newest(again) == {("credit", "r1"): (index, "Fail")}


def test_what_is_known_outlives_a_flood_of_later_entries(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_LOOKED_AT", 8)
    monkeypatch.setattr(verdicts, "_PAGE", 3)
    failed = judge(archive, verdict="Fail")
    assert newest(archive) == {("credit", "r1"): (failed, "Fail")}
    for _ in range(20):
        judge(archive, kind="drift", subject="drift/age", state="raised")
    last = judge(archive, "r2", verdict="Pass")
    assert newest(archive) == {("credit", "r1"): (failed, "Fail"), ("credit", "r2"): (last, "Pass")}
    again = judge(archive, verdict="Pass")
    assert newest(archive)["credit", "r1"] == (again, "Pass")


def test_a_list_without_room_for_all_has_each_models_newest_and_says_how_many_it_leaves_out(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MOST", 3)
    judge(archive, model="old", verdict="Fail")
    for revision in ("r1", "r2", "r3"):
        judge(archive, revision, verdict="Pass")
    assert set(newest(archive)) == {("old", "r1"), ("credit", "r3"), ("credit", "r2")}
    assert archive.verdicts.left_out == 1
    assert serve._verdicts(archive, EVERYTHING)["verdictsLeftOut"] == 1
    monkeypatch.setattr(verdicts, "MOST", 4)
    assert len(newest(archive)) == 4
    assert serve._verdicts(archive, EVERYTHING)["verdictsLeftOut"] is None


def test_an_alarm_beside_a_verdict_is_none(archive: Archive) -> None:
    """Its entry has the same type."""
    index = judge(archive, verdict="Fail")
    judge(archive, kind="drift", subject="drift/age", state="raised")
    assert newest(archive) == {("credit", "r1"): (index, "Fail")}


@pytest.mark.parametrize(
    "summary",
    [{"verdict": "Passed"}, {"verdict": ["Pass"]}, {"verdict": None}, {"verdict": {"Pass": 1}}, {"verdict": True}],
)
def test_words_that_are_no_verdict_are_unknown(archive: Archive, summary: dict[str, Any]) -> None:
    judge(archive, **summary)
    assert newest(archive) == {("credit", "r1"): (0, "Unknown")}


def test_what_an_entry_says_in_words_is_cut_and_cannot_draw_on_a_terminal(archive: Archive) -> None:
    judge(archive, verdict="Fail", summary="\u001b[2JSPD\n-0.3" + "x" * 10_000)
    judge(archive, "r2", verdict="Fail", summary=["SPD"])
    assert [v.summary for v in archive.verdicts.newest(EVERYTHING)] == ["", " [2JSPD -0.3" + "x" * 188]


@pytest.mark.parametrize("in_force", ["none", "", 0, ["None"], "No\u200bne", None])
def test_an_alarm_of_no_known_word_is_not_told(archive: Archive, in_force: Any) -> None:
    """Then a Fail is in force."""
    judge(archive, verdict="Fail", inForce=in_force, samples=in_force)
    (found,) = archive.verdicts.newest(EVERYTHING)
    assert (found.verdict, found.in_force, found.samples) == ("Fail", "", 0)


@pytest.mark.parametrize(
    ("told", "samples"),
    [(1, 1), (2**53 - 1, 2**53 - 1), (2**53, 0), (-1, 0), (1.5, 0), ("3", 0), ([3], 0), (None, 0)],
)
def test_samples_that_are_no_count_are_none(archive: Archive, told: Any, samples: int) -> None:
    """Beyond 2^53 readers of JSON keep another number (RFC 8259, section 6)."""
    judge(archive, verdict="Pass", samples=told)
    assert [v.plain()["samples"] for v in archive.verdicts.newest(EVERYTHING)] == [samples]


def test_invented_revisions_neither_fill_the_report_nor_say_anything_of_another(archive: Archive) -> None:
    judge(archive, model="other", verdict="Pass")
    for number in range(300):
        judge(archive, f"made-up-{number}", verdict="Pass")
    judge(archive, "r" * 64, verdict="Pass")
    found = newest(archive)
    assert len([model for model, _ in found if model == "credit"]) == REVISIONS
    assert found["other", "r1"] == (0, "Pass")


def test_a_changed_word_goes_at_once_and_what_cannot_be_read_keeps_the_rest(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(archive, verdict="Unknown", samples=10)
    before = serve._values(archive, None)
    judge(archive, verdict="Unknown", samples=20)
    same = serve._values(archive, None)
    judge(archive, verdict="Fail", samples=30)
    after = serve._values(archive, None)
    assert serve._words(before) == serve._words(same) != serve._words(after)
    assert after["verdicts"] == [
        {
            "model": "credit",
            "revision": "r1",
            "ledgerIndex": 2,
            "verdict": "Fail",
            "samples": 30,
            "inForce": "",
            "summary": "",
        }
    ]

    def damaged(_: int) -> list[RecordedVerdict]:
        raise OSError("input/output error")

    monkeypatch.setattr(archive.verdicts, "newest", damaged)
    assert {**serve._values(archive, None), "verdicts": after["verdicts"], "verdictsLeftOut": None} == after
