"""What policies do to a model: the condition, what is held back, what runs on, and when it is thought of again."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import (
    DIGEST,
    IMPORTED,
    NOW,
    TRAINED,
    JobFacts,
    child,
    observed,
    report,
    resolved,
    trained_report,
    workload,
)

from governed_api.json_types import Json
from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_api.policy import ClusterGovernancePolicySpec, GovernancePolicySpec
from governed_operator.desired.decision import Decision, Revision
from governed_operator.desired.manifest import Subject
from governed_operator.desired.objects import model_objects
from governed_operator.desired.trainer import job_name
from governed_operator.policy.decide import decide
from governed_operator.policy.floor import Floor, InForce, Unreadable
from governed_operator.policy.observed import Observed, Outside
from governed_operator.policy.status import status_of

QUOTA: dict[str, Any] = {"requests": [{"limit": 10, "window": "1m"}]}
MEETING: dict[str, Any] = {**IMPORTED, "quota": QUOTA}
CANARY: dict[str, Any] = {
    **IMPORTED,
    "lifecycle": {"rollout": {"strategy": "Canary", "steps": [10, 50], "interval": "5m"}},
}
NAME = Revision.of(resolved(IMPORTED), DIGEST).name
OLD = RevisionStatus(name="old", artefact="sha256:old", percent=100)
TRIAL = RevisionStatus(name=NAME, artefact=DIGEST, percent=10, since="2026-11-23T11:00:00Z")
GOOD = {NAME: {"server": {"p": {"requests": 500}}}}
BAD = {NAME: {"server": {"p": {"requests": 500, "errors": 400}}}}
JOB = child("Job", job_name(Subject(resolved(TRAINED))), JobFacts(False, None, False))
SERVING_OLD = child("Deployment", "m-predictor", workload("old"))
SERVING = child("Deployment", "m-predictor", workload(NAME))
ON_TRIAL = child("Deployment", "m-canary", workload(NAME, "canary"))
BROKEN = Unreadable("GovernancePolicy broken", "spec.require: Field required", {}, refuses=True)


def floor(
    enforcement: str = "Deny", name: str = "lending", namespace: str | None = "ns", *, ends: timedelta | None = None,
    labels: dict[str, str] | None = None, require: dict[str, Json] | None = None,
) -> Floor:  # fmt: skip
    """A policy that asks for a quota, from which the model is exempt until ``ends``."""
    cluster = namespace is None
    until = {"expires": (NOW + (ends or timedelta())).isoformat().replace("+00:00", "Z")}
    exemption = {"model": "m", "rule": "quota", "owner": "ana", "reason": "one caller", **until}
    exemption |= {"namespace": "ns"} if cluster else {}
    given: dict[str, Any] = {"enforcement": enforcement, "require": require or {"quota": "Required"}}
    given |= {"selector": {"matchLabels": labels}} if labels else {}
    given |= {"exemptions": [exemption]} if ends is not None else {}
    spec = (ClusterGovernancePolicySpec if cluster else GovernancePolicySpec).model_validate(given)
    return Floor(name, namespace, spec, tuple(spec.exemptions), cluster=cluster)


def under(obs: Observed, *floors: Floor, broken: tuple[Unreadable, ...] = (), unread: str = "") -> Observed:
    return replace(obs, policies=InForce(floors, broken, unread))


def after(obs: Observed) -> tuple[Decision, GovernedModelStatus]:
    decision = decide(obs)
    return decision, status_of(obs, decision)


def told(obs: Observed, kind: str = "PolicySatisfied") -> tuple[str, str, str] | None:
    found = [c for c in after(obs)[1].conditions if c.type == kind]
    return (found[0].status, found[0].reason, found[0].message) if found else None


NEW = observed(IMPORTED)
STANDINGS: dict[str, tuple[Observed, tuple[str, str] | None, bool]] = {
    "no policy": (under(NEW), None, False),
    "a policy of another namespace": (under(NEW, floor(namespace="other")), None, False),
    "labels that the model lacks": (under(NEW, floor(labels={"risk": "high"})), None, False),
    "labels that it has": (
        replace(under(NEW, floor(labels={"risk": "high"})), labels={"risk": "high", "team": "a"}),
        ("False", "Violated"),
        True,
    ),
    "met": (under(observed(MEETING), floor()), ("True", "Satisfied"), False),
    "not met": (under(NEW, floor()), ("False", "Violated"), True),
    "not met, of the cluster": (under(NEW, floor(namespace=None)), ("False", "Violated"), True),
    "a dry run": (under(NEW, floor("Audit")), ("False", "Audited"), False),
    "a dry run beside what is not met": (under(NEW, floor("Audit"), floor()), ("False", "Violated"), True),
    "exempt": (under(NEW, floor(ends=timedelta(hours=1))), ("True", "Exempt"), False),
    "no longer exempt": (under(NEW, floor(ends=timedelta())), ("False", "Violated"), True),
    "exempt by one, held by another": (
        under(NEW, floor(ends=timedelta(hours=1)), floor(name="other")),
        ("False", "Violated"),
        True,
    ),
    "a policy that can't be read": (
        under(observed(MEETING), floor(), broken=(BROKEN,)),
        ("Unknown", "PolicyInvalid"),
        True,
    ),
    "one that says Audit": (
        under(NEW, broken=(replace(BROKEN, refuses=False),)),
        ("Unknown", "PolicyInvalid"),
        False,
    ),
    "one that is about others": (under(NEW, broken=(replace(BROKEN, labels={"a": "b"}),)), None, False),
    "policies that can't be listed": (under(NEW, unread="no right"), ("Unknown", "PoliciesUnknown"), True),
    "a known violation comes first": (under(NEW, floor(), broken=(BROKEN,), unread="x"), ("False", "Violated"), True),
}  # fmt: skip


@pytest.mark.parametrize("name", STANDINGS)
def test_the_condition_and_whether_a_new_model_is_held(name: str) -> None:
    obs, want, want_held = STANDINGS[name]
    found = told(obs)
    assert (found and found[:2]) == want
    decision, status = after(obs)
    assert (decision.stable is None, decision.withheld) == (want_held, want_held)
    ready = next(c for c in status.conditions if c.type == "Ready")
    assert (ready.reason == (want and want[1])) == want_held
    assert [c.reason for c in status.conditions if c.type == "Stalled"] == (
        [want[1]] if want and want_held and want[1] != "PoliciesUnknown" else []
    ), "a person must act, unless the list may still come"


def test_a_message_names_policy_rule_and_remedy() -> None:
    found = told(under(NEW, floor(), floor(namespace=None, name="company")))
    assert found
    for words in (
        "spec.quota.requests is absent; GovernancePolicy lending requires a limit; set a limit in quota.requests",
        "ClusterGovernancePolicy company",
        "(rule quota)",
        "nothing new rolls out until then, what serves keeps serving",
    ):
        assert words in found[2], found[2]
    exempt = told(under(NEW, floor(ends=timedelta(hours=1))))
    assert exempt
    assert "for which ana answers: one caller" in exempt[2]
    broken = told(under(NEW, broken=(BROKEN,)))
    assert broken
    assert broken[2].startswith("GovernancePolicy broken can't be read (spec.require: Field required): mend it")


def test_many_and_long_violations_fit_into_a_message_with_what_it_means() -> None:
    far = {**IMPORTED, "predictor": {"model": {"storageUri": f"pvc://models/{'m' * 900}.onnx", "digest": DIGEST}}}
    require: dict[str, Json] = {"sources": {"schemes": ["oci"]}, "quota": "Required", "explainer": "Required"}
    found = told(under(observed(far), *(floor(name=f"policy-{n}", require=require) for n in range(9))))
    assert found
    assert len(found[2]) <= 1000
    assert "more; nothing new rolls out until then" in found[2]


def test_what_serves_keeps_serving_and_is_ready() -> None:
    """The policy came later: the revision that serves isn't new, and a change of the spec is."""
    status = GovernedModelStatus(stable=RevisionStatus(name=NAME, artefact=DIGEST, percent=100))
    decision, _ = after(under(observed(IMPORTED, SERVING, status=status), floor()))
    assert decision.stable
    assert (decision.stable.name, decision.withheld) == (NAME, False)
    assert decision.violations == ()
    changed = {"predictor": {**IMPORTED["predictor"], "timeout": 61}}
    held, then = after(under(observed(changed, SERVING, status=status), floor()))
    assert (held.stable, held.held, held.withheld) == (None, True, True)
    assert then.stable == status.stable
    assert next(c for c in then.conditions if c.type == "Ready").reason == "Violated"


