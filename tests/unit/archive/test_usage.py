"""What callers used, by a ledger: counted where an entry is proved, named where it isn't."""

import csv
import io
import json
from contextlib import closing
from pathlib import Path

import pytest

from governed_serving.archive.__main__ import main
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.bundle import export
from governed_serving.archive.verify.sources import BundleSource
from governed_serving.archive.verify.usage import Usage, fold
from governed_serving.auditor.service.entries import dead_letter
from governed_serving.crypto import Kek

from .ledgers import leaf
from .test_verification import KEY, rewritten, source

A, B = "a" * 32, "b" * 32
DAY = "2026-11-30T12:00:00.000Z"


def use(caller: str, **units: object) -> dict[str, object]:
    return {"caller": caller, "units": units}


def ledger(root: Path, *entries: bytes) -> Path:
    archive = Archive(root, Kek(KEY), "default")
    for start in range(0, len(entries), 50):
        archive.appender.submit(Batch("credit", "s", start, list(entries[start : start + 50]))).result(10)
    archive.close()
    return root


def asked(id: str, summary: dict[str, object], *, time: str = DAY, index: int = 0, model: str = "credit") -> bytes:
    return leaf(id, model=model, time=time, blob=id.ljust(64, "0"), frame=1, index=index, summary=summary)


def totals(usage: Usage) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for charge in usage.charges:
        for name, number in charge.units.items():
            units = found.setdefault((charge.caller[0], charge.kind), {})
            units[name] = units.get(name, 0) + number
    return found


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return ledger(
        tmp_path / "archive",
        asked("1", use(A, rows=3, microseconds=500)),
        asked("2", use(B, rows=1, microseconds=10)),
        asked("3", use(A, rows=2, microseconds=1), time="2026-12-01T00:00:00.000Z"),
        asked("4", use(A, started=1)),
        asked("5", use(A, rows=1, tokensIn=7, tokensOut=9, cached=4)),
        asked("6", use(A, started=1)),
        asked("7", {}),
        asked("8", use(A, rows=100), model="other"),
    )


def test_each_caller_is_charged_what_their_entries_say(mixed: Path) -> None:
    usage = fold(source(mixed), "credit")
    assert totals(usage) == {
        ("a", "prediction"): {"requests": 2, "rows": 5, "microseconds": 501},
        ("b", "prediction"): {"requests": 1, "rows": 1, "microseconds": 10},
        ("a", "completion"): {"requests": 1, "started": 2, "rows": 1, "tokensIn": 7, "tokensOut": 9, "cached": 4},
    }
    assert (usage.nameless, usage.uncounted, usage.namespace, usage.complete) == (1, [], "default", True)


@pytest.mark.parametrize(
    ("start", "end", "requests"),
    [
        ("", "", 2),
        ("2026-12-01T00:00:00.000Z", "", 1),
        ("", "2026-12-01T00:00:00.000Z", 1),
        ("2026-11-30T12:00:00.000Z", "2026-11-30T12:00:00.001Z", 1),
        ("2027-01-01T00:00:00.000Z", "", 0),
    ],
)
def test_a_period_has_its_start_and_not_its_end(mixed: Path, start: str, end: str, requests: int) -> None:
    found = totals(fold(source(mixed), "credit", start=start, end=end))
    assert found.get(("a", "prediction"), {"requests": 0})["requests"] == requests


def test_one_caller_alone(mixed: Path) -> None:
    assert set(totals(fold(source(mixed), "credit", caller=B))) == {("b", "prediction")}


def test_a_customers_bundle_says_the_same_offline(mixed: Path, tmp_path: Path) -> None:
    for name, chosen in (("whole.tar", ""), ("part.tar", "credit")):
        export(source(mixed), tmp_path / name, model=chosen)
        with closing(BundleSource(tmp_path / name)) as bundle:
            usage = fold(bundle, "credit")
        assert (totals(usage), usage.complete) == (totals(fold(source(mixed), "credit")), not chosen)


def test_an_entry_that_was_changed_is_named_and_not_counted(mixed: Path) -> None:
    rewritten(mixed, 0, asked("1", use(A, rows=3_000_000, microseconds=500)))
    usage = fold(source(mixed), "credit")
    assert totals(usage)["a", "prediction"] == {"requests": 1, "rows": 2, "microseconds": 1}
    assert [(one.index, one.id, one.altered) for one in usage.uncounted] == [(0, "1", True)]


def test_of_a_log_that_is_gone_all_entries_are_named_from_the_first_on(mixed: Path) -> None:
    for segment in (mixed / "ledger" / "log").iterdir():
        segment.unlink()
    usage = fold(source(mixed), "credit")
    words = "it and what follows can't be read, up to entry 7"
    assert [(one.index, one.altered, one.why) for one in usage.uncounted] == [(0, True, words)]
    assert not usage.charges


def test_what_an_entry_was_overwritten_with_may_be_nothing_that_can_be_read(mixed: Path) -> None:
    rewritten(mixed, 0, b"\xff nothing of ours")
    usage = fold(source(mixed), "credit")
    assert [(one.index, one.id, one.altered) for one in usage.uncounted] == [(0, "", True)]
    assert totals(usage)["a", "prediction"]["rows"] == 2


def test_a_changed_bundle_counts_nothing_of_what_was_changed(mixed: Path, tmp_path: Path) -> None:
    target = tmp_path / "part.tar"
    export(source(mixed), target, model="credit")
    data = target.read_bytes()
    assert data.count(b'"rows":3}') == 1
    target.write_bytes(data.replace(b'"rows":3}', b'"rows":1}'))
    with closing(BundleSource(target)) as bundle:
        usage = fold(bundle, "credit")
    assert totals(usage)["a", "prediction"]["rows"] == 2
    assert [one.index for one in usage.uncounted if one.altered] == [0]
    export(source(mixed), target)
    target.write_bytes(target.read_bytes().replace(b'"rows":3}', b'"rows":1}'))
    with closing(BundleSource(target)) as bundle, pytest.raises(ArchiveError, match="nothing is counted"):
        fold(bundle, "credit")


