"""What counts as evidence: each predicate is one kind of item that a row of a law pack may ask for.

Evidence is what the ledger, the report or the artefact holds, what the manifest configures, or what a person supplied
in ``governance.supervision``. No predicate is a constant, and none is true of an empty dossier. What a ledger says that
does not verify is contradicted.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from governed_api.base import Part
from governed_api.quantities import seconds
from governed_serving.dossier.contests import contests
from governed_serving.dossier.laws.facts import Facts, ItemResult
from governed_serving.fairness.inference.intervals import clopper_pearson

__all__ = ["Item", "finding"]

Days = Annotated[int, Field(ge=1, le=36_525)]
Share = Annotated[float, Field(gt=0, lt=1)]
DAY = 86400


class _Item(Part):
    """``of_ledger``: its evidence is worth nothing when the ledger doesn't verify."""

    of_ledger: ClassVar[bool] = True


class LedgerVerified(_Item):
    """Every entry is where the checkpoint says, from the first to the last."""

    predicate: Literal["ledgerVerified"]

    def judge(self, facts: Facts) -> ItemResult:
        verification = facts.ledger.verification
        if verification is None:
            return ItemResult("missing", "verified ledger")
        return ItemResult("present", f"ledger of {verification.size:,} entries verified")


class LogsReachBack(_Item):
    """The log covers at least so many days: entries are never deleted, so its first one tells."""

    predicate: Literal["logsReachBack"]
    days: Days

    def judge(self, facts: Facts) -> ItemResult:
        first = facts.ledger.first
        age = facts.days_since(first) if first else None
        if age is None:
            return ItemResult("missing", f"log of {self.days} days (there is none)")
        if age < self.days:
            return ItemResult(
                "missing", f"log of {self.days} days (this one began {first[:10]}, {max(age, 0)} days ago)"
            )
        return ItemResult("present", f"entries since {first[:10]}, none ever deleted")


class PayloadsKept(_Item):
    """What requests said can be read for at least so many days."""

    predicate: Literal["payloadsKept"]
    days: Days
    of_ledger: ClassVar[bool] = False

    def judge(self, facts: Facts) -> ItemResult:
        if facts.governance is None:
            return ItemResult("missing", "manifest, which says how long payloads are kept")
        kept = facts.governance.privacy.retention.payloads
        if kept is None:
            return ItemResult("present", "payloads are never deleted (governance.privacy.retention)")
        if seconds(kept) < self.days * DAY:
            return ItemResult("contradicted", f"payloads are deleted after {kept}, before {self.days} days have passed")
        return ItemResult("present", f"payloads are kept for {kept}")


class PayloadsDeleted(_Item):
    """What requests said is deleted after a time."""

    predicate: Literal["payloadsDeleted"]
    of_ledger: ClassVar[bool] = False

    def judge(self, facts: Facts) -> ItemResult:
        kept = facts.governance.privacy.retention.payloads if facts.governance else None
        if kept is None:
            return ItemResult(
                "missing", "time after which payloads are deleted (governance.privacy.retention.payloads)"
            )
        return ItemResult("present", f"payloads are deleted after {kept}, with a receipt in the ledger")


class DataSet(_Item):
    """A fact of the data-set manifest."""

    predicate: Literal["dataSet"]
    fact: Literal["digest", "licence", "consentBasis", "scan", "audit"]

    def judge(self, facts: Facts) -> ItemResult:
        data, index = facts.dossier.data, facts.ledger.index("dataset")
        words = {
            "digest": "data-set manifest with digest",
            "licence": "licence of the data",
            "consentBasis": "consent basis",
            "scan": "scan for personal data",
            "audit": "label audit per group",
        }
        said: str | None = None
        if self.fact == "audit":
            said = words["audit"] if facts.dossier.data_audit else None
        elif data is not None:
            told = {
                "digest": words["digest"] if data.digest else None,
                "licence": f"licence: {data.licence}" if data.licence else None,
                "consentBasis": f"basis: {data.consent_basis}" if data.consent_basis else None,
                "scan": words["scan"] if data.personal_data is not None else None,
            }
            said = told[self.fact]
        return ItemResult("present", said, index) if said else ItemResult("missing", words[self.fact])


class HeldOut(_Item):
    """Measured on rows that training didn't see."""

    predicate: Literal["heldOut"]
    fact: Literal["groups", "metrics"]

    def judge(self, facts: Facts) -> ItemResult:
        what = {"groups": "held-out rates per group", "metrics": "quality on held-out rows"}[self.fact]
        there = facts.dossier.evaluation.groups if self.fact == "groups" else facts.dossier.metrics
        ledger = facts.ledger
        index = ledger.index("artefact") if self.fact == "groups" else ledger.index("training")
        return ItemResult("present", what, index) if there else ItemResult("missing", what)


