"""Law packs: every row can pass, and falls when any one thing that it asks for is taken away."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from governed_api.governance import Governance
from governed_api.model import GovernedModelSpec
from governed_serving.archive.verify.verification import Verification
from governed_serving.crypto.document import KeyInfo
from governed_serving.dossier.documents import Documents, Report, read_documents, read_report
from governed_serving.dossier.dossier import Dossier, LedgerView, _note
from governed_serving.dossier.laws.facts import Facts
from governed_serving.dossier.laws.judging import Clause, judge_clauses
from governed_serving.dossier.laws.pack import Pack, PackError, Row, packs, read_pack
from governed_serving.dossier.laws.predicates import Item, finding
from governed_serving.dossier.marked_answers import MarkedAnswers
from governed_serving.dossier.page import render_page
from governed_serving.dossier.served import Served
from governed_serving.records import LedgerEntry

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TODAY = "2026-11-20"
PACKS = packs()
ROWS = [(pack, row) for pack in PACKS for row in pack.rows]
ITEMS = [(pack, row, n) for pack, row in ROWS for n in range(len(row.evidence))]


def ids(of: Any) -> str | None:
    if isinstance(of, Pack | Row):
        return of.id
    return of.predicate if hasattr(of, "predicate") else None


def items(predicate: str) -> list[Item]:
    return [item for _, row in ROWS for item in row.evidence if item.predicate == predicate]


def supervision() -> dict[str, Any]:
    """All that the packs ask a person for, sampled well."""
    documents = sorted({item.document for item in items("supplied")})  # type: ignore[union-attr]
    assessments = sorted({item.assessment for item in items("assessed")})  # type: ignore[union-attr]
    return {
        "documents": [
            {"name": name, "reference": f"{name} 7", "owner": "legal", "issued": "2026-11-01"} for name in documents
        ],
        "assessments": [
            {
                "name": name,
                "sampled": 5000,
                "met": 4990,
                "held": 5000,
                "risks": 31,
                "performed": "2026-11-01",
                "owner": "legal",
            }
            for name in assessments
        ],
    }


def manifest(*, generates: bool, **changes: Any) -> GovernedModelSpec:
    governance = {
        "privacy": {"masking": {}, "retention": {"payloads": "400d"}, "subject": "customer"},
        "supervision": supervision(),
        **({"labelling": {"producer": "p"}} if generates else {}),
        **changes,
    }
    runtime = {"runtime": {"image": "llm", "protocol": "openai"}} if generates else {}
    return GovernedModelSpec.model_validate({"predictor": {"model": runtime}, "governance": governance})


def entry(type: str, **summary: Any) -> LedgerEntry:
    return LedgerEntry(type, "default", "m", "x", "2026-11-19T00:00:00.000Z", summary=summary)


def ledger() -> LedgerView:
    return LedgerView(
        verification=Verification("o", 90, "r" * 64, "v"),
        counts={"explanation": 3},
        first="2026-01-01T00:00:00.000Z",
        last="2026-11-19T00:00:00.000Z",
        entries={"dataset": [(0, entry("dataset"))], "artefact": [(1, entry("artefact"))],
                 "verdict": [(2, entry("verdict", verdict="Pass"))], "key": [(3, entry("key"))]},
        explained=(4, entry("explanation")),
    )  # fmt: skip


def verdict(**changes: Any) -> dict[str, Any]:
    outcome = {"label": "yes"}
    ratios = {name: {"impactRatios": {"a": 1.0, "b": 0.9}} for name in ("sex", "race")}
    crossed = {"groups": [{"group": "sex=a, race=a", "rows": 99, "favorable": 50, "impactRatio": 0.9}]}
    told = {"verdict": "Pass", "observedAt": "2026-11-19T00:00:00Z", "favorableOutcome": outcome}
    return told | {"attributes": ratios, "intersections": crossed, "missing": {"race": 7}} | changes


def documents() -> Documents:
    table = {"sex": {"groups": [{"group": "f", "rows": 9, "favorable": 3}]}}
    data = {"digest": "sha256:a", "licence": "CC0", "consentBasis": "contract", "personalData": {}}
    return read_documents(
        {
            "model.json": {"task": "classification", "lineage": {"dataset": "sha256:a"}},
            "training.json": {"dataset": data},
            "evaluation.json": {"data": table, "groups": table, "metrics": {"accuracy": 0.9}},
        },
        [],
    )


def whole(*, generates: bool = False) -> Dossier:
    """A dossier in which nothing is missing."""
    notes: list[str] = []
    told = verdict(favorableOutcome={"pattern": "yes"}, revision="r1") if generates else verdict()
    made = Dossier(
        "m",
        NOW,
        report=read_report({"auditor": told}, notes),
        ledger=ledger(),
        documents=Documents() if generates else documents(),
        keys=[KeyInfo("journal", 1, "AES256_GCM", "primary", "2026-01-01T00:00:00Z", "k")],
        manifest=manifest(generates=generates),
        served=Served(marked={"r1": MarkedAnswers(complete=9, worded=8, exempt=1, described=9)}) if generates else None,
    )
    assert notes == []
    return made


def of_kind(row: Row) -> Dossier:
    return whole(generates=row.applies_to == ["generation"])


def judged(pack: Pack, row: Row, dossier: Dossier) -> Clause:
    (clause,) = judge_clauses(dossier, [pack.model_copy(update={"rows": [row]})])
    return clause


def governed(dossier: Dossier, path: str, value: Any) -> Dossier:
    """With one part of governance replaced."""
    assert dossier.manifest is not None
    plain = dossier.manifest.governance.model_dump(by_alias=True, exclude_none=True)
    *above, last = path.split(".")
    place = plain
    for step in above:
        place = place[step]
    place[last] = value
    found = Governance.model_validate(plain)
    return replace(dossier, manifest=dossier.manifest.model_copy(update={"governance": found}))


def viewed(dossier: Dossier, **changes: Any) -> Dossier:
    assert dossier.ledger is not None
    return replace(dossier, ledger=replace(dossier.ledger, **changes))


def reported(dossier: Dossier, **changes: Any) -> Dossier:
    outcome = {"favorableOutcome": {"pattern": "yes"}} if dossier.generates else {}
    return replace(dossier, report=read_report({"auditor": verdict(**{**outcome, **changes})}, []))


def undocumented(dossier: Dossier, name: str, field: str) -> Dossier:
    """Without one fact of a document."""
    document = getattr(dossier.documents, name)
    assert document is not None
    default = type(document).model_fields[field].get_default(call_default_factory=True)
    return replace(
        dossier, documents=replace(dossier.documents, **{name: document.model_copy(update={field: default})})
    )


def without_data_fact(dossier: Dossier, fact: str) -> Dossier:
    if fact == "audit":
        return undocumented(dossier, "evaluation", "data")
    training = dossier.documents.training
    assert training is not None
    assert training.dataset is not None
    field = {"digest": "digest", "licence": "licence", "consentBasis": "consent_basis", "scan": "personal_data"}[fact]
    told = training.dataset.model_copy(update={field: None if fact != "digest" else ""})
    changed = training.model_copy(update={"dataset": told})
    return replace(dossier, documents=replace(dossier.documents, training=changed))


def overdue(dossier: Dossier) -> Dossier:
    contest = entry("acknowledgement", kind="review", deadline="2026-11-01T00:00:00+00:00")
    return viewed(dossier, entries={**ledger().entries, "acknowledgement": [(5, contest)]})


def unsupplied(dossier: Dossier, kind: str, name: str) -> Dossier:
    kept = [one for one in supervision()[kind] if one["name"] != name]
    return governed(dossier, f"supervision.{kind}", kept)


TAKEN_AWAY: dict[str, Callable[[Dossier, Any], Dossier]] = {
    "ledgerVerified": lambda d, _: viewed(d, verification=None),
    "logsReachBack": lambda d, _: viewed(d, first="2026-11-19T00:00:00.000Z"),
    "payloadsKept": lambda d, _: governed(d, "privacy.retention.payloads", "24h"),
    "payloadsDeleted": lambda d, _: governed(d, "privacy.retention", {}),
    "dataSet": lambda d, item: without_data_fact(d, item.fact),
    "heldOut": lambda d, item: undocumented(d, "evaluation", item.fact),
    "documentation": lambda d, _: undocumented(d, "model", "lineage"),
    "biasVerdict": lambda d, _: reported(d, verdict="Unknown"),
    "impactRatios": lambda d, _: reported(d, attributes={}),
    "explanations": lambda d, _: viewed(d, counts={}),
    "masking": lambda d, _: governed(d, "privacy", {"retention": {"payloads": "400d"}, "subject": "customer"}),
    "labelledAnswers": lambda d, _: replace(d, served=Served(marked={"r1": MarkedAnswers(complete=1)})),
    "keys": lambda d, _: replace(d, keys=[]),
    "subjectKeys": lambda d, _: governed(d, "privacy.subject", None),
    "humanReview": lambda d, _: overdue(d),
    "alarmsHandled": lambda d, _: reported(d, alarm={"active": True}),
    "supplied": lambda d, item: unsupplied(d, "documents", item.document),
    "assessed": lambda d, item: unsupplied(d, "assessments", item.assessment),
}
"""Predicate → the dossier without what the item asks for, all else unchanged."""


def test_every_predicate_of_the_packs_can_be_taken_away() -> None:
    assert {item.predicate for _, row in ROWS for item in row.evidence} == set(TAKEN_AWAY)


@pytest.mark.parametrize(("pack", "row"), ROWS, ids=ids)
def test_a_row_passes_where_all_that_it_asks_for_is_there(pack: Pack, row: Row) -> None:
    found = judged(pack, row, of_kind(row))
    assert [f for f in found.findings if f.state != "present"] == []
    assert found.verdict == "pass"


@pytest.mark.parametrize(("pack", "row", "n"), ITEMS, ids=ids)
def test_a_row_falls_with_each_thing_that_it_asks_for(pack: Pack, row: Row, n: int) -> None:
    item = row.evidence[n]
    found = judged(pack, row, TAKEN_AWAY[item.predicate](of_kind(row), item))
    assert found.findings[n].state != "present"
    assert found.verdict in ("no evidence", "fail")


@pytest.mark.parametrize(("pack", "row"), ROWS, ids=ids)
def test_nothing_passes_on_an_empty_dossier_or_on_a_manifest_alone(pack: Pack, row: Row) -> None:
    assert judged(pack, row, Dossier("m", NOW)).verdict == "no evidence"
    bare = Dossier("m", NOW, manifest=GovernedModelSpec())
    assert judged(pack, row, bare).verdict in ("no evidence", "not applicable")


@pytest.mark.parametrize(("pack", "row"), ROWS, ids=ids)
def test_a_row_of_the_ledger_fails_with_a_ledger_that_does_not_verify(pack: Pack, row: Row) -> None:
    rests = any(item.of_ledger for item in row.evidence)
    found = judged(pack, row, viewed(of_kind(row), error="leaf 3 differs"))
    assert found.verdict == ("fail" if rests else "pass")


@pytest.mark.parametrize(("pack", "row"), ROWS, ids=ids)
def test_a_row_is_asked_of_the_models_that_it_is_about(pack: Pack, row: Row) -> None:
    for generates in (False, True):
        kind = "generation" if generates else "decisions"
        found = judged(pack, row, whole(generates=generates))
        assert (found.verdict == "not applicable") == (bool(row.applies_to) and kind not in row.applies_to), found.why


def test_a_generative_runtime_is_asked_what_generative_models_are_asked() -> None:
    """By its manifest alone, and by the pattern of its verdict alone."""
    asked = [pack.id for pack, row in ROWS if row.applies_to == ["generation"]]
    assert len(asked) > 12
    for dossier in (
        Dossier("m", NOW, manifest=manifest(generates=True)),
        Dossier("m", NOW, report=read_report({"auditor": verdict(favorableOutcome={"pattern": "x"})}, [])),
    ):
        found = judge_clauses(dossier)
        assert sum(c.verdict != "not applicable" for c in found) >= len(asked)
        assert next(c for c in found if c.id == "cn-gbt-45654/refusal").verdict != "not applicable"
        assert next(c for c in found if c.id == "us-nyc-ll144/bias-audit").verdict == "not applicable"


def assessed(met: int, sampled: int = 300, **changes: Any) -> Any:
    (item,) = [i for i in items("assessed") if i.assessment == "refusal"]  # type: ignore[union-attr]
    one = {"name": "refusal", "sampled": sampled, "met": met, "held": 500, "performed": "2026-11-01", "owner": "o"}
    return finding(item, Facts(governed(whole(), "supervision.assessments", [one | changes])))


@pytest.mark.parametrize(
    ("met", "state"), [(284, "contradicted"), (285, "missing"), (291, "missing"), (292, "present"), (300, "present")]
)
def test_a_share_is_shown_by_its_one_sided_bound(met: int, state: str) -> None:
    """285 of 300 are 95 % and don't show it: 292 do (Clopper & Pearson 1934)."""
    assert assessed(met).state == state


