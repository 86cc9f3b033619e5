"""Types of ledger entries: what is written, what the archive takes, and what a reader knows are one set."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from governed_serving.archive.service import ERASURE
from governed_serving.archive.store.holdings import KINDS
from governed_serving.archive.store.retention import DELETION, PAYLOADS
from governed_serving.archive.times import RECEIVED
from governed_serving.dossier.dossier import KEPT
from governed_serving.records import ENTRY_TYPES, EVENT_TYPES

SERVING = Path(__file__).parents[3] / "serving_image" / "governed_serving"
PLACE = {"EventRecord": 0, "LedgerEntry": 0, "event": 0, "_replace": 0, "_note": 1, "_note_alone": 1}
"""Calls that write an entry or an event, and which argument is its type."""

NAMED = {"DELETION": DELETION, "ERASURE": ERASURE, "RECEIVED": RECEIVED}
"""Types that are written by the name of a constant."""

OF_THE_ARCHIVE = {"erasure", "loss", "ref", "state", DELETION, RECEIVED}
"""Written by the archive itself, refused from pods."""

COUNTED_ALONE = {
    "deadLetter": "what was refused lies in the blob that it names; why is in the entry, and the auditor says so",
    "explanationQuality": "the figures are the report's; an entry proves when they were told",
    "erasure": "whose data can't be opened any more: a keyed digest, and how many predictions it was",
    "loss": "what a person let go: how many entries had been signed is in the entry",
    RECEIVED: "when entries came that claim an older time: verification and readers of single entries look at it",
    "promiseKey": "which key signs promises: whoever verifies one looks the entry up",
    "unreadable": "frames of a journal that nobody can open any more: which they were is in the entry",
    "ref": "a holding that verification compares",
    "state": "a holding that verification compares; it says nothing to a reader",
    DELETION: "retention's receipts, which verification holds against missing payloads",
}
"""Entries that a dossier counts and doesn't open, with the reason."""


def written(source: str, place: dict[str, int] = PLACE) -> Iterator[str]:
    """Types that a module writes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = place.get(name)
            if name == "event" and "recorder" not in ast.unparse(node.func):
                continue
            if at is not None and len(node.args) > at:
                yield from _words(node.args[at])
        elif isinstance(node, ast.Dict):
            kinds = [v for k, v in zip(node.keys, node.values, strict=True) if getattr(k, "value", "") == "type"]
            if len(node.keys) > 2 and "LedgerEntry" in source:
                yield from (word for kind in kinds for word in _words(kind))


def _words(node: ast.expr) -> Iterator[str]:
    for below in ast.walk(node):
        if isinstance(below, ast.Constant) and isinstance(below.value, str):
            yield below.value
        elif isinstance(below, ast.Name) and below.id in NAMED:
            yield NAMED[below.id]


def types(*rooms: str) -> set[str]:
    calls = PLACE if rooms == ("archive",) else {name: at for name, at in PLACE.items() if name != "_replace"}
    files = [path for room in rooms for path in (SERVING / room).rglob("*.py")]
    return {kind for path in files for kind in written(path.read_text(), calls)}


def test_the_archive_takes_what_pods_write() -> None:
    """An entry of a type that it refuses would hold up all that comes after it."""
    assert types("server", "explainer", "auditor", "trainer", "importer", "crypto", "journal") == ENTRY_TYPES


def test_events_are_those_that_are_journalled() -> None:
    written_there = {
        kind
        for room in ("explainer", "auditor", "server")
        for path in (SERVING / room).rglob("*.py")
        for kind in re.findall(r'(?:EventRecord|\.event)\(\s*"(\w+)"', path.read_text())
    }
    assert written_there == EVENT_TYPES


def test_the_archive_writes_of_itself() -> None:
    assert types("archive") == OF_THE_ARCHIVE | {"key"}


def test_a_dossier_knows_every_type() -> None:
    everything = ENTRY_TYPES | OF_THE_ARCHIVE
    opened = KEPT | {"prediction", "explanation"}
    assert opened <= everything
    assert everything - opened == COUNTED_ALONE.keys()


@pytest.mark.parametrize("kind", sorted(KEPT))
def test_what_a_dossier_keeps_it_shows(kind: str) -> None:
    text = "\n".join(path.read_text() for path in (SERVING / "dossier").rglob("*.py"))
    asked = rf'(entries\.get|\.latest|\.index|_summary)\(\s*"{kind}"'
    assert re.search(asked, text) or re.search(rf'entry\.type == "{kind}"', text)


def test_payloads_and_holdings_are_types() -> None:
    assert PAYLOADS <= ENTRY_TYPES
    assert set(KINDS) <= ENTRY_TYPES | OF_THE_ARCHIVE


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ('EventRecord("surprise", name)', {"surprise"}),
        ('await self._recorder.event("surprise", name)', {"surprise"}),
        ('LedgerEntry(record.type if record else "surprise", namespace)', {"surprise"}),
        ('self._note(model, "surprise", "id")', {"surprise"}),
        ('LedgerEntry(**{"type": "surprise", "id": key, "digest": d})', {"surprise"}),
        ('log("surprise")', set()),
    ],
)
def test_a_new_type_is_noticed_where_it_is_written(source: str, kinds: set[str]) -> None:
    assert set(written(source)) == kinds