class Documentation(_Item):
    """Algorithm and lineage, as the artefact tells them."""

    predicate: Literal["documentation"]

    def judge(self, facts: Facts) -> ItemResult:
        what = "algorithm and lineage of the artefact"
        if facts.dossier.card.lineage is None:
            return ItemResult("missing", what)
        return ItemResult("present", f"{what} (this page)", facts.ledger.index("artefact"))


class BiasVerdict(_Item):
    """The live verdict: Pass or Fail was shown, and not longer ago than ``withinDays``."""

    predicate: Literal["biasVerdict"]
    within_days: Days = 31

    def judge(self, facts: Facts) -> ItemResult:
        auditor, index = facts.dossier.auditor, facts.ledger.index("verdict")
        word = auditor.verdict if auditor else None
        if auditor is None or word not in ("Pass", "Fail"):
            return ItemResult("missing", f"live bias verdict (now {word or 'none'})")
        if word == "Fail":
            return ItemResult("contradicted", f"live bias verdict is Fail: {auditor.summary}", index)
        if not facts.within(auditor.observed_at, self.within_days):
            when = auditor.observed_at[:10] or "an unknown day"
            return ItemResult(
                "outdated", f"live bias verdict Pass of {when}, wanted within {self.within_days} days", index
            )
        if index is None:
            return ItemResult("missing", "live bias verdict in the ledger (only the report says Pass)")
        return ItemResult("present", f"live bias verdict Pass of {auditor.observed_at[:10]}", index)


class ImpactRatios(_Item):
    """Of what the model itself selected: per category of at least so many attributes and, where there are several, of
    their intersections; training labels are none. And how many people are of unknown category."""

    predicate: Literal["impactRatios"]
    attributes: Annotated[int, Field(ge=1, le=8)] = 2
    within_days: Days = 365

    def judge(self, facts: Facts) -> ItemResult:
        auditor = facts.dossier.auditor
        told = auditor.attributes if auditor else {}
        with_ratios = [
            name for name, figures in told.items() if any(v is not None for v in figures.impact_ratios.values())
        ]
        if auditor is None or len(with_ratios) < self.attributes:
            found = ", ".join(with_ratios) or "none"
            return ItemResult(
                "missing", f"impact ratios of what was selected, by {self.attributes} attributes (found: {found})"
            )
        crossed = any(g.impact_ratio is not None for g in auditor.intersections.groups)
        if self.attributes > 1 and not crossed:
            return ItemResult("missing", f"impact ratios by {' and '.join(with_ratios)} together (none has support)")
        index = facts.ledger.index("verdict")
        if index is None:
            return ItemResult("missing", "impact ratios with a verdict in the ledger (only the report has them)")
        if not facts.within(auditor.observed_at, self.within_days):
            when = auditor.observed_at[:10] or "an unknown day"
            return ItemResult("outdated", f"impact ratios of {when}, wanted within {self.within_days} days", index)
        unknown = ", ".join(f"{auditor.missing.get(name, 0):,} without {name}" for name in with_ratios)
        said = f"impact ratios by {', '.join(with_ratios)}{' and together' if crossed else ''}; {unknown}"
        return ItemResult("present", said, index)


class Explanations(_Item):
    """Decisions of the revision that serves were explained, by request id, not longer ago than ``withinDays``."""

    predicate: Literal["explanations"]
    within_days: Days = 366

    def judge(self, facts: Facts) -> ItemResult:
        count = facts.ledger.counts.get("explanation", 0)
        if not count:
            return ItemResult("missing", "explanation by request id")
        revision = facts.revision
        newest = facts.ledger.explained_of.get(revision) if revision else facts.ledger.explained
        said = f"{count:,} explanations by request id"
        if newest is None:
            return ItemResult("outdated", f"{said}, none of revision {revision}, which serves")
        index, entry = newest
        if not facts.within(entry.time, self.within_days):
            return ItemResult(
                "outdated", f"{said}, newest of {entry.time[:10]}, wanted within {self.within_days} days", index
            )
        return ItemResult("present", said, index)


class Masking(_Item):
    """Personal data in requests is masked, and a request that can't be masked is refused."""

    predicate: Literal["masking"]
    of_ledger: ClassVar[bool] = False

    def judge(self, facts: Facts) -> ItemResult:
        masking = facts.governance.privacy.masking if facts.governance else None
        if masking is None:
            return ItemResult("missing", "masking of personal data (governance.privacy.masking)")
        if not masking.masks_requests():
            return ItemResult("missing", "masking of requests (governance.privacy.masking has direction Response)")
        if masking.failure_policy == "Open":
            return ItemResult("contradicted", "masking has failurePolicy Open: what can't be masked passes")
        served = facts.dossier.served
        masked = sum(n for by_entity in served.masked.values() for n in by_entity.values()) if served else 0
        said = f", {masked:,} placeholders in what was served" if served else ""
        only = "".join(
            f", of the {what} {', '.join(chosen)} alone"
            for what, chosen in (("fields", masking.fields), ("entities", masking.entities))
            if chosen
        )
        return ItemResult("present", f"masking of personal data configured{only}{said}")