def test_an_assessment_must_be_large_enough_recent_and_of_the_past() -> None:
    assert assessed(299, 299).state == "missing"
    assert "sampled is 299, 300 are asked for" in assessed(299, 299).what
    assert assessed(300, held=499).state == "missing"
    assert assessed(300, held=None).what.endswith("held is not said, 500 are asked for")
    assert assessed(300, performed="2026-10-01").state == "outdated"
    assert assessed(300, performed="2026-11-21").state == "present", "it is the 21st in Auckland"
    assert assessed(300, performed="2026-11-22").state == "contradicted"
    assert assessed(300, performed=TODAY).state == "present"


def supplied(**changes: Any) -> Any:
    (item,) = [i for i in items("supplied") if i.document == "securityAssessment"]  # type: ignore[union-attr]
    one = {"name": "securityAssessment", "reference": "S-7", "owner": "legal", "issued": "2026-11-01"}
    return finding(item, Facts(governed(whole(), "supervision.documents", [one | changes])))


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "present"),
        ({"expires": "2026-11-21"}, "present"),
        ({"expires": TODAY}, "outdated"),
        ({"issued": TODAY}, "present"),
        ({"issued": "2026-11-21"}, "present"),
        ({"issued": "2026-11-22"}, "contradicted"),
        ({"issued": "2025-11-01"}, "outdated"),
        ({"name": "someOther"}, "missing"),
        ({"reference": None, "digest": "sha256:" + "a" * 64}, "present"),
    ],
)
def test_a_document_counts_from_its_day_until_it_expires(changes: dict[str, Any], state: str) -> None:
    assert supplied(**changes).state == state


