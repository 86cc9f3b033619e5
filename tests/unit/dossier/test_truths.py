"""Labels that came later, in the report: joined to the decisions of every revision, from the ledger alone."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.dossier import dossier
from governed_serving.dossier.dossier import Archived, gather
from governed_serving.dossier.page import render_page
from governed_serving.dossier.served import REVISION, Served, fold_served
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import EventRecord, canonical
from support.predictions import Field, Prediction, PredictionSchema, framed

from .ships import shipped

KEY, MODEL_KEY = bytes(32), bytes([5]) * 32
REPORT = {"auditor": {"attributes": {"sex": {}}, "verdict": "Unknown", "metrics": []}}
DOCUMENTS = {"model.json": {"favorable": "yes", "features": [{"name": "sex", "type": "categorical", "dtype": "BYTES"}]}}


class Desk:
    """An archive; what the server answered and what people said of it later, each in a stream of its own."""

    def __init__(self, root: Path) -> None:
        self._root, self._spool, self.documents = root / "archive", root / "spool", DOCUMENTS
        self._archive = Archive(self._root, Kek(KEY), "default")
        store = DirectoryStore(root / "keys")
        self._cipher = SegmentCipher(Keyring(Kek(MODEL_KEY), store).keyset("journal"))
        document = (root / "keys" / "journal.keyset.json").read_bytes()
        self._archive.create_keyset("loans", "journal", document)
        self._served = Journal(self._spool, "server-0", self._cipher)
        self._said = Journal(self._spool, "auditor-0", self._cipher)

    async def decide(self, request: str, revision: str, rows: list[tuple[str, str]]) -> None:
        schema = PredictionSchema("loans", revision, "sha256:a", (Field("sex", "BYTES"),), (Field("label", "BYTES"),))
        sexes, labels = ([row[place] for row in rows] for place in (0, 1))
        await self._served.append(framed(Prediction(schema, request, 0.0, len(rows), [sexes], [labels])))

    async def label(self, request: str, label: Any, **more: Any) -> None:
        body = msgspec.json.encode({"id": request, "label": label} | more)
        await self._said.append(EventRecord("label", request, "loans", "r2", 1.0, body))

    def gathered(self) -> Any:
        self._served.close()
        self._said.close()
        for stream in ("server-0", "auditor-0"):
            entries = shipped(self._archive, "loans", JournalReader(self._spool, stream, self._cipher))
            self._archive.appender.submit(Batch("loans", stream, 0, [canonical(e) for e in entries])).result(10)
        self._archive.close()
        source = DirectorySource(self._root, Kek(KEY))
        documents = self.documents
        return gather("loans", report=REPORT, archive=Archived(source), kek=Kek(MODEL_KEY), documents=documents)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def counts(served: Served, revision: str) -> dict[str, list[list[int]]]:
    assert served.cells is not None
    table = served.cells.where(REVISION, revision).by("sex")
    return {group: counted.tolist() for group, counted in zip(table.groups, table.counts, strict=True)}


async def test_labels_are_joined_to_whatever_revision_decided(desk: Desk) -> None:
    """The label of an earlier revision's request is no matter of the present auditor; the report has it all the
    same."""
    await desk.decide("old", "r1", [("f", "yes"), ("m", "no")])
    await desk.decide("new", "r2", [("f", "no")])
    await desk.decide("unknown", "r2", [("f", "no")])
    await desk.label("old", ["yes", "yes"])
    await desk.label("new", "yes")
    served = desk.gathered().served
    assert served.labels == 3
    # outcome (no, yes) × label (no, yes, unknown)
    assert counts(served, "r1") == {"f": [[0, 0, 0], [0, 1, 0]], "m": [[0, 1, 0], [0, 0, 0]]}
    assert counts(served, "r2") == {"f": [[0, 1, 1], [0, 0, 0]]}


async def test_the_first_label_counts_and_what_does_not_fit_is_left_out(desk: Desk) -> None:
    await desk.decide("twice", "r1", [("f", "yes")])
    await desk.decide("two rows", "r1", [("m", "yes"), ("m", "yes")])
    await desk.label("twice", "yes")
    await desk.label("twice", "no")
    await desk.label("two rows", "yes")
    await desk.label("nobody's", "yes")
    served = desk.gathered().served
    assert served.labels == 1
    assert counts(served, "r1") == {"f": [[0, 0, 0], [0, 1, 0]], "m": [[0, 0, 0], [0, 0, 2]]}


async def test_labels_that_name_no_class_are_told_apart_and_count_in_nothing(desk: Desk) -> None:
    """As older ledgers have them: they would all count as unfavourable."""
    desk.documents = {"model.json": DOCUMENTS["model.json"] | {"classes": ["no", "yes"]}}
    for request in ("right", "typo", "typo too", "mixed", "corrected", "corrected wrongly"):
        await desk.decide(request, "r1", [("f", "yes"), ("m", "yes")])
    await desk.label("right", ["yes", "no"])
    await desk.label("typo", ["Yes", "Yes"])
    await desk.label("typo too", [True, "\u202eyes"])
    await desk.label("mixed", ["yes", "approved"])
    await desk.label("corrected", ["Yes", "Yes"])
    await desk.label("corrected", ["yes", "no"], correct=True, was=["Yes", "Yes"], reason="spelt as the model does")
    await desk.label("corrected wrongly", ["yes", "yes"])
    await desk.label("corrected wrongly", ["Nope", "yes"], correct=True, was=["yes", "yes"], reason="?")
    found = desk.gathered()
    assert found.served.labels == 6
    assert found.served.strange == {"Yes": 4, "true": 1, "\\u202eyes": 1, "approved": 1, "Nope": 1}
    assert counts(found.served, "r1") == {"f": [[0, 0, 0], [0, 3, 3]], "m": [[0, 0, 0], [2, 1, 3]]}
    page = re.sub(r"<[^>]+>", " ", render_page(found))
    assert "Labels of no class" in page
    assert "approved" in page


async def test_of_many_texts_that_name_no_class_some_are_told(desk: Desk) -> None:
    desk.documents = {"model.json": DOCUMENTS["model.json"] | {"classes": ["no", "yes"]}}
    await desk.label("flood", [f"w{n}" for n in range(500)])
    found = desk.gathered()
    assert (len(found.served.strange), found.served.strange["(others)"]) == (101, 400)
    assert "81 more texts are not shown" in render_page(found)


async def test_the_page_tells_error_rates_by_revision_and_shows_no_small_groups(desk: Desk) -> None:
    """r1: of 40 women who deserved it 10 got it, of 40 men 30; r2: the other way round, and 4 of a third group."""
    for revision, women, men in (("r1", 10, 30), ("r2", 30, 10)):
        rows = [("f", "yes" if n < women else "no") for n in range(40)]
        rows += [("m", "yes" if n < men else "no") for n in range(40)]
        rows += [("x", "no")] * 4
        await desk.decide(revision, revision, rows)
        await desk.label(revision, ["yes"] * len(rows))
    page = render_page(desk.gathered())
    assert "168 of 168 rows" in page
    part = page[page.index("what came of them") :]
    table = re.findall(r"<tr>(.*?)</tr>", part[part.index("Error rates of what was served") :], re.S)
    told = [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)] for row in table
    ]
    rates = {(row[0], row[1]): re.split(r"\s", row[4])[0] for row in told if row[0] in ("r1", "r2")}
    assert rates == {("r1", "f"): "25.0", ("r1", "m"): "75.0", ("r2", "f"): "75.0", ("r2", "m"): "25.0"}


async def test_a_page_without_labels_says_nothing_of_them(desk: Desk) -> None:
    await desk.decide("one", "r1", [("f", "yes")] * 20)
    assert "what came of them" not in render_page(desk.gathered())


async def test_a_page_that_opened_a_part_of_the_journal_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.decide("q-1", "r1", [("f", "yes")])
    await desk.label("q-1", "yes")
    monkeypatch.setattr(dossier, "fold_served", partial(fold_served, limit=1))
    gathered = desk.gathered()
    assert (gathered.served.chunks_known, gathered.served.left_out) == (2, 1)
    assert "1 older ones were not opened" in render_page(gathered)