class LabelledAnswers(_Item):
    """Each answer that the revision which serves generated carries the label: by the records, opened with the model's
    key. ``form``: words for people, or metadata for machines."""

    predicate: Literal["labelledAnswers"]
    form: Literal["explicit", "implicit"]

    def judge(self, facts: Facts) -> ItemResult:
        rules = facts.governance.labelling if facts.governance else None
        if rules is None or (rules.explicit if self.form == "explicit" else rules.implicit) == "Off":
            return ItemResult("missing", f"{self.form} label on answers (governance.labelling.{self.form})")
        served = facts.dossier.served
        if served is None:
            return ItemResult("missing", f"records of the {self.form} label, opened with the model's key")
        counted = served.marked.get(facts.revision)
        if counted is None or not counted.complete:
            return ItemResult("missing", f"answers of revision {facts.revision or '(unknown)'} with {self.form} label")
        exempt = counted.exempt if self.form == "explicit" else 0
        asked = counted.complete - exempt
        carried = counted.worded if self.form == "explicit" else counted.described
        said = f"{carried:,} of {asked:,} answers of revision {facts.revision} carry the {self.form} label"
        said += f", {exempt:,} exempt (code, JSON, no text)" if exempt else ""
        said += f", {counted.cut:,} streams cut before their end" if counted.cut else ""
        said += f"; {served.left_out:,} older pieces of the journal not opened" if served.left_out else ""
        return ItemResult("present" if carried == asked else "contradicted", said)


class Keys(_Item):
    """Data keys are wrapped, and there is an inventory of them."""

    predicate: Literal["keys"]

    def judge(self, facts: Facts) -> ItemResult:
        held = [key for key in facts.dossier.keys if key.status != "destroyed"]
        gone = len(facts.dossier.keys) - len(held)
        if not held:
            return ItemResult("missing", f"key inventory{f' ({gone} keys, all destroyed)' if gone else ''}")
        return ItemResult("present", f"inventory of {len(held)} keys, wrapped", facts.ledger.index("key"))


class SubjectKeys(_Item):
    """What was asked and answered about a person is under a key of that person's own: found, exported, erased."""

    predicate: Literal["subjectKeys"]
    of_ledger: ClassVar[bool] = False

    def judge(self, facts: Facts) -> ItemResult:
        subject = facts.governance.privacy.subject if facts.governance else None
        if not subject:
            return ItemResult("missing", "index of data subjects (governance.privacy.subject)")
        return ItemResult("present", f"a key for each {subject}: governed subject find, export, erase")


class HumanReview(_Item):
    """Decisions can be contested, and what was contested a person decided in time: in the last ``withinDays`` at
    least."""

    predicate: Literal["humanReview"]
    within_days: Days = 366

    def judge(self, facts: Facts) -> ItemResult:
        if facts.dossier.auditor is None or facts.governance is None:
            return ItemResult("missing", "way to contest a decision (governance.bias, and the manifest)")
        every = contests(facts.ledger, facts.dossier.made)
        if (dropped := facts.ledger.dropped.get("acknowledgement", 0)) != 0:
            return ItemResult(
                "missing", f"all contests of the ledger (this page reads the newest, {dropped:,} are older)"
            )
        late = [c for c in every if c.decided is None and c.late]
        if late:
            said = f"{len(late):,} contested decisions are past their deadline"
            return ItemResult("contradicted", said, late[0].index)
        behind = [c.decided for c in every if c.decided is not None and c.late]
        if recent := [one for one in behind if facts.within(one[1], self.within_days)]:
            said = (
                f"{len(recent):,} contested decisions were decided after their deadline within {self.within_days} days"
            )
            return ItemResult("contradicted", said, recent[-1][0])
        decided = [c.decided for c in every if c.decided is not None]
        if not every:
            deadline = facts.governance.audit.contest_deadline
            return ItemResult("present", f"no decision was contested; one that is has to be decided within {deadline}")
        ever = f"{len(behind):,} after their deadline, long ago" if behind else "none past its deadline"
        said = f"{len(decided):,} of {len(every):,} contested decisions decided by a person, {ever}"
        return ItemResult("present", said, decided[-1][0] if decided else every[-1].index)


