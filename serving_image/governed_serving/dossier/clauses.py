"""Clause → evidence: what regulators ask of a model service, as checks over a dossier.

A verdict says whether evidence is present and current, never more. ``pass``: all that the row asks for was found;
``fail``: found, and outside what the manifest allows, or it contradicts the ledger; ``no evidence``: a part is missing
(what is there is named).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from governed_api.evidence import DatasetManifest
from governed_serving.dossier.contests import contests
from governed_serving.dossier.dossier import Dossier

__all__ = ["Clause", "judge_clauses"]

Verdict = Literal["pass", "fail", "not applicable", "no evidence"]


@dataclass(frozen=True)
class Clause:
    """One row. ``present``: (what, ledger index or None); ``missing``: what nobody has recorded."""

    number: int
    source: str
    asks: str
    verdict: Verdict
    present: tuple[tuple[str, int | None], ...] = ()
    missing: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class _Case:
    """Collects findings for one clause."""

    def __init__(self, dossier: Dossier):
        self.dossier = dossier
        self.present: list[tuple[str, int | None]] = []
        self.missing: list[str] = []
        self.failed: list[str] = []

    def index(self, type: str) -> int | None:
        return self.dossier.ledger.index(type) if self.dossier.ledger else None

    def need(self, fact: object, what: str, index: int | None = None, otherwise: str = "") -> None:
        """Record ``what`` as present when ``found``, else as missing."""
        if fact:
            self.present.append((what, index))
        else:
            self.missing.append(otherwise or what)

    def data_set(self) -> None:
        data, index = self.dossier.data, self.index("dataset")
        self.need(data and data.digest, "data-set manifest with digest", index)

    def group_reports(self) -> None:
        d = self.dossier
        self.need(d.data_audit, "label audit per group", self.index("dataset"))
        self.need(d.evaluation.groups, "held-out rates per group", self.index("artefact"))
        self.live_verdict()

    def live_verdict(self) -> None:
        auditor = self.dossier.auditor
        verdict = auditor.verdict if auditor else None
        index = self.index("verdict")
        if auditor and verdict == "Fail":
            self.failed.append(f"live bias verdict is Fail: {auditor.summary}")
        self.need(
            verdict in ("Pass", "Fail"),
            f"live bias verdict {verdict}",
            index,
            f"live bias verdict (now {verdict or 'none'})",
        )

    def explanations(self) -> None:
        ledger = self.dossier.ledger
        count = ledger.counts.get("explanation", 0) if ledger else 0
        index = ledger.explained[0] if ledger and ledger.explained else None
        self.need(count, f"{count:,} explanations by request id", index, "explanation by request id")

    def verified_ledger(self) -> None:
        ledger = self.dossier.ledger
        if ledger and ledger.error:
            self.failed.append(f"the ledger does not verify: {ledger.error}")
        verification = ledger.verification if ledger else None
        self.need(
            verification,
            f"ledger of {verification.size:,} entries verified" if verification else "",
            None,
            "verified ledger",
        )

    def keys(self) -> None:
        self.need(
            self.dossier.keys,
            f"inventory of {len(self.dossier.keys)} keys, wrapped",
            self.index("key"),
            "key inventory",
        )

    def masking(self) -> None:
        served = self.dossier.served
        masked = sum(n for by_entity in served.masked.values() for n in by_entity.values()) if served else 0
        self.need(self.scanned, "scan of the data for personal data", self.index("dataset"))
        if served and masked:
            self.present.append((f"{masked:,} placeholders of masked data in what was served", None))

    def acknowledged_alarm(self) -> int | None:
        """Index of the newest entry in which a person took over an alarm: a contest is none."""
        found = self.dossier.ledger.entries.get("acknowledgement", []) if self.dossier.ledger else []
        return next((i for i, entry in reversed(found) if entry.summary.get("kind") != "review"), None)

    def human_review(self) -> None:
        """A person decided what was contested, in time."""
        found = contests(self.dossier.ledger, self.dossier.made)
        decided = [one for one in found if one.decided is not None]
        newest = decided[-1].decided if decided else None
        said = f"{len(decided):,} of {len(found):,} contested decisions decided by a person"
        self.need(decided, said, newest[0] if newest else None, "a contested decision that a person decided")
        overdue = sum(one.late for one in found if one.decided is None)
        if overdue:
            self.missing.append(f"decision of {overdue:,} contests that are past their deadline")

    @property
    def scanned(self) -> bool:
        """The data were scanned for personal data."""
        return self.dossier.data is not None and self.dossier.data.personal_data is not None

    def verdict(self) -> Verdict:
        if self.failed:
            return "fail"
        return "no evidence" if self.missing or not self.present else "pass"


def _bias_stages(case: _Case) -> None:
    case.group_reports()


def _lawful_data(case: _Case) -> None:
    data = case.dossier.data or DatasetManifest()
    case.data_set()
    case.need(data.licence, f"licence: {data.licence}", case.index("dataset"), "licence of the data")
    case.need(data.consent_basis, f"basis: {data.consent_basis}", case.index("dataset"), "consent basis")
    case.need(case.scanned, "scan for personal data", case.index("dataset"))


def _inputs_protected(case: _Case) -> None:
    case.masking()
    case.keys()


def _stop_and_report(case: _Case) -> None:
    index = case.acknowledged_alarm()
    case.need(index is not None, "acknowledged block event", index)
    case.missing.append("report record to the authority")


def _complaints(case: _Case) -> None:
    case.missing.append("published limits and ticket ages")


def _filing(case: _Case) -> None:
    case.missing.append("filing number")


def _explain_on_inspection(case: _Case) -> None:
    case.data_set()
    case.need(case.dossier.card.lineage, "algorithm and lineage of the artefact", case.index("artefact"))
    case.explanations()
    case.verified_ledger()


def _automated_decisions(case: _Case) -> None:
    case.live_verdict()
    case.explanations()
    case.human_review()


def _pipl_security(case: _Case) -> None:
    case.keys()
    case.verified_ledger()
    case.missing.append("hash of the impact assessment")


def _eu_risk(case: _Case) -> None:
    case.data_set()
    case.need(case.dossier.data_audit, "examination of the data for bias", case.index("dataset"))
    case.missing.append("hash of the risk register")


def _eu_logs(case: _Case) -> None:
    case.verified_ledger()
    ledger = case.dossier.ledger
    case.need(
        ledger and ledger.first,
        f"entries since {ledger.first if ledger else ''}, none ever deleted",
        None,
        "log of events",
    )


def _eu_documentation(case: _Case) -> None:
    d = case.dossier
    case.need(d.documents.model, "documentation generated from the artefact (this page)", case.index("artefact"))
    case.need(d.metrics, "accuracy on held-out rows", case.index("training"))
    case.missing += ["override events", "robustness tests"]


def _eu_monitoring(case: _Case) -> None:
    case.live_verdict()
    case.explanations()
    case.missing.append("incident clock")


def _nyc(case: _Case) -> None:
    auditor = case.dossier.auditor
    ratios = [m for m in auditor.metrics if m.name == "disparateImpactRatio"] if auditor else []
    case.need(
        ratios or case.dossier.data_audit, "impact ratios per group", case.index("verdict") or case.index("dataset")
    )
    when = auditor.observed_at if auditor else ""
    age = _age_days(when, case.dossier.made)
    case.need(
        age is not None and age <= 365,
        f"audit of {when[:10]}, {age:.0f} days old" if age is not None else "",
        None,
        "audit within a year",
    )


def _nist(case: _Case) -> None:
    case.keys()
    case.explanations()
    case.masking()
    case.group_reports()


def _age_days(when: str, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(when)).total_seconds() / 86400
    except (ValueError, TypeError):
        return None


_GENERATIVE = "asks this of generative models; this one classifies or estimates"
_Check = Callable[[_Case], None] | None
_ROWS: tuple[tuple[str, str, _Check], ...] = (
    (
        "CN Interim Measures GenAI, Art. 4(2)",
        "no discrimination in design, data, training, service: bias report at each stage",
        _bias_stages,
    ),
    ("CN Interim Measures GenAI, Art. 7", "lawful data, consent, quality: data-set manifest", _lawful_data),
    (
        "CN Interim Measures GenAI, Art. 11",
        "protect inputs, no unlawful retention: masking, keys, destruction receipts",
        _inputs_protected,
    ),
    ("CN Interim Measures GenAI, Art. 12; Labelling Measures 4, 5; GB 45438", "label generated output", None),
    ("CN Interim Measures GenAI, Art. 14", "stop, rectify, report", _stop_and_report),
    ("CN Interim Measures GenAI, Art. 15", "complaints", _complaints),
    ("CN Interim Measures GenAI, Art. 17", "assessment and filing", _filing),
    ("CN Interim Measures GenAI, Art. 19", "explain data and algorithm on inspection", _explain_on_inspection),
    ("TC260-003, corpus", "manual ≥ 4,000 at ≥ 96 %, automatic ≥ 10 % at ≥ 98 %", None),
    ("TC260-003, keywords", "≥ 10,000, weekly", None),
    ("TC260-003, test bank", "≥ 2,000 over 31 risks, monthly", None),
    ("TC260-003, refusal", "≥ 95 % of ≥ 300; non-refusal ≤ 5 %", None),
    ("PIPL, Art. 24", "fairness, explanation, human review of automated decisions", _automated_decisions),
    ("PIPL, Art. 51, 54, 55", "encryption, audit, impact assessment", _pipl_security),
    ("EU AI Act, Art. 9, 10", "risk management, examination for bias", _eu_risk),
    ("EU AI Act, Art. 12, 19, 26(6)", "logs, kept at least six months", _eu_logs),
    ("EU AI Act, Art. 11, 13, 14, 15, Annex IV", "documentation, oversight, accuracy, robustness", _eu_documentation),
    ("EU AI Act, Art. 72, 73, 86", "monitoring, incidents, explanation of decisions", _eu_monitoring),
    ("NYC Local Law 144", "bias audit within a year: impact ratios", _nyc),
    ("NIST AI RMF, MEASURE 2.7, 2.9–2.11", "security, explanation, privacy, fairness", _nist),
)


def judge_clauses(dossier: Dossier) -> list[Clause]:
    """All rows of the clause table, judged over ``dossier``."""
    return [_judge(number, *row, dossier) for number, row in enumerate(_ROWS, 1)]


def _judge(number: int, source: str, asks: str, check: _Check, dossier: Dossier) -> Clause:
    if check is None:
        return Clause(number, source, asks, "not applicable", missing=(_GENERATIVE,))
    case = _Case(dossier)
    check(case)
    return Clause(number, source, asks, case.verdict(), tuple(case.present), tuple(case.missing), tuple(case.failed))
