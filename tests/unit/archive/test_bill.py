"""What ``usage`` prints, whole: for a person, for a program, and the rows that FOCUS 1.2 takes."""

import io

import pytest

from governed_serving.archive.verify.bill import Name, print_usage, usage_json, write_csv
from governed_serving.archive.verify.usage import Charge, Uncounted, Usage

A, B = "a" * 32, "b" * 32
NAMES = {A: Name("team-a", "CC-7"), "c" * 32: Name("team-c")}
LOG = "log         example.org/default, 1,234 entries, root 00ff, signed by "
ITS_OWN = "its own key: give --key-file VKEY, kept elsewhere"


def usage(*charges: Charge, **said: object) -> Usage:
    found = Usage("example.org/default", 1234, "00ff", "vkey", True, "default", "credit", "", "", list(charges))
    for name, value in said.items():
        setattr(found, name, value)
    return found


def charge(caller: str = A, kind: str = "prediction", day: str = "2026-11-30", **units: int) -> Charge:
    return Charge(caller, kind, day, units)


def printed(found: Usage, capsys: pytest.CaptureFixture[str], *, trusted: bool = False) -> list[str]:
    print_usage(found, NAMES, trusted=trusted)
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_a_person_reads_a_line_for_each_caller_and_class_over_all_days(capsys: pytest.CaptureFixture[str]) -> None:
    found = usage(
        charge(requests=1_000, rows=2_000, microseconds=1_500_400),
        charge(day="2026-12-01", requests=234, rows=1, microseconds=100),
        charge(kind="completion", requests=2, started=5, tokensIn=7, cached=4, tokensOut=9),
        charge(B, requests=1, rows=1),
    )
    assert printed(found, capsys) == [
        f"team-a (aaaaaaaaaaaa…){' ' * 10}  prediction  1,234 requests, 2,001 rows, 1.500 seconds",
        f"team-a (aaaaaaaaaaaa…){' ' * 10}  completion  2 requests, 7 input tokens, 4 cached input tokens, "
        "9 output tokens",
        "            3 of these began without an end within the time: refused by the runtime, or cut",
        f"{B}  prediction  1 requests, 1 rows",
        LOG + ITS_OWN,
    ]


@pytest.mark.parametrize(("started", "ended"), [(2, 2), (1, 2), (0, 1)])
def test_what_ended_or_began_before_the_time_is_no_beginning_without_an_end(
    started: int, ended: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(usage(charge(kind="completion", started=started, requests=ended)), capsys)
    assert [line for line in lines if "without an end" in line] == []


def test_what_is_not_counted_is_said_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = usage(
        complete=False,
        dead_letters=1_001,
        nameless=1_002,
        uncounted=[Uncounted(3, "x", "it was lost"), Uncounted(14, "", "not what was signed", True)],
    )
    assert printed(found, capsys, trusted=True) == [
        "no answer of a known caller within the time",
        LOG + "the key that you gave",
        "part        these are chosen entries of the log, each with its proof: what was left out isn't counted",
        "refused     1,001 of the requests are counted by the dead letter in their entry's place",
        "nobody      1,002 records name no caller: not counted",
        "not counted entry 3 (x): it was lost",
        "altered     entry 14: not what was signed",
    ]


@pytest.mark.parametrize(("entries", "more"), [(100, []), (1_101, ["            and 1,001 more: --json lists them"])])
def test_a_hundred_that_are_not_counted_are_named(
    entries: int, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = usage(uncounted=[Uncounted(index, "", "lost") for index in range(entries)])
    assert printed(found, capsys)[2:] == [f"not counted entry {index}: lost" for index in range(100)] + more


def test_a_program_reads_pseudonyms_and_the_names_that_are_known_of_them() -> None:
    found = usage(charge(requests=1), charge(B, requests=2), uncounted=[Uncounted(3, "\u202e", "lost")])
    assert usage_json(found, NAMES).splitlines() == [
        "{",
        ' "origin": "example.org/default",',
        ' "size": 1234,',
        ' "root": "00ff",',
        ' "vkey": "vkey",',
        ' "complete": true,',
        ' "namespace": "default",',
        ' "model": "credit",',
        ' "start": "",',
        ' "end": "",',
        ' "charges": [',
        "  {",
        f'   "caller": "{A}",',
        '   "kind": "prediction",',
        '   "day": "2026-11-30",',
        '   "units": {',
        '    "requests": 1',
        "   }",
        "  },",
        "  {",
        f'   "caller": "{B}",',
        '   "kind": "prediction",',
        '   "day": "2026-11-30",',
        '   "units": {',
        '    "requests": 2',
        "   }",
        "  }",
        " ],",
        ' "uncounted": [',
        "  {",
        '   "index": 3,',
        '   "id": "\\u202e",',
        '   "why": "lost"',
        "  }",
        " ],",
        ' "nameless": 0,',
        ' "deadLetters": 0,',
        ' "names": {',
        f'  "{A}": {{',
        '   "name": "team-a",',
        '   "costCentre": "CC-7"',
        "  }",
        " }",
        "}",
    ]
    assert usage_json(found, NAMES).endswith("}\n")


FIRST = (
    "ChargeCategory,ChargeDescription,ChargeFrequency,ChargePeriodStart,ChargePeriodEnd,ConsumedQuantity,ConsumedUnit,"
    "ResourceId,ResourceName,ResourceType,ServiceCategory,SubAccountId,SubAccountName,Tags,x_Class,x_FocusVersion,"
    "x_LedgerOrigin,x_LedgerSize,x_LedgerRoot"
)
RESOURCE = "default/credit,credit,GovernedModel,AI and Machine Learning"
LEDGER = "1.2,example.org/default,1234,00ff"


def test_a_planner_of_costs_reads_a_row_for_each_unit_with_the_columns_of_focus() -> None:
    """A charge period has its end excluded, the year's too; a unit without a column of its own isn't told."""
    file = io.StringIO()
    charges = (
        charge(day="2026-12-31", requests=3, microseconds=1_500_400),
        charge("c" * 32, "completion", requests=0, started=1, tokensIn=7, cached=4, tokensOut=9),
        charge(B, rows=5),
    )
    write_csv(usage(*charges), NAMES, file)

    def row(unit: str, amount: str, *who: str, kind: str = "prediction", days: str = "2026-11-30 2026-12-01") -> str:
        start, end = (f"{day}T00:00:00Z" for day in days.split())
        about = f"{unit} of {kind}s by model credit"
        return ",".join(("Usage", about, "Usage-Based", start, end, amount, unit, RESOURCE, *who, kind, LEDGER))

    a, b, c = (A, "team-a", '"{""costCentre"": ""CC-7""}"'), (B, "", "{}"), ("c" * 32, "team-c", "{}")
    year, told = "2026-12-31 2027-01-01", "completion"
    assert file.getvalue().split("\n") == [
        FIRST,
        row("Requests", "3", *a, days=year),
        row("Seconds", "1.500400", *a, days=year),
        row("Requests", "0", *c, kind=told),
        row("Input Tokens", "7", *c, kind=told),
        row("Cached Input Tokens", "4", *c, kind=told),
        row("Output Tokens", "9", *c, kind=told),
        row("Rows", "5", *b),
        "",
    ]


def test_without_a_file_the_rows_go_to_the_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(usage(), NAMES)
    assert capsys.readouterr().out == f"{FIRST}\n"
