"""Edges of policy: limits that are met exactly, what is said word for word, and states of few models."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import DIGEST, IMPORTED, NOW, TRAINED, child, observed, pod, report, resolved, trained_report, workload

from governed_api import object_names
from governed_api.model import GovernedModelStatus, LedgerStatus, RevisionStatus
from governed_api.report import GovernanceReportStatus
from governed_operator.desired.decision import Revision
from governed_operator.policy.artefact import artefact_of
from governed_operator.policy.canary import Judgement, judge
from governed_operator.policy.decide import decide
from governed_operator.policy.gates import source_is_local
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import Served
from governed_operator.policy.status import status_of

FOREIGN = {"predictor": {"model": {"runtime": {"image": "example.org/llm:1", "port": 9000}}}}
ROLLOUT = {**IMPORTED, "lifecycle": {"rollout": {"strategy": "Canary", "steps": [10], "interval": "5m"}}}
NAME = Revision.of(resolved(ROLLOUT), DIGEST).name


def condition(obs: Observed, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in status_of(obs, decide(obs)).conditions if c.type == kind]
    return found.status, found.reason, found.message


def on_trial(elapsed: timedelta, canary: Any = None) -> tuple[Observed, RevisionStatus]:
    trial = RevisionStatus(name=NAME, percent=10, since=(NOW - elapsed).isoformat())
    children = [
        child("Deployment", "m-predictor", workload("old")),
        child("Deployment", "m-canary", canary or workload(NAME, "canary")),
    ]
    reported = report(revisions={NAME: {"server": {"p": {"requests": 100}}}})
    return observed(ROLLOUT, *children, report=reported), trial


@pytest.mark.parametrize(
    ("elapsed", "want"),
    [
        (timedelta(minutes=5), Judgement("advance")),
        (timedelta(minutes=5, seconds=1), Judgement("advance")),
        (timedelta(seconds=299.5), Judgement("wait", message="10 % of the traffic", again_in=0.5)),
        (timedelta(minutes=1), Judgement("wait", message="10 % of the traffic", again_in=240.0)),
    ],
)
def test_a_trial_ends_with_its_interval(elapsed: timedelta, want: Judgement) -> None:
    assert judge(*on_trial(elapsed)) == want


@pytest.mark.parametrize("canary", [workload(NAME, "canary", observed=False), workload(NAME, "canary", available=0)])
def test_a_canary_that_does_not_run_yet_is_starting(canary: Any) -> None:
    want = Judgement("wait", message=f"revision {NAME} is starting")
    assert judge(*on_trial(timedelta(minutes=9), canary)) == want
    obs, trial = on_trial(timedelta(minutes=9))
    assert judge(replace(obs, children={k: v for k, v in obs.children.items() if k[1] != "m-canary"}), trial) == want


def test_a_revision_of_which_nothing_was_heard_has_served_nothing() -> None:
    assert Served() == Served(requests=0, errors=0, latency_counts=[])
    assert Served.of([]) == Served()


def test_which_artefact_answers_a_spec() -> None:
    assert artefact_of(resolved(FOREIGN), None) == ""
    assert artefact_of(resolved(IMPORTED), None) == DIGEST
    model = resolved(TRAINED)
    assert artefact_of(model, None) is None
    assert artefact_of(model, trained_report(model)) == DIGEST
    assert artefact_of(model, trained_report(model, digest="")) is None
    known = trained_report(model).trainer
    assert known is not None
    for change in ({"phase": "Running"}, {"training_hash": "another"}, {"artefact": None}):
        assert artefact_of(model, GovernanceReportStatus(trainer=known.model_copy(update=change))) is None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            {
                "lifecycle": {
                    "training": {
                        "data": {"uri": "file:rows.csv", "label": "y", "features": [{"name": "x"}]},
                    }
                }
            },
            "spec.lifecycle.training.data.uri: file:rows.csv works",
        ),
        (
            {"predictor": {"model": {"storageUri": "file:m.onnx", "digest": DIGEST}}},
            "spec.predictor.model.storageUri: file:m.onnx works",
        ),
        (
            {**IMPORTED, "explainer": {"background": {"uri": "file:rows.csv"}}},
            "spec.explainer.background.uri: file:rows.csv works",
        ),
    ],
)
def test_a_local_source_is_named_by_its_field(spec: dict[str, Any], field: str) -> None:
    found = source_is_local(observed(spec))
    assert found is not None
    assert found.message.startswith(field)
    assert (found.blocking, found.stalled) == (True, True)
    assert source_is_local(observed(IMPORTED)) is None


def test_a_foreign_runtime_is_ready_though_nothing_verifies_it() -> None:
    revision = Revision.of(resolved(FOREIGN), "").name
    obs = observed(FOREIGN, child("Deployment", "m-predictor", workload(revision)), child("Pod", "p", pod()))
    assert condition(obs, "ModelVerified")[:2] == ("Unknown", "ForeignRuntime")
    assert condition(obs, "Ready") == ("True", "Serving", "")


def test_the_ledger_s_last_known_head_stays_while_the_archive_says_nothing() -> None:
    known = LedgerStatus(size=7, root_hash="r", checkpoint="c")
    obs = observed(status=GovernedModelStatus(ledger=known))
    assert status_of(obs, decide(obs)).ledger == known


COMPUTE = {"compute": {"requests.cpu": "2"}}


@pytest.mark.parametrize(
    ("quota", "made", "want"),
    [
        ({}, False, ("True", "NoQuota", "")),
        ({"maxConcurrent": 4}, False, ("True", "Enforced", "limits: maxConcurrent")),
        (
            {"requests": [{"limit": 9}], "maxConcurrent": 4},
            False,
            ("True", "Enforced", "limits: requests, maxConcurrent"),
        ),
        (COMPUTE, False, ("False", "QuotaPending", "the ResourceQuota is being made")),
        (COMPUTE, True, ("True", "Enforced", "limits: compute")),
    ],
)
def test_limits_are_listed_and_pending_ones_told(quota: dict[str, Any], made: bool, want: tuple[str, str, str]) -> None:
    there = [child("ResourceQuota", object_names.compute_quota("m"))] if made else []
    assert condition(observed({**IMPORTED, "quota": quota}, *there), "QuotaEnforced") == want


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, "DigestMatched"),
        ({"available": 0}, "NotServing"),
        ({"updated": 0}, "NotServing"),
        ({"observed": False}, "NotServing"),
    ],
)
def test_pods_that_serve_have_verified_their_artefact(changes: dict[str, Any], want: str) -> None:
    name = Revision.of(resolved(IMPORTED), DIGEST).name
    obs = observed(IMPORTED, child("Deployment", "m-predictor", workload(name, **changes)))
    assert condition(obs, "ModelVerified")[1] == want


def test_reconciling_says_what_ready_waits_for() -> None:
    obs = observed(TRAINED)
    status, reason, message = condition(obs, "Ready")
    assert status == "False"
    assert message
    assert condition(obs, "Reconciling") == ("True", reason, message)


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, ("True", "Trained", "after 3 epochs")),
        ({"training_hash": "another"}, ("Unknown", "Training", "the trainer Job has not reported yet")),
        ({"phase": "Running"}, ("Unknown", "Training", "after 3 epochs")),
        ({"phase": "Running", "message": ""}, ("Unknown", "Training", "the trainer Job has not reported yet")),
    ],
)
def test_training_is_over_once_it_answers_this_very_spec(changes: dict[str, Any], want: tuple[str, str, str]) -> None:
    done = trained_report(resolved(TRAINED)).trainer
    assert done is not None
    reported = GovernanceReportStatus(trainer=done.model_copy(update={"message": "after 3 epochs"} | changes))
    assert condition(observed(TRAINED, report=reported), "TrainingSucceeded") == want