def test_answers_whose_entries_were_refused_are_counted_by_what_stands_in_their_place(tmp_path: Path) -> None:
    refused = asked("9", use(A, rows=4))
    letters = [
        dead_letter(refused, "too old", "server", 7),
        dead_letter(asked("10", {}), "too old", "server", 8),
        dead_letter(asked("11", {"caller": "x", "units": {"rows": -1}}), "too old", "server", 9),
        dead_letter(leaf("12", "label", time=DAY), "too old", "server", 10),
    ]
    usage = fold(source(ledger(tmp_path / "a", *letters)), "credit")
    assert totals(usage) == {("a", "prediction"): {"requests": 1, "rows": 4}}
    assert (usage.dead_letters, [one.id for one in usage.uncounted]) == (1, ["10", "11"])
    assert {one.why for one in usage.uncounted} == {"an answer whose entry was refused, without who asked for it"}


@pytest.mark.parametrize(
    "summary",
    [
        {"caller": A},
        use("A" * 32, rows=1),
        use(A + "0", rows=1),
        use("", rows=1),
        use(A, rows=-1),
        use(A, rows=1.5),
        use(A, rows=True),
        use(A, rows="3"),
        use(A, rows=1 << 53),
        use(A, euros=3),
        {"caller": A, "units": [1]},
        {"caller": 7, "units": {"rows": 1}},
    ],
    ids=str,
)
def test_what_says_it_in_another_form_is_named(tmp_path: Path, summary: dict[str, object]) -> None:
    usage = fold(source(ledger(tmp_path / "a", asked("1", summary), asked("2", use(B, rows=1)))), "credit")
    assert totals(usage) == {("b", "prediction"): {"requests": 1, "rows": 1}}
    said = (
        "what it says of its caller has another form"
        if "units" in summary
        else "it names its caller, and not what was used: of an older server"
    )
    assert [(one.index, one.why) for one in usage.uncounted] == [(0, said)]


def test_an_answer_that_stands_there_twice_is_counted_once(tmp_path: Path) -> None:
    twice = asked("1", use(A, rows=3))
    usage = fold(source(ledger(tmp_path / "a", twice, twice, asked("1", use(A, rows=3), index=1))), "credit")
    assert totals(usage) == {("a", "prediction"): {"requests": 2, "rows": 6}}
    assert [(one.index, one.why) for one in usage.uncounted] == [(1, "the log has the same answer before")]


@pytest.mark.parametrize("time", ["2026-11-30T12:00:00Z", "2026-11-30T12:00:00.000+01:00", "", "now"])
def test_a_time_of_another_form_is_in_no_period(tmp_path: Path, time: str) -> None:
    usage = fold(source(ledger(tmp_path / "a", asked("1", use(A, rows=1), time=time))), "credit")
    named = [(one.index, one.why) for one in usage.uncounted]
    assert (usage.charges, named) == ([], [(0, "its form isn't that of an entry of ours")])


def test_frames_that_were_damaged_are_named(tmp_path: Path) -> None:
    entry = leaf("", "unreadable", time=DAY, summary={"frames": 12})
    usage = fold(source(ledger(tmp_path / "a", entry)), "credit")
    assert "12 frames" in usage.uncounted[0].why


def command(folder: Path, tmp_path: Path, *words: str) -> int:
    (tmp_path / "kek").write_bytes(KEY)
    (tmp_path / "kek").chmod(0o600)
    names = {A: {"name": "team-a", "costCentre": '=cmd("x")'}}
    (tmp_path / "names").write_text(json.dumps(names))
    where = [str(folder), "--key-file", str(tmp_path / "kek"), "--names", str(tmp_path / "names")]
    return main(["usage", "--of", "credit", *words, *where])


def test_a_person_reads_names_and_what_is_not_counted(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(mixed, tmp_path) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "team-a (aaaaaaaaaaaa…) prediction 2 requests, 5 rows, 0.001 seconds" in told
    assert "1 of these began without an end" in told
    assert "1 records name no caller" in told
    assert command(mixed, tmp_path, "--caller", "team-a", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {charge["caller"] for charge in found["charges"]} == {A}
    assert found["names"][A]["name"] == "team-a"
    assert command(mixed, tmp_path, "--caller", "nobody") == 1
    assert "a pseudonym" in capsys.readouterr().err
    rewritten(mixed, 0, asked("1", use(A, rows=4)))
    assert command(mixed, tmp_path) == 1
    assert "altered     entry 0 (1)" in capsys.readouterr().out


def test_focus_rows_sum_to_what_was_used(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(mixed, tmp_path, "--csv") == 0
    text = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(text)))
    sums: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row["SubAccountName"], row["ConsumedUnit"]
        sums[key] = sums.get(key, 0) + float(row["ConsumedQuantity"])
    assert sums["team-a", "Rows"] == 6
    assert sums["team-a", "Requests"] == 3
    assert sums["team-a", "Output Tokens"] == 9
    assert sums["", "Rows"] == 1
    assert {(row["ChargePeriodStart"], row["ChargePeriodEnd"]) for row in rows} == {
        ("2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z"),
    }
    assert not [column for column in rows[0] if "Cost" in column or "Price" in column]
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "+", "@"))]


def test_a_model_that_never_served_is_no_bill_of_nothing(mixed: Path) -> None:
    with pytest.raises(ArchiveError, match="none of model loans"):
        fold(source(mixed), "loans")
