"""What a person reads of a verification, line by line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from governed_serving.archive.verify import printing
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.inspection import Inspection
from governed_serving.archive.verify.printing import inspection_json, print_content, print_inspection
from governed_serving.archive.verify.verification import Proof, Verification
from governed_serving.records import LedgerEntry, canonical

AT = "2026-01-01T00:00:00.000Z"
ENTRY = LedgerEntry("prediction", "default", "credit", "a", AT, frame=3, blob="ab" * 32)
PROOF = Proof(1234, 2000, ["00" * 32, "11" * 32], msgspec.Raw(canonical(ENTRY)))
WHOLE = Verification(
    "governedmodels.io/archive/default", 2000, "ab" * 32, "vkey", entries=2000, blobs=1500, earlier=[1000, 7],
    proofs=[PROOF], deleted=1001, unnamed=2, held=12,
)  # fmt: skip
KEPT_ELSEWHERE = "its own key (give --key-file VKEY to check against one kept elsewhere)"

LINES: dict[str, tuple[Verification, bool, list[str]]] = {
    "a whole log": (
        WHOLE, True,
        [
            f"log         governedmodels.io/archive/default, 2,000 entries, root {'ab' * 32}",
            "signature   holds, by the key that you gave",
            "tree        recomputed from all 2,000 entries: has the signed root",
            "blobs       1,500 named by entries: there and unchanged; 2 that no entry names: unchanged",
            "held        12 references, states and keysets: each is what its entries say",
            "deleted     1,001 payload blobs under retention, each with a receipt in this log",
            "earlier     the checkpoint over 1,000 entries is a prefix of this log",
            "earlier     the checkpoint over 7 entries is a prefix of this log",
            f"inclusion   id a is entry 1,234 (prediction, {AT}): proof of 2 hashes holds",
            f"            {canonical(ENTRY).decode()}",
        ],
    ),
    "a bundle": (
        Verification("o", 2000, "r", "vkey", entries=3, complete=False, held=5, differing=2), False,
        [
            "log         o, 2,000 entries, root r",
            f"signature   holds, by {KEPT_ELSEWHERE}",
            "proofs      each of the 3 entries in the bundle is in the signed tree",
            "blobs       0 named by entries: there and unchanged",
            "held        5 references, states and keysets: all but 2 are what their entries say",
        ],
    ),
    "a log over the network": (
        Verification("o", 1, "r", "vkey", entries=1), False,
        [
            "log         o, 1 entries, root r",
            f"signature   holds, by {KEPT_ELSEWHERE}",
            "tree        recomputed from all 1 entries: has the signed root",
            "blobs       0 named by entries: there and unchanged",
            "held        not looked at (they are checked over the folder)",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_what_holds_of_a_log_is_said_line_by_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    log, trusted, lines = LINES[name]
    print_inspection(Inspection(Findings(), log), trusted=trusted)
    said = capsys.readouterr()
    assert said.out.splitlines() == [*lines, "verified"]
    assert said.err == ""


def found(wrong: int = 0, unchecked: int = 0) -> Findings:
    findings = Findings()
    for number in range(wrong):
        findings.fault(f"place-{number}", "was changed")
    for number in range(unchecked):
        findings.skip(f"file-{number}", "isn't here")
    findings.note("whether it is old", "ask for a newer one")
    findings.hold("derived", "each is what the entries make")
    return findings


HOLDS, NOT = "derived     each is what the entries make", "not checked whether it is old: ask for a newer one"
INCOMPLETE = "incomplete: nothing is wrong, and what is listed as unchecked could not be checked"
OUTCOMES: dict[str, tuple[Findings, list[str], str]] = {
    "verified": (found(), [HOLDS, NOT, "verified"], ""),
    "incomplete": (found(0, 1), [HOLDS, "unchecked   file-0: isn't here", NOT, INCOMPLETE], ""),
    "not verified": (
        found(2, 1),
        [
            HOLDS,
            "unchecked   file-0: isn't here",
            "wrong       place-0: was changed",
            "wrong       place-1: was changed",
            NOT,
            "not verified",
        ],
        "verify: place-0: was changed\n",
    ),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_last_line_is_the_outcome_and_what_is_wrong_first_comes_on_stderr(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    findings, lines, error = OUTCOMES[name]
    print_inspection(Inspection(findings), trusted=False)
    said = capsys.readouterr()
    assert (said.out.splitlines(), said.err) == (lines, error)


@pytest.mark.parametrize(("count", "more"), [(100, []), (101, ["wrong       and 1 more: --json lists them"])])
def test_a_hundred_of_a_kind_are_said(count: int, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    print_inspection(Inspection(found(count)), trusted=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong")]
    assert lines[:100] == [f"wrong       place-{number}: was changed" for number in range(100)]
    assert lines[100:] == more


def test_programs_read_status_findings_and_log_in_one_object() -> None:
    told = msgspec.json.decode(inspection_json(Inspection(found(1, 1), WHOLE)))
    assert told["status"] == "tampered"
    assert told["wrong"] == [{"place": "place-0", "problem": "was changed"}]
    assert told["unchecked"] == [{"place": "file-0", "problem": "isn't here"}]
    assert (told["size"], told["proofs"][0]["index"]) == (2000, 1234)
    alone = msgspec.json.decode(inspection_json(Inspection(found())))
    assert sorted(alone) == ["beyond", "holds", "status", "unchecked", "wrong"]


def test_content_is_shown_of_entries_that_have_some(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened: list[Any] = []

    def content(source: Any, kek: Any, entry: LedgerEntry) -> dict[str, str]:
        opened.append((source, kek, entry.id))
        return {"id": entry.id, "said": "north\x1b[2J"}

    monkeypatch.setattr(printing, "opened_record", content)
    monkeypatch.setattr(printing, "load_kek", lambda path: f"key of {path.name}")
    bare = [msgspec.structs.replace(ENTRY, **change) for change in ({"blob": ""}, {"frame": None})]
    others = [Proof(n, 9, [], msgspec.Raw(canonical(one))) for n, one in enumerate(bare)]
    source: Any = SimpleNamespace()
    print_content(source, [*others, PROOF], tmp_path / "kek")
    assert opened == [(source, "key of kek", "a")]
    assert capsys.readouterr().out.splitlines() == [
        "content of entry 1234:", "{", ' "id": "a",', ' "said": "north\\u001b[2J"', "}",
    ]  # fmt: skip