def state_of(predicate: str, dossier: Dossier) -> str:
    return finding(items(predicate)[0], Facts(dossier)).state


@pytest.mark.parametrize(
    ("counts", "states", "words"),
    [
        ({"complete": 3, "worded": 3, "described": 3}, ("present", "present"), "3 of 3 answers of revision r1"),
        ({"complete": 3, "worded": 2, "described": 3}, ("contradicted", "present"), "2 of 3 answers"),
        ({"complete": 3, "worded": 3, "described": 2}, ("present", "contradicted"), "3 of 3 answers"),
        ({"complete": 3, "worded": 1, "exempt": 2, "described": 3}, ("present", "present"), "2 exempt (code, JSON"),
        ({"complete": 1, "worded": 1, "described": 1, "cut": 4}, ("present", "present"), "4 streams cut"),
        ({"cut": 4}, ("missing", "missing"), "answers of revision r1 with explicit label"),
    ],
)
def test_every_answer_has_to_be_labelled(counts: dict[str, int], states: tuple[str, str], words: str) -> None:
    dossier = replace(whole(generates=True), served=Served(marked={"r1": MarkedAnswers(**counts)}))
    found = {item.form: finding(item, Facts(dossier)) for item in items("labelledAnswers")}  # type: ignore[union-attr]
    assert (found["explicit"].state, found["implicit"].state) == states
    assert words in found["explicit"].what


