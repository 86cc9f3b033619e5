"""What is remembered of a model's revisions from one look to the next: computed here, changed nowhere else. Pure."""

from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_operator.desired.decision import Decision, Memory, Revision


def next_memory(before: GovernedModelStatus, decision: Decision, target: str | None) -> Memory:
    """The next status' revisions.

    ``target``: the revision whose roll-out was decided; None where nothing was decided about any (suspended, blocked,
    without artefact): then everything stays. A rejection is lifted by one thing only: a decision about another
    revision, that is a change of spec or artefact. A trial ends when its revision is promoted, rejected or replaced.
    """
    lifted = target is not None and target != before.rejected
    return Memory(
        stable=_of(decision.stable) or before.stable,
        canary=_of(decision.canary) or (before.canary if target is None else None),
        rejected=decision.rejected or (None if lifted else before.rejected),
    )


def _of(revision: Revision | None) -> RevisionStatus | None:
    if revision is None:
        return None
    return RevisionStatus(
        name=revision.name, artefact=revision.artefact, percent=revision.percent, since=revision.since
    )
