"""Is a canary good enough? Pure judgement over what its own pods reported."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from governed_api.latency import median_interval
from governed_api.model import RevisionStatus
from governed_api.quantities import seconds
from governed_api.reasons import Cause, Reason, canary_problem
from governed_api.report import PodVerdict
from governed_api.runtime import TRACK_CANARY
from governed_operator.policy.errors import MIN_FAILURES, MIN_REQUESTS, Failures, shown_worse
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import Served, refusal, served, unproved, verdict

Verdict = Literal["advance", "wait", "hold", "reject"]

UNDECIDED_INTERVALS = 3
"""Times lifecycle.rollout.interval that a step lasts while a verdict over minSamples or more is Unknown, or while too
few requests or too many failed ones leave the budget undecided; then the canary goes on, since only what is shown
holds it back."""


@dataclass(frozen=True)
class Judgement:
    """What to do with a canary, why, and when to ask again."""

    verdict: Verdict
    reason: Cause = Reason.CANARY_TRIAL
    """Of the condition, where it is held or rejected."""
    message: str = ""
    again_in: float | None = None


def judge(obs: Observed, trial: RevisionStatus) -> Judgement:
    """Reject on the first failed budget; advance when all are kept, measured, and the interval is over."""
    broken = _broken(obs, trial)
    if broken:
        return broken
    bias = _bias(obs, trial)
    if bias:
        return bias
    unmeasured = _unmeasured(obs, trial)
    if unmeasured:
        return unmeasured
    unclear = _unclear(obs, trial)
    if unclear:
        return unclear
    left = _left(obs, trial, 1)
    if left > 0:
        return Judgement("wait", message=f"{trial.percent} % of the traffic", again_in=left)
    return Judgement("advance")


def _broken(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    for pod in obs.pods("predictor", TRACK_CANARY):
        if pod.problem:
            return Judgement("reject", canary_problem(pod.problem.reason), pod.problem.message)
    if refused := refusal(obs, trial.name):
        return Judgement("reject", canary_problem(Reason.IMPORT_REFUSED), refused)
    workload = obs.workload(TRACK_CANARY)
    if workload and workload.problem:
        return Judgement("reject", canary_problem(workload.problem.reason), workload.problem.message)
    stats = served(obs, trial.name)
    rollout = obs.model.spec.lifecycle.rollout
    stable = _stable(obs)
    if shown_worse(_failures(stats), _failures(stable), rollout.max_error_rate):
        message = (
            f"{stats.errors} of {stats.requests} requests failed, of the stable revision's {stable.errors} of "
            f"{stable.requests}; lifecycle.rollout.maxErrorRate allows {rollout.max_error_rate:.2%}"
        )
        return Judgement("reject", Reason.CANARY_ERROR_RATE, message)
    return _slow(obs, trial, stats)


def _slow(obs: Observed, trial: RevisionStatus, stats: Served) -> Judgement | None:
    """Slower beyond doubt: a handful of requests, the first ones above all, must not decide."""
    new = median_interval(stats.latency_counts)
    old = median_interval(_stable(obs).latency_counts)
    allowed = obs.model.spec.lifecycle.rollout.max_latency_ratio
    if new and old and new[0] / old[1] > allowed:
        message = (
            f"median latency is at least {new[0] * 1000:.3g} ms, {new[0] / old[1]:.2f} times the stable revision's "
            f"{old[1] * 1000:.3g} ms; lifecycle.rollout.maxLatencyRatio allows {allowed:g}"
        )
        return Judgement("reject", Reason.CANARY_LATENCY, f"revision {trial.name}: {message}")
    return None


def _bias(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    bias = obs.model.spec.governance.bias
    if bias is None or bias.action == "Alert":
        return None
    judged = verdict(obs, trial.name)
    summary = judged.summary if judged else ""
    if judged and _in_force(judged):
        if bias.action == "Rollback":
            return Judgement("reject", Reason.CANARY_BIAS, summary)
        return Judgement("hold", Reason.PROMOTION_BLOCKED, f"bias verdict failed: {summary}")
    if not judged or (judged.verdict == "Unknown" and judged.samples < bias.least_samples):
        return Judgement("wait", message=f"no bias verdict yet: {summary or 'too few samples'}")
    if judged.ledger_index is None or any(map(_in_force, unproved(obs, trial.name))):
        said = f": {summary}" if summary else ""
        return Judgement("wait", message=f"a bias verdict of a pod isn't in the ledger yet{said}")
    return _undecided(obs, trial, summary) if judged.verdict == "Unknown" else None


def _undecided(obs: Observed, trial: RevisionStatus, summary: str) -> Judgement | None:
    """Neither shown to keep its bounds nor to break them: longer at the step, so that it may be shown, but not for
    ever."""
    left = _left(obs, trial, UNDECIDED_INTERVALS)
    if left <= 0:
        return None
    message = f"bias is not decided yet, the step ends in {left:.0f} s if nothing is shown against it: {summary}"
    return Judgement("wait", message=message, again_in=left)


def _in_force(judged: PodVerdict) -> bool:
    """A failed verdict demands its action until it has passed long enough, or a person has acknowledged the alarm."""
    return judged.in_force not in ("", "None") or (judged.in_force == "" and judged.verdict == "Fail")


def _unmeasured(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    workload = obs.workload(TRACK_CANARY)
    if workload is None or not workload.observed or workload.available < 1:
        return Judgement("wait", message=f"revision {trial.name} is starting")
    stats = served(obs, trial.name)
    if not stats.requests:
        return Judgement("wait", message=f"revision {trial.name} has reported no request yet")
    if stats.requests == stats.errors < MIN_FAILURES and obs.model.spec.lifecycle.rollout.max_error_rate < 1:
        return Judgement("wait", message=f"revision {trial.name} has answered no request rightly yet")
    return None


def _unclear(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    """Too few requests to speak for it, or more failures than both budget and stable revision have and not shown to be
    more than chance: longer at the step, but not for ever."""
    new, old = _failures(served(obs, trial.name)), _failures(_stable(obs))
    allowed = max(obs.model.spec.lifecycle.rollout.max_error_rate, old.share)
    left = _left(obs, trial, UNDECIDED_INTERVALS)
    if left <= 0 or (new.requests >= MIN_REQUESTS and new.share <= allowed):
        return None
    message = (
        f"{new.failed} of {new.requests} requests failed: fewer than {MIN_REQUESTS}, or not decided; the step ends in "
        f"{left:.0f} s if nothing is shown against it"
    )
    return Judgement("wait", message=message, again_in=left)


def _failures(stats: Served) -> Failures:
    return Failures(min(stats.errors, stats.requests), stats.requests)


def _stable(obs: Observed) -> Served:
    stable = obs.status.stable
    return served(obs, stable.name if stable else None)


def _left(obs: Observed, trial: RevisionStatus, times: int) -> float:
    """Seconds until the step has lasted ``times`` intervals."""
    waited = (obs.now - datetime.fromisoformat(trial.since)).total_seconds()
    return times * seconds(obs.model.spec.lifecycle.rollout.interval) - waited