def test_a_deployment_that_is_gone_is_not_made_again() -> None:
    """It doesn't serve: to suspend and resume must not lead past a policy."""
    status = GovernedModelStatus(stable=RevisionStatus(name=NAME, artefact=DIGEST, percent=100))
    decision, then = after(under(observed(IMPORTED, status=status), floor()))
    assert (decision.stable, decision.held, then.stable) == (None, False, status.stable)
    predictor = next(c for c in then.conditions if c.type == "PredictorReady")
    assert "PolicySatisfied" in predictor.message


def test_no_job_is_begun_and_one_that_runs_runs_on() -> None:
    decision, status = after(under(observed(TRAINED), floor()))
    assert (decision.train, decision.withheld) == (False, True)
    training = next(c for c in status.conditions if c.type == "TrainingSucceeded")
    assert (training.status, training.reason) == ("Unknown", "Violated")
    running, _ = after(under(observed(TRAINED, JOB), floor()))
    assert (running.train, running.withheld) == (True, False)
    done = under(observed(TRAINED, JOB, report=trained_report(resolved(TRAINED))), floor())
    made, _ = after(done)
    assert (made.train, made.stable, made.withheld) == (True, None, True)


@pytest.mark.parametrize("strategy", ["Canary", "RollingUpdate"])
def test_a_new_revision_is_neither_tried_nor_rolled_out(strategy: str) -> None:
    spec = {**CANARY, "lifecycle": {"rollout": {**CANARY["lifecycle"]["rollout"], "strategy": strategy}}}
    decision, status = after(under(observed(spec, SERVING_OLD, status=GovernedModelStatus(stable=OLD)), floor()))
    assert (decision.stable, decision.canary, decision.held, decision.withheld) == (None, None, True, True)
    assert (status.stable, status.canary) == (OLD, None)


