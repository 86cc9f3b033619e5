"""Observed → Decision."""

from dataclasses import replace

from governed_api import conditions as c
from governed_api.model import RevisionStatus
from governed_api.reasons import PassedOn, Reason
from governed_api.runtime import TRACK_CANARY
from governed_operator.desired.decision import Decision, Revision, Violation
from governed_operator.desired.trainer import job_name
from governed_operator.policy.artefact import artefact_of
from governed_operator.policy.canary import judge
from governed_operator.policy.gates import violations
from governed_operator.policy.observed import Observed

RECHECK = 5.0
"""Seconds between looks at objects that we don't watch, while one of them is missing."""


def decide(obs: Observed) -> Decision:
    """What should be for this model. Pure."""
    found = violations(obs)
    if obs.model.spec.suspend:
        return Decision(stopped=True, violations=found)
    held = obs.workload() is not None
    if any(v.blocking for v in found):
        lost = any(v.reason == Reason.KEY_LOST for v in found)
        return Decision(held=held, violations=found, key_lost=lost, again_in=RECHECK)
    artefact = artefact_of(obs.model, obs.report)
    training = obs.model.spec.lifecycle.training is not None
    train = training and (artefact is None or ("Job", job_name(obs.subject)) in obs.children)
    if artefact is None:
        return Decision(train=train, held=held, violations=found)
    target = Revision.of(obs.model, artefact)
    trial = obs.workload(TRACK_CANARY)
    return replace(_rollout(obs, target, found), train=train, canary_serves=trial is not None and trial.available >= 1)


def _rollout(obs: Observed, target: Revision, found: tuple[Violation, ...]) -> Decision:
    now = timestamp(obs)
    current = obs.status.stable
    rollout = obs.model.spec.lifecycle.rollout
    trial_wanted = rollout.strategy == "Canary" and current is not None and current.name != target.name
    if not trial_wanted or obs.workload() is None:
        since = current.since if current and current.name == target.name else now
        return Decision(stable=target.at(100, since), violations=found)
    if obs.status.rejected == target.name:
        return Decision(held=True, rejected=target.name, violations=(*found, *_still_rejected(obs)))
    trial = obs.status.canary
    if trial is None or trial.name != target.name:
        return Decision(held=True, canary=target.at(rollout.steps[0], now), violations=found)
    return _trial(obs, target, trial, found)


def _trial(obs: Observed, target: Revision, trial: RevisionStatus, found: tuple[Violation, ...]) -> Decision:
    judgement = judge(obs, trial)
    if judgement.verdict == "reject":
        message = f"revision {target.name} was rolled back at {trial.percent} %: {judgement.message}"
        violation = Violation(c.DEGRADED, judgement.reason, message, "True", stalled=True)
        return Decision(held=True, rejected=target.name, violations=(*found, violation))
    if judgement.verdict == "advance":
        later = [s for s in obs.model.spec.lifecycle.rollout.steps if s > trial.percent]
        if not later:
            return Decision(stable=target.at(100, timestamp(obs)), violations=found)
        return Decision(held=True, canary=target.at(later[0], timestamp(obs)), violations=found)
    if judgement.verdict == "hold":
        found = (*found, Violation(c.DEGRADED, judgement.reason, judgement.message, "True", stalled=True))
    canary = target.at(trial.percent, trial.since)
    return Decision(held=True, canary=canary, violations=found, again_in=judgement.again_in)


def _still_rejected(obs: Observed) -> tuple[Violation, ...]:
    """The reason given when it was rejected stays until another revision comes."""
    old = next((x for x in obs.status.conditions if x.type == c.DEGRADED and x.reason.startswith("Canary")), None)
    return (Violation(c.DEGRADED, PassedOn(old.reason), old.message, "True", stalled=True),) if old else ()


def timestamp(obs: Observed) -> str:
    return f"{obs.now.isoformat()[:19]}Z"