def test_labels_are_shown_by_configuration_and_records_of_the_revision_that_serves() -> None:
    dossier = whole(generates=True)
    assert state_of("labelledAnswers", governed(dossier, "labelling", None)) == "missing"
    off = {"explicit": "Off", "producer": "p"}
    item = next(i for i in items("labelledAnswers") if i.form == "explicit")  # type: ignore[union-attr]
    assert finding(item, Facts(governed(dossier, "labelling", off))).state == "missing"
    assert state_of("labelledAnswers", replace(dossier, served=None)) == "missing"
    of_another = Served(marked={"r0": MarkedAnswers(complete=9, worded=9, described=9)})
    assert state_of("labelledAnswers", replace(dossier, served=of_another)) == "missing"


def test_what_is_no_evidence_is_none() -> None:
    """Proxies that an earlier table took for evidence."""
    labels_alone = reported(whole(), attributes={}, intersections={})
    assert labels_alone.data_audit, "training labels are there"
    assert state_of("impactRatios", labels_alone) == "missing"
    assert state_of("impactRatios", reported(whole(), intersections={})) == "missing"
    one = {"sex": {"impactRatios": {"a": 1.0, "b": 0.9}}}
    assert state_of("impactRatios", reported(whole(), attributes=one)) == "missing"
    assert state_of("biasVerdict", reported(whole(), observedAt="2026-09-01T00:00:00Z")) == "outdated"
    assert state_of("biasVerdict", reported(whole(), observedAt="")) == "outdated"
    assert state_of("biasVerdict", viewed(whole(), entries={})) == "missing"
    assert state_of("biasVerdict", reported(whole(), verdict="Fail")) == "contradicted"
    assert state_of("masking", governed(whole(), "privacy.masking", {"failurePolicy": "Open"})) == "contradicted"
    assert state_of("payloadsKept", governed(whole(), "privacy.retention.payloads", "182d")) == "contradicted"
    assert state_of("payloadsKept", governed(whole(), "privacy.retention.payloads", "183d")) == "present"
    assert state_of("payloadsKept", governed(whole(), "privacy.retention", {})) == "present"
    assert state_of("logsReachBack", viewed(whole(), first="2026-05-22T00:00:00.000Z")) == "missing"
    assert state_of("logsReachBack", viewed(whole(), first="2026-05-20T00:00:00.000Z")) == "present"
    assert state_of("logsReachBack", viewed(whole(), first="2027-01-01T00:00:00.000Z")) == "missing"
    assert state_of("logsReachBack", viewed(whole(), first="yesterday")) == "missing"
    contest = entry("acknowledgement", kind="review", deadline="2026-12-01T00:00:00+00:00")
    contested = viewed(whole(), entries={"acknowledgement": [(5, contest)]})
    assert finding(items("alarmsHandled")[0], Facts(contested)).what == "no alarm awaits acknowledgement"
    assert state_of("humanReview", contested) == "present"
    assert state_of("humanReview", replace(whole(), report=Report())) == "missing"


