"""What is remembered of revisions survives whatever happens in between; a rejected one stays out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import BIAS, DIGEST, IMPORTED, NOW, child, observed, pod, report, resolved, workload
from hypothesis import given
from hypothesis import strategies as st

from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_operator.desired.decision import Decision, Revision
from governed_operator.desired.manifest import Subject
from governed_operator.desired.route import shares
from governed_operator.policy.decide import decide
from governed_operator.policy.observed import Observed, Outside
from governed_operator.policy.status import status_of

SPEC: dict[str, Any] = {
    **IMPORTED,
    "governance": {"bias": {**BIAS, "action": "Rollback"}},
    "lifecycle": {"rollout": {"strategy": "Canary", "steps": [10, 50], "interval": "5m"}},
}
TARGET = Revision.of(resolved(SPEC), DIGEST).name
STABLE = RevisionStatus(name="old", artefact="sha256:old", percent=100)
TRIAL = RevisionStatus(name=TARGET, artefact=DIGEST, percent=50, since="2026-11-23T11:58:00Z")
REJECTED = GovernedModelStatus(stable=STABLE, rejected=TARGET)
ON_TRIAL = GovernedModelStatus(stable=STABLE, canary=TRIAL)
GOOD = {"server": {"p": {"requests": 500}}, "auditor": {"p": {"verdict": "Pass", "samples": 500, "ledgerIndex": 7}}}


def look(
    status: GovernedModelStatus, *, suspend: bool = False, blocked: bool = False, stable: bool = True,
    canary: bool = True, parts: dict[str, Any] | None = None, minutes: float = 0, strategy: str = "Canary",
    unreadable: bool = False,
) -> Observed:  # fmt: skip
    rollout = {**SPEC["lifecycle"]["rollout"], "strategy": strategy}
    spec = {**SPEC, "suspend": suspend, "lifecycle": {"rollout": rollout}}
    children = [child("Deployment", "m-predictor", workload("old"))] if stable else []
    children += [child("Deployment", "m-canary", workload(TARGET, "canary"))] if canary else []
    return observed(
        spec,
        *children,
        status=GovernedModelStatus.model_validate(status.plain()),  # as after a restart of the operator
        now=NOW + timedelta(minutes=minutes),
        report=None if unreadable else report(revisions={TARGET: parts or {}}),
        report_error="not readable" if unreadable else None,
        outside=Outside(missing_secret="gone") if blocked else Outside(),
    )


def after(obs: Observed) -> tuple[Decision, GovernedModelStatus]:
    decision = decide(obs)
    return decision, status_of(obs, decision)


def share(decision: Decision) -> int:
    """Of the target."""
    return max((r.percent for r in (decision.stable, decision.canary) if r and r.name == TARGET), default=0)


INTERRUPTIONS: dict[str, list[dict[str, Any]]] = {
    "suspended and resumed": [{"suspend": True}, {"suspend": True, "stable": False, "canary": False}],
    "blocked for one look": [{"blocked": True}],
    "blocked without a stable Deployment": [{"blocked": True, "stable": False}],
    "the report is not readable": [{"unreadable": True}],
}


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_a_rejected_revision_stays_out(name: str, stable: bool) -> None:
    status = REJECTED
    for step in (*INTERRUPTIONS[name], {"stable": stable, "canary": False, "parts": GOOD, "minutes": 600}):
        decision, status = after(look(status, **step))
        assert share(decision) == 0
        assert (status.rejected, status.stable) == (TARGET, STABLE)
    degraded = next(c for c in status.conditions if c.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "CanaryRejected")
    if not stable:
        reason = next((c.reason, c.message) for c in status.conditions if c.type == "Ready")
        assert reason[0] == "NotDeployed"
        assert "change the spec" in reason[1]


def test_another_strategy_does_not_let_a_rejected_revision_in() -> None:
    other = "RollingUpdate"
    decision, status = after(look(REJECTED, strategy=other))
    assert (share(decision), status.rejected) == (0, TARGET)


def test_the_reason_of_a_rejection_outlives_a_suspension() -> None:
    biased = {**GOOD, "auditor": {"p": {"verdict": "Fail", "samples": 500, "summary": "SPD -0.3"}}}
    _, status = after(look(ON_TRIAL, parts=biased))
    for step in ({"suspend": True, "stable": False}, {"unreadable": True, "stable": False}, {"stable": False}):
        _, status = after(look(status, canary=False, **step))
        degraded = next(c for c in status.conditions if c.type == "Degraded")
        assert degraded.reason == "CanaryBiasBeyondThreshold"
        assert "SPD -0.3" in degraded.message


def test_another_revision_lifts_a_rejection() -> None:
    obs = look(REJECTED)
    other = {**SPEC, "predictor": {**SPEC["predictor"], "timeout": 7}}
    decision, status = after(replace(obs, subject=Subject(resolved(other), uid="u")))
    assert decision.canary is not None
    assert (decision.canary.name != TARGET, decision.canary.percent, status.rejected) == (True, 10, None)
    suspended = replace(obs, subject=Subject(resolved({**other, "suspend": True}), uid="u"))
    assert after(suspended)[1].rejected == TARGET, "nothing is decided about another revision yet"


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_a_trial_goes_on_where_it_was(name: str) -> None:
    status = ON_TRIAL
    for step in INTERRUPTIONS[name]:
        _, status = after(look(status, **step))
        assert status.canary == TRIAL
    decision, status = after(look(status))
    assert (status.canary, status.stable) == (TRIAL, STABLE)
    assert share(decision) == 50


def test_time_without_pods_is_not_time_on_trial() -> None:
    _, status = after(look(ON_TRIAL, canary=False, minutes=600))
    assert status.canary is not None
    assert (status.canary.percent, status.canary.since) == (50, "2026-11-23T22:00:00Z")
    decision, _ = after(look(status, parts=GOOD, minutes=601))
    assert share(decision) == 50


@pytest.mark.parametrize(
    ("verdict", "want", "rejected"), [("Unknown", 50, None), ("Fail", 0, TARGET)], ids=["undecided", "biased"]
)
def test_a_deleted_stable_deployment_promotes_nobody(verdict: str, want: int, rejected: str | None) -> None:
    parts = {**GOOD, "auditor": {"p": {"verdict": verdict, "samples": 500, "ledgerIndex": 7}}}
    decision, status = after(look(ON_TRIAL, stable=False, parts=parts))
    assert (share(decision), status.rejected, status.stable) == (want, rejected, STABLE)
    if not rejected:
        assert next(c.reason for c in status.conditions if c.type == "Degraded") == "StableGone"
        assert shares(decision) == {"canary": 100}, "a backend without pods would cost its share in refusals"


LOOKS = st.fixed_dictionaries(
    {
        "suspend": st.booleans(),
        "blocked": st.booleans(),
        "stable": st.booleans(),
        "canary": st.booleans(),
        "unreadable": st.booleans(),
        "strategy": st.sampled_from(["Canary", "RollingUpdate"]),
        "parts": st.builds(
            lambda requests, share, verdict, samples: {
                "server": {"p": {"requests": requests, "errors": int(requests * share)}},
                "auditor": {"p": {"verdict": verdict, "samples": samples, "ledgerIndex": 7}},
            },
            st.integers(0, 400),
            st.sampled_from([0.0, 0.01, 0.5, 1.0]),
            st.sampled_from(["Pass", "Unknown", "Fail"]),
            st.integers(0, 500),
        ),
    }
)


@given(st.lists(st.tuples(LOOKS, st.floats(0, 30)), max_size=12))
def test_a_revision_once_rejected_never_gets_traffic(looks: list[tuple[dict[str, Any], float]]) -> None:
    status, rejected, minutes = REJECTED, TARGET, 0.0
    for start in (REJECTED, ON_TRIAL):
        status, rejected, minutes = start, start.rejected or "", 0.0
        for changes, later in looks:
            minutes += later
            decision, status = after(look(status, minutes=minutes, **changes))
            assert not (rejected and share(decision)), changes
            rejected = rejected or status.rejected or ""
            assert (status.rejected or "") == rejected
            assert status.stable is not None


REFUSED = {"server": {"p": {"refused": True, "message": "m.onnx: no model"}}}


def unservable(status: GovernedModelStatus, *, pods: bool = True, spec: dict[str, Any] = IMPORTED) -> Observed:
    """No pod serves; one, where there are ``pods``, was brought what can't be served."""
    name = Revision.of(resolved({**spec, "suspend": False}), DIGEST).name
    there = [child("Deployment", "m-predictor", workload(name, available=0)), child("Pod", "p", pod())] if pods else []
    return observed(
        spec,
        *there,
        status=GovernedModelStatus.model_validate(status.plain()),
        report=report(revisions={name: REFUSED} if pods else {}),
    )


