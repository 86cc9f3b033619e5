"""A trial's judgement at its exact limits and word for word, and what is decided from it."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from builders import BIAS, DIGEST, IMPORTED, NOW, PodProblem, child, observed, pod, report, resolved, workload

from governed_api.conditions import Condition
from governed_api.latency import BOUNDS, median_interval
from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_api.reasons import KubernetesReason, Reason
from governed_api.report import ArchiveReport, RecordedVerdict
from governed_operator.desired.decision import Decision, Revision, Violation
from governed_operator.policy.canary import Judgement, judge
from governed_operator.policy.decide import decide
from governed_operator.policy.observed import Observed

GOOD = {"requests": 100}
PULL = PodProblem(KubernetesReason.IMAGE_PULL_BACK_OFF, "container server of pod c: no such image")


@dataclass
class Trial:
    """A canary that has been at 10 % for ``elapsed``, beside a stable revision ``old``; nothing is against it."""

    elapsed: timedelta = timedelta(minutes=16)
    rollout: dict[str, Any] = field(default_factory=dict)
    bias: dict[str, Any] | None = None
    canary: dict[str, Any] = field(default_factory=lambda: dict(GOOD))
    stable: dict[str, Any] = field(default_factory=lambda: {"requests": 900})
    auditor: dict[str, Any] | None = None
    others: dict[str, Any] = field(default_factory=dict)
    children: tuple[Any, ...] = ()
    workload: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        rollout = {"strategy": "Canary", "steps": [10, 30, 50], "interval": "5m"} | self.rollout
        governance = {"governance": {"bias": BIAS | self.bias}} if self.bias is not None else {}
        return {**IMPORTED, **governance, "lifecycle": {"rollout": rollout}}

    @property
    def name(self) -> str:
        return Revision.of(resolved(self.spec), DIGEST).name

    @property
    def status(self) -> RevisionStatus:
        since = (NOW - self.elapsed).isoformat().replace("+00:00", "Z")
        return RevisionStatus(name=self.name, artefact=DIGEST, percent=10, since=since)

    def auditors(self) -> dict[str, Any]:
        """By pod; ``p`` names an entry of the ledger unless it says otherwise."""
        mine = {} if self.auditor is None else {"p": {"ledgerIndex": 7, **self.auditor}}
        return {pod: {k: v for k, v in said.items() if v is not None} for pod, said in {**mine, **self.others}.items()}

    def observed(self) -> Observed:
        reported = {"server": {"p": self.canary}, "auditor": self.auditors()}
        return observed(
            self.spec,
            child("Deployment", "m-predictor", workload("old")),
            child("Deployment", "m-canary", workload(self.name, "canary", **self.workload)),
            *self.children,
            status=GovernedModelStatus(stable=RevisionStatus(name="old", percent=100), canary=self.status),
            report=report(revisions={self.name: reported, "old": {"server": {"q": self.stable}}}),
        )

    def judged(self) -> Judgement:
        return judge(self.observed(), self.status)


def test_a_trial_of_which_nothing_is_said_goes_on() -> None:
    assert Trial().judged() == Judgement("advance", Reason.CANARY_TRIAL, "", None)


@pytest.mark.parametrize(
    ("children", "workload", "want"),
    [
        ((child("Pod", "c", pod(PULL, track="canary")),), {}, "CanaryImagePullBackOff"),
        ((child("Pod", "s", pod(PULL)),), {}, None),
        ((child("Pod", "t", pod(PULL, "trainer", "canary")),), {}, None),
        ((child("Pod", "c", pod(track="canary")),), {"problem": PULL}, "CanaryImagePullBackOff"),
    ],
    ids=["its pod", "the stable revision's pod", "a trainer's pod", "its Deployment"],
)
def test_what_keeps_a_canary_from_running_rejects_it(children: Any, workload: Any, want: str | None) -> None:
    """Nobody else's problem does."""
    found = Trial(children=children, workload=workload).judged()
    assert (found.verdict, found.reason) == (("reject", want) if want else ("advance", "CanaryTrial"))
    assert found.message == (PULL.message if want else "")


def counts(seconds: float, requests: int) -> list[int]:
    return [0] * next(n for n, bound in enumerate(BOUNDS) if bound >= seconds) + [requests]