def found_of(predicate: str, dossier: Dossier) -> Any:
    return finding(items(predicate)[0], Facts(dossier))


def test_explanations_are_of_the_revision_that_serves_and_not_long_ago() -> None:
    assert state_of("explanations", viewed(whole(), explained=(4, old("explanation")))) == "outdated"
    serving = reported(whole(), revision="r2")
    other = {"r1": (4, entry("explanation"))}
    assert "none of revision r2, which serves" in found_of("explanations", viewed(serving, explained_of=other)).what
    assert state_of("explanations", viewed(serving, explained_of={"r2": (7, entry("explanation"))})) == "present"
    answered = (8, msgspec.structs.replace(entry("prediction"), revision="r3"))
    silent = replace(viewed(whole(), predicted=answered, explained_of=other), report=Report())
    assert "none of revision r3" in found_of("explanations", silent).what


def old(type: str, time: str = "2024-11-19T00:00:00.000Z", **summary: Any) -> LedgerEntry:
    return msgspec.structs.replace(entry(type, **summary), time=time)


def test_what_is_to_come_is_not_recent() -> None:
    assert state_of("biasVerdict", reported(whole(), observedAt="2999-01-01T00:00:00Z")) == "outdated"
    assert state_of("biasVerdict", reported(whole(), observedAt="2026-11-20T12:05:00Z")) == "present", "clocks differ"


def test_impact_ratios_are_of_the_last_year_and_in_the_ledger() -> None:
    assert state_of("impactRatios", reported(whole(), observedAt="2025-11-19T00:00:00Z")) == "outdated"
    assert state_of("impactRatios", viewed(whole(), entries={})) == "missing"


