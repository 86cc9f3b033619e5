"""Decisions and conditions, table by table."""

import random
from bisect import bisect_left
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
    PodProblem,
    child,
    observed,
    pod,
    report,
    resolved,
    trained_report,
    workload,
)

from governed_api.latency import BOUNDS, added, median_interval, quantile
from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_api.reasons import Reason
from governed_api.report import ArchiveReport
from governed_operator.desired import model_objects
from governed_operator.desired.decision import Revision
from governed_operator.desired.manifest import Subject
from governed_operator.desired.quota import priority_class, resource_quota
from governed_operator.desired.trainer import job_name
from governed_operator.loop.reconcile import retained_children
from governed_operator.policy.decide import decide
from governed_operator.policy.observed import Observed, Outside, Refusal
from governed_operator.policy.revisions import stale_report_entries
from governed_operator.policy.status import significant, status_of, status_of_failure
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch.facts import route as route_facts
from governed_operator.watch.facts import scaled_object as scaled_facts

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
    assert {("Deployment", "m-predictor"), ("ConfigMap", "m-spec-1")} <= set(retained_children(obs, decision))
    assert "Deployment" not in {m["kind"] for m in model_objects(obs.subject, decision)}
    assert "Service" in {m["kind"] for m in model_objects(obs.subject, decision)}


def test_suspend_stops_everything_that_runs() -> None:
    obs = serving({**IMPORTED, "suspend": True})
    decision = decide(obs)
    assert decision.stopped
    assert not {"Deployment", "Job", "Service"} & {m["kind"] for m in model_objects(obs.subject, decision)}
    assert not retained_children(obs, decision)
    assert condition(obs, "Ready")[:2] == ("False", "Suspended")


STABLE = Revision.of(resolved(IMPORTED), DIGEST).name
CRASH = PodProblem("CrashLoopBackOff", "container server of pod p: back-off; it exited with code 3")
RETRYABLE_ERRORS = {
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
        {"report": report(revisions={STABLE: {"server": {"p": {"verified": False, "message": "got sha256:1"}}}})},
        "DigestMismatch",
        "got sha256:1",
    ),
}


@pytest.mark.parametrize("name", RETRYABLE_ERRORS)
def test_ready_names_the_cause(name: str) -> None:
    changes, reason, words = RETRYABLE_ERRORS[name]
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
    assert ("Deployment", "m-predictor") in retained_children(obs, decision)
    assert decision.again_in


def test_a_failed_job_says_what_the_trainer_said() -> None:
    failure = JobFacts(False, PodProblem("BackoffLimitExceeded", "Job has reached the limit"), False)
    said = report(
        trainer={"phase": "Failed", "message": "y is not a column", "trainingHash": resolved(TRAINED).training_hash()}
    )
    obs = observed(TRAINED, child("Job", JOB, failure), report=said)
    assert condition(obs, "TrainingSucceeded") == ("False", "BackoffLimitExceeded", "y is not a column")
    assert condition(obs, "Ready")[1] == "BackoffLimitExceeded"


def test_a_failed_job_says_what_the_trainer_crashed_with() -> None:
    failure = JobFacts(False, PodProblem("BackoffLimitExceeded", "Job has reached the limit"), False)
    crashed = pod(component="trainer")._replace(last_words="PackageNotFoundError: torch")
    obs = observed(TRAINED, child("Job", JOB, failure), child("Pod", "t", crashed))
    assert (
        condition(obs, "Ready")[2] == "Job has reached the limit; the trainer's last words: PackageNotFoundError: torch"
    )


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
    revision = Revision.of(model, DIGEST).name
    told = report(revisions={revision: {"auditor": {"p": {"verdict": verdict, "ledgerIndex": 7}}}})
    both = trained_report(model).model_copy(update={"revisions": told.revisions})
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


def latencies(seconds: float, requests: int = 100) -> list[int]:
    """Counts as a server reports them."""
    place = bisect_left(BOUNDS, seconds)
    return [0] * place + [requests]