def causes(status: GovernedModelStatus) -> dict[str, tuple[str, str]]:
    return {x.type: (x.status, x.reason) for x in status.conditions if x.type in ("Ready", "ModelVerified", "Degraded")}


def test_an_import_that_cannot_be_served_runs_no_more_and_says_why_for_good() -> None:
    decision, status = after(unservable(GovernedModelStatus()))
    assert (decision.stable, decision.held) == (None, False), "its Deployment goes"
    for _ in range(3):
        decision, status = after(unservable(status, pods=False))
        assert (decision.stable, decision.held) == (None, False)
        refused = ("False", "ImportRefused")
        assert causes(status) == {"Ready": refused, "ModelVerified": refused, "Degraded": ("False", "AsExpected")}
        assert "m.onnx: no model" in next(x.message for x in status.conditions if x.type == "Ready")


def test_a_changed_spec_or_a_resumed_model_is_tried_again() -> None:
    _, refused = after(unservable(GovernedModelStatus()))
    changed = {**IMPORTED, "quota": {"maxConcurrent": 3}}
    decision, _ = after(unservable(refused, pods=False, spec=changed))
    assert decision.stable is not None
    _, suspended = after(unservable(refused, pods=False, spec={**IMPORTED, "suspend": True}))
    decision, _ = after(unservable(suspended, pods=False))
    assert decision.stable is not None


def test_a_refusal_ends_nothing_that_serves() -> None:
    obs = unservable(GovernedModelStatus())
    serving = dict([child("Deployment", "m-predictor", workload(Revision.of(resolved(IMPORTED), DIGEST).name))])
    decision, status = after(replace(obs, children={**obs.children, **serving}))
    assert decision.stable is not None
    assert status.rejected is None