def test_masking_of_answers_alone_leaves_requests_and_what_is_left_out_is_told() -> None:
    assert state_of("masking", governed(whole(), "privacy.masking", {"direction": "Response"})) == "missing"
    some = found_of("masking", governed(whole(), "privacy.masking", {"fields": ["note"]}))
    assert some.what.startswith("masking of personal data configured, of the fields note alone")


def test_keys_that_were_destroyed_protect_nothing() -> None:
    gone = [msgspec.structs.replace(key, status="destroyed") for key in whole().keys]
    assert found_of("keys", replace(whole(), keys=gone)).what == "key inventory (1 keys, all destroyed)"
    assert found_of("keys", replace(whole(), keys=[*gone, *whole().keys])).what == "inventory of 1 keys, wrapped"


def contested(deadline: str, decided: str, **told: Any) -> Dossier:
    opened = entry("acknowledgement", kind="review", deadline=deadline)
    review = old("review", decided, contests=[5], outcome="Upheld", **told)
    return viewed(whole(), entries={"acknowledgement": [(5, opened)], "review": [(6, review)]})


def test_a_contest_that_was_decided_late_was_not_decided_in_time() -> None:
    """By the ledger's own times, too, whatever the decision says of itself."""
    assert state_of("humanReview", contested("2026-11-10T00:00:00+00:00", "2026-11-09T00:00:00.000Z")) == "present"
    late = contested("2026-11-10T00:00:00+00:00", "2026-11-11T00:00:00.000Z", late=False)
    assert "1 contested decisions were decided after their deadline" in found_of("humanReview", late).what
    assert found_of("humanReview", late).state == "contradicted"
    long_ago = contested("2024-11-10T00:00:00+00:00", "2024-11-11T00:00:00.000Z", late=True)
    assert found_of("humanReview", long_ago).state == "present"
    assert found_of("humanReview", long_ago).what.endswith("1 after their deadline, long ago")


def test_a_contest_that_nobody_decided_is_not_forgotten_for_newer_ones() -> None:
    view, waiting = LedgerView(), entry("acknowledgement", kind="review", deadline="2026-11-01T00:00:00+00:00")
    _note(view, 0, waiting)
    for index in range(1, 20_000):
        _note(view, index, entry("acknowledgement"))
    assert state_of("humanReview", replace(whole(), ledger=view)) == "contradicted"
    _note(view, 20_000, entry("acknowledgement"))
    assert "1 are older" in found_of("humanReview", replace(whole(), ledger=view)).what
    assert state_of("humanReview", replace(whole(), ledger=view)) == "missing"


def test_the_newest_explanation_of_each_revision_is_known() -> None:
    view = LedgerView()
    for index in range(700):
        _note(view, index, msgspec.structs.replace(entry("explanation"), revision=f"r{index % 600}"))
    assert len(view.explained_of) == 500
    assert view.explained_of["r99"][0] == 699


def test_an_alarm_is_acknowledged_in_the_ledger_and_its_watch_goes_on() -> None:
    alarm = {"active": True, "acknowledgedBy": "board"}
    assert state_of("alarmsHandled", reported(whole(), alarm=alarm)) == "missing", "only the report says so"
    taken = {"acknowledgement": [(9, msgspec.structs.replace(entry("acknowledgement"), revision="r1"))]}
    assert state_of("alarmsHandled", viewed(reported(whole(), alarm=alarm, revision="r2"), entries=taken)) == "missing"
    assert state_of("alarmsHandled", viewed(reported(whole(), alarm=alarm, revision="r1"), entries=taken)) == "present"
    assert state_of("alarmsHandled", reported(whole(), observedAt="2026-09-01T00:00:00Z")) == "outdated"


def test_an_alarm_that_a_person_took_over_is_handled() -> None:
    taken = {"acknowledgement": [(9, entry("acknowledgement"))]}
    found = viewed(reported(whole(), alarm={"active": True, "acknowledgedBy": "board"}), entries=taken)
    seen = finding(items("alarmsHandled")[0], Facts(found))
    assert (seen.state, seen.index) == ("present", 9)


