"""What the items of a law pack are judged by: the dossier, the manifest's rules, and what kind of model it is."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from governed_api.governance import Governance
from governed_api.supervision import Supervision
from governed_serving.dossier.dossier import Dossier, LedgerView

__all__ = ["Facts", "ItemResult", "Kind", "State"]

Kind = Literal["decisions", "generation"]
"""decisions: it classifies or estimates; generation: it writes text."""
State = Literal["present", "outdated", "contradicted", "missing"]


@dataclass(frozen=True)
class ItemResult:
    """Of one item: ``what`` in words, ``index`` of the ledger entry that says it."""

    state: State
    what: str
    index: int | None = None


@dataclass(frozen=True)
class Facts:
    """``today``: the UTC day of the dossier."""

    dossier: Dossier

    @property
    def today(self) -> date:
        return self.dossier.made.astimezone(UTC).date()

    @property
    def latest(self) -> date:
        """The day where it is latest (UTC+14): what a person dates is a day of that person's own calendar."""
        return (self.dossier.made.astimezone(UTC) + timedelta(hours=14)).date()

    @property
    def revision(self) -> str:
        """The one that serves: which the live verdict is about, else who answered last; "" where neither says."""
        if self.dossier.auditor is not None and self.dossier.auditor.revision:
            return self.dossier.auditor.revision
        return self.ledger.predicted[1].revision if self.ledger.predicted else ""

    @property
    def governance(self) -> Governance | None:
        """None: no manifest was given."""
        return self.dossier.manifest.governance if self.dossier.manifest else None

    @property
    def supervision(self) -> Supervision:
        return self.governance.supervision if self.governance else Supervision()

    @property
    def ledger(self) -> LedgerView:
        """Empty where none was given."""
        return self.dossier.ledger or LedgerView()

    @property
    def kinds(self) -> frozenset[Kind]:
        """Empty: nothing says what the model does."""
        if self.dossier.generates:
            return frozenset({"generation"})
        if self.dossier.decides:
            return frozenset({"decisions"})
        return frozenset()

    def to_come(self, day: str) -> bool:
        """Whether a day that a person wrote is yet to come everywhere."""
        return day > self.latest.isoformat()

    def older_than(self, day: str, days: int | None) -> bool:
        """Whether a day that a person wrote is longer ago; never, where no time is asked for."""
        age = self.days_since(day)
        return days is not None and (age is None or age > days)

    def within(self, when: str, days: int) -> bool:
        """Whether a time is one, and not longer ago; clocks may differ, so what is to come counts for a day."""
        age = self.days_since(when)
        return age is not None and -1 <= age <= days

    def days_since(self, when: str) -> int | None:
        """Whole days from an RFC 3339 time or day to the dossier's; None for what is neither."""
        try:
            then = datetime.fromisoformat(when)
        except ValueError:
            return None
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return (self.dossier.made.astimezone(UTC) - then).days