def test_a_canary_is_slow_above_the_ratio_and_not_at_it() -> None:
    """The lower end of its median over the upper end of the stable revision's."""
    slow, fast = counts(0.1, 100), counts(0.02, 900)
    new, old = median_interval(slow), median_interval(fast)
    assert new is not None
    assert old is not None
    ratio = new[0] / old[1]

    def judged(allowed: float) -> Judgement:
        told = {"canary": GOOD | {"latencyCounts": slow}, "stable": {"requests": 900, "latencyCounts": fast}}
        return Trial(rollout={"maxLatencyRatio": allowed}, **told).judged()

    assert judged(ratio).verdict == "advance"
    found = judged(ratio * (1 - 1e-12))
    assert (found.verdict, found.reason) == ("reject", "CanaryLatency")
    assert f"median latency is at least {new[0] * 1000:.3g} ms, {ratio:.2f} times" in found.message
    assert (
        f"times the stable revision's {old[1] * 1000:.3g} ms; lifecycle.rollout.maxLatencyRatio allows" in found.message
    )


@pytest.mark.parametrize("auditor", [None, {"verdict": "Fail", "samples": 5000}, {"verdict": "Unknown"}])
def test_bias_that_is_only_told_of_keeps_no_canary(auditor: Any) -> None:
    assert Trial(bias={"action": "Alert"}, auditor=auditor).judged().verdict == "advance"


TOO_FEW = Judgement("wait", message="no bias verdict yet: too few samples")


@pytest.mark.parametrize(
    ("auditor", "want"),
    [
        (None, TOO_FEW),
        ({"verdict": "Unknown", "samples": 99}, TOO_FEW),
        ({"verdict": "Unknown", "summary": "0 of 100"}, Judgement("wait", message="no bias verdict yet: 0 of 100")),
        ({"verdict": "Unknown", "samples": 100}, Judgement("advance")),
        ({"verdict": "Pass", "samples": 1}, Judgement("advance")),
        ({"verdict": "Fail", "samples": 1, "summary": "SPD -0.3"}, Judgement("reject", Reason.CANARY_BIAS, "SPD -0.3")),
        ({"verdict": "Fail", "inForce": "None"}, Judgement("advance")),
        ({"verdict": "Fail", "inForce": "Rollback"}, Judgement("reject", Reason.CANARY_BIAS, "")),
        ({"verdict": "Pass", "inForce": "Rollback"}, Judgement("reject", Reason.CANARY_BIAS, "")),
    ],
)  # fmt: skip
def test_a_bias_verdict_counts_from_its_least_samples_on_and_as_its_alarm_says(auditor: Any, want: Judgement) -> None:
    assert Trial(bias={"action": "Rollback", "minSamples": 100}, auditor=auditor).judged() == want


@pytest.mark.parametrize(
    "auditor",
    [
        {"verdict": "Pass", "samples": 10**9},
        {"verdict": "Pass", "inForce": "None", "samples": 10**9},
        {"verdict": "Unknown", "samples": 10**9},
        {"verdict": "Fail", "inForce": "None", "samples": 10**9},
    ],
)
def test_a_verdict_that_is_not_in_the_ledger_promotes_nothing(auditor: dict[str, Any]) -> None:
    claimed = Trial(timedelta(days=9), bias={"action": "Rollback", "minSamples": 100})
    claimed.auditor = {**auditor, "ledgerIndex": None}
    assert claimed.judged() == Judgement("wait", message="a bias verdict of a pod isn't in the ledger yet")


def test_the_newest_verdict_is_the_one_of_the_highest_place_in_the_ledger() -> None:
    """Not that of the pod that says it knows most; and what one says against the revision is waited for."""
    trial = Trial(bias={"action": "Rollback", "minSamples": 100})
    trial.others = {"q": {"verdict": "Pass", "samples": 10**9, "ledgerIndex": 5}}
    trial.auditor = {"verdict": "Fail", "samples": 200, "ledgerIndex": 6, "summary": "SPD -0.3"}
    assert trial.judged() == Judgement("reject", Reason.CANARY_BIAS, "SPD -0.3")
    trial.auditor = {"verdict": "Pass", "samples": 200, "ledgerIndex": 6}
    trial.others = {"q": {"verdict": "Fail", "samples": 10**9, "ledgerIndex": 5}}
    assert trial.judged() == Judgement("advance")
    trial.others = {"q": {"verdict": "Pass", "samples": 10**9}}
    assert trial.judged() == Judgement("advance")
    trial.others = {"q": {"verdict": "Fail", "samples": 10**9}}
    assert trial.judged() == Judgement("wait", message="a bias verdict of a pod isn't in the ledger yet")


FAILED = RecordedVerdict(
    model="m", revision="", ledger_index=6, verdict="Fail", samples=200, in_force="Rollback", summary="SPD -0.3"
)  # fmt: skip
ROLLED_BACK = Judgement("reject", Reason.CANARY_BIAS, "SPD -0.3")