def trial(revisions: dict[str, Any], *children: Any, percent: int = 10) -> Observed:
    status = GovernedModelStatus(stable=OLD, canary=TRIAL.model_copy(update={"percent": percent}))
    return observed(CANARY, SERVING_OLD, *children, status=status, report=report(revisions=revisions))


@pytest.mark.parametrize("percent", [10, 50])
def test_a_trial_stays_at_its_step(percent: int) -> None:
    """Neither the next step nor promotion; what is on trial serves, and serves on."""
    free, _ = after(trial(GOOD, ON_TRIAL, percent=percent))
    assert (free.canary and free.canary.percent, free.stable is not None) == ((50, False), (None, True))[percent == 50]
    held, status = after(under(trial(GOOD, ON_TRIAL, percent=percent), floor()))
    assert held.canary
    assert (held.canary.name, held.canary.percent, held.canary.since) == (NAME, percent, TRIAL.since)
    assert (held.stable, held.held, held.withheld) == (None, True, True)
    assert (status.stable, status.canary and status.canary.percent) == (OLD, percent)


def test_a_trial_that_fails_ends_all_the_same() -> None:
    decision, status = after(under(trial(BAD, ON_TRIAL), floor()))
    assert (decision.canary, decision.held, decision.rejected) == (None, True, NAME)
    assert (status.canary, status.rejected) == (None, NAME)


@pytest.mark.parametrize("children", [(), (child("Deployment", "m-canary", workload("another", "canary")),)])
def test_an_interrupted_trial_is_not_begun_again(children: tuple[Any, ...]) -> None:
    decision, status = after(under(trial(GOOD, *children), floor()))
    assert (decision.canary, decision.held, decision.withheld) == (None, True, True)
    assert status.canary, "it goes on from its step when the policy is met"


def test_a_rejected_revision_is_not_forgotten_while_another_is_held() -> None:
    status = GovernedModelStatus(stable=OLD, rejected="earlier")
    assert after(observed(CANARY, SERVING_OLD, status=status))[1].rejected is None
    assert after(under(observed(CANARY, SERVING_OLD, status=status), floor()))[1].rejected == "earlier"


def test_a_suspended_model_is_told_and_stays_as_it_is() -> None:
    obs = under(observed({**IMPORTED, "suspend": True}), floor())
    decision, _ = after(obs)
    found = told(obs)
    assert (decision.stopped, decision.withheld, found and found[1]) == (True, False, "Violated")


def test_what_blocks_otherwise_keeps_its_reason() -> None:
    obs = under(observed(IMPORTED, outside=Outside(missing_claim="no claim c")), floor())
    ready, policy = told(obs, "Ready"), told(obs)
    assert (ready and ready[1], policy and policy[1]) == ("PersistentVolumeClaimNotFound", "Violated")


@pytest.mark.parametrize(
    ("ends", "want"), [(timedelta(seconds=90), 90.0), (timedelta(days=30), 86_400.0), (timedelta(), None)]
)
def test_the_end_of_an_exemption_wakes_the_model(ends: timedelta, want: float | None) -> None:
    obs = under(observed(IMPORTED, SERVING), floor(ends=ends))
    assert decide(obs).again_in == want
    later = replace(obs, now=NOW + ends)
    found = told(later)
    assert found
    assert found[1] == "Violated"


def test_who_may_call_is_heard_by_what_serves_while_a_spec_is_held_that_no_longer_asks() -> None:
    def heard(obs: Observed) -> list[str]:
        made = model_objects(obs.subject, decide(obs))
        (role,) = [m for m in made if m["kind"] == "Role"]
        return [name for rule in role["rules"] if rule["resources"] == ["configmaps"] for name in rule["resourceNames"]]

    obs = observed(IMPORTED, SERVING_OLD, status=GovernedModelStatus(stable=OLD))
    assert heard(under(obs, floor())) == ["m-callers"]
    assert heard(obs) == []
