"""What a failed verdict sets off, with hysteresis, and how a person takes it back.

An alarm is raised by Fail. It ends by itself only after Pass on ``calm`` further samples, so that a figure at its bound
doesn't make the operator roll to and fro; or a person acknowledges it, which is recorded in the ledger and lifts the
action while the verdict stays what it is. A Fail after an end raises it anew. Replicas hear of each other's alarms: who
acknowledges at one has done so at all.
"""

from typing import Literal

import msgspec

from governed_api.verdict import AlarmState, VerdictWord

__all__ = ["Alarm"]

Action = Literal["Alert", "BlockPromotion", "Rollback"]


class Alarm(msgspec.Struct):
    """State of one model's alarm; kept with the counts."""

    action: Action
    calm: int
    """Samples of Pass in a row that end it."""
    active: bool = False
    since: float = 0.0
    ended: float = 0.0
    acknowledged_by: str = ""
    acknowledged_at: float = 0.0
    reason: str = ""
    passing_from: int | None = None

    def observe(self, verdict: VerdictWord, samples: int, now: float) -> None:
        """A verdict over ``samples`` folded so far."""
        if verdict == "Fail":
            self.passing_from = None
            if not self.active:
                self.active, self.since, self.acknowledged_by, self.reason = True, now, "", ""
            return
        if not self.active or verdict != "Pass":
            self.passing_from = None
            return
        if self.passing_from is None:
            self.passing_from = samples
        elif samples - self.passing_from >= self.calm:
            self.active, self.passing_from, self.ended = False, None, now

    def acknowledge(self, by: str, reason: str, now: float) -> None:
        """A person has seen the alarm and answers for going on."""
        if self.active:
            self.acknowledged_by, self.reason, self.acknowledged_at = by, reason, now

    def hear(self, other: "Alarm") -> None:
        """Take over what another replica knows of the same alarm; what is over for one of them doesn't count any
        more."""
        self.ended = max(self.ended, other.ended)
        if not (self.active and other.active and other.since > self.ended):
            return
        self.since = min(self.since, other.since)
        if other.acknowledged_by and not self.acknowledged_by and other.acknowledged_at >= self.since:
            self.acknowledge(other.acknowledged_by, other.reason, other.acknowledged_at)

    @property
    def in_force(self) -> Action | None:
        """What is to be done now; None: nothing, or a person has taken it over."""
        return self.action if self.active and not self.acknowledged_by else None

    def report(self) -> AlarmState:
        """For verdict and report."""
        return AlarmState(
            action=self.action,
            active=self.active,
            in_force=self.in_force or "None",
            acknowledged_by=self.acknowledged_by,
            reason=self.reason,
        )