@pytest.mark.parametrize("index", [5, 6, 7, 2**62, None])
def test_no_index_that_a_pod_claims_outweighs_what_the_archive_has_in_the_ledger(index: int | None) -> None:
    """Every pod of the model may write all of its report: a place in the ledger is the archive's to tell."""
    trial = Trial(bias={"action": "Rollback", "minSamples": 100})
    trial.auditor = {"verdict": "Pass", "inForce": "None", "samples": 10**9, "ledgerIndex": index}
    in_the_ledger = ArchiveReport(verdicts=[FAILED.model_copy(update={"revision": trial.name})])
    forged = replace(trial.observed(), archive_report=in_the_ledger)
    assert judge(forged, trial.status) == ROLLED_BACK
    for nothing in (None, ArchiveReport(), ArchiveReport(verdicts=[FAILED])):
        unheard = judge(replace(trial.observed(), archive_report=nothing), trial.status)
        assert unheard == Judgement("wait", message="a bias verdict of a pod isn't in the ledger yet")


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({"ledgerIndex": 2**62}, "wait"),
        ({"ledgerIndex": 6}, "wait"),
        ({"ledgerIndex": None}, "wait"),
        ({"ledgerIndex": 5}, "advance"),
        ({"ledgerIndex": 2**62, "inForce": "None"}, "advance"),
    ],
    ids=["later", "of that entry", "of none", "earlier", "acknowledged"],
)
def test_what_a_pod_says_against_a_passed_revision_is_waited_for_unless_it_is_over(claim: Any, verdict: str) -> None:
    trial = Trial(bias={"action": "Rollback", "minSamples": 100})
    trial.auditor = {"verdict": "Fail", "samples": 10**9, **claim}
    passed = FAILED.model_copy(update={"revision": trial.name, "verdict": "Pass", "in_force": "None"})
    found = judge(replace(trial.observed(), archive_report=ArchiveReport(verdicts=[passed])), trial.status)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("elapsed", "left"),
    [(timedelta(minutes=14), 60.0), (timedelta(minutes=15, seconds=-0.5), 0.5), (timedelta(minutes=15), None),
     (timedelta(minutes=15, seconds=0.5), None)],
)  # fmt: skip
def test_what_is_undecided_is_waited_for_three_intervals_and_no_longer(elapsed: timedelta, left: float | None) -> None:
    unclear = Trial(elapsed, bias={"action": "Rollback", "minSamples": 100})
    unclear.auditor = {"verdict": "Unknown", "samples": 100, "summary": "SPD -0.1 ± 0.2"}
    few = Trial(elapsed, canary={"requests": 29, "errors": 1})
    if left is None:
        assert unclear.judged() == few.judged() == Judgement("advance")
        return
    ends = f"the step ends in {left:.0f} s if nothing is shown against it"
    bias = f"bias is not decided yet, {ends}: SPD -0.1 ± 0.2"
    assert unclear.judged() == Judgement("wait", message=bias, again_in=left)
    failures = f"1 of 29 requests failed: fewer than 30, or not decided; {ends}"
    assert few.judged() == Judgement("wait", message=failures, again_in=left)


@pytest.mark.parametrize(
    ("canary", "budget", "want"),
    [
        ({"requests": 0}, 0.5, "has reported no request yet"),
        ({"requests": 2, "errors": 2}, 0.5, "has answered no request rightly yet"),
        ({"requests": 3, "errors": 3}, 0.5, None),
        ({"requests": 2, "errors": 1}, 0.5, None),
        ({"requests": 2, "errors": 2}, 1, None),
        ({"requests": 1, "errors": 1}, 0.999, "has answered no request rightly yet"),
    ],
)
def test_what_is_not_measured_is_waited_for_without_end(canary: Any, budget: float, want: str | None) -> None:
    trial = Trial(timedelta(minutes=600), canary=canary, rollout={"maxErrorRate": budget})
    found = trial.judged()
    assert found == (Judgement("wait", message=f"revision {trial.name} {want}") if want else Judgement("advance"))


def test_without_requests_of_the_stable_revision_the_budget_alone_decides() -> None:
    trial = Trial(timedelta(minutes=6), canary={"requests": 150, "errors": 2}, stable={"requests": 0})
    assert trial.judged().verdict == "wait"


# What is decided

SINCE = NOW.isoformat().replace("+00:00", "Z")


