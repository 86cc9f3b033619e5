"""Is a canary good enough? Pure judgement over what its own pods reported."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from governed_api.model import RevisionStatus
from governed_api.quantities import seconds
from governed_operator.desired.track import CANARY
from governed_operator.observed import Observed

Verdict = Literal["advance", "wait", "hold", "reject"]


@dataclass(frozen=True)
class Judgement:
    """What to do with a canary, why, and when to ask again."""

    verdict: Verdict
    reason: str = ""
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
    left = seconds(obs.model.spec.lifecycle.rollout.interval) - (obs.now - _time(trial.since)).total_seconds()
    if left > 0:
        return Judgement("wait", "CanaryInterval", f"{trial.percent} % of the traffic", left)
    return Judgement("advance")


def _parts(obs: Observed, revision: str) -> dict[str, Any]:
    return dict(obs.report.revisions.get(revision, {})) if obs.report else {}


def _broken(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    for pod in obs.pods("predictor", CANARY):
        if pod.problem:
            return Judgement("reject", pod.problem.reason, pod.problem.message)
    workload = obs.workload(CANARY)
    if workload and workload.problem:
        return Judgement("reject", workload.problem.reason, workload.problem.message)
    stats = _parts(obs, trial.name).get("server") or {}
    requests, errors = int(stats.get("requests") or 0), int(stats.get("errors") or 0)
    rollout = obs.model.spec.lifecycle.rollout
    if requests and errors / requests > rollout.max_error_rate:
        message = f"{errors} of {requests} requests failed; lifecycle.rollout.maxErrorRate allows {rollout.max_error_rate:.2%}"
        return Judgement("reject", "ErrorRate", message)
    return _slow(obs, trial, stats)


def _slow(obs: Observed, trial: RevisionStatus, stats: dict[str, Any]) -> Judgement | None:
    stable = obs.status.stable
    base = (_parts(obs, stable.name).get("server") or {}) if stable else {}
    new, old = stats.get("medianLatencySeconds"), base.get("medianLatencySeconds")
    allowed = obs.model.spec.lifecycle.rollout.max_latency_ratio
    if new and old and new / old > allowed:
        message = (
            f"median latency {new * 1000:.1f} ms is {new / old:.2f} times the stable revision's; {allowed:g} is allowed"
        )
        return Judgement("reject", "Latency", f"revision {trial.name}: {message}")
    return None


def _bias(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    bias = obs.model.spec.governance.bias
    if bias is None or bias.action == "Alert":
        return None
    auditor = _parts(obs, trial.name).get("auditor") or {}
    summary = str(auditor.get("summary", ""))
    if auditor.get("verdict") == "Fail":
        if bias.action == "Rollback":
            return Judgement("reject", "BiasBeyondThreshold", summary)
        return Judgement("hold", "PromotionBlocked", f"bias verdict failed: {summary}")
    if auditor.get("verdict") != "Pass":
        return Judgement("wait", "BiasUnknown", f"no bias verdict yet: {summary or 'too few samples'}")
    return None


def _unmeasured(obs: Observed, trial: RevisionStatus) -> Judgement | None:
    workload = obs.workload(CANARY)
    if workload is None or not workload.observed or workload.available < 1:
        return Judgement("wait", "CanaryStarting", f"revision {trial.name} is starting")
    if not (_parts(obs, trial.name).get("server") or {}).get("requests"):
        return Judgement("wait", "NoRequests", f"revision {trial.name} has reported no request yet")
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
