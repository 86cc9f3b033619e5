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
from governed_operator.policy.enforcement import standing, withhold
from governed_operator.policy.gates import violations
from governed_operator.policy.memory import next_memory
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import refusal

RECHECK = 5.0
"""Seconds between looks at objects that we don't watch, while one of them is missing."""


def decide(obs: Observed) -> Decision:
    """What should be for this model. Pure."""
    decision, target = _decided(obs)
    found = standing(obs)
    if found is not None and found.holds and not decision.stopped:
        decision = withhold(obs, decision, found)
        target = None if decision.withheld else target
    decision = replace(decision, policy=found, again_in=_sooner(decision.again_in, found.again_in if found else None))
    memory = next_memory(obs.status, decision, target)
    violated = decision.violations
    if decision.stopped and _refused_import(obs):  # resumed, it is tried once more: the image may be another one
        memory = replace(memory, rejected=None)
    if memory.rejected and memory.rejected == obs.status.rejected and not _refused_import(obs):
        violated = (*_still_rejected(obs, memory.rejected), *violated)
    return replace(decision, memory=memory, violations=violated)


def _sooner(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)


def _decided(obs: Observed) -> tuple[Decision, str | None]:
    """The decision, and the revision whose roll-out it is about; None where it is about none."""
    violated = violations(obs)
    if obs.model.spec.suspend:
        return Decision(stopped=True, violations=violated), None
    held = obs.workload() is not None
    if any(v.blocking for v in violated):
        lost = any(v.reason == Reason.KEY_LOST for v in violated)
        return Decision(held=held, violations=violated, key_lost=lost, again_in=RECHECK), None
    artefact = artefact_of(obs.model, obs.report)
    made = obs.model.spec.lifecycle.training is not None or obs.model.spec.predictor.model.is_fetched
    train = made and (artefact is None or ("Job", job_name(obs.subject)) in obs.children)
    if artefact is None:
        return Decision(train=train, held=held, violations=violated), None
    target = Revision.of(obs.model, artefact)
    trial = obs.workload(TRACK_CANARY)
    serves = trial is not None and trial.available >= 1
    return replace(_rollout(obs, target, violated), train=train, canary_serves=serves), target.name


def _rollout(obs: Observed, target: Revision, violated: tuple[Violation, ...]) -> Decision:
    """A rejected revision comes first: neither a stable Deployment that is gone nor another strategy lets it in."""
    current, trial = obs.status.stable, obs.status.canary
    rollout = obs.model.spec.lifecycle.rollout
    if obs.status.rejected == target.name:
        return _refused(obs, target, violated)
    if _unservable(obs, target):
        return Decision(rejected=target.name, violations=violated)
    trial_wanted = rollout.strategy == "Canary" and current is not None and current.name != target.name
    on_trial = trial is not None and trial.name == target.name
    if not trial_wanted or (obs.workload() is None and not on_trial):
        since = current.since if current and current.name == target.name else timestamp(obs)
        return Decision(stable=target.at(100, since), violations=violated)
    if trial is None or not on_trial:
        return Decision(held=True, canary=target.at(rollout.steps[0], timestamp(obs)), violations=violated)
    alone = _alone(obs, target)
    return replace(_trial(obs, target, trial, (*violated, *alone)), stable_gone=bool(alone))


def _unservable(obs: Observed, target: Revision) -> bool:
    """A pod was brought what can't be served, and none serves: nothing comes of more pods."""
    workload = obs.workload()
    idle = workload is not None and workload.revision == target.name and not workload.available
    return idle and bool(refusal(obs, target.name))


def _refused_import(obs: Observed) -> Violation | None:
    """Why nothing of the rejected revision runs, as it was said when a pod of it refused; None: that wasn't it."""
    old = next((x for x in obs.status.conditions if x.type == c.MODEL_VERIFIED), None)
    if old is None or old.reason != Reason.IMPORT_REFUSED:
        return None
    return Violation(c.MODEL_VERIFIED, Reason.IMPORT_REFUSED, old.message, stalled=True)


def _refused(obs: Observed, target: Revision, violated: tuple[Violation, ...]) -> Decision:
    workload, refused = obs.workload(), _refused_import(obs)
    if refused and (workload is None or workload.revision == target.name):
        message = "nothing runs: what storageUri brought can't be served under this spec"
        idle = Violation(c.PREDICTOR_READY, Reason.NOT_DEPLOYED, message, stalled=True)
        return Decision(rejected=target.name, violations=(refused, idle, *violated))
    if workload is not None:
        return Decision(held=True, rejected=target.name, violations=violated)
    message = (
        f"revision {target.name} was rejected, and the Deployment of what served before is gone: change the spec to a "
        "revision that may serve"
    )
    gone = Violation(c.PREDICTOR_READY, Reason.NOT_DEPLOYED, message, stalled=True)
    return Decision(rejected=target.name, violations=(*violated, gone))


def _alone(obs: Observed, target: Revision) -> tuple[Violation, ...]:
    """A trial is neither won nor forgotten because the stable Deployment is deleted, or was by spec.suspend."""
    if obs.workload() is not None:
        return ()
    message = (
        f"the Deployment of the stable revision is gone while revision {target.name} is on trial: only the revision on "
        "trial answers until its trial is over; change the spec to end the trial"
    )
    return (Violation(c.DEGRADED, Reason.STABLE_GONE, message, "True"),)


def _trial(obs: Observed, target: Revision, trial: RevisionStatus, violated: tuple[Violation, ...]) -> Decision:
    judgement = judge(obs, trial)
    if judgement.verdict == "reject":
        message = f"revision {target.name} was rolled back at {trial.percent} %: {judgement.message}"
        violation = Violation(c.DEGRADED, judgement.reason, message, "True", stalled=True)
        return Decision(held=True, rejected=target.name, violations=(*violated, violation))
    if judgement.verdict == "advance":
        later = [s for s in obs.model.spec.lifecycle.rollout.steps if s > trial.percent]
        if not later:
            return Decision(stable=target.at(100, timestamp(obs)), violations=violated)
        return Decision(held=True, canary=target.at(later[0], timestamp(obs)), violations=violated)
    if judgement.verdict == "hold":
        violated = (*violated, Violation(c.DEGRADED, judgement.reason, judgement.message, "True", stalled=True))
    # Without pods no time on trial passes: what was interrupted is measured anew at the step that it had reached
    since = trial.since if obs.workload(TRACK_CANARY) is not None else timestamp(obs)
    canary = target.at(trial.percent, since)
    return Decision(held=True, canary=canary, violations=violated, again_in=judgement.again_in)


def _still_rejected(obs: Observed, rejected: str) -> tuple[Violation, ...]:
    """The reason given when it was rejected stays until another revision comes."""
    old = next((x for x in obs.status.conditions if x.type == c.DEGRADED and x.reason.startswith("Canary")), None)
    if old:
        return (Violation(c.DEGRADED, PassedOn(old.reason), old.message, "True", stalled=True),)
    message = f"revision {rejected} was rolled back earlier and is not tried again: change the spec to another revision"
    return (Violation(c.DEGRADED, Reason.CANARY_REJECTED, message, "True", stalled=True),)


def timestamp(obs: Observed) -> str:
    return f"{obs.now.isoformat()[:19]}Z"