SERVED = {"requests": 100, "errors": 0, "latencyCounts": latencies(0.01)}
GOOD = {"server": {"p": SERVED}, "auditor": {"p": {"verdict": "Pass", "ledgerIndex": 7}}}


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
    revisions = {"old": {"server": {"q": {"requests": 900, "latencyCounts": latencies(0.009, 900)}}}, TARGET: parts}
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
    "waits for requests": (trial(10, {"auditor": {"p": {"verdict": "Pass"}}}), (None, 10, None)),
    "waits for a verdict": (trial(10, {"server": GOOD["server"]}), (None, 10, None)),
    "waits for samples, however long": (
        trial(10, {**GOOD, "auditor": {"p": {"verdict": "Unknown", "samples": 3}}}, minutes=600),
        (None, 10, None),
    ),
    "waits longer while nothing is shown": (
        trial(10, {**GOOD, "auditor": {"p": {"verdict": "Unknown", "samples": 5000, "ledgerIndex": 7}}}, minutes=14),
        (None, 10, None),
    ),
    "goes on when nothing is shown against it": (
        trial(10, {**GOOD, "auditor": {"p": {"verdict": "Unknown", "samples": 5000, "ledgerIndex": 7}}}, minutes=16),
        (None, 50, None),
    ),
    "is biased after all": (
        trial(10, {**GOOD, "auditor": {"p": {"verdict": "Fail", "samples": 5000}}}, minutes=16),
        (None, None, TARGET),
    ),
    "errs": (trial(10, {**GOOD, "server": {"p": {"requests": 100, "errors": 5}}}), (None, None, TARGET)),
    "errs in one replica of two": (
        trial(10, {**GOOD, "server": {"a": {"requests": 50, "errors": 14}, "b": {"requests": 250, "errors": 0}}}),
        (None, None, TARGET),
    ),
    "errs more than its budget, by chance perhaps": (
        trial(10, {**GOOD, "server": {"a": {"requests": 50, "errors": 4}, "b": {"requests": 250, "errors": 0}}}),
        (None, 10, None),
    ),
    "errs within the budget, added up": (
        trial(10, {**GOOD, "server": {"a": {"requests": 50, "errors": 1}, "b": {"requests": 250, "errors": 0}}}),
        (None, 50, None),
    ),
    "is slow": (
        trial(10, {**GOOD, "server": {"p": {"requests": 100, "latencyCounts": latencies(0.02)}}}),
        (None, None, TARGET),
    ),
    "is slow only with all replicas": (
        trial(10, {**GOOD, "server": {k: {"requests": 4, "latencyCounts": latencies(0.02, 4)} for k in "abcde"}}),
        (None, None, TARGET),
    ),
    "has had a slow first request": (
        trial(10, {**GOOD, "server": {"p": {"requests": 3, "latencyCounts": latencies(1.0, 3)}}}, minutes=16),
        (None, 50, None),
    ),
    "is biased": (
        trial(10, {**GOOD, "auditor": {"p": {"verdict": "Fail", "summary": "SPD -0.3"}}}),
        (None, None, TARGET),
    ),
    "is biased, says the replica that has heard of most": (
        trial(
            10, {**GOOD, "auditor": {"a": {"verdict": "Pass", "samples": 9}, "b": {"verdict": "Fail", "samples": 30}}}
        ),
        (None, None, TARGET),
    ),
    "is biased, says one of two that know as much": (
        trial(
            10, {**GOOD, "auditor": {"a": {"verdict": "Pass", "samples": 30}, "b": {"verdict": "Fail", "samples": 30}}}
        ),
        (None, None, TARGET),
    ),
    "has a replica that has not heard of all": (
        trial(
            10,
            {
                **GOOD,
                "auditor": {
                    "a": {"verdict": "Pass", "samples": 500, "ledgerIndex": 8},
                    "b": {"verdict": "Unknown", "samples": 3, "ledgerIndex": 7},
                },
            },
        ),
        (None, 50, None),
    ),
    "stalls": (
        trial(10, GOOD, canary=workload(TARGET, "canary", problem=PodProblem("ProgressDeadlineExceeded", "x"))),
        (None, None, TARGET),
    ),
}


