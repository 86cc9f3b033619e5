"""Policies that are about a model → whether anything new of it may roll out, and what people are told. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from governed_api import conditions as c
from governed_api.reasons import Reason
from governed_api.runtime import TRACK_CANARY
from governed_operator.desired.decision import Decision, PolicyStanding, Revision, Violation
from governed_operator.desired.trainer import job_name
from governed_operator.policy.floor import Judgement, Subject, Unreadable, judge
from governed_operator.policy.observed import Observed

__all__ = ["standing", "withhold"]

LONGEST_TEXT, LONGEST_LIST = 500, 750
"""Characters of one thing that a policy says, and of all of them: a message has 1,000."""
LONGEST_WAIT = 86_400.0
"""Seconds after which an exemption that ends later is thought of again."""
HELD = "nothing new rolls out until then, what serves keeps serving"
WAITS_FOR_A_PERSON = (Reason.VIOLATED, Reason.POLICY_INVALID)


def standing(obs: Observed) -> PolicyStanding | None:
    """None where no policy is about the model, and all policies are known."""
    subject = Subject(obs.subject.name, obs.subject.namespace, obs.labels, obs.model.spec)
    floors = [floor for floor in obs.policies.floors if floor.concerns(subject)]
    unreadable = [policy for policy in obs.policies.unreadable if policy.concerns(subject)]
    judged = judge(subject, floors, obs.now)
    ends = [(j.again - obs.now).total_seconds() for j in judged if j.again is not None]
    found = _held(judged, unreadable, obs.policies.unread) or _told(judged, unreadable)
    if found is None and floors:
        found = PolicyStanding("True", Reason.SATISFIED, _listed(floor.title for floor in floors))
    return found and replace(found, again_in=min([*ends, LONGEST_WAIT]) if ends else None)


def _held(judged: Sequence[Judgement], unreadable: Sequence[Unreadable], unread: str) -> PolicyStanding | None:
    """What is certain comes first; what can't be known holds as well."""
    if denied := _texts(judged, "Deny"):
        return PolicyStanding("False", Reason.VIOLATED, f"{_listed(denied)}; {HELD}", holds=True)
    if faults := [_fault(policy) for policy in unreadable if policy.refuses]:
        return PolicyStanding("Unknown", Reason.POLICY_INVALID, f"{_listed(faults)}; {HELD}", holds=True)
    if unread:
        return PolicyStanding("Unknown", Reason.POLICIES_UNKNOWN, f"{_listed([unread])}; {HELD}", holds=True)
    return None


def _told(judged: Sequence[Judgement], unreadable: Sequence[Unreadable]) -> PolicyStanding | None:
    if audited := _texts(judged, "Audit"):
        return PolicyStanding("False", Reason.AUDITED, f"only said, under Audit: {_listed(audited)}")
    if unreadable:
        return PolicyStanding("Unknown", Reason.POLICY_INVALID, _listed(map(_fault, unreadable)))
    if exempt := _texts(judged, "Exempt"):
        return PolicyStanding("True", Reason.EXEMPT, _listed(exempt))
    return None


def _texts(judged: Iterable[Judgement], kind: str) -> list[str]:
    return [judgement.text for judgement in judged if judgement.kind == kind]


def _fault(policy: Unreadable) -> str:
    return f"{policy.title} can't be read ({policy.fault}): mend it, or take it away"


def _listed(texts: Iterable[str]) -> str:
    """As many as a condition has room for, and how many are left."""
    told: list[str] = []
    left = [text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…" for text in texts]
    while left and sum(map(len, told)) + len(left[0]) <= LONGEST_LIST:
        told.append(left.pop(0))
    return " | ".join([*told, f"and {len(left)} more"] if left else told)


def withhold(obs: Observed, decision: Decision, found: PolicyStanding) -> Decision:
    """A decision without what would be new: a Job, a revision, a trial or its next step. What runs runs on as it is,
    and a trial that fails ends."""
    workload, stable = obs.workload(), decision.stable
    train = decision.train and ("Job", job_name(obs.subject)) in obs.children
    begun = stable is not None and workload is not None and workload.revision == stable.name
    canary = _as_on_trial(obs, decision.canary if stable is None or begun else stable)
    kept = replace(
        decision,
        train=train,
        stable=stable if begun else None,
        canary=canary,
        held=decision.held or (workload is not None and not begun),
    )
    if _new(kept) == _new(decision):
        return decision
    violation = Violation(c.READY, found.reason, found.message, stalled=found.reason in WAITS_FOR_A_PERSON)
    return replace(kept, withheld=True, violations=(violation, *decision.violations))


def _as_on_trial(obs: Observed, revision: Revision | None) -> Revision | None:
    """With the share of the traffic that it has; None where it isn't on trial, or its trial is interrupted."""
    trial, workload = obs.status.canary, obs.workload(TRACK_CANARY)
    if revision is None or trial is None or workload is None:
        return None
    if not trial.name == workload.revision == revision.name:
        return None
    return revision.at(trial.percent, trial.since)


def _new(decision: Decision) -> tuple[object, ...]:
    """What may be new in a decision."""
    revisions = (revision and (revision.name, revision.percent) for revision in (decision.stable, decision.canary))
    return (decision.train, *revisions)
