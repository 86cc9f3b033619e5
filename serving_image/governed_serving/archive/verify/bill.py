"""What ``usage`` says to a person, to a program (JSON), and to who plans costs (CSV in the shape of FOCUS 1.2).

FOCUS (FinOps Open Cost and Usage Specification 1.2) names the columns. Those are here that are true of a ledger: how
much was consumed, of what, by whom, when. It knows no prices, so the columns of costs, skus and invoices are left out,
and whoever has a price list joins them by the rest. What FOCUS has no column for begins with ``x_``.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import IO

import msgspec

from governed_api.printable import printable
from governed_serving.archive.verify.command_line import say
from governed_serving.archive.verify.usage import Charge, Usage

__all__ = ["Name", "print_usage", "usage_json", "write_csv"]

FOCUS = "1.2"
_COLUMNS = (
    "ChargeCategory", "ChargeDescription", "ChargeFrequency", "ChargePeriodStart", "ChargePeriodEnd",
    "ConsumedQuantity", "ConsumedUnit", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "SubAccountId",
    "SubAccountName", "Tags", "x_Class", "x_FocusVersion", "x_LedgerOrigin", "x_LedgerSize", "x_LedgerRoot",
)  # fmt: skip
_UNITS = {
    "requests": ("Requests", 1),
    "rows": ("Rows", 1),
    "tokensIn": ("Input Tokens", 1),
    "cached": ("Cached Input Tokens", 1),
    "tokensOut": ("Output Tokens", 1),
    "microseconds": ("Seconds", 1_000_000),
}
"""As FOCUS writes units: a name, and how many of ours make one."""
_NAMED = 100
_SHORT = 12


class Name(msgspec.Struct, frozen=True, rename="camel"):
    """Who a pseudonym is, told by whoever may know."""

    name: str
    cost_centre: str = ""


Names = Mapping[str, Name]


def print_usage(usage: Usage, names: Names, *, trusted: bool) -> None:
    """A line for each caller and class, and what isn't counted; all on the standard output but what is wrong."""
    for caller, kind, units in _summed(usage):
        counted = ", ".join(_amount(units, unit) for unit in _UNITS if unit in units)
        say(f"{_called(caller, names):<{_width(usage, names)}}  {kind:<10}  {counted}")
        if (open_ := units.get("started", 0) - units["requests"]) > 0:
            say(f"            {open_:,} of these began without an end within the time: refused by the runtime, or cut")
    if not usage.charges:
        say("no answer of a known caller within the time")
    whose = "the key that you gave" if trusted else "its own key: give --key-file VKEY, kept elsewhere"
    say(f"log         {usage.origin}, {usage.size:,} entries, root {usage.root}, signed by {whose}")
    if not usage.complete:
        say("part        these are chosen entries of the log, each with its proof: what was left out isn't counted")
    if usage.dead_letters:
        say(f"refused     {usage.dead_letters:,} of the requests are counted by the dead letter in their entry's place")
    if usage.nameless:
        say(f"nobody      {usage.nameless:,} records name no caller: not counted")
    for one in usage.uncounted[:_NAMED]:
        say(
            f"{'altered' if one.altered else 'not counted':<11} entry {one.index}{one.id and f' ({one.id})'}: {one.why}"
        )
    if len(usage.uncounted) > _NAMED:
        say(f"            and {len(usage.uncounted) - _NAMED:,} more: --json lists them")


def usage_json(usage: Usage, names: Names) -> str:
    """One object; callers by pseudonym, and by name where it is known."""
    known = {caller: msgspec.to_builtins(names[caller]) for caller in _callers(usage) if caller in names}
    text = msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(usage) | {"names": known}), indent=1).decode()
    return printable(text, keep="\n") + "\n"


def write_csv(usage: Usage, names: Names, file: IO[str] | None = None) -> None:
    """A row for each caller, class, day and unit."""
    rows = csv.DictWriter(file or sys.stdout, _COLUMNS, lineterminator="\n")
    rows.writeheader()
    for charge in usage.charges:
        for unit, (word, each) in _UNITS.items():
            if unit in charge.units:
                amount = charge.units[unit]
                rows.writerow(_row(usage, charge, names, word) | {
                    "ConsumedQuantity": amount if each == 1 else f"{amount / each:.6f}"
                })  # fmt: skip


def _row(usage: Usage, charge: Charge, names: Names, unit: str) -> dict[str, object]:
    known = names.get(charge.caller)
    day = date.fromisoformat(charge.day)
    return {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{unit} of {charge.kind}s by model {usage.model}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": f"{day}T00:00:00Z",
        "ChargePeriodEnd": f"{day + timedelta(days=1)}T00:00:00Z",
        "ConsumedUnit": unit,
        "ResourceId": f"{usage.namespace}/{usage.model}",
        "ResourceName": usage.model,
        "ResourceType": "GovernedModel",
        "ServiceCategory": "AI and Machine Learning",
        "SubAccountId": charge.caller,
        "SubAccountName": known.name if known else "",
        "Tags": json.dumps({"costCentre": known.cost_centre}) if known and known.cost_centre else "{}",
        "x_Class": charge.kind,
        "x_FocusVersion": FOCUS,
        "x_LedgerOrigin": usage.origin,
        "x_LedgerSize": usage.size,
        "x_LedgerRoot": usage.root,
    }


def _callers(usage: Usage) -> list[str]:
    return list(dict.fromkeys(charge.caller for charge in usage.charges))


def _summed(usage: Usage) -> Iterator[tuple[str, str, dict[str, int]]]:
    """(caller, class, units) over all days."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for charge in usage.charges:
        units = sums.setdefault((charge.caller, charge.kind), {})
        for name, number in charge.units.items():
            units[name] = units.get(name, 0) + number
    yield from ((caller, kind, units) for (caller, kind), units in sums.items())


def _amount(units: Mapping[str, int], unit: str) -> str:
    word, each = _UNITS[unit]
    return f"{units[unit]:,} {word.lower()}" if each == 1 else f"{units[unit] / each:,.3f} {word.lower()}"


def _called(caller: str, names: Names) -> str:
    known = names.get(caller)
    return f"{known.name} ({caller[:_SHORT]}…)" if known else caller


def _width(usage: Usage, names: Names) -> int:
    return max(len(_called(caller, names)) for caller in _callers(usage))