@pytest.mark.parametrize("name", CANARY)
def test_a_canary(name: str) -> None:
    obs, want = CANARY[name]
    assert step(obs) == want


GATEWAY = {"settings": OperatorSettings(gateway="ingress/shared"), "capabilities": Capabilities(gateway_api=True)}


@pytest.mark.parametrize(
    ("available", "shares"),
    [(0, {"m-stable": 100}), (1, {"m-stable": 90, "m-canary": 10})],
)
def test_a_canary_has_no_share_of_a_gateway_s_requests_before_it_serves(available: int, shares: dict[str, int]) -> None:
    obs = trial(10, {}, canary=workload(TARGET, "canary", available=available))
    subject = replace(obs.subject, **GATEWAY)
    objects = model_objects(subject, decide(replace(obs, subject=subject)))
    (route,) = [o for o in objects if o["kind"] == "HTTPRoute"]
    assert {b["name"]: b["weight"] for b in route["spec"]["rules"][0]["backendRefs"]} == shares
    assert ("Service", "m-canary") in {(o["kind"], o["metadata"]["name"]) for o in objects}


def parent(status: str, generation: int = 3) -> dict[str, Any]:
    accepted = {
        "type": "Accepted",
        "status": status,
        "reason": "NotAllowedByListeners",
        "observedGeneration": generation,
    }
    return {"parentRef": {"namespace": "ingress", "name": "shared"}, "conditions": [accepted]}


@pytest.mark.parametrize(
    ("parents", "degraded"),
    [
        ([], ("False", "AsExpected", "")),
        ([parent("True")], ("False", "AsExpected", "")),
        ([parent("False", 2)], ("False", "AsExpected", "")),
        (
            [parent("True"), parent("False")],
            ("True", "NotAllowedByListeners", "Gateway ingress/shared refuses the HTTPRoute"),
        ),
    ],
    ids=["nobody answered", "accepted", "an earlier generation", "refused"],
)
def test_a_gateway_that_refuses_is_told(parents: list[dict[str, Any]], degraded: tuple[str, str, str]) -> None:
    found = {"metadata": {"generation": 3}, "status": {"parents": parents}}
    obs = serving()
    obs = replace(obs, children={**obs.children, **dict([child("HTTPRoute", "m", route_facts(found))])})
    assert condition(obs, "Degraded") == degraded
    assert condition(obs, "Ready")[0] == "True"


@pytest.mark.parametrize(
    ("conditions", "degraded"),
    [
        ([], ("False", "AsExpected", "")),
        ([{"type": "Ready", "status": "Unknown"}], ("False", "AsExpected", "")),
        ([{"type": "Ready", "status": "True", "reason": "ScaledObjectReady"}], ("False", "AsExpected", "")),
        (
            [{"type": "Ready", "status": "False", "reason": "ScaledObjectCheckFailed", "message": "no such host"}],
            ("True", "ScaledObjectCheckFailed", "KEDA does not scale it: no such host"),
        ),
        ([{"type": "Ready", "status": "False"}], ("True", "ScaledObjectNotReady", "KEDA does not scale it")),
    ],
    ids=["nobody answered", "not looked yet", "ready", "refused", "refused without a word"],
)
def test_a_keda_that_does_not_scale_is_told(conditions: list[dict[str, Any]], degraded: tuple[str, str, str]) -> None:
    found = {"metadata": {}, "status": {"conditions": conditions}}
    obs = serving()
    obs = replace(obs, children={**obs.children, **dict([child("ScaledObject", "m-predictor", scaled_facts(found))])})
    assert condition(obs, "Degraded") == degraded
    assert condition(obs, "Ready")[0] == "True"


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
        report=report(revisions={target: {**GOOD, "auditor": {"p": {"verdict": "Fail"}}}}),
    )
    assert step(obs) == (None, 10, None)
    assert condition(obs, "Degraded")[1] == "PromotionBlocked"