def shares(decision: Decision) -> tuple[tuple[str, int, str] | None, tuple[str, int, str] | None]:
    """(Name, share, since) of the stable revision and of the canary."""
    stable, canary = ((r.name, r.percent, r.since) if r else None for r in (decision.stable, decision.canary))
    return stable, canary


def test_a_canary_takes_its_next_step_and_leaves_the_stable_deployment_as_it_is() -> None:
    trial = Trial()
    decision = decide(trial.observed())
    assert shares(decision) == (None, (trial.name, 30, SINCE))
    assert decision.held


def test_a_canary_after_its_last_step_has_all_the_traffic() -> None:
    trial = Trial(rollout={"steps": [10]})
    decision = decide(trial.observed())
    assert shares(decision) == ((trial.name, 100, SINCE), None)
    assert not decision.held


@pytest.mark.parametrize("known", [None, RevisionStatus(name="another", percent=50, since="2026-11-01T00:00:00Z")])
def test_a_trial_of_another_revision_counts_nothing_for_this_one(known: RevisionStatus | None) -> None:
    trial = Trial()
    obs = trial.observed()
    decision = decide(replace(obs, status=obs.status.model_copy(update={"canary": known})))
    assert shares(decision) == (None, (trial.name, 10, SINCE))
    assert decision.held


def test_a_first_revision_has_all_the_traffic_at_once() -> None:
    obs = observed()
    name = Revision.of(resolved(IMPORTED), DIGEST).name
    assert shares(decide(obs)) == ((name, 100, SINCE), None)
    earlier = GovernedModelStatus(stable=RevisionStatus(name=name, percent=100, since="2026-11-01T00:00:00Z"))
    assert shares(decide(replace(obs, status=earlier))) == ((name, 100, "2026-11-01T00:00:00Z"), None)


def test_a_rejected_canary_leaves_the_stable_deployment_as_it_is() -> None:
    trial = Trial(workload={"problem": PULL})
    decision = decide(trial.observed())
    message = f"revision {trial.name} was rolled back at 10 %: {PULL.message}"
    assert (decision.held, decision.rejected, shares(decision)) == (True, trial.name, (None, None))
    told = Violation("Degraded", Reason.CANARY_REJECTED, message, "True", stalled=True)
    assert decision.violations == (replace(told, reason=decision.violations[0].reason),)
    assert decision.violations[0].reason == "CanaryImagePullBackOff"


def test_a_blocked_promotion_waits_for_a_person() -> None:
    trial = Trial(bias={"action": "BlockPromotion"}, auditor={"verdict": "Fail", "summary": "SPD -0.3"})
    decision = decide(trial.observed())
    assert shares(decision) == (None, (trial.name, 10, trial.status.since))
    message = "bias verdict failed: SPD -0.3"
    assert decision.violations == (Violation("Degraded", Reason.PROMOTION_BLOCKED, message, "True", stalled=True),)


def rejected(*conditions: tuple[str, str], stable: bool = True) -> Decision:
    """Looked at again after the rejection, with (type, reason) in its status."""
    trial = Trial()
    obs = trial.observed()
    known = [
        Condition(type=kind, status="True", reason=reason, message="said earlier", last_transition_time=SINCE)
        for kind, reason in conditions
    ]
    status = obs.status.model_copy(update={"canary": None, "rejected": trial.name, "conditions": known})
    children = {key: value for key, value in obs.children.items() if stable or key[1] != "m-predictor"}
    return decide(replace(obs, status=status, children=children))


@pytest.mark.parametrize(
    ("conditions", "want"),
    [
        ([], "CanaryRejected"),
        ([("Reconciling", "CanaryTrial")], "CanaryRejected"),
        ([("Degraded", "ReportNotReadable")], "CanaryRejected"),
        ([("Reconciling", "CanaryTrial"), ("Degraded", "CanaryLatency")], "CanaryLatency"),
    ],
)
def test_the_reason_of_a_rejection_is_kept_where_it_is_known(conditions: Any, want: str) -> None:
    decision = rejected(*conditions)
    assert (decision.held, decision.rejected) == (True, Trial().name)
    (told,) = decision.violations
    assert (told.condition, told.reason, told.status, told.stalled) == ("Degraded", want, "True", True)
    kept = want != "CanaryRejected"
    assert (told.message == "said earlier") == kept
    assert told.message.startswith(f"revision {Trial().name} was rolled back earlier") != kept


def test_a_rejected_revision_alone_waits_for_a_person() -> None:
    decision = rejected(stable=False)
    assert not decision.held
    gone = decision.violations[-1]
    assert (gone.condition, gone.reason, gone.status, gone.stalled) == ("PredictorReady", "NotDeployed", "False", True)