def test_the_page_says_since_when_a_row_applies_and_whether_its_date_was_checked() -> None:
    page = render_page(whole())
    assert "from 2027-12-02 (date not checked against the official text)" in page
    assert "since 2018-05-25<" in page
    assert "no presumption of conformity" in page
    assert "7 without race" in page
    assert "compliant" not in page.lower()


OWN = """
id: house-rules
title: House rules
text: second edition
jurisdiction: here
appliesFrom: {day: 2026-01-01, verified: true}
rows:
  - {id: board, clause: "1", asks: a decision of the board, evidence: [
      {predicate: supplied, document: boardDecision, asks: decision of the board}]}
"""


def test_a_user_adds_and_replaces_packs(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    found = packs(tmp_path)
    assert {p.id for p in found} - {p.id for p in PACKS} == {"house-rules"}
    (tmp_path / "own.yaml").write_text(OWN.replace("house-rules", "eu-ai-act"))
    assert len(packs(tmp_path)) == len(PACKS)
    page = render_page(whole(), packs(tmp_path))
    assert "House rules, 1" in page
    assert "EU AI Act" not in page


def test_a_law_that_is_repealed_is_not_applicable() -> None:
    for day, verdict_ in (("2026-11-20", "not applicable"), ("2026-11-21", "no evidence")):
        pack = read_pack(f"{OWN}\nappliesToDay: {{day: {day}, verified: true}}\n", "p")
        assert judge_clauses(whole(), [pack])[0].verdict == verdict_


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml: the pack: Input should be a valid dictionary"),
        ("id: [", "p.yaml: while parsing a flow node"),
        (OWN.replace("predicate: supplied", "predicate: trustMe"), "trustMe"),
        (OWN.replace("document: boardDecision, ", ""), "document: Field required"),
        (OWN.replace("day: 2026-01-01", "day: 2026-02-30"), "appliesFrom.day: String should match pattern"),
        (OWN.replace("asks: a decision", "other: 1, asks: a decision"), "other: Extra inputs are not permitted"),
        (OWN + "  - {id: board, clause: x, asks: z, evidence: [{predicate: keys}]}", "the id board is given twice"),
        (OWN + "  - {id: b, clause: x, asks: z, evidence: []}", "evidence: List should have at least 1 item"),
        ("&a [*a]", "p.yaml"),
        ("[" * 3000, "p.yaml"),
        (OWN.replace("title: House", "title: Garden rules\ntitle: House"), 'key "title" is given twice'),
        (
            OWN
            + "\nnote: &a [x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)).replace("*a0", "*a"),
            "values once aliases are written out",
        ),
        (
            OWN
            + "m0: &m0 {a: 1}\n"
            + "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)),
            "values once aliases are written out",
        ),
        ("!!python/object:os.system {}", "p.yaml: could not determine a constructor"),
    ],
)
def test_a_pack_that_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(PackError) as caught:
        read_pack(text, "p.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_packs_and_a_pack_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no law pack"):
        packs(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    with pytest.raises(PackError, match="not UTF-8"):
        packs(tmp_path)
    (tmp_path / "a.yaml").write_text("#" * ((1 << 20) + 1))
    with pytest.raises(PackError, match="larger than 1 MiB"):
        packs(tmp_path)
    (tmp_path / "a.yaml").unlink()
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(PackError, match=r"a\.yaml: expected a file"):
        packs(tmp_path)
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "a.yaml").symlink_to("/dev/zero")
    with pytest.raises(PackError, match=r"a\.yaml: expected a file"):
        packs(tmp_path)
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "own").write_text(OWN)
    (tmp_path / "a.yaml").symlink_to(tmp_path / "own")
    assert "house-rules" in {p.id for p in packs(tmp_path)}, "as a mounted ConfigMap has them"


def test_ids_are_unique_and_texts_are_whole() -> None:
    names = [f"{pack.id}/{row.id}" for pack, row in ROWS]
    assert len(set(names)) == len(names) > 50
    shipped = Path(judge_clauses.__code__.co_filename).parent / "packs"
    for file in shipped.glob("*.yaml"):
        assert yaml.safe_load(file.read_text())["id"] == file.stem