def test_a_canary_that_refuses_its_artefact_leaves_the_stable_revision_verified() -> None:
    parts = {"server": {"p": {"verified": False, "message": "got sha256:1"}}}
    assert condition(trial(10, parts), "ModelVerified")[:2] == ("Unknown", "NotServing")
    stable = {"server": {"p": {"ready": True, "verified": True}}}
    assert condition(serving(report=report(revisions={STABLE: stable})), "ModelVerified")[:2] == (
        "True",
        "DigestMatched",
    )


def test_the_verdict_of_the_stable_revision_is_that_of_its_pods() -> None:
    spec = {**TRAINED, "governance": {"bias": BIAS}}
    model = resolved(spec)
    name = Revision.of(model, DIGEST).name
    pods = {"a": {"verdict": "Pass", "samples": 30}, "b": {"verdict": "Fail", "samples": 50, "summary": "SPD -0.3"}}
    said = report(
        trainer=trained_report(model).trainer, auditor={"verdict": "Pass"}, revisions={name: {"auditor": pods}}
    )
    obs = observed(spec, child("Deployment", "m-predictor", workload(name)), child("Pod", "p", pod()), report=said)
    assert condition(obs, "BiasWithinThresholds") == ("False", "BeyondThreshold", "SPD -0.3")
    bias = status_of(obs, decide(obs)).bias
    assert bias is not None
    assert (bias.verdict, bias.samples) == ("Fail", 50)


