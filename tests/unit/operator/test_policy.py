"""Decisions and conditions, table by table."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import (
    BIAS,
    DIGEST,
    IMPORTED,
    NOW,
    TRAINED,
    JobFacts,
    Problem,
    child,
    observed,
    pod,
    report,
    resolved,
    trained_report,
    workload,
)

from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_operator.decision import Revision
from governed_operator.desired import model_objects
from governed_operator.desired.manifest import Subject
from governed_operator.desired.trainer import job_name
from governed_operator.observed import Observed, Outside
from governed_operator.policy.decide import decide
from governed_operator.reconcile import spared
from governed_operator.status import significant, status_of

JOB = job_name(Subject(resolved(TRAINED)))


def condition(obs: Observed, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in status_of(obs, decide(obs)).conditions if c.type == kind]
    return found.status, found.reason, found.message


def serving(spec: dict[str, Any] = IMPORTED, **changes: Any) -> Observed:
    revision = Revision.of(resolved(spec), DIGEST).name
    deployment = child("Deployment", "m-predictor", workload(revision))
    return observed(spec, deployment, child("Pod", "p", pod()), **changes)


def test_a_served_model_is_ready() -> None:
    assert condition(serving(), "Ready") == ("True", "Serving", "")


def test_training_comes_first_and_ends_with_an_artefact() -> None:
    before = decide(observed(TRAINED))
    assert (before.train, before.stable) == (True, None)
    done = observed(TRAINED, report=trained_report(resolved(TRAINED)))
    after = decide(done)
    assert (after.train, after.stable and after.stable.artefact) == (False, DIGEST)


def test_a_report_about_another_training_spec_answers_nothing() -> None:
    other = {"lifecycle": {"training": {**TRAINED["lifecycle"]["training"], "loop": {"epochs": 3}}}}
    assert decide(observed(other, report=trained_report(resolved(TRAINED)))).stable is None


def test_retraining_leaves_what_serves_alone() -> None:
    obs = observed(
        TRAINED, child("Deployment", "m-predictor", workload("old")), child("ConfigMap", "m-spec-1", None, "predictor")
    )
    decision = decide(obs)
    assert (decision.train, decision.held) == (True, True)
    assert {("Deployment", "m-predictor"), ("ConfigMap", "m-spec-1")} <= set(spared(obs, decision))
    assert "Deployment" not in {m["kind"] for m in model_objects(obs.subject, decision)}
    assert "Service" in {m["kind"] for m in model_objects(obs.subject, decision)}


def test_suspend_stops_everything_that_runs() -> None:
    obs = serving({**IMPORTED, "suspend": True})
    decision = decide(obs)
    assert decision.stopped
    assert not {"Deployment", "Job", "Service"} & {m["kind"] for m in model_objects(obs.subject, decision)}
    assert not spared(obs, decision)
    assert condition(obs, "Ready")[:2] == ("False", "Suspended")


CRASH = Problem("CrashLoopBackOff", "container server of pod p: back-off; it exited with code 3")
PROBLEMS = {
    "crash loop": (
        {"children": dict([child("Pod", "p", pod(CRASH))])},
        "CrashLoopBackOff",
        "container server of pod p",
    ),
    "archive pod": (
        {"shared": dict([child("Pod", "a", pod(CRASH, "archive"))])},
        "CrashLoopBackOff",
        "container server",
    ),
    "archive away": ({"shared": {}}, "ArchiveNotReady", "no ready pod"),
    "key missing": ({"outside": Outside(missing_secret="there is no Secret k")}, "SecretNotFound", "no Secret k"),
    "claim missing": (
        {"outside": Outside(missing_claim="there is no claim")},
        "PersistentVolumeClaimNotFound",
        "claim",
    ),
    "plain class": ({"outside": Outside(unencrypted_class="class x")}, "StorageClassNotEncrypted", "class x"),
    "tampered": (
        {"report": report(server={"verified": False, "message": "got sha256:1"})},
        "DigestMismatch",
        "got sha256:1",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_ready_names_the_cause(name: str) -> None:
    changes, reason, words = PROBLEMS[name]
    obs = serving()
    if "children" in changes:
        changes = {"children": {**obs.children, **changes["children"]}}  # type: ignore[dict-item]
    status, found, message = condition(replace(obs, **changes), "Ready")
    assert (status, found) == ("False", reason)
    assert words in message


def test_a_blocked_model_goes_on_serving() -> None:
    obs = replace(serving(), outside=Outside(missing_secret="gone"))
    decision = decide(obs)
    assert decision.held
    assert ("Deployment", "m-predictor") in spared(obs, decision)
    assert decision.again_in


def test_a_failed_job_says_what_the_trainer_said() -> None:
    failure = JobFacts(False, Problem("BackoffLimitExceeded", "Job has reached the limit"), False)
    said = report(
        trainer={"phase": "Failed", "message": "y is not a column", "trainingHash": resolved(TRAINED).training_hash()}
    )
    obs = observed(TRAINED, child("Job", JOB, failure), report=said)
    assert condition(obs, "TrainingSucceeded") == ("False", "BackoffLimitExceeded", "y is not a column")
    assert condition(obs, "Ready")[1] == "BackoffLimitExceeded"


def test_a_lost_key_is_never_replaced() -> None:
    base = serving()
    children = {k: v for k, v in base.children.items() if k != ("Secret", "m-kek")}
    stable = RevisionStatus(name="r", percent=100)
    obs = replace(base, children=children, status=GovernedModelStatus(stable=stable))
    assert condition(obs, "EncryptionReady")[1] == "KeyLost"
    assert "m-kek" not in [m["metadata"]["name"] for m in model_objects(obs.subject, decide(obs))]


@pytest.mark.parametrize(
    ("verdict", "want"),
    [
        ("Pass", ("True", "WithinThresholds")),
        ("Fail", ("False", "BeyondThreshold")),
        ("Unknown", ("Unknown", "TooFewSamples")),
    ],
)
def test_verdicts_become_a_condition_and_leave_ready_alone(verdict: str, want: tuple[str, str]) -> None:
    spec = {**TRAINED, "governance": {"bias": BIAS}}
    model = resolved(spec)
    both = trained_report(model).model_copy(update={"auditor": report(auditor={"verdict": verdict}).auditor})
    revision = Revision.of(model, DIGEST).name
    obs = observed(spec, child("Deployment", "m-predictor", workload(revision)), child("Pod", "p", pod()), report=both)
    assert condition(obs, "BiasWithinThresholds")[:2] == want
    assert condition(obs, "Ready")[0] == "True"


def test_an_unchanged_status_is_equal_and_figures_are_not_significant() -> None:
    obs = serving()
    first = status_of(obs, decide(obs))
    later = replace(obs, status=first, now=NOW + timedelta(hours=1))
    assert status_of(later, decide(later)) == first
    plain = first.plain()
    assert significant({**plain, "ledger": {"size": 2}}) == significant({**plain, "ledger": {"size": 1}})
    assert significant({**plain, "bias": {"verdict": "Fail"}}) != significant({**plain, "bias": {"verdict": "Pass"}})


CANARY_SPEC = {
    **IMPORTED,
    "governance": {"bias": {**BIAS, "action": "Rollback"}},
    "lifecycle": {"rollout": {"strategy": "Canary", "steps": [10, 50], "interval": "5m"}},
}
TARGET = Revision.of(resolved(CANARY_SPEC), DIGEST).name
GOOD = {"server": {"requests": 100, "errors": 0, "medianLatencySeconds": 0.01}, "auditor": {"verdict": "Pass"}}


def trial(percent: int | None, parts: dict[str, Any], minutes: int = 6, canary: Any = None, **changes: Any) -> Observed:
    since = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = GovernedModelStatus(
        stable=RevisionStatus(name="old", artefact="sha256:old", percent=100),
        canary=None if percent is None else RevisionStatus(name=TARGET, percent=percent, since=since),
    )
    children = [
        child("Deployment", "m-predictor", workload("old")),
        child("Deployment", "m-canary", canary or workload(TARGET, "canary")),
    ]
    revisions = {"old": {"server": {"medianLatencySeconds": 0.009}}, TARGET: parts}
    return observed(CANARY_SPEC, *children, status=status, report=report(revisions=revisions), **changes)


def step(obs: Observed) -> tuple[str | None, int | None, str | None]:
    """(stable, canary's share, rejected)"""
    decision = decide(obs)
    canary = decision.canary.percent if decision.canary else None
    return decision.stable and decision.stable.name, canary, decision.rejected


CANARY = {
    "begins at the first step": (trial(None, {}), (None, 10, None)),
    "waits for its interval": (trial(10, GOOD, minutes=2), (None, 10, None)),
    "goes on": (trial(10, GOOD), (None, 50, None)),
    "is promoted after the last step": (trial(50, GOOD), (TARGET, None, None)),
    "waits for requests": (trial(10, {"auditor": {"verdict": "Pass"}}), (None, 10, None)),
    "waits for a verdict": (trial(10, {"server": GOOD["server"]}), (None, 10, None)),
    "errs": (trial(10, {**GOOD, "server": {"requests": 100, "errors": 5}}), (None, None, TARGET)),
    "is slow": (trial(10, {**GOOD, "server": {"requests": 9, "medianLatencySeconds": 0.02}}), (None, None, TARGET)),
    "is biased": (trial(10, {**GOOD, "auditor": {"verdict": "Fail", "summary": "SPD -0.3"}}), (None, None, TARGET)),
    "stalls": (
        trial(10, GOOD, canary=workload(TARGET, "canary", problem=Problem("ProgressDeadlineExceeded", "x"))),
        (None, None, TARGET),
    ),
}


@pytest.mark.parametrize("name", CANARY)
def test_a_canary(name: str) -> None:
    obs, want = CANARY[name]
    assert step(obs) == want


def test_a_rejected_canary_says_why_and_is_not_tried_again() -> None:
    obs = CANARY["is biased"][0]
    decision = decide(obs)
    status = status_of(obs, decision)
    degraded = next(c for c in status.conditions if c.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "CanaryBiasBeyondThreshold")
    assert "SPD -0.3" in degraded.message
    assert status.stable is not None
    assert status.stable.name == "old"
    again = replace(obs, status=status)
    assert step(again) == (None, None, TARGET)
    kept = next(c for c in status_of(again, decide(again)).conditions if c.type == "Degraded")
    assert (kept.reason, kept.message) == (degraded.reason, degraded.message)


def test_action_block_holds_the_canary_where_it_is() -> None:
    spec = {**CANARY_SPEC, "governance": {"bias": {**BIAS, "action": "BlockPromotion"}}}
    target = Revision.of(resolved(spec), DIGEST).name
    obs = trial(10, {})
    obs = replace(
        obs,
        subject=Subject(resolved(spec), uid="u"),
        status=obs.status.model_copy(
            update={"canary": RevisionStatus(name=target, percent=10, since="2026-11-23T00:00:00Z")}
        ),
        report=report(revisions={target: {**GOOD, "auditor": {"verdict": "Fail"}}}),
    )
    assert step(obs) == (None, 10, None)
    assert condition(obs, "Degraded")[1] == "PromotionBlocked"


def test_scaling_out_does_not_unready_but_a_rollout_and_too_few_replicas_do() -> None:
    spec = {"predictor": {**IMPORTED["predictor"], "minReplicas": 2, "maxReplicas": 9}}
    revision = Revision.of(resolved(spec), DIGEST).name

    def ready(**changes: int) -> str:
        deployment = child("Deployment", "m-predictor", workload(revision, **changes))
        return condition(observed(spec, deployment, child("Pod", "p", pod())), "Ready")[0]

    assert ready(wanted=5, replicas=5, updated=5, available=2) == "True"
    assert ready(wanted=5, replicas=5, updated=5, available=1) == "False"
    assert ready(wanted=2, replicas=3, updated=1, available=2) == "False"
