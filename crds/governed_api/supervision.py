"""spec.governance.supervision: what a person supplies because no machine can: numbers, documents, assessments."""

from typing import Annotated, ClassVar

from pydantic import Field

from governed_api.base import Part
from governed_api.rules import Rule

__all__ = ["Assessment", "Day", "Supervision", "SuppliedDocument"]

Name = Annotated[str, Field(pattern=r"^[a-z][A-Za-z0-9]{0,62}$")]
_LEAP = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
DAY = (
    rf"^({_LEAP}-02-29|[0-9]{{4}}-(02-(0[1-9]|1[0-9]|2[0-8])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])))$"
)
Day = Annotated[str, Field(pattern=DAY, max_length=10)]
"""A day of the calendar, RFC 3339 full-date: 2026-11-01. Days compare as texts."""
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class SuppliedDocument(Part):
    """A number that an authority gave, or a document that somebody answers for."""

    name: Name
    """What it is, as the law packs name it: filingNumber, riskRegister, impactAssessment, incidentPlan … The
    governance report says which ones are missing."""
    reference: str | None = Field(default=None, min_length=1, max_length=512)
    """The number itself, or where the document is kept."""
    digest: Digest | None = None
    """SHA-256 of the document."""
    owner: str = Field(min_length=1, max_length=253)
    """Who answers for it."""
    issued: Day
    """Day of the document, such as 2026-11-01."""
    expires: Day | None = None
    """First day on which it no longer counts; absent: as the law pack says."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.reference) || has(self.digest)",
            "a document needs a reference (its number, or where it is kept) or a digest, or nobody can find it",
        ),
        Rule(
            "!has(self.expires) || self.issued < self.expires",
            "expires must be later than issued",
            ".expires",
        ),
    )


class Assessment(Part):
    """Answers that were sampled and judged, such as the refusals of a question bank."""

    name: Name
    """What was assessed, as the law packs name it: refusal, nonRefusal, corpusManual, generatedContent …"""
    sampled: int = Field(ge=1, le=1_000_000_000)
    """How many were judged."""
    met: int = Field(ge=0, le=1_000_000_000)
    """How many of them were as asked: refused, not refused, without fault."""
    held: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """How many the bank or corpus holds that they were drawn from."""
    risks: int | None = Field(default=None, ge=1, le=1000)
    """How many kinds of risk it covers."""
    performed: Day
    """Day of the assessment."""
    owner: str = Field(min_length=1, max_length=253)
    """Who answers for it."""
    digest: Digest | None = None
    """SHA-256 of its record."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.met <= self.sampled", "met must not be more than sampled", ".met"),
        Rule("!has(self.held) || self.sampled <= self.held", "sampled must not be more than held", ".sampled"),
    )


class Supervision(Part):
    """What people have done and written. The governance report holds it against the law packs; no pod reads it."""

    documents: list[SuppliedDocument] = Field(default=[], max_length=64, json_schema_extra={"x-list-map-key": "name"})
    """Numbers and documents."""
    assessments: list[Assessment] = Field(default=[], max_length=32, json_schema_extra={"x-list-map-key": "name"})
    """Sampled answers."""

    def document(self, name: str) -> SuppliedDocument | None:
        return next((d for d in self.documents if d.name == name), None)

    def assessment(self, name: str) -> Assessment | None:
        return next((a for a in self.assessments if a.name == name), None)