def test_entries_of_pods_that_are_gone_are_removed_from_the_report() -> None:
    old = (NOW - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    young = (NOW - timedelta(seconds=20)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    revisions = {
        "r1": {"server": {"gone": {"observedAt": old}}, "auditor": {"gone": {"observedAt": old}}},
        "r2": {
            "server": {"here": {"observedAt": old}, "gone": {"observedAt": old}, "unseen": {"observedAt": young}},
            "auditor": {"here": {"observedAt": old, "verdict": "Pass"}},
        },
    }
    obs = observed(IMPORTED, child("Pod", "here", pod()), report=report(revisions=revisions))
    assert stale_report_entries(obs) == ({"r1": None, "r2": {"server": {"gone": None}}}, 40.0)
    assert stale_report_entries(observed(IMPORTED, report=report())) == ({}, None)


def test_latencies_of_replicas_add_up() -> None:
    draw = random.Random(7)
    drawn = sorted(draw.lognormvariate(-4.5, 0.8) for _ in range(4000))
    replicas = [[0] * (len(BOUNDS) + 1) for _ in range(3)]
    for k, value in enumerate(drawn):
        replicas[k % 3][bisect_left(BOUNDS, value)] += 1
    together = added(replicas)
    for share in (0.1, 0.5, 0.99):
        found = quantile(together, share)
        assert found is not None
        assert found == pytest.approx(drawn[int(share * len(drawn))], rel=0.05)
    interval = median_interval(together)
    assert interval is not None
    assert interval[0] < drawn[2000] < interval[1] < 1.1 * interval[0]
    assert quantile([], 0.5) is None
    assert median_interval(latencies(0.01, 5)) is None


WAKE = {"prometheus": "http://prometheus:9090", "activation_query": "sum(waiting)"}
SLEEPY = {"predictor": {**IMPORTED["predictor"], "minReplicas": 0, "maxReplicas": 3, "scaleMetric": "rps"}}


@pytest.mark.parametrize(
    ("keda", "settings", "missing"),
    [
        (False, WAKE, "found no KEDA;"),
        (True, {}, "found no Prometheus URL (chart value prometheusUrl) and no query"),
        (True, WAKE, None),
    ],
)
def test_scale_to_zero_is_refused_where_nothing_could_wake_the_model(
    keda: bool, settings: dict[str, str], missing: str | None
) -> None:
    revision = Revision.of(resolved(SLEEPY), DIGEST).name
    asleep = child("Deployment", "m-predictor", workload(revision, wanted=0, replicas=0, updated=0, available=0))
    subject = Subject(
        resolved(SLEEPY), uid="u", settings=OperatorSettings(**settings), capabilities=Capabilities(keda=keda)
    )
    obs = observed(SLEEPY, asleep, subject=subject)
    status, reason, message = condition(obs, "Ready")
    if missing is None:
        assert (status, reason) == ("True", "Serving")
        assert condition(obs, "ModelVerified")[:2] == ("True", "ScaledToZero")
    else:
        assert (status, reason) == ("False", "ScaleToZeroUnavailable")
        assert missing in message
        assert decide(obs).stable is None


def test_scaling_out_does_not_unready_but_a_rollout_and_too_few_replicas_do() -> None:
    spec = {"predictor": {**IMPORTED["predictor"], "minReplicas": 2, "maxReplicas": 9}}
    revision = Revision.of(resolved(spec), DIGEST).name

    def ready(**changes: int) -> str:
        deployment = child("Deployment", "m-predictor", workload(revision, **changes))
        return condition(observed(spec, deployment, child("Pod", "p", pod())), "Ready")[0]

    assert ready(wanted=5, replicas=5, updated=5, available=2) == "True"
    assert ready(wanted=5, replicas=5, updated=5, available=1) == "False"
    assert ready(wanted=2, replicas=3, updated=1, available=2) == "False"


VERIFIED: dict[str, Any] = {"old": {"server": {"q": {"verified": True}}}}
PULL = PodProblem("ImagePullBackOff", "container server of pod p: no such image")
LATE = PodProblem("ProgressDeadlineExceeded", "no progress in 300 s")


def pulling(problem: PodProblem | None = None) -> Observed:
    deployment = child("Deployment", "m-predictor", workload("r", available=0, problem=problem))
    return observed(IMPORTED, deployment, child("Pod", "p", pod(PULL)))


STANDING: dict[str, tuple[Observed, str | None, str]] = {
    "serves": (serving(), None, ""),
    "is suspended": (serving({**IMPORTED, "suspend": True}), None, ""),
    "is trained": (observed(TRAINED), "Reconciling", "Training"),
    "is trained anew": (
        observed(
            TRAINED,
            child("Deployment", "m-predictor", workload("old")),
            child("Pod", "p", pod()),
            report=report(revisions=VERIFIED),
        ),
        "Reconciling",
        "Training",
    ),
    "could not be trained": (
        observed(TRAINED, child("Job", JOB, JobFacts(False, PodProblem("BackoffLimitExceeded", "x"), False))),
        "Stalled",
        "BackoffLimitExceeded",
    ),
    "crashes": (replace(serving(), children=dict([child("Pod", "p", pod(CRASH))])), "Stalled", "CrashLoopBackOff"),
    "waits for its image": (pulling(), "Reconciling", "ImagePullBackOff"),
    "has waited too long": (pulling(LATE), "Stalled", "ImagePullBackOff"),
    "waits for a Secret": (replace(serving(), outside=Outside(missing_secret="k")), "Reconciling", "SecretNotFound"),
    "is under trial": (
        replace(CANARY["goes on"][0], report=report(revisions={**VERIFIED, TARGET: GOOD})),
        "Reconciling",
        "CanaryTrial",
    ),
    "was rolled back": (CANARY["is biased"][0], "Stalled", "CanaryBiasBeyondThreshold"),
    "has been promoted": (CANARY["is promoted after the last step"][0], "Reconciling", "RollingOut"),
    "is not what it should be": (
        replace(serving(), **RETRYABLE_ERRORS["tampered"][0]),
        "Stalled",
        "DigestMismatch",
    ),
}


@pytest.mark.parametrize("name", STANDING)
def test_kstatus_conditions_stand_only_while_true(name: str) -> None:
    obs, kind, reason = STANDING[name]
    status = status_of(obs, decide(obs))
    assert [(c.type, c.status, c.reason) for c in status.conditions if c.type in ("Reconciling", "Stalled")] == (
        [(kind, "True", reason)] if kind else []
    )
    good = serving()
    after = status_of(replace(good, status=status), decide(good))
    assert not {"Reconciling", "Stalled"} & {c.type for c in after.conditions}


FAILURES = {
    # name: (generation that was reached, present generation, trying again may help) → (Ready, kstatus' condition)
    "a new spec is refused": (1, 2, False, "False", "Reconciling"),
    "a new spec can't be read": (1, 2, True, "False", "Stalled"),
    "what serves can't be repaired": (1, 1, False, "True", "Reconciling"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_reconcile_that_failed_is_told_and_forgotten_when_one_succeeds(name: str) -> None:
    reached, present, stalled, ready, standing = FAILURES[name]
    good = serving(generation=reached)
    before = status_of(good, decide(good))
    told = {"generation": present, "now": NOW, "reason": "Forbidden", "message": "exceeded quota", "stalled": stalled}
    status = status_of_failure(before, **told)
    found = {c.type: (c.status, c.reason) for c in status.conditions}
    assert status.observed_generation == present
    assert found["Ready"] == (ready, "Serving" if ready == "True" else "Forbidden")
    assert found["Degraded"] == found[standing] == ("True", "Forbidden")
    assert len({"Reconciling", "Stalled"} & set(found)) == 1
    assert found["PredictorReady"] == ("True", "Serving")
    assert status_of_failure(status, **{**told, "now": NOW + timedelta(hours=1)}) == status, (
        "trying again writes nothing"
    )
    again = serving(generation=present, status=status)
    after = {c.type: c.status for c in status_of(again, decide(again)).conditions}
    assert (after["Ready"], after["Degraded"]) == ("True", "False")
    assert not {"Reconciling", "Stalled"} & set(after)


ARCHIVE_DENIED = Refusal(Reason.BAD_REQUEST, "the namespace's archive: denied", True, "StatefulSet governed-archive")
ARCHIVE_FAILURES: dict[str, tuple[dict[str, Any], tuple[str, str], tuple[str, str]]] = {
    # name: (changes) → (ArchiveReady, Ready)
    "there is none": ({"shared": {}}, ("False", "BadRequest"), ("False", "BadRequest")),
    "it serves as it was": ({}, ("True", "Serving"), ("True", "Serving")),
}


@pytest.mark.parametrize("name", ARCHIVE_FAILURES)
def test_an_archive_that_can_not_be_made_as_it_should_be_is_told(name: str) -> None:
    changes, archive, ready = ARCHIVE_FAILURES[name]
    obs = serving(archive_failure=ARCHIVE_DENIED, **changes)
    found = {c.type: (c.status, c.reason) for c in status_of(obs, decide(obs)).conditions}
    assert (found["ArchiveReady"], found["Ready"]) == (archive, ready)
    assert found["Degraded"] == found["Stalled"] == ("True", "BadRequest")
    good = serving(status=status_of(obs, decide(obs)))
    after = {c.type: c.status for c in status_of(good, decide(good)).conditions}
    assert (after["Ready"], after["ArchiveReady"], after["Degraded"]) == ("True", "True", "False")
    assert "Stalled" not in after


def test_what_the_archive_refused_for_ever_is_told_beside_its_condition_whichever_pod_it_was() -> None:
    """Also of a model without bias rules, whose auditors report nothing else."""

    def message(**pods: int) -> str:
        told = {name: {"deadLetters": count} if count else {} for name, count in pods.items()}
        obs = serving(report=report(revisions={"r1": {"auditor": told}, "r2": {"auditor": told}}))
        status = status_of(obs, decide(obs))
        assert status.bias is None
        (found,) = (c for c in status.conditions if c.type == "ArchiveReady")
        assert (found.status, found.reason) == ("True", "Serving")
        return found.message

    assert message() == message(a=0, b=0) == ""
    assert message(a=3, b=4).startswith("14 ledger entries were refused for ever")
    assert "deadLetter" in message(a=1)


def test_a_witness_that_lags_is_told_and_one_that_saw_another_history_unmakes_the_condition() -> None:
    lagging = ArchiveReport(checkpoint="note", lagging="witness.example/w1: no answer within 10 s")
    obs = serving(archive_report=lagging)
    (found,) = (c for c in status_of(obs, decide(obs)).conditions if c.type == "ArchiveReady")
    assert (found.status, found.reason) == ("True", "Serving")
    assert found.message == "witnesses that don't cosign the ledger: witness.example/w1: no answer within 10 s"
    obs = serving(archive_report=ArchiveReport(checkpoint="note", contradiction="witness w1 has a checkpoint over 8"))
    states = {c.type: (c.status, c.reason) for c in status_of(obs, decide(obs)).conditions}
    assert states["ArchiveReady"] == ("False", "LedgerContradicted")
    assert states["Ready"][0] == "False"
    assert states["Stalled"] == ("True", "LedgerContradicted")


def test_an_operator_of_named_namespaces_makes_nothing_that_is_in_none_and_says_so() -> None:
    spec = {"quota": {"compute": {"cpu": "2"}}, **SLEEPY}
    subject = Subject(resolved(spec), uid="u", capabilities=Capabilities(cluster_scoped=False))
    assert (priority_class(subject), resource_quota(subject)) == (None, None)
    obs = replace(serving(), subject=subject)
    found = next(v for v in decide(obs).violations if v.condition == "QuotaEnforced")
    assert (found.reason, found.blocking, found.stalled) == ("ClusterRightsMissing", True, True)
    assert found.message == (
        "spec.quota.compute needs a PriorityClass, which an operator of named namespaces (watch.namespaces) may not "
        "make: leave it out and limit the namespace by a ResourceQuota, or use an operator with cluster rights"
    )
    everywhere = replace(obs, subject=replace(subject, capabilities=Capabilities()))
    assert not [v for v in decide(everywhere).violations if v.condition == "QuotaEnforced"]
    assert priority_class(everywhere.subject)


def test_frames_that_were_damaged_before_they_were_shipped_are_told_beside_dead_letters() -> None:
    def message(**told: int) -> str:
        obs = serving(report=report(revisions={"r1": {"auditor": {"a": told, "b": told}}}))
        (found,) = (c for c in status_of(obs, decide(obs)).conditions if c.type == "ArchiveReady")
        return found.message

    assert message(unreadableFrames=0) == ""
    assert message(unreadableFrames=2).startswith("4 frames of journals were damaged before being shipped")
    assert "unreadable" in message(unreadableFrames=1)
    both = message(unreadableFrames=1, deadLetters=1)
    assert "deadLetter" in both
    assert "2 frames" in both


def test_overdue_contests_are_said_beside_the_auditors_condition() -> None:
    """Each pod tells of the whole model: two of them are no twice as many."""

    def message(**told: int) -> str:
        ready = serving(report=report(revisions={"r1": {"auditor": {"a": told, "b": told}}}))
        (found,) = (c for c in status_of(ready, decide(ready)).conditions if c.type == "AuditorReady")
        return found.message

    assert message(openContests=2, overdueContests=0) == ""
    said = message(openContests=3, overdueContests=2)
    assert said == "3 contested decisions are open, 2 past the deadline: governed contests m"
    assert message(openContests=1, overdueContests=1).startswith("1 contested decision is open, 1 past")