class AlarmsHandled(_Item):
    """Somebody watches, as of the last ``withinDays``, and an alarm was taken over by a person: in the ledger, of the
    revision that it is about."""

    predicate: Literal["alarmsHandled"]
    within_days: Days = 31

    def judge(self, facts: Facts) -> ItemResult:
        auditor = facts.dossier.auditor
        if auditor is None:
            return ItemResult("missing", "watch over the model that raises alarms (governance.bias)")
        taken = [
            (i, e) for i, e in facts.ledger.entries.get("acknowledgement", []) if e.summary.get("kind") != "review"
        ]
        index = taken[-1][0] if taken else None
        if auditor.alarm.active:
            if not auditor.alarm.acknowledged_by:
                return ItemResult("contradicted", "an alarm is active and nobody has acknowledged it", index)
            if not any(not auditor.revision or e.revision == auditor.revision for _, e in taken):
                return ItemResult(
                    "missing", "acknowledgement of the active alarm in the ledger (only the report has one)"
                )
        if not facts.within(auditor.observed_at, self.within_days):
            when = auditor.observed_at[:10] or "an unknown day"
            return ItemResult(
                "outdated", f"watch for alarms, last of {when}, wanted within {self.within_days} days", index
            )
        if taken:
            return ItemResult("present", f"{len(taken):,} alarms acknowledged by a person", index)
        return ItemResult("present", "no alarm awaits acknowledgement")


class Supplied(_Item):
    """A number or document that a person answers for, within its time."""

    predicate: Literal["supplied"]
    document: str
    asks: str
    """In words: what it is."""
    within_days: Days | None = None
    of_ledger: ClassVar[bool] = False

    def judge(self, facts: Facts) -> ItemResult:
        there = facts.supervision.document(self.document)
        if there is None:
            return ItemResult("missing", f"{self.asks} (governance.supervision.documents: {self.document})")
        today = facts.today.isoformat()
        named = f"{self.asks}: {there.reference or there.digest}, {there.owner}, {there.issued}"
        if facts.to_come(there.issued):
            return ItemResult("contradicted", f"{named}: issued on a day that is yet to come")
        if there.expires is not None and there.expires <= today:
            return ItemResult("outdated", f"{named}: expired {there.expires}")
        if facts.older_than(there.issued, self.within_days):
            return ItemResult("outdated", f"{named}: older than {self.within_days} days")
        return ItemResult("present", named)


class Assessed(_Item):
    """Sampled answers: their share reaches a threshold, and is shown to with 95 % confidence.

    The bound is one-sided (Clopper & Pearson 1934): of 300 answers 285 are 95 %, and 292 show it.
    """

    predicate: Literal["assessed"]
    assessment: str
    asks: str
    at_least: Share
    sampled: Annotated[int, Field(ge=1)]
    held: Annotated[int, Field(ge=1)] | None = None
    risks: Annotated[int, Field(ge=1)] | None = None
    within_days: Days | None = None
    of_ledger: ClassVar[bool] = False

    def judge(self, facts: Facts) -> ItemResult:
        there = facts.supervision.assessment(self.assessment)
        if there is None:
            return ItemResult("missing", f"{self.asks} (governance.supervision.assessments: {self.assessment})")
        lower = clopper_pearson(there.met, there.sampled, 0.90).lower
        said = f"{self.asks}: {there.met:,} of {there.sampled:,}, at least {lower:.1%} with 95 % confidence"
        if facts.to_come(there.performed):
            return ItemResult("contradicted", f"{said}: performed on a day that is yet to come")
        if there.met < self.at_least * there.sampled:
            return ItemResult("contradicted", f"{said}: below {self.at_least:.0%}")
        if facts.older_than(there.performed, self.within_days):
            return ItemResult("outdated", f"{said}: of {there.performed}, wanted within {self.within_days} days")
        for name, found, wanted in (
            ("sampled", there.sampled, self.sampled),
            ("held", there.held, self.held),
            ("risks", there.risks, self.risks),
        ):
            if wanted is not None and (found or 0) < wanted:
                return ItemResult("missing", f"{said}: {name} is {found or 'not said'}, {wanted:,} are asked for")
        if lower < self.at_least:
            return ItemResult("missing", f"{said}: {self.at_least:.0%} is reached and not shown; sample more")
        return ItemResult("present", said)


Item = Annotated[
    LedgerVerified
    | LogsReachBack
    | PayloadsKept
    | PayloadsDeleted
    | DataSet
    | HeldOut
    | Documentation
    | BiasVerdict
    | ImpactRatios
    | Explanations
    | Masking
    | LabelledAnswers
    | Keys
    | SubjectKeys
    | HumanReview
    | AlarmsHandled
    | Supplied
    | Assessed,
    Field(discriminator="predicate"),
]


def finding(item: Item, facts: Facts) -> ItemResult:
    """Judge one item. What a ledger says that doesn't verify is contradicted, whatever it says."""
    if item.of_ledger and facts.ledger.error:
        return ItemResult("contradicted", f"the ledger does not verify: {facts.ledger.error}")
    return item.judge(facts)
